"""predict.py with tiny networks whose answers NumPy can give, too."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import (
    CLASSES,
    PALETTE,
    call_tool,
    only_line,
    save_labels,
    write_dataset_json,
    write_split,
    write_weights,
)

from renet.common.errors import UserError
from renet.data.catalog import VOC2012, bit_interleaved_palette
from renet.data.dataset import Dataset
from renet.data.overlay import blend, draw_overlay
from renet.evaluation.voc_submission import SUBFOLDER
from renet.networks.deploy_network import DeployOptions
from renet.prediction.inference import Inference, PredictionSettings
from renet.runtime.worker_process import last_words
from tools.predict import build_parser

caffe = pytest.importorskip("caffe", reason="pycaffe is not built")

MEAN, SCALE = np.array([10.0, 20.0, 30.0]), 0.02
RNG = np.random.default_rng(7)
CONVOLUTION = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)  # classes x channels x height x width
BIAS = RNG.normal(size=3).astype(np.float32)

TRANSFORM = "transform_param { mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.02 }"
DEPLOY = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" TRANSFORM input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer {
  name: "classify" type: "Convolution" bottom: "data" top: "upsample"
  convolution_param { num_output: CLASSES kernel_size: 3 pad: 1 }
}
layer { name: "prob" type: "Softmax" bottom: "upsample" top: "prob" }
""".replace("TRANSFORM", TRANSFORM)


def expected_probabilities(image: np.ndarray) -> np.ndarray:
    """H x W x 3 BGR to C x H x W in float64: 3 x 3 convolution with zeros around, softmax."""
    height, width = image.shape[:2]
    values = np.pad((image - MEAN) * SCALE, ((1, 1), (1, 1), (0, 0)))
    score = np.zeros((3, height, width)) + BIAS[:, None, None]
    for row in range(3):
        for column in range(3):
            window = values[row : row + height, column : column + width]
            score += np.einsum("hwc,kc->khw", window, CONVOLUTION[:, :, row, column].astype(np.float64))
    score = np.exp(score - score.max(axis=0))
    return score / score.sum(axis=0)


def write_model(file: Path, text: str = DEPLOY, classes: int = 3) -> Path:
    file.write_text(text.replace("CLASSES", str(classes)))
    return file


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


SIZES = {"odd": (7, 5), "point": (1, 1), "line": (1, 9), "wide": (6, 31)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A model, its weights, a folder of pictures and a split of the same pictures."""
    folder = tmp_path_factory.mktemp("predict")
    write_model(folder / "deploy.prototxt")
    write_weights(folder / "net.caffemodel", {"classify": [CONVOLUTION, BIAS]})
    write_dataset_json(folder / "data")
    (folder / "pictures").mkdir()
    samples = {}
    for seed, (image_id, size) in enumerate(SIZES.items()):
        image = picture(*size, seed)
        cv2.imwrite(str(folder / "pictures" / f"{image_id}.png"), image)
        samples[image_id] = (image, None)
    (folder / "pictures/notes.txt").write_text("not a picture")
    write_split(folder / "data/test", samples)
    return folder


def predict(workshop: Path, out: Path, *more: object, **options: object):
    """predict.py on the folder of pictures; `options` replaces option values, None leaves one out."""
    values: dict[str, object] = {
        "model": "deploy.prototxt", "weights": "net.caffemodel", "input": "pictures", "dataset": "data/dataset.json",
    } | options  # fmt: skip
    arguments = [word for name, value in values.items() if value is not None for word in (f"--{name}", value)]
    return call_tool("predict.py", *arguments, "--out", out, *more, cwd=workshop)


def labels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.getpalette()[:9]).reshape(3, 3), PALETTE)
        return np.array(image)


def test_files_of_any_size_are_labelled_as_computed_by_hand(workshop, tmp_path):
    result = predict(workshop, tmp_path / "out", "--probabilities", "--overlay")
    assert result.returncode == 0, result.stderr
    assert "4 images predicted" in result.stdout
    for seed, (image_id, (height, width)) in enumerate(SIZES.items()):
        expected = expected_probabilities(picture(height, width, seed))
        probabilities = np.load(tmp_path / f"out/probabilities/{image_id}.npz")["probabilities"]
        assert probabilities.dtype == np.float16 and probabilities.shape == (3, height, width)
        assert np.abs(probabilities - expected).max() < 2e-3
        assert np.array_equal(labels_of(tmp_path / f"out/{image_id}.png"), expected.argmax(axis=0))
        with Image.open(tmp_path / f"out/overlay/{image_id}.jpg") as overlay:
            assert overlay.width >= width and overlay.height > height
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert record["timed_images"] == 4 and record["device"] == "CPU"
    assert sorted(f.name for f in (tmp_path / "out").glob("*.png")) == sorted(f"{i}.png" for i in SIZES)


def test_a_split_gives_the_same_and_finds_its_dataset(workshop, tmp_path):
    assert predict(workshop, tmp_path / "files").returncode == 0
    result = predict(workshop, tmp_path / "split", input=None, dataset=None, split="data/test")
    assert result.returncode == 0, result.stderr
    for image_id in SIZES:
        name = f"{image_id}.png"
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "split" / name).read_bytes()


def test_one_file_flip_and_min_size(workshop, tmp_path):
    image = picture(*SIZES["odd"], 0)
    arguments = ("--flip", "--min-size", "20x6", "--probabilities")
    result = predict(workshop, tmp_path / "out", *arguments, input="pictures/odd.png")
    assert result.returncode == 0, result.stderr
    # reflection without the edge repeated, at the bottom (again, where the padding exceeds the picture) and the right
    rows = [abs((row + 6) % 12 - 6) for row in range(20)]
    columns = [0, 1, 2, 3, 4, 3]
    plain = expected_probabilities(image[rows][:, columns])[:, :7, :5]
    mirrored = expected_probabilities(image[:, ::-1][rows][:, columns])[:, :7, :5][:, :, ::-1]
    probabilities = np.load(tmp_path / "out/probabilities/odd.npz")["probabilities"]
    assert np.abs(probabilities - (plain + mirrored) / 2).max() < 2e-3
    assert np.abs(probabilities - plain).max() > 2e-2  # the test would see it if nothing was mirrored
    assert labels_of(tmp_path / "out/odd.png").shape == (7, 5)


def test_image_scale_predicts_small_and_answers_at_full_size(workshop, tmp_path):
    out = tmp_path / "out"
    result = predict(workshop, out, "--image-scale", 0.5, "--probabilities", input="pictures/wide.png")
    assert result.returncode == 0, result.stderr
    image = picture(*SIZES["wide"], 3)
    small = expected_probabilities(cv2.resize(image, (16, 3), interpolation=cv2.INTER_AREA))
    expected = np.stack([cv2.resize(plane, (31, 6), interpolation=cv2.INTER_LINEAR) for plane in small])
    probabilities = np.load(out / "probabilities/wide.npz")["probabilities"]
    assert np.abs(probabilities - expected).max() < 2e-3
    assert labels_of(out / "wide.png").shape == (6, 31)
    assert predict(workshop, tmp_path / "point", "--image-scale", 0.5, input="pictures/point.png").returncode == 0


def at_scale(image: np.ndarray, scale: float) -> np.ndarray:
    """The probabilities of the image resized, at its own size again."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    seen = expected_probabilities(cv2.resize(image, size, interpolation=way))
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in seen])


def probabilities_of(out: Path, image_id: str) -> np.ndarray:
    return np.load(out / f"probabilities/{image_id}.npz")["probabilities"]


def test_scales_and_flip_are_averaged_as_probabilities(workshop, tmp_path):
    out, scales = tmp_path / "out", (0.5, 1, 1.75)
    result = predict(workshop, out, "--flip", "--probabilities", "--scales", *scales)
    assert result.returncode == 0, result.stderr
    for seed, (image_id, size) in enumerate(SIZES.items()):
        image = picture(*size, seed)
        found = [at_scale(image, s) for s in scales] + [at_scale(image[:, ::-1], s)[:, :, ::-1] for s in scales]
        assert np.abs(probabilities_of(out, image_id) - np.mean(found, axis=0)).max() < 2e-3
        assert np.array_equal(labels_of(out / f"{image_id}.png"), np.mean(found, axis=0).argmax(axis=0))
    assert np.abs(probabilities_of(out, "wide") - at_scale(picture(*SIZES["wide"], 3), 1)).max() > 0.02


def test_scale_1_is_one_pass_and_other_settings_do_not_mix(workshop, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert predict(workshop, out, "--probabilities").returncode == 0
    assert predict(workshop, tmp_path / "same", "--probabilities", "--scales", 1).returncode == 0
    for image_id in SIZES:
        name = f"{image_id}.png"
        assert np.array_equal(probabilities_of(out, image_id), probabilities_of(tmp_path / "same", image_id))
        assert (out / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    halved_and_doubled = predict(workshop, tmp_path / "twice", "--probabilities", "--image-scale", 0.5, "--scales", 2)
    assert halved_and_doubled.returncode == 0
    assert all(np.array_equal(probabilities_of(out, i), probabilities_of(tmp_path / "twice", i)) for i in SIZES)
    # as a record was before there were scales and windows
    record = json.loads((out / "prediction.json").read_text())
    assert record["settings"].pop("scales") == [1.0] and record["settings"].pop("window") is None
    (out / "prediction.json").write_text(json.dumps(record))
    assert "nothing left to do" in predict(workshop, out, "--scales", 1).stdout
    for options in (("--scales", 1, 2), ("--window", "4x4"), ("--flip",)):
        assert "with other settings" in only_line(predict(workshop, out, *options), "predict.py")
    monkeypatch.setenv("CAFFE_ALLOW_BF16", "1")
    assert "with other settings" in only_line(predict(workshop, out), "predict.py")


def test_windows_are_predicted_as_images_and_blended(workshop, tmp_path):
    out = tmp_path / "out"
    options = ("--window", "5x8", "--overlap", 3, "--probabilities")
    result = predict(workshop, out, *options)
    assert result.returncode == 0, result.stderr
    image = picture(*SIZES["wide"], 3)
    # 6 x 31 in windows of 5 x 8 that share 3 pixels or more
    weight, total = np.zeros((6, 31)), np.zeros((3, 6, 31))
    for top, left in itertools.product((0, 1), (0, 5, 9, 14, 18, 23)):
        own = np.minimum(np.minimum(np.arange(1, 6), np.arange(5, 0, -1)), 3)[:, None] * np.minimum(
            np.minimum(np.arange(1, 9), np.arange(8, 0, -1)), 3
        )
        weight[top : top + 5, left : left + 8] += own
        found = expected_probabilities(image[top : top + 5, left : left + 8])
        total[:, top : top + 5, left : left + 8] += own * found
    assert np.abs(probabilities_of(out, "wide") - total / weight).max() < 2e-3
    assert np.array_equal(labels_of(out / "wide.png"), (total / weight).argmax(axis=0))
    settings = json.loads((out / "prediction.json").read_text())["settings"]
    assert settings["window"] == {"height": 5, "width": 8, "overlap": 3}
    assert "with other settings" in only_line(predict(workshop, out, "--window", "5x8", "--overlap", 2), "predict.py")


@pytest.mark.parametrize("more", [(), ("--crf",), ("--flip", "--scales", 0.5, 1, 2, "--crf")])
def test_a_window_that_covers_the_image_is_one_pass(workshop, tmp_path, more):
    for out, window in (("one", ()), ("covered", ("--window", "7x31", "--overlap", 2))):
        result = predict(workshop, tmp_path / out, "--probabilities", *more, *window)
        assert result.returncode == 0, result.stderr
    for image_id in SIZES:
        one, covered = (probabilities_of(tmp_path / out, image_id) for out in ("one", "covered"))
        assert np.array_equal(one, covered)
    result = predict(workshop, tmp_path / "small", *more, "--window", "4x6")
    assert result.returncode == 0 and labels_of(tmp_path / "small/wide.png").shape == (6, 31)


def test_a_second_call_does_only_what_is_left(workshop, tmp_path):
    out = tmp_path / "out"
    assert predict(workshop, out).returncode == 0
    (out / "line.png").unlink()
    kept = (out / "odd.png").stat().st_mtime_ns
    result = predict(workshop, out)
    assert "3 of 4 images are done already" in result.stdout and "1 images predicted" in result.stdout
    assert (out / "line.png").is_file() and (out / "odd.png").stat().st_mtime_ns == kept
    assert "nothing left to do" in predict(workshop, out).stdout
    # overlays are asked for later: all pictures lack one
    assert "4 images predicted" in predict(workshop, out, "--overlay").stdout
    write_weights(workshop / "other.caffemodel", {"classify": [-CONVOLUTION, BIAS]})
    message = only_line(predict(workshop, out, weights="other.caffemodel"), "predict.py")
    assert "holds predictions of another network" in message
    before = (out / "wide.png").read_bytes()
    result = predict(workshop, out, "--overwrite", weights="other.caffemodel", input="pictures/wide.png")
    assert result.returncode == 0 and (out / "wide.png").read_bytes() != before
    assert [file.name for file in out.glob("*.png")] == ["wide.png"]


VOC_DATA = {
    "name": "voc2012",
    "classes": list(VOC2012.classes),
    "palette": bit_interleaved_palette(len(VOC2012.classes)).tolist(),
}


def test_a_voc_submission_is_written_when_all_is_predicted(workshop, tmp_path):
    model = write_model(tmp_path / "deploy.prototxt", classes=21)
    kernels = np.random.default_rng(3).normal(size=(21, 3, 3, 3)).astype(np.float32)
    weights = write_weights(tmp_path / "voc.caffemodel", {"classify": [kernels, np.zeros(21, np.float32)]})
    write_dataset_json(tmp_path / "data", **VOC_DATA)
    write_split(tmp_path / "data/test", {name: (picture(*size), None) for name, size in SIZES.items()})
    options = {"model": model, "weights": weights, "input": None, "dataset": None, "split": tmp_path / "data/test"}
    out, folder = tmp_path / "out", tmp_path / "submission"
    result = predict(workshop, out, "--comp6", folder, **options)
    assert result.returncode == 0, result.stderr
    assert f"4 images written and checked: {folder / SUBFOLDER}" in result.stdout
    packed = (folder / "results.tgz").read_bytes()
    with tarfile.open(folder / "results.tgz") as tar:
        for name in SIZES:
            assert tar.extractfile(f"{SUBFOLDER}/{name}.png").read() == (out / f"{name}.png").read_bytes()
    # Predicted already: the same again.
    shutil.rmtree(folder)
    result = predict(workshop, out, "--comp6", folder, **options)
    assert "nothing left to do" in result.stdout and (folder / "results.tgz").read_bytes() == packed
    # A prediction that somebody exchanged is found.
    save_labels(out / "odd.png", np.zeros((5, 7)))
    line = only_line(predict(workshop, out, "--comp6", folder, **options), "predict.py")
    assert "odd.png: 7 x 5, the image is 5 x 7" in line and not (folder / "results.tgz").exists()
    # What cannot be submitted is refused before the work.
    write_dataset_json(tmp_path / "data", **VOC_DATA, image_scale=0.5)
    line = only_line(predict(workshop, tmp_path / "none", "--comp6", folder, **options), "predict.py")
    assert "prepared with --image-scale 0.5" in line and not (tmp_path / "none").exists()
    line = only_line(predict(workshop, tmp_path / "none", "--comp6", folder), "predict.py")
    assert "--comp6 is a VOC2012 submission; the dataset is three_things" in line and not (tmp_path / "none").exists()


def test_missing_and_wrong_weights_end_in_one_line(workshop, tmp_path):
    write_weights(workshop / "wrong.caffemodel", {"classify": [CONVOLUTION[:2], BIAS[:2]]})
    line = only_line(predict(workshop, tmp_path / "out", weights="wrong.caffemodel"), "predict.py")
    assert "wrong.caffemodel: the layer 'classify' has 2 x 3 x 3 x 3 and 2 there and 3 x 3 x 3 x 3 and 3 in the" in line
    file = write_weights(tmp_path / "other.caffemodel", {"another": [CONVOLUTION, BIAS]})
    line = only_line(predict(workshop, tmp_path / "out", "--allow-missing", weights=file), "predict.py")
    assert "other.caffemodel: fills no layer: it has another, the network has classify" in line
    # a call that failed does not bar the next from the same folder
    assert predict(workshop, tmp_path / "out").returncode == 0


TWO_LAYERS = DEPLOY.replace('top: "upsample"', 'top: "first"').replace(
    'layer { name: "prob"',
    """layer {
  name: "more" type: "Convolution" bottom: "first" top: "upsample" convolution_param { num_output: 3 kernel_size: 1 }
}
layer { name: "prob\"""",
)


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
def test_weights_of_another_network_are_refused_in_both_formats(workshop, tmp_path, suffix):
    model = write_model(tmp_path / "two.prototxt", TWO_LAYERS)
    file = write_weights(tmp_path / f"part{suffix}", {"classify": [CONVOLUTION, BIAS]})
    line = only_line(predict(workshop, tmp_path / "out", model=model, weights=file), "predict.py")
    assert f"{file}: no weights for the layer 'more' (1 of 2 layers are missing)" in line and "--allow-missing" in line
    result = predict(workshop, tmp_path / "out", "--allow-missing", model=model, weights=file)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("options", [(), ("--crf",)], ids=["network", "crf"])
@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(workshop, tmp_path, options, suffix, value):
    spoilt = CONVOLUTION.copy()
    spoilt[1, 2, 0, 1] = value
    file = write_weights(tmp_path / f"spoilt{suffix}", {"classify": [spoilt, BIAS]})
    line = only_line(predict(workshop, tmp_path / "out", *options, weights=file), "predict.py")
    assert f"{file}: the layer 'classify' has values that are infinite or no numbers" in line
    assert not list((tmp_path / "out").glob("*.png"))


def test_probabilities_that_are_no_numbers_name_the_picture(workshop, tmp_path):
    """Weights that are numbers, but whose products leave float32's range."""
    file = write_weights(
        tmp_path / "huge.caffemodel", {"classify": [CONVOLUTION / np.abs(CONVOLUTION).max() * 3e38, BIAS]}
    )
    for options in ((), ("--crf",)):
        line = only_line(predict(workshop, tmp_path / "out", *options, weights=file), "predict.py")
        assert 'pictures/line.png: deploy.prototxt: the output "prob" has values that are infinite or no num' in line
    assert not list((tmp_path / "out").glob("*.png"))


PROB = 'name: "prob" type: "Softmax" bottom: "upsample" top: "prob"'
INPUT = 'layer { name: "more" type: "Input" top: "more" input_param { shape { dim: 1 dim: 1 } } }'


@pytest.mark.parametrize(
    "old, new, message",
    [
        (TRANSFORM, "", 'layer "data" has no transform_param, so mean and scale of the input are not known; say'),
        ('type: "Input"', 'type: "DummyData"', 'it has no layer of type "Input"'),
        ("kernel_size", "kernel_sice", "ConvolutionParameter has no field 'kernel_sice'; did you mean kernel_size"),
        ("scale: 0.02", "scale: nan", "scale is nan, which is no number to compute with"),
        ("dim: 1 dim: 3", "dim: 1 dim: 1", 'the input "data" has 1 channels; an image has 3'),
        (PROB, f'name: "q" type: "Softmax" bottom: "upsample" top: "q" }} {INPUT.replace("more", "y")[:-1]}',
         'has the inputs data, y; say with --input-blob which one the image is'),
        (PROB, 'name: "p" type: "Split" bottom: "upsample" top: "p" top: "q"',
         'has no output "prob" (it has: p, q); say with --output-blob which holds the probabilities'),
        (PROB, 'name: "p" type: "Flatten" bottom: "upsample" top: "p"', '"p" has no map for each class, but 2 axes'),
        (PROB, 'name: "p" type: "Power" bottom: "upsample" top: "p"',
         'the output "p" holds no probabilities: the values of one pixel sum to '),
        ("pad: 1", "pad: 0", 'the output "prob" is 1 x 3 x 5 x 3 for an input of 5 x 7, expected 1 x 3 x 7 x 5'),
    ],
    ids=["transform", "input", "syntax", "nan", "channels", "inputs", "outputs", "flat", "scores", "size"],
)  # fmt: skip
def test_models_that_do_not_serve(workshop, tmp_path, old, new, message):
    model = write_model(tmp_path / "deploy.prototxt", DEPLOY.replace(old, new))
    with pytest.raises(UserError, match=re.escape(str(model)) + ".*" + re.escape(message)):
        Inference(model, workshop / "net.caffemodel").probabilities(picture(7, 5), PredictionSettings())


@pytest.mark.parametrize(
    "old, new, options",
    [
        (PROB, PROB.replace('top: "prob"', 'top: "softmax"'), DeployOptions()),
        (TRANSFORM, "", DeployOptions(mean=(10, 20, 30), scale=0.02)),
        ("mean_value: 10", "mean_value: 99", DeployOptions(mean=(10, 20, 30))),
        ('"data"', '"picture"', DeployOptions()),
        (PROB, f"{PROB} }} {INPUT[:-1]}", DeployOptions(input_blob="data")),
        (
            PROB,
            f'{PROB} }} layer {{ name: "x" type: "Power" bottom: "prob" top: "x"',
            DeployOptions(output_blob="prob"),
        ),
        ('type: "Input"', 'type: "Input" include { stage: "deploy" }', DeployOptions()),
    ],
    ids=["output's name", "no mean", "another mean", "input's name", "two inputs", "inner blob", "stage"],
)
def test_networks_that_name_their_ends_otherwise(workshop, tmp_path, old, new, options):
    model = write_model(tmp_path / "deploy.prototxt", DEPLOY.replace(old, new))
    image = picture(7, 5)
    found = Inference(model, workshop / "net.caffemodel", options=options).probabilities(image, PredictionSettings())
    np.testing.assert_allclose(found, expected_probabilities(image), atol=1e-5)


OLD_FORMS = {
    "input_dim": 'input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4\n',
    "input_shape": 'input: "data" input_shape { dim: 1 dim: 3 dim: 4 dim: 4 }\n',
}
OLD_LAYERS = {
    "today's layers": DEPLOY[DEPLOY.index("layer {\n") :],
    "V1": """layers { name: "classify" type: CONVOLUTION bottom: "data" top: "upsample"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
        layers { name: "prob" type: SOFTMAX bottom: "upsample" top: "prob" }""",
    "V0": """layers { layer { name: "classify" type: "conv" num_output: 3 kernelsize: 3 pad: 1 } bottom: "data"
        top: "upsample" }
        layers { layer { name: "prob" type: "softmax" } bottom: "upsample" top: "prob" }""",
}


# input_shape is younger than V0.
@pytest.mark.parametrize(
    ("form", "layers"), [pair for pair in itertools.product(OLD_FORMS, OLD_LAYERS) if pair != ("input_shape", "V0")]
)
def test_old_forms_of_a_network_are_read_as_caffe_does(workshop, tmp_path, form, layers):
    model = write_model(tmp_path / "deploy.prototxt", OLD_FORMS[form] + OLD_LAYERS[layers])
    with pytest.raises(UserError, match="mean and scale of the input are not known; say --mean B,G,R"):
        Inference(model, workshop / "net.caffemodel")
    image = picture(7, 5)
    options = DeployOptions(mean=(10, 20, 30), scale=0.02)
    found = Inference(model, workshop / "net.caffemodel", options=options).probabilities(image, PredictionSettings())
    np.testing.assert_allclose(found, expected_probabilities(image), atol=1e-5)


def test_the_mean_of_an_old_network_is_said_on_the_command_line(workshop, tmp_path):
    model = write_model(tmp_path / "old.prototxt", OLD_FORMS["input_dim"] + OLD_LAYERS["V1"])
    line = only_line(predict(workshop, tmp_path / "out", model=model), "predict.py")
    assert f"{model}: layer" in line and "say --mean B,G,R (and --scale S)" in line
    options = ("--mean", "10,20,30", "--scale", 0.02)
    result = predict(workshop, tmp_path / "out", *options, model=model, input="pictures/odd.png")
    assert result.returncode == 0, result.stderr
    expected = expected_probabilities(picture(*SIZES["odd"], 0)).argmax(axis=0)
    assert np.array_equal(labels_of(tmp_path / "out/odd.png"), expected)
    line = only_line(predict(workshop, tmp_path / "out", "--mean", "1,2,3", model=model), "predict.py")
    assert "with other settings" in line


@pytest.mark.parametrize("option", ["--mean 1,2", "--mean 1,nan,3", "--mean 1e39", "--scale inf", "--scale 1e-300"])
def test_numbers_that_are_none_are_refused(option):
    needed = ["--model", "m", "--weights", "w", "--input", "i", "--out", "o"]
    assert build_parser().parse_args([*needed, "--mean", "104"]).mean == (104, 104, 104)
    with pytest.raises(SystemExit):
        build_parser().parse_args([*needed, *option.split()])


def test_a_network_of_other_classes(workshop, tmp_path):
    model = write_model(tmp_path / "deploy.prototxt", classes=4)
    bigger = [np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)]
    weights = write_weights(tmp_path / "four.caffemodel", {"classify": bigger})
    line = only_line(predict(workshop, tmp_path / "out", model=model, weights=weights), "predict.py")
    assert f"{model}: tells 4 classes apart, the dataset three_things has 3" in line


def test_a_network_that_caffe_refuses(workshop, tmp_path):
    model = write_model(tmp_path / "deploy.prototxt", DEPLOY.replace('bottom: "data"', 'bottom: "date"'))
    line = only_line(predict(workshop, tmp_path / "out", model=model), "predict.py")
    assert f"{model}: Caffe cannot make this network: " in line and "Unknown bottom blob 'date'" in line


def test_a_size_that_a_layer_cannot_take_names_the_picture(workshop, tmp_path):
    # without padding a 3 x 3 convolution of 1 x 1 pixels has no output, and Caffe aborts
    model = write_model(tmp_path / "deploy.prototxt", DEPLOY.replace("pad: 1", "pad: 0"))
    line = only_line(predict(workshop, tmp_path / "out", model=model, input="pictures/point.png"), "predict.py")
    assert "pictures/point.png: Caffe stopped at this image: Check failed: " in line


def test_bad_inputs_are_named(workshop, tmp_path):
    cases: list[tuple[dict[str, object], tuple[object, ...], str]] = [
        ({"weights": "none.caffemodel"}, (), "none.caffemodel: no such file"),
        ({"model": "none.prototxt"}, (), "none.prototxt: no such file"),
        ({"input": "nowhere"}, (), "nowhere: no such file or folder"),
        ({"dataset": None}, (), "--dataset is needed with --input"),
        ({"input": None, "split": "pictures"}, (), "pictures: not a prepared split"),
        ({}, ("--min-size", "20"), "is not HEIGHTxWIDTH"),
        ({}, ("--image-scale", "2"), "is no factor over 0 and up to 1"),
        ({}, ("--scales", "1", "0"), "'0' is not a number over 0"),
        ({}, ("--scales", "nan"), "'nan' is not a number over 0"),
        ({}, ("--scales", "inf"), "'inf' is not a number over 0"),
        ({}, ("--scales", "-1"), "'-1' is not a number over 0"),
        (
            {"input": "pictures/odd.png"},
            ("--scales", "1", "1e308"),
            "pictures/odd.png: 5 x 7 pixels scaled by 1e+308 are",
        ),
        (
            {"input": "pictures/odd.png"},
            ("--scales", "1e5"),
            "pictures/odd.png: 5 x 7 pixels scaled by 100000 are too many",
        ),
        (
            {"input": "pictures/odd.png"},
            ("--min-size", "30000x30000"),
            "pictures/odd.png: a min_size of 30000 x 30000 takes 21.6 GB for the network's input and output alone",
        ),
        ({}, ("--min-size", "999999999x9"), "is not HEIGHTxWIDTH"),
        ({}, ("--window", "8x9", "--overlap", "8"), "the overlap of windows of 8 x 9 is 0 to 7 pixels, not 8"),
        ({}, ("--window", "0x9"), "is not HEIGHTxWIDTH"),
        ({}, ("--overlap", "8"), "--overlap needs --window"),
    ]
    for options, more, message in cases:
        assert message in only_line(predict(workshop, tmp_path / "out", *more, **options), "predict.py")


def test_bad_pictures_are_named(workshop, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    assert "no images in this folder" in only_line(predict(workshop, tmp_path / "out", input=folder), "predict.py")
    whole = (workshop / "pictures/wide.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    line = only_line(predict(workshop, tmp_path / "out", input=folder), "predict.py")
    assert f"{folder}/torn.png: not an image that can be read" in line
    cv2.imwrite(str(folder / "torn.png"), picture(2, 2))
    assert "would overwrite the image" in only_line(predict(workshop, folder, input=folder), "predict.py")
    cv2.imwrite(str(folder / "torn.jpg"), picture(2, 2))
    assert "has the same image id as" in only_line(predict(workshop, tmp_path / "out", input=folder), "predict.py")


def test_foreign_files_are_not_overwritten(workshop, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "odd.png").write_bytes(b"somebody's work")
    assert "odd.png: exists and is not known" in only_line(predict(workshop, out), "predict.py")
    assert (out / "odd.png").read_bytes() == b"somebody's work"


def test_grey_and_turned_pictures(workshop, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    grey = picture(5, 8)[:, :, 0]
    cv2.imwrite(str(folder / "grey.png"), grey)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(picture(5, 8)).save(folder / "phone.png", exif=exif)
    assert predict(workshop, tmp_path / "out", input=folder).returncode == 0
    expected = expected_probabilities(np.repeat(grey[:, :, None], 3, axis=2)).argmax(axis=0)
    assert np.array_equal(labels_of(tmp_path / "out/grey.png"), expected)
    turned = np.rot90(picture(5, 8)[:, :, ::-1], -1)
    assert np.array_equal(labels_of(tmp_path / "out/phone.png"), expected_probabilities(turned).argmax(axis=0))


def test_a_missing_gpu_is_told(workshop, tmp_path):
    line = only_line(predict(workshop, tmp_path / "out", "--gpu", 99), "predict.py")
    assert "GPU 99 cannot be used: " in line


class TestOverlay:
    def dataset(self, tmp_path: Path) -> Dataset:
        return Dataset.open(write_dataset_json(tmp_path))

    def test_blend(self, tmp_path):
        image = np.full((1, 3, 3), (0, 0, 100), np.uint8)  # red, in BGR
        mixed = blend(image, np.array([[0, 2, 255]], np.uint8), self.dataset(tmp_path), opacity=0.5)
        assert mixed.tolist() == [[[150, 15, 15], [65, 30, 110], [100, 0, 0]]]

    def test_an_ignored_label_among_the_classes_leaves_the_picture(self, tmp_path):
        dataset = replace(self.dataset(tmp_path), ignore_label=1)
        image = np.full((1, 3, 3), (0, 0, 100), np.uint8)
        assert blend(image, np.array([[0, 2, 1]], np.uint8), dataset)[0, 2].tolist() == [100, 0, 0]
        labels = np.zeros((60, 200), np.uint8)
        without = draw_overlay(picture(60, 200), labels, dataset)
        labels[:, :1] = 1
        legend = np.asarray(draw_overlay(picture(60, 200), labels, dataset))[60:]
        assert not (legend == PALETTE[1]).all(axis=2).any() and (legend == PALETTE[0]).all(axis=2).any()
        assert legend.shape == np.asarray(without)[60:].shape

    def test_legend_names_what_is_present(self, tmp_path):
        dataset = self.dataset(tmp_path)
        one = draw_overlay(picture(60, 200), np.zeros((60, 200), np.uint8), dataset)
        both = draw_overlay(picture(60, 200), np.arange(12000).reshape(60, 200).astype(np.uint8) % 2, dataset)
        assert one.size == both.size and one.width == 200 and one.height > 60
        assert not np.array_equal(np.asarray(one)[60:], np.asarray(both)[60:])
        assert len(dataset.classes) == len(CLASSES)


class TestLastWords:
    def test_a_failed_check(self):
        text = (
            "W1122 17:00:00.0 7 a.cpp:1] warning\n"
            "F20261122 17:48:39.123456  1234 net.cpp:123] Check failed: a == b (1 vs. 2) \nmore of it\n"
            "*** Check failure stack trace: ***\n    @ 0x7f  google::LogMessage\n"
        )
        assert last_words(text, -6) == "Check failed: a == b (1 vs. 2) more of it (net.cpp)"

    def test_a_signal(self):
        assert "SIGKILL, probably for want of memory" in last_words("", -9)
        assert last_words("terminate called\n", -6).endswith("SIGABRT; its last line: terminate called")
        assert last_words("", 3) == "the working process ended with status 3"


def test_an_image_changes_nothing_for_the_next(workshop):
    """Whatever their sizes: maps share memory, within an image and from one to the next."""
    model, weights = workshop / "deploy.prototxt", workshop / "net.caffemodel"
    one = Inference(model, weights)
    for size in ((7, 5), (13, 20), (7, 5), (7, 5)):
        image = picture(*size)
        expected = Inference(model, weights).probabilities(image, PredictionSettings())
        np.testing.assert_array_equal(one.probabilities(image, PredictionSettings()), expected)


def test_probabilities_that_later_layers_read(workshop):
    model, weights = workshop / "deploy.prototxt", workshop / "net.caffemodel"
    longer = workshop / "longer.prototxt"
    longer.write_text(model.read_text() + 'layer { name: "log" type: "Log" bottom: "prob" top: "log" }\n')
    image = picture(13, 20)
    expected = Inference(model, weights).probabilities(image, PredictionSettings())
    inside = Inference(longer, weights, options=DeployOptions(output_blob="prob"))
    for _ in range(3):
        np.testing.assert_array_equal(inside.probabilities(image, PredictionSettings()), expected)
