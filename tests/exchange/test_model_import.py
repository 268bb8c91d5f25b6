"""Networks of other Caffes, imported: small ones of each kind, beside pycaffe's run of their own layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from import_helpers import imported, refused, write_weights

from renet.common.errors import UserError
from renet.exchange.batch_norm_folding import fold_batch_norm
from renet.exchange.foreign_network import read_foreign_network
from renet.exchange.model_import import ModelImport, perform
from renet.exchange.prototxt_tree import parse_tree
from renet.networks.deploy_network import DeployOptions
from renet.networks.model_folder import read_model_folder

MEAN = ("--mean", "10,20,30")
SAID = {"mean": (10, 20, 30)}
INPUT = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 12\n'
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    "convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }\n"
)
SCORE = (
    'layer { name: "score" type: "Convolution" bottom: "conv" top: "score" '
    "convolution_param { num_output: 5 kernel_size: 1 } }\n"
)
SOFTMAX = 'layer { name: "soft" type: "Softmax" bottom: "score" top: "soft" }\n'
BATCH_NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" %s }\n'
SCALE = 'layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }\n'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.uniform(-100, 100, (1, 3, 9, 12)).astype(np.float32)
Blobs = dict[str, list[np.ndarray]]


def blob(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.3, shape).astype(np.float32)


def weights() -> Blobs:
    return {"conv": [blob(4, 3, 3, 3), blob(4)], "score": [blob(5, 4, 1, 1), blob(5)]}


def statistics() -> list[np.ndarray]:
    return [blob(4), RANDOM.uniform(1, 2, 4).astype(np.float32), np.array([2], np.float32)]


def run(text: str, blobs: Blobs, image: np.ndarray, place: Path, output: str) -> np.ndarray:
    """Pycaffe's own forward pass."""
    (place / "own.prototxt").write_text(text)
    built = caffe.Net(str(place / "own.prototxt"), caffe.TEST)
    for name, arrays in blobs.items():
        for own, array in zip(built.params[name], arrays, strict=True):
            own.data[...] = array.reshape(own.data.shape)
    built.blobs["data"].reshape(*image.shape)
    built.blobs["data"].data[...] = image
    built.forward()
    return built.blobs[output].data.copy()


def predicted(folder: Path, image: np.ndarray = IMAGE) -> np.ndarray:
    """What the model folder gives, which must end in `prob`."""
    network = read_model_folder(folder)
    built = caffe.Net(str(network.deploy), str(network.weights), caffe.TEST)
    built.blobs["data"].reshape(*image.shape)
    built.blobs["data"].data[...] = image
    return built.forward()["prob"].copy()


def given(place: Path, text: str, blobs: Blobs, **more: bool) -> tuple[Path, Path, Path]:
    (place / "net.prototxt").write_text(text)
    write_weights(place / "net.caffemodel", blobs, **more)
    return place / "net.prototxt", place / "net.caffemodel", place / "out"


def layers(folder: Path) -> list[tuple[str, str]]:
    description = text_format.Parse((folder / "deploy.prototxt").read_text(), caffe_pb2.NetParameter())
    return [(layer.name, layer.type) for layer in description.layer]


# --------------------------------------------------------------------------------------------------------- forms


def of_training() -> str:
    data = 'layer { name: "data" type: "%s" top: "data" top: "label" include { phase: %s } %s { batch_size: 2 } '
    data += "transform_param { mean_value: 10 mean_value: 20 mean_value: 30 crop_size: 9 mirror: true } }\n"
    return (
        data % ("ImageSegData", "TRAIN", "image_data_param")
        + data % ("DenseImageData", "TEST", "dense_image_data_param")
        + 'layer { name: "shrink" type: "Pooling" bottom: "label" top: "small_label" }\n'
        + CONV
        + RELU
        + 'layer { name: "side" type: "Convolution" bottom: "conv" top: "side" convolution_param { num_output: 5 } }\n'
        + 'layer { name: "side_loss" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "side_loss" }\n'
        + SCORE
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" '
        + "softmax_param { engine: CAFFE } loss_param { weight_by_label_freqs: true class_weighting: 0.2 } }\n"
        + 'layer { name: "accuracy" type: "SegAccuracy" bottom: "score" bottom: "label" top: "accuracy" '
        + "seg_accuracy_param { ignore_label: 255 } }\n"
    )


FIRST_GENERATION = (
    INPUT
    + "layers { bottom: 'data' top: 'conv' name: 'conv' type: CONVOLUTION blobs_lr: 1 blobs_lr: 2 weight_decay: 1\n"
    + "  weight_decay: 0 strict_dim: false convolution_param { num_output: 4 kernel_size: 3 pad: 2 hole: 2 } }\n"
    + "layers { bottom: 'conv' top: 'conv' name: 'relu' type: RELU }\n"
    + "layers { bottom: 'conv' top: 'score' name: 'score' type: CONVOLUTION\n"
    + "  convolution_param { num_output: 5 kernel_size: 1 } }\n"
    + "layers { bottom: 'score' name: 'mat' type: MAT_WRITE mat_write_param { prefix: 'x' } }\n"
    + "layers { bottom: 'score' bottom: 'label' top: 'loss' name: 'loss' type: SOFTMAX_LOSS }\n"
)
CASES = {
    "old input, no softmax": (INPUT + CONV + RELU + SCORE, "score", "a Softmax of"),
    "softmax of another name": (INPUT + CONV + RELU + SCORE + SOFTMAX, "score", 'the output "soft" is called "prob"'),
    "input of another name": (
        (INPUT + CONV + RELU + SCORE).replace('"data"', '"picture"'),
        "score",
        'the input "picture" is called "data"',
    ),
    "a blob with the input's name": (
        (INPUT + CONV + RELU + SCORE).replace('"data"', '"picture"').replace('"conv"', '"data"'),
        "score",
        'the input "picture" is called "data"',
    ),
    "argmax": (
        INPUT + CONV + RELU + SCORE + 'layer { name: "max" type: "ArgMax" bottom: "score" top: "max" }\n',
        "score",
        "ArgMax",
    ),
    "another branch": (
        INPUT + CONV + 'layer { name: "box" type: "Pooling" bottom: "conv" top: "box" }\n' + RELU + SCORE + SOFTMAX,
        "score",
        'does not need it: box',
    ),
    "training": (of_training(), "score", "became the input"),
    "first generation": (FIRST_GENERATION, "score", "left out, as a prediction does not take them: mat, loss"),
    "names twice": (INPUT + CONV + RELU + SCORE.replace("score", "mid") + RELU.replace("conv", "mid")
        + 'layer { name: "score" type: "Split" bottom: "mid" top: "score" }\n', "score", 'second layer "relu"'),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_form_becomes_a_model_folder(tmp_path: Path, case: str) -> None:
    text, output, note = CASES[case]
    blobs = weights()
    if "names twice" in case:
        blobs["mid"] = blobs.pop("score")
    if "a blob with" in case:
        blobs = {"data" if name == "conv" else name: arrays for name, arrays in blobs.items()}
    said = imported(*given(tmp_path, text, blobs, legacy=case == "first generation"), *MEAN)
    assert note in said and (tmp_path / "out/import.txt").read_text() in said
    dilated = CONV.replace("pad: 1", "pad: 2 dilation: 2") if case == "first generation" else CONV
    own = INPUT + dilated + RELU + SCORE + (RELU.replace("conv", "score") if case == "names twice" else "")
    reference = dict(zip(("conv", "score"), blobs.values(), strict=True))
    scores = run(own, reference, IMAGE, tmp_path, output)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert np.allclose(predicted(tmp_path / "out"), powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    description = json.loads((tmp_path / "out/model.json").read_text())
    assert description["input"]["mean"] == [10, 20, 30] and len(description["classes"]) == 5


def test_a_network_of_2013(tmp_path: Path) -> None:
    text = (
        INPUT + 'layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 pad: 1 } bottom: "data"'
        ' top: "conv" }\nlayers { layer { name: "score" type: "conv" num_output: 5 kernelsize: 1 } bottom: "conv"'
        ' top: "score" }\nlayers { layer { name: "prob" type: "softmax" } bottom: "score" top: "prob" }\n'
    )
    blobs = weights()
    imported(*given(tmp_path, text, blobs, legacy=True), *MEAN)
    prob = run(INPUT + CONV + SCORE + SOFTMAX, blobs, IMAGE, tmp_path, "soft")
    assert np.allclose(predicted(tmp_path / "out"), prob, atol=1e-6)


def test_a_template(tmp_path: Path) -> None:
    text = 'name: "${ID}" ' + (INPUT + CONV + SCORE).replace('"score"', '"score_${EXP}"').replace("5 k", "${LABELS} k")
    blobs = weights()
    files = given(tmp_path, "# ${OTHER}\n" + text, {"conv": blobs["conv"], "score_voc": blobs["score"]})
    line = refused(*files, *MEAN)
    assert "${EXP} has no value; say --set EXP=... --set LABELS=..." in line
    imported(*files, *MEAN, "--set", "EXP=voc", "--set", "LABELS=5")
    prob = run(INPUT + CONV + SCORE + SOFTMAX, blobs, IMAGE, tmp_path, "soft")
    assert np.allclose(predicted(tmp_path / "out"), prob, atol=1e-6)


def test_the_other_tools_take_the_folder(tmp_path: Path, repository: Path) -> None:
    from PIL import Image

    imported(*given(tmp_path, INPUT + CONV + SCORE, weights()), *MEAN)
    image = RANDOM.integers(0, 256, (14, 17, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "one.png")
    for words in (
        ["predict.py", "--model", "out", "--input", "one.png", "--out", "labels"],
        ["export_onnx.py", "--model", "out", "--out", "out.onnx"],
        ["evaluate.py", "--predictions", "labels", "--labels", "labels", "--dataset", "out"],
    ):
        command = [sys.executable, str(repository / "tools" / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    given_to_it = image[..., ::-1].transpose(2, 0, 1)[None] - np.float32([10, 20, 30]).reshape(1, 3, 1, 1)
    labels = np.array(Image.open(tmp_path / "labels/one.png"))
    assert (labels == predicted(tmp_path / "out", given_to_it)[0].argmax(axis=0)).mean() > 0.99
    assert "100.0" in done.stdout


# --------------------------------------------------------------------------------------------- what is put right


def test_rgb_goes_into_the_first_convolution(tmp_path: Path) -> None:
    data = (
        'layer { name: "in" type: "Input" top: "data" transform_param { mean_value: 30 mean_value: 20 mean_value: 10 '
    )
    data += "scale: 0.5 } input_param { shape { dim: 1 dim: 3 dim: 9 dim: 12 } } }\n"
    blobs = weights()
    said = imported(*given(tmp_path, data + CONV + SCORE, blobs), "--channel-order", "RGB")
    assert "went into conv" in said and "(value - 10, 20, 30) * 0.5" in said
    prob = run(INPUT + CONV + SCORE + SOFTMAX, blobs, IMAGE[:, ::-1], tmp_path, "soft")
    assert np.allclose(predicted(tmp_path / "out"), prob, atol=1e-6)


def test_rgb_needs_a_convolution(tmp_path: Path) -> None:
    norm = 'layer { name: "first" type: "Power" bottom: "data" top: "data" }\n'
    line = refused(*given(tmp_path, INPUT + norm + CONV + SCORE, weights()), *MEAN, "--channel-order", "RGB")
    assert 'the image goes into "first" (Power)' in line


def test_batch_norm_of_five_blobs(tmp_path: Path) -> None:
    """NVIDIA's Caffe, and others: scale and bias in the same layer."""
    parameter = (
        'batch_norm_param { use_global_stats: false scale_bias: true scale_filler { type: "constant" value: 1 } }'
    )
    blobs = weights() | {"bn": [*statistics(), blob(4), blob(4)]}
    said = imported(*given(tmp_path, INPUT + CONV + BATCH_NORM % parameter + RELU + SCORE, blobs), *MEAN)
    assert "became BatchNorm and Scale: bn" in said and "use_global_stats" in said
    blobs["bn"], blobs["scale"] = blobs["bn"][:3], blobs["bn"][3:]
    text = INPUT + CONV + BATCH_NORM % "" + SCALE + RELU + SCORE + SOFTMAX
    assert np.allclose(predicted(tmp_path / "out"), run(text, blobs, IMAGE, tmp_path, "soft"), atol=1e-6)


@pytest.mark.parametrize("in_place", [True, False])
def test_folded_batch_norm_computes_the_same(tmp_path: Path, in_place: bool) -> None:
    middle = BATCH_NORM % "" + SCALE + RELU
    if not in_place:
        middle = middle.replace('bottom: "conv" top: "conv"', 'bottom: "conv" top: "normal"', 1)
        middle = middle.replace('bottom: "conv" top: "conv"', 'bottom: "normal" top: "conv_out"', 1)
        middle = middle.replace('bottom: "conv" top: "conv"', 'bottom: "conv_out" top: "conv_out"')
    after = SCORE if in_place else SCORE.replace('bottom: "conv"', 'bottom: "conv_out"')
    text = INPUT + CONV.replace("pad: 1", "pad: 1 bias_term: false") + middle + after
    blobs = weights() | {"bn": statistics(), "scale": [blob(4), blob(4)]}
    blobs["conv"].pop()
    files = given(tmp_path, text, blobs)
    assert "folded into the layers before them: bn, scale" in imported(*files, *MEAN, "--fold-batch-norm")
    imported(*files[:2], tmp_path / "kept", *MEAN)
    assert [kind for _, kind in layers(tmp_path / "out")] == ["Input", "Convolution", "ReLU", "Convolution", "Softmax"]
    assert ("bn", "BatchNorm") in layers(tmp_path / "kept")
    expected = run(text + SOFTMAX, blobs, IMAGE, tmp_path, "soft")
    for folder in ("out", "kept"):
        assert np.allclose(predicted(tmp_path / folder), expected, atol=2e-6)


def test_batch_norm_of_what_others_read_stays(tmp_path: Path) -> None:
    norm = (BATCH_NORM % "").replace('top: "conv"', 'top: "normal"')
    both = 'layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "normal" top: "sum" }\n'
    text = INPUT + CONV + norm + both + SCORE.replace('bottom: "conv"', 'bottom: "sum"')
    blobs = weights() | {"bn": statistics()}
    said = imported(*given(tmp_path, text, blobs), *MEAN, "--fold-batch-norm")
    assert "stays: bn" in said
    expected = run(text + SOFTMAX, blobs, IMAGE, tmp_path, "soft")
    assert np.allclose(predicted(tmp_path / "out"), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "parameter", "shape"),
    [
        ("Deconvolution", "convolution_param { num_output: 4 kernel_size: 2 stride: 2 group: %d }", (6, -1, 2, 2)),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 2 group: %d }", (4, -1, 2, 2)),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_folding_into_groups(tmp_path: Path, kind: str, parameter: str, shape: tuple[int, ...], groups: int) -> None:
    text = (
        INPUT + f'layer {{ name: "conv" type: "{kind}" bottom: "data" top: "conv" {parameter % groups} }}\n'
    ).replace("input_dim: 3", "input_dim: 6") + BATCH_NORM % ""
    wide = (4 if kind == "Deconvolution" else 6) // groups
    blobs = {"conv": [blob(*(wide if side == -1 else side for side in shape)), blob(4)], "bn": statistics()}
    image = RANDOM.normal(0, 1, (1, 6, 5, 7)).astype(np.float32)
    expected = run(text, blobs, image, tmp_path, "conv")
    description = text_format.Parse(text, caffe_pb2.NetParameter())
    assert fold_batch_norm(description, blobs) == ["folded into the layers before them: bn"]
    folded = run(text_format.MessageToString(description), blobs, image, tmp_path, "conv")
    assert np.allclose(folded, expected, atol=1e-5)


def test_a_matrix_becomes_a_convolution(tmp_path: Path) -> None:
    """VGG-16's fc6 in a fully convolutional network."""
    blobs = weights()
    flat = {"conv": [blobs["conv"][0].reshape(1, 1, 4, 27), blobs["conv"][1]], "score": blobs["score"]}
    imported(*given(tmp_path, INPUT + CONV + SCORE, flat), *MEAN)
    prob = run(INPUT + CONV + SCORE + SOFTMAX, blobs, IMAGE, tmp_path, "soft")
    assert np.allclose(predicted(tmp_path / "out"), prob, atol=1e-6)


def test_crops_without_offsets_as_in_the_first_fcn(tmp_path: Path) -> None:
    """FCN's files of today say the offsets: 5, 9 and 31 for its three crops."""

    def layer(name: str, kind: str, bottom: str, parameter: str) -> str:
        return f'layer {{ name: "{name}" type: "{kind}" {bottom} top: "{name}" {parameter} }}\n'

    text, last = INPUT.replace("9", "64").replace("12", "64"), "data"
    for stage in range(1, 6):
        pad = 100 if stage == 1 else 1
        text += layer(f"c{stage}", "Convolution", f'bottom: "{last}"', CONVOLUTION % f"2 kernel_size: 3 pad: {pad}")
        text += layer(f"p{stage}", "Pooling", f'bottom: "c{stage}"', "pooling_param { kernel_size: 2 stride: 2 }")
        last = f"p{stage}"
    text += layer("fc6", "Convolution", 'bottom: "p5"', CONVOLUTION % "2 kernel_size: 7")
    up = "2 kernel_size: {} stride: {} bias_term: false"
    text += layer("up2", "Deconvolution", 'bottom: "fc6"', CONVOLUTION % up.format(4, 2))
    text += layer("crop", "Crop", 'bottom: "p4" bottom: "up2"', "").replace('top: "crop"', 'top: "p4c"')
    text += layer("fuse4", "Eltwise", 'bottom: "up2" bottom: "p4c"', "")
    text += layer("up4", "Deconvolution", 'bottom: "fuse4"', CONVOLUTION % up.format(4, 2))
    text += layer("crop", "Crop", 'bottom: "p3" bottom: "up4"', "").replace('top: "crop"', 'top: "p3c"')
    text += layer("fuse3", "Eltwise", 'bottom: "up4" bottom: "p3c"', "")
    text += layer("up8", "Deconvolution", 'bottom: "fuse3"', CONVOLUTION % up.format(16, 8))
    text += layer("crop", "Crop", 'bottom: "up8" bottom: "data"', "").replace('top: "crop"', 'top: "coarse"')
    names = [f"c{stage}" for stage in range(1, 6)]
    blobs = {name: [blob(2, 3 if name == "c1" else 2, 3, 3), blob(2)] for name in names}
    blobs["fc6"] = [blob(2, 2, 7, 7), blob(2)]
    blobs |= {"up2": [blob(2, 2, 4, 4)], "up4": [blob(2, 2, 4, 4)], "up8": [blob(2, 2, 16, 16)]}
    said = imported(*given(tmp_path, text, blobs), *MEAN)
    for name, offset in (("crop", 5), ("crop_2", 9), ("crop_3", 31)):
        assert f'"{name}": offset {offset}' in said


CONVOLUTION = "convolution_param { num_output: %s }"


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "more", "complaint"),
    [
        ("", SAID, "has no layers: not a network's prototxt"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", SAID, "a pointer of Git LFS"),
        ("<html><body>Not found</body></html>", SAID, "net.prototxt:1:1: no prototxt"),
        ('layer { name: "x"', SAID, "no prototxt (expected '}')"),
        ("\x89PNG\0\0", SAID, "not a text file"),
        (INPUT + CONV + SCORE, {}, "say --mean B,G,R"),
        (CONV + SCORE, SAID, "has no input"),
        ('input: "data"\n' + CONV + SCORE, SAID, "say --size HxW"),
        ((INPUT + CONV + SCORE).replace("input_dim: 3", "input_dim: 1"), SAID, "has 1 channels; an image has 3"),
        (INPUT + CONV + SCORE + SOFTMAX.replace("score", "conv"), SAID | {"output_blob": "x"}, 'makes the blob "x"'),
        (INPUT + CONV + SCORE, SAID | {"input_blob": "x"}, 'no input "x" (there are: data)'),
        (
            INPUT + CONV + SCORE + 'layer { name: "s2" type: "ReLU" bottom: "conv" top: "s2" }\n',
            SAID,
            "has the outputs score, s2; --output-blob says",
        ),
        (
            INPUT
            + CONV
            + 'layer { name: "roi" type: "ROIPooling" bottom: "conv" top: "score" roi_pooling_param { w: 1 } }',
            SAID,
            'the layer "roi" has the type ROIPooling, which is not here; Fast R-CNN',
        ),
        (
            INPUT + CONV.replace("pad: 1", "pad: 1 wobble: 3") + SCORE,
            SAID,
            "ConvolutionParameter has no field 'wobble'",
        ),
        (INPUT + CONV.replace("pad: 1", "pad: -9") + SCORE, SAID, "Value out of range"),
    ],
)
def test_bad_networks(tmp_path: Path, text: str, more: dict[str, object], complaint: str) -> None:
    job = ModelImport(*given(tmp_path, text, weights()), DeployOptions(**more))
    with pytest.raises(UserError) as caught:
        list(perform(job, tmp_path))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_another_number_of_classes(tmp_path: Path) -> None:
    line = refused(*given(tmp_path, INPUT + CONV + SCORE, weights()), *MEAN, "--dataset", "voc2012")
    assert "tells 5 classes apart, the dataset voc2012 has 21" in line


def test_bad_weights(tmp_path: Path) -> None:
    network, file, out = given(tmp_path, INPUT + CONV + SCORE, weights())
    whole = file.read_bytes()

    def complaint(content: bytes | Blobs) -> str:
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            write_weights(file, content)
        with pytest.raises(UserError) as caught:
            list(perform(ModelImport(network, file, out, DeployOptions(mean=(1, 2, 3))), tmp_path))
        return str(caught.value)

    assert "empty" in complaint(b"")
    assert "a pointer of Git LFS" in complaint(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "only a part" in complaint(whole[: len(whole) // 2])
    assert "only a part" in complaint(b"\x00\x01 nothing of the kind")
    assert "fills no layer" in complaint({"other": [blob(2)]})
    few = weights()
    del few["score"]
    assert "no weights for 1 of 2 layers: score" in complaint(few)
    wrong = weights() | {"score": [blob(7, 4, 1, 1), blob(7)]}
    assert 'the layer "score" has 7 x 4 x 1 x 1 and 7 there and 5 x 4 x 1 x 1 and 5 in' in complaint(wrong)
    odd = weights()
    odd["conv"][1][2] = np.nan
    assert 'the layer "conv" has values that are infinite or no numbers' in complaint(odd)
    out.mkdir()
    write_weights(file, weights())
    done = subprocess.run(
        [sys.executable, "tools/import_model.py", str(network), str(file), "--out", str(out), *MEAN],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == 2 and "exists already" in done.stderr and not list(out.iterdir())


def test_missing_and_unused_weights_are_told(tmp_path: Path) -> None:
    blobs = weights()
    blobs["fc8"] = blobs.pop("score")
    said = imported(*given(tmp_path, INPUT + CONV + SCORE, blobs), *MEAN, "--allow-missing")
    assert "weights that the network does not take: fc8" in said
    assert "without weights in net.caffemodel, kept at initial values: score" in said


# ---------------------------------------------------------------------------------------------------- the reader


def test_prototxts_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = """# a comment
    name: 'a' "b"  layer { type: "X" list: [1, -2.5e3] inner: { e: MAX flag: true } other < c: 1; d: 2, > }
    text: "with \\"quotes\\" and \\\\"  number: 0.
    """
    tree = parse_tree(text, tmp_path / "x")
    assert tree.value("name") == "ab"
    (layer,) = tree.nodes("layer")
    assert layer.values("list") == ["1", "-2.5e3"] and layer.node("inner").value("e") == "MAX"
    assert layer.node("other").values("d") == ["2"]
    assert parse_tree(tree.text(), tmp_path / "x") == tree


def test_layers_of_a_test_alone(tmp_path: Path) -> None:
    """Of two layers of one name, for training and test, the test's is there, and under its name."""
    text = INPUT + "".join(
        f'layer {{ name: "bn" type: "BatchNorm" bottom: "data" top: "x{phase}" include {{ phase: {phase} }} }}\n'
        for phase in ("TRAIN", "TEST")
    )
    (tmp_path / "net.prototxt").write_text(text)
    network = read_foreign_network(tmp_path / "net.prototxt", {})
    assert [(layer.name, layer.tops) for layer in network.layers] == [("bn", ["xTEST"])]
