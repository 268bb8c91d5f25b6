"""The systems that the paper compares with: their sizes, their authors' protocols, and the networks in pycaffe."""

from __future__ import annotations

import re
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from segmentation_helpers import write_dataset_json

from renet.common.errors import UserError
from renet.networks.analysis import layer_costs, receptive_fields, without_data
from renet.networks.files import Data, deploy_text, train_val_text
from renet.networks.generation import write
from renet.networks.models import COMPARISONS, MODELS
from renet.networks.protocol import Protocol

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Data("data", 5, 255, ("train",), "test", 3)
FOLDERS = {model: next((REPOSITORY / "prototxt" / model).iterdir()) for model in COMPARISONS}


def read(file: Path, message: object) -> object:
    return text_format.Parse(file.read_text(), message)


def shipped(model: str, file: str = "deploy") -> object:
    return read(FOLDERS[model] / f"{file}.prototxt", caffe_pb2.NetParameter())


def solver(model: str) -> object:
    file = REPOSITORY / "solvers" / f"{model}_{FOLDERS[model].name}.prototxt"
    return read(file, caffe_pb2.SolverParameter())


def build(text: str, tmp_path: Path, phase: int = caffe.TEST) -> caffe.Net:
    file = tmp_path / "net.prototxt"
    file.write_text(text)
    return caffe.Net(str(file), phase)


def narrow(text: str, classes: int = 5) -> str:
    """The network with a sixteenth of its channels."""

    def fewer(found: re.Match[str]) -> str:
        channels = int(found[1])
        return found[0] if channels == classes else f"num_output: {max(channels // 16, 2)}"

    return re.sub(r"num_output: (\d+)", fewer, text)


def quick(text: str) -> str:
    """The network without the filling of its weights, which takes longer than counting them."""
    return re.sub(r" *(weight|bias)_filler \{[^}]*\}\n", "", text)


# Of those that do not take all: the first one is what they learn from.
SIZES = {
    "segnet": ((1, 3, 64, 96), (2, 3, 32, 64)),
    "deconvnet": ((1, 3, 224, 224), (1, 3, 224, 256)),
}
PARAMETERS = {
    "deeplab_largefov": 20_505_429,
    "fcn32s": 134_260_544 + (4096 + 1) * 21 + 21 * 21 * 64 * 64,  # VGG-16 with fc6 and fc7, scores, upsampling
    "fcn8s": 134_489_759,
    # FCN-8s, a bias of its first upsampling, and three matrices
    "crf_as_rnn": 134_489_759 + 21 + 3 * 21 * 21,
    "segnet": 29_449_355,
    "deconvnet": 251_805_653,
    "multi_scale_convnet": (3 * 49 + 1) * 16 + (16 * 49 + 1) * 64 + (64 * 49 + 1) * 256 + (3 * 256 + 1) * 8,
}


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameters_are_the_authors(model: str, tmp_path: Path) -> None:
    """Running means and variances are no parameters: the authors of SegNet and DeconvNet keep none."""
    description = shipped(model)
    built = build(quick((FOLDERS[model] / "deploy.prototxt").read_text()), tmp_path)
    found = [cost.parameters for cost in layer_costs(built, description) if cost.type != "BatchNorm"]
    assert sum(found) == PARAMETERS[model]


def test_receptive_fields() -> None:
    """FCN's fc7 sees 404 pixels. Farabet et al.'s small network sees 46 at each scale, and here the neighbourhoods of
    the local normalisation beyond."""
    assert receptive_fields(shipped("fcn8s"))["fc7"].size == 404
    small = receptive_fields(shipped("multi_scale_convnet"))
    local = 2 * (15 - 1)
    assert [small[f"conv3_{scale}"].size for scale in ("full", "half", "quarter")] == [
        *(46 + local, 1 + 2 * (46 + local - 1) + 1, 1 + 4 * (46 + local - 1) + 3),
    ]


@pytest.mark.parametrize("model", COMPARISONS)
def test_output_has_the_inputs_size(model: str, tmp_path: Path) -> None:
    sizes = SIZES.get(model, ((1, 3, 33, 47), (2, 3, 32, 48), (1, 3, 5, 1)))
    text = narrow(deploy_text(MODELS[model], model, 5, MODELS[model].options(sizes[0][2:])))
    network = build(text, tmp_path)
    for name, blobs in network.params.items():
        if name.endswith("_bn"):  # as if it had learnt: mean 0, variance 1
            blobs[1].data[...] = blobs[2].data[...] = 1
    for size in sizes:
        network.blobs["data"].reshape(*size)
        network.blobs["data"].data[...] = np.random.default_rng(0).uniform(-100, 100, size)
        prob = network.forward()["prob"]
        assert prob.shape == (size[0], 5, *size[2:])
        assert np.allclose(prob.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("model", COMPARISONS)
def test_a_training_step_moves_what_learns(model: str, tmp_path: Path) -> None:
    height, width = SIZES[model][0][2:] if model in SIZES else (41, 57)
    chosen = MODELS[model].options((height, width), 2)
    text = narrow(train_val_text(MODELS[model], model, DATA, chosen))
    fed = without_data(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TRAIN, (2, 3, height, width))
    network = build(text_format.MessageToString(fed), tmp_path, caffe.TRAIN)
    random = np.random.default_rng(0)
    network.blobs["data"].data[...] = random.uniform(-100, 100, (2, 3, height, width))
    network.blobs["label"].data[...] = random.integers(0, 5, (2, 1, height, width))
    loss = network.forward()["loss"]
    network.backward()
    pixels = 2 * height * width if MODELS[model].protocol.loss else 1
    assert loss / pixels == pytest.approx(np.log(5), abs=1.5)
    score = next(name for name in reversed(network.params) if not name.startswith("upscore"))
    assert np.abs(network.params[score][0].diff).max() > 0


def test_deeplab_learns_from_every_eighth_label(tmp_path: Path) -> None:
    """The labels that are chosen lie where the scores do."""
    protocol = MODELS["deeplab_largefov"].protocol
    assert [protocol.crop(size) for size in ((321, 321), (328, 400), (8, 9))] == [(321, 321), (321, 393), (1, 9)]
    assert Protocol().crop((40, 50)) == (40, 50)
    text = narrow(train_val_text(MODELS["deeplab_largefov"], "net", DATA, MODELS["deeplab_largefov"].options((41, 57))))
    fed = without_data(text_format.Parse(text, caffe_pb2.NetParameter()), caffe.TRAIN, (1, 3, 41, 57))
    network = build(text_format.MessageToString(fed), tmp_path, caffe.TRAIN)
    labels = np.random.default_rng(0).integers(0, 5, (1, 1, 41, 57))
    network.blobs["label"].data[...] = labels
    network.forward()
    assert network.blobs["fc8"].data.shape[2:] == network.blobs["label_shrink"].data.shape[2:]
    assert np.array_equal(network.blobs["label_shrink"].data, labels[:, :, ::8, ::8])
    assert list(network.outputs) == ["loss"]
    with pytest.raises(UserError, match="crops of 8 N \\+ 1 pixels: 41 x 57 in place of 42 x 60"):
        write_dataset_json(tmp_path / "data", splits={name: {"count": 2, "sha256": ""} for name in ("train", "test")})
        write("deeplab_largefov", tmp_path / "data", tmp_path / "net", crop=(42, 60))


def test_deeplabs_protocol() -> None:
    found = solver("deeplab_largefov")
    assert (found.max_iter, found.lr_policy, found.stepsize) == (6000, "step", 2000)
    assert (found.base_lr, found.momentum, found.weight_decay) == pytest.approx((0.001, 0.9, 0.0005))
    network = shipped("deeplab_largefov", "train_val")
    data = network.layer[0].segmentation_data_param
    assert (data.batch_size, data.crop_height, data.crop_width, data.mirror) == (30, 321, 321, True)
    layers = {layer.name: layer for layer in network.layer}
    assert [param.lr_mult for param in layers["fc8"].param] == [10, 20]
    windows = {name: layer.pooling_param for name, layer in layers.items() if name.startswith("pool")}
    assert [(name, window.kernel_size, window.stride, window.pool) for name, window in windows.items()] == [
        *((f"pool{number}", 3, 2, 0) for number in (1, 2, 3)),
        *(("pool4", 3, 1, 0), ("pool5", 3, 1, 0), ("pool5a", 3, 1, 1)),
    ]
    assert [list(layers[name].convolution_param.dilation) for name in ("conv4_3", "conv5_1", "fc6")] == [[], [2], [12]]
    assert all(layer.param[0].lr_mult > 0 for layer in network.layer if layer.type == "Convolution")


@pytest.mark.parametrize(
    ("model", "rate", "start"), [("fcn32s", 1e-10, "models/"), ("fcn16s", 1e-12, "fcn32s"), ("fcn8s", 1e-14, "fcn16s")]
)
def test_fcns_protocol(model: str, rate: float, start: str) -> None:
    found = solver(model)
    assert (found.max_iter, found.lr_policy) == (100_000, "fixed")
    assert (found.base_lr, found.momentum, found.weight_decay) == pytest.approx((rate, 0.99, 0.0005))
    assert start in found.weights[0]
    layers = {layer.name: layer for layer in shipped(model, "train_val").layer}
    data = shipped(model, "train_val").layer[0].segmentation_data_param
    assert (data.batch_size, data.crop_height, data.crop_width, data.mirror) == (1, 0, 0, False)
    assert not layers["loss"].loss_param.normalize
    assert list(layers["conv1_1"].convolution_param.pad) == [100]
    fixed = [layer for layer in layers.values() if layer.type == "Deconvolution"]
    assert len(fixed) == {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[model]
    assert all(layer.param[0].lr_mult == 0 and layer.convolution_param.group == 1 for layer in fixed)


def test_fcns_upsampling_keeps_maps_apart_and_in_place(tmp_path: Path) -> None:
    """A map of the coarsest scores becomes its own smooth interpolation, centred where it was, and touches no other."""
    options = MODELS["fcn8s"].options((32, 32))
    network = build(narrow(deploy_text(MODELS["fcn8s"], "fcn8s", 5, options)), tmp_path)
    for name in ("upscore2", "upscore_pool4", "upscore8"):
        weights = network.params[name][0].data
        assert weights.shape[:2] == (5, 5)
        others = weights[~np.eye(5, dtype=bool)]
        assert np.all(others == 0) and np.all(weights[np.eye(5, dtype=bool)] > 0)
    network.blobs["data"].reshape(1, 3, 160, 128)
    network.forward()
    network.blobs["score_fr"].data[...] = 0
    network.blobs["score_fr"].data[0, 2, 2, 1] = 1
    network.forward(start="upscore2")
    score = network.blobs["score"].data[0].astype(np.float64)
    assert np.abs(np.delete(score, 2, axis=0)).max() == 0
    # fc6's position n sees the seven of pool5 around n + 3, each of 32 pixels of the image that was padded by 99.
    centre = [32 * (n + 3) + 15.5 - 99 for n in (2, 1)]
    rows, columns = np.indices(score[2].shape)
    found = [(score[2] * along).sum() / score[2].sum() for along in (rows, columns)]
    assert found == pytest.approx(centre, abs=1)


def test_whole_images_or_crops(tmp_path: Path) -> None:
    splits = {name: {"count": 2, "sha256": ""} for name in ("train", "test")}
    data = write_dataset_json(tmp_path / "data", splits=splits)

    def training_data(**chosen: object) -> object:
        write("fcn8s", data, tmp_path / "net", **chosen)
        network = read(tmp_path / "net/train_val.prototxt", caffe_pb2.NetParameter())
        return network.layer[0].segmentation_data_param

    whole, crops = training_data(), training_data(crop=(60, 80), batch=4)
    assert (whole.batch_size, whole.crop_height) == (1, 0)
    assert (crops.batch_size, crops.crop_height, crops.crop_width) == (4, 60, 80)
    assert (training_data(batch=2).crop_height, training_data(crop=(60, 80)).batch_size) == (500, 1)
    write("fcn8s", data, tmp_path / "net")
    assert "whole images, batches of 1." in (tmp_path / "net/solver.prototxt").read_text()


# --------------------------------------------------------------------------------------- encoders and decoders


def test_crf_as_rnns_protocol() -> None:
    assert PARAMETERS["crf_as_rnn"] == 134_491_103
    found, network = solver("crf_as_rnn"), shipped("crf_as_rnn", "train_val")
    assert (found.max_iter, found.lr_policy) == (80_000, "fixed")
    assert (found.base_lr, found.momentum) == pytest.approx((1e-13, 0.99))
    assert "runs/fcn8s_voc2012/" in found.weights[0]
    trained = next(layer for layer in network.layer if layer.type == "DenseCRF")
    tested = shipped("crf_as_rnn").layer[-1]
    for crf, iterations in ((trained.dense_crf_param, 5), (tested.dense_crf_param, 10)):
        assert (crf.max_iter, crf.pos_w, crf.pos_xy_std) == (iterations, 3, 3)
        assert (crf.bi_w, crf.bi_xy_std, crf.bi_rgb_std) == (5, 160, 3)
        assert (crf.kernel_weights, crf.compatibility, crf.normalization, crf.learn) == (1, 1, 1, False)
    assert [(param.lr_mult, param.decay_mult) for param in trained.param] == [(10_000, 0), (10_000, 0), (1_000, 0)]
    upsampling = {layer.name: layer for layer in network.layer if layer.type == "Deconvolution"}
    assert upsampling.keys() == {"score2", "upscore_pool4", "upscore8"}
    assert [upsampling[name].param[0].lr_mult for name in upsampling] == [1, 1, 0]
    assert upsampling["score2"].convolution_param.bias_term
    assert not (FOLDERS["crf_as_rnn"] / "deploy_crf.prototxt").exists()


def test_segnets_decoder_mirrors_its_encoder() -> None:
    """Each upsampling reads the mask of the pooling that it undoes, and has that one's size."""
    layers = {layer.name: layer for layer in shipped("segnet").layer}
    sizes = {5: (23, 30), 4: (45, 60), 3: (90, 120), 2: (180, 240), 1: (360, 480)}
    for number, (height, width) in sizes.items():
        assert list(layers[f"pool{number}"].top) == [f"pool{number}", f"pool{number}_mask"]
        upsample = layers[f"upsample{number}"]
        assert upsample.bottom[1] == f"pool{number}_mask"
        assert (upsample.upsample_param.upsample_h, upsample.upsample_param.upsample_w) == (height, width)
    depth = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    for number, count in depth.items():
        for index in range(1, count + 1):
            encoder, decoder = layers[f"conv{number}_{index}"], layers[f"conv{number}_{index}_D"]
            before = layers[encoder.bottom[0]].convolution_param.num_output if (number, index) != (1, 1) else 11
            if encoder.bottom[0].startswith("pool"):
                before = layers[f"conv{number - 1}_1"].convolution_param.num_output
            assert decoder.convolution_param.num_output == before
    assert "scale" not in str(shipped("segnet", "deploy").layer[0].transform_param)
    text = deploy_text(MODELS["segnet"], "net", 5, MODELS["segnet"].options((64, 96)))
    assert "upsample_h" not in text, "any multiples of 32 go"


def test_segnet_and_deconvnets_protocols() -> None:
    found, network = solver("segnet"), shipped("segnet", "train_val")
    assert (found.max_iter, found.lr_policy, found.iter_size) == (40_000, "fixed", 1)
    assert (found.base_lr, found.momentum) == pytest.approx((0.001, 0.9))
    data, tested = (layer.segmentation_data_param for layer in network.layer[:2])
    assert (data.batch_size, data.crop_height, data.crop_width, data.mirror) == (4, 360, 480, False)
    assert (tested.crop_height, tested.crop_width) == (360, 480)
    assert list(data.mean_value) == [0, 0, 0]
    loss = next(layer for layer in network.layer if layer.type == "SoftmaxWithLoss")
    assert len(loss.loss_param.class_weight) == 11
    assert (min(loss.loss_param.class_weight), max(loss.loss_param.class_weight)) == pytest.approx((0.1417, 9.6446))
    found, network = solver("deconvnet"), shipped("deconvnet", "train_val")
    assert (found.max_iter, found.stepsize, found.iter_size) == (40_000, 10_000, 8)
    assert found.base_lr == pytest.approx(0.01)
    data = network.layer[0].segmentation_data_param
    assert (data.batch_size, data.crop_height, data.crop_width, data.mirror) == (8, 224, 224, True)


def test_deconvnets_crops(tmp_path: Path) -> None:
    data = write_dataset_json(
        tmp_path / "data", splits={name: {"count": 2, "sha256": ""} for name in ("train", "test")}
    )
    for crop in ((240, 320), (96, 96)):
        with pytest.raises(UserError, match="deconvnet learns from crops of 32 N pixels, at least 224: 224 x "):
            write("deconvnet", data, tmp_path / "net", crop=crop)
    write("deconvnet", data, tmp_path / "net", crop=(224, 320))
    assert read(tmp_path / "net/solver.prototxt", caffe_pb2.SolverParameter()).iter_size == 8


# ------------------------------------------------------------------------------------------- multi-scale ConvNet


def test_the_scales_share_their_weights(tmp_path: Path) -> None:
    model = MODELS["multi_scale_convnet"]
    network = build(deploy_text(model, "net", 5, model.options((24, 32))), tmp_path)
    for number, shape in ((1, (16, 3, 7, 7)), (2, (64, 16, 7, 7)), (3, (256, 64, 7, 7))):
        blobs = [network.params[f"conv{number}_{scale}"] for scale in ("full", "half", "quarter")]
        assert {tuple(each[0].shape) for each in blobs} == {shape}
        blobs[0][0].data[...] = 3
        assert all(np.all(each[0].data == 3) for each in blobs)


def test_the_image_is_normalised_locally_in_yuv(tmp_path: Path) -> None:
    model = MODELS["multi_scale_convnet"]
    network = build(deploy_text(model, "net", 5, model.options((40, 48))), tmp_path)
    random = np.random.default_rng(0)
    image = random.uniform(-100, 100, (1, 3, 40, 48))
    network.blobs["data"].data[...] = image
    network.forward()
    blue, green, red = image[0]
    luma = 0.114 * blue + 0.587 * green + 0.299 * red
    yuv = np.stack([luma, 0.492 * (blue - luma), 0.877 * (red - luma)])
    assert np.allclose(network.blobs["yuv_full"].data[0], yuv, atol=1e-3)
    halves = yuv.reshape(3, 20, 2, 24, 2).mean(axis=(2, 4))
    assert np.allclose(network.blobs["yuv_half"].data[0], halves, atol=1e-3)

    def means(maps: np.ndarray) -> np.ndarray:
        padded = np.pad(maps, ((0, 0), (7, 7), (7, 7)))
        return np.lib.stride_tricks.sliding_window_view(padded, (15, 15), axis=(1, 2)).mean(axis=(3, 4))

    detail = yuv - means(yuv)
    expected = detail / np.sqrt(1 + means(detail**2))
    assert np.allclose(network.blobs["normal_full"].data[0], expected, atol=1e-3)
    assert network.blobs["features"].data.shape[1:] == (768, 10, 12)
