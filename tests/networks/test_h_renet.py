"""FCN, H-ReNet and their variants: the written files against the paper's tables, and the networks in pycaffe."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.data.dataset import Dataset, SplitSummary
from renet.networks.analysis import WHOLE_IMAGE, receptive_fields, without_data
from renet.networks.files import deploy_text
from renet.networks.h_renet import UNITS, VARIANTS
from renet.networks.models import H_RENETS, MODELS
from renet.networks.recurrent_group import GRU, IRNN, group_parameters, units_of_equal_size
from renet.networks.spec import Options

# Table 2: type, (kernel, stride, dilation) or (kernel, stride), channels, activation.
TABLE_2 = {
    "conv1": ("conv x2", "3,1,1", 64, "ReLU"),
    "pool1": ("max", "2,2", 64, "idn"),
    "conv2": ("conv x2", "3,1,1", 128, "ReLU"),
    "pool2": ("max", "2,2", 128, "idn"),
    "conv3": ("conv x3", "3,1,1", 256, "ReLU"),
    "pool3": ("max", "2,2", 256, "idn"),
    "conv4": ("conv x3", "3,1,1", 512, "ReLU"),
    "pool4": ("max", "3,1", 512, "idn"),
    "conv5": ("conv x3", "3,1,2", 512, "ReLU"),
    "pool5": ("max", "3,1", 512, "idn"),
    "conv6": ("conv", "3,1,12", 1024, "ReLU"),
    "conv7": ("conv", "3,1,1", 1024, "ReLU"),
    "conv8": ("conv", "1,1,1", 21, "idn"),
    "upsample": ("upsample", "8x", 21, "softmax"),
}


def network(repository: Path, model: str, file: str = "deploy.prototxt", data: str = "voc2012") -> object:
    return parsed((repository / "prototxt" / model / data / file).read_text())


def parsed(text: str) -> object:
    return text_format.Parse(text, caffe_pb2.NetParameter())


def solver(repository: Path, name: str) -> object:
    return text_format.Parse((repository / "solvers" / f"{name}.prototxt").read_text(), caffe_pb2.SolverParameter())


def deploy(model: str, classes: int = 5, **options: object) -> object:
    return parsed(deploy_text(MODELS[model], model, classes, Options((64, 64), 1, **options)))


def build(description: object, tmp_path: Path, phase: int = caffe.TEST) -> caffe.Net:
    file = tmp_path / "net.prototxt"
    file.write_text(text_format.MessageToString(description))
    return caffe.Net(str(file), phase)


def generate(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "prototxt/generate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset.json of five classes; the generator needs no images."""
    folder = tmp_path_factory.mktemp("data") / "five"
    folder.mkdir()
    splits = {name: SplitSummary(9, "0") for name in ("trainaug", "val", "test")}
    Dataset("five", tuple("abcde"), np.zeros((5, 3), np.uint8), (1.0, 2.0, 3.0), 255, splits, folder).save()
    return folder


# ----------------------------------------------------------------------------------------- the paper's tables


def written_rows(description: object) -> dict[str, tuple[str, str, int, str]]:
    """Table 2 as the file has it; convolutions of one group become one row."""
    rows: dict[str, tuple[str, str, int, str]] = {}
    channels: dict[str, int] = {"data": 3}
    relus = {layer.bottom[0] for layer in description.layer if layer.type == "ReLU"}
    for layer in description.layer:
        if layer.type == "Convolution":
            found = layer.convolution_param
            channels[layer.top[0]] = found.num_output
            side = [values[0] if values else 1 for values in (found.kernel_size, found.stride, found.dilation)]
            activation = "ReLU" if layer.top[0] in relus else "idn"
            name = layer.name.split("_")[0]
            count = int(rows[name][0].partition("x")[2] or 1) + 1 if name in rows else 1
            row = ("conv" if count == 1 else f"conv x{count}", ",".join(map(str, side)), found.num_output, activation)
            assert name not in rows or rows[name][1:] == row[1:], "a group's convolutions are alike"
            rows[name] = row
        elif layer.type == "Pooling":
            found = layer.pooling_param
            assert found.pool == caffe_pb2.PoolingParameter.MAX
            channels[layer.top[0]] = channels[layer.bottom[0]]
            rows[layer.name] = ("max", f"{found.kernel_size},{found.stride}", channels[layer.top[0]], "idn")
        elif layer.top:
            channels.setdefault(layer.top[0], channels.get(layer.bottom[0], 3) if layer.bottom else 3)
    return rows


def test_fcn_is_table_2(repository: Path) -> None:
    description = network(repository, "fcn")
    rows = written_rows(description)
    assert rows == {name: row for name, row in TABLE_2.items() if name != "upsample"}
    assert [layer.type for layer in description.layer][-2:] == ["BilinearInterpolation", "Softmax"]
    view = receptive_fields(description)
    assert view["conv8"].jump == 8  # so the upsampling is by 8
    assert view["upsample"].jump == 1


def test_table_2_is_the_papers(repository: Path) -> None:
    file = repository.parent / "shared/paper/tables.json"
    if not file.is_file():
        pytest.skip(f"{file}: the paper's tables are not there")
    table = json.loads(file.read_text())["table2_baseline_fcn"]
    configuration = next(table[key] for key in table if key.startswith("config"))
    columns = zip(table["layers"], table["type"], configuration, table["channels"], table["activation"])
    assert {name: row for name, *row in columns} == {name: list(row) for name, row in TABLE_2.items()}


def test_h_renet_is_table_3(repository: Path) -> None:
    fcn, hybrid = network(repository, "fcn"), network(repository, "h_renet")
    layers = list(hybrid.layer)
    at = next(i for i, layer in enumerate(layers) if layer.type == "ReNetLSTM")
    sweeps, rest = layers[at : at + 2], layers[at + 2 :]
    before = list(fcn.layer)
    assert layers[:at] == before[:at]  # conv1 to conv7
    assert layers[at - 1].name == "relu7"
    vertical, horizontal = (sweep.renet_param for sweep in sweeps)
    assert (sweeps[0].bottom[0], sweeps[1].bottom[0]) == ("conv7", "renet1_vertical")
    assert (vertical.direction, horizontal.direction) == (0, 1)
    for sweep in (vertical, horizontal):
        assert 2 * sweep.num_output == 240
        assert (sweep.patch_height, sweep.patch_width) == (1, 1)
        assert (sweep.weight_filler.type, sweep.weight_filler.min) == ("uniform", pytest.approx(-0.2))
        assert sweep.weight_filler.max == pytest.approx(0.2)
    assert [layer.name for layer in rest] == ["conv8", "upsample", "prob"]
    assert rest[0].bottom[0] == "renet1_horizontal"
    assert rest[0].convolution_param == before[at].convolution_param


def test_receptive_fields(repository: Path) -> None:
    """Table 2's is 428 pixels; the text's 604 needs a dilated conv7; a recurrent group sees everything."""
    assert receptive_fields(network(repository, "fcn"))["conv8"].size == 428
    assert receptive_fields(network(repository, "fcn_rf604"))["conv8"].size == 604
    for model in ("fcn_deeper", "fcn_deeper_bn"):
        assert receptive_fields(network(repository, model))["conv8"].size == 444
    for model in VARIANTS:
        assert receptive_fields(network(repository, model))["conv8"].size == WHOLE_IMAGE
    assert receptive_fields(network(repository, "h_renet"))["conv7"].size == 428


def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    return (inputs * kernel**2 + 1) * outputs


VGG_PARAMETERS = {
    1: conv(3, 64) + conv(64, 64),
    2: conv(64, 128) + conv(128, 128),
    3: conv(128, 256) + 2 * conv(256, 256),
    4: conv(256, 512) + 2 * conv(512, 512),
    5: 3 * conv(512, 512),
}


def expected_parameters(model: str, classes: int) -> int:
    """By hand; BatchNorm keeps mean, variance and a count, Scale a factor and an offset."""
    vgg = sum(VGG_PARAMETERS.values())
    head = conv(512, 1024) + conv(1024, 1024)
    if model in ("fcn", "fcn_rf604"):
        return vgg + head + conv(1024, classes, 1)
    if model == "fcn_deeper":
        return vgg + head + conv(1024, 157) + conv(157, classes, 1)
    if model == "fcn_deeper_bn":
        return expected_parameters("fcn_deeper", classes) + 4 * 1024 + 1

    def group(channels: int, d: int, gates: int = 4) -> int:
        return 2 * gates * d * (channels + d + 1) + 2 * gates * d * (2 * d + d + 1)

    def norm(*channels: int) -> int:
        return sum(2 * c + 1 + 2 * c for c in channels)

    lstm = conv(240, classes, 1)
    return {
        "h_renet": vgg + head + group(1024, 120) + lstm,
        "h_renet_bn": vgg + head + norm(1024) + group(1024, 120) + lstm,
        "h_renet_bn_mlfb": vgg + head + norm(512, 512, 1024) + group(2048, 120) + lstm,
        "h_renet_l2_mlfb": vgg + head + group(2048, 120) + lstm,
        "h_renet_bn_irnn": vgg + head + norm(1024) + group(1024, 316, 1) + conv(632, classes, 1),
        "h_renet_bn_gru": vgg + head + norm(1024) + group(1024, 149, 3) + conv(298, classes, 1),
        "h_renet_bn_from_pool4": vgg - VGG_PARAMETERS[5] + norm(512) + group(512, 120) + lstm,
        "h_renet_bn_from_pool5": vgg + norm(512) + group(512, 120) + lstm,
        "h_renet_bn_conv7_pool5": vgg + head + norm(512, 1024) + group(1536, 120) + lstm,
        "h_renet_released": vgg
        + conv(512, 1024)
        + conv(1024, 1024, 1)
        + sum(2 * c + 1 for c in (512, 512, 1024))
        + group(2048, 160)
        + conv(320, classes, 1),
    }[model]


@pytest.mark.parametrize("model", H_RENETS)
def test_parameters_and_odd_sizes(tmp_path: Path, model: str) -> None:
    built = build(deploy(model, classes=7), tmp_path)
    assert sum(blob.count for blobs in built.params.values() for blob in blobs) == expected_parameters(model, 7)
    for size in ((1, 3, 41, 59), (2, 3, 16, 9)):
        built.blobs["data"].reshape(*size)
        built.blobs["data"].data[...] = np.random.default_rng(0).uniform(-100, 100, size)
        prob = built.forward()["prob"]
        assert prob.shape == (size[0], 7, *size[2:])
        assert built.blobs["conv8"].data.shape[2:] == tuple(math.ceil(side / 8) for side in size[2:])
        assert np.allclose(prob.sum(axis=1), 1, atol=1e-5)


def test_other_units_keep_the_number_of_parameters() -> None:
    assert group_parameters(1024, UNITS) == 1_445_760
    for unit, expected in ((IRNN, 316), (GRU, 149)):
        d = units_of_equal_size(1024, UNITS, unit.gates)
        assert d == expected
        nearest = min((abs(group_parameters(1024, x, 1, unit.gates) - 1_445_760), x) for x in range(1, 1000))
        assert nearest[1] == d
    assert "d = 316" in VARIANTS["h_renet_bn_irnn"].group_text()
    assert "1,445,760" in VARIANTS["h_renet_bn_irnn"].group_text()


def test_the_deeper_fcn_is_as_large_as_h_renet() -> None:
    names = ("fcn", "fcn_deeper", "h_renet", "fcn_deeper_bn", "h_renet_bn")
    assert {name: expected_parameters(name, 21) for name in names} == {
        "fcn": 28_894_037,
        **{"fcn_deeper": 30_322_899, "h_renet": 30_323_333},
        **{"fcn_deeper_bn": 30_326_996, "h_renet_bn": 30_327_430},
    }
    sizes = {channels: conv(1024, channels) for channels in range(1, 400)}
    assert min(sizes, key=lambda channels: abs(sizes[channels] - 1_445_760)) == 157


@pytest.mark.parametrize(
    ("model", "inputs", "normalised", "unit"),
    [
        ("h_renet", ["conv7"], [], "ReNetLSTM"),
        ("h_renet_bn", ["conv7"], ["BatchNorm", "Scale"], "ReNetLSTM"),
        ("h_renet_bn_mlfb", ["pool4", "pool5", "conv7"], ["BatchNorm", "Scale"], "ReNetLSTM"),
        ("h_renet_l2_mlfb", ["pool4", "pool5", "conv7"], ["L2Normalization"], "ReNetLSTM"),
        ("h_renet_bn_irnn", ["conv7"], ["BatchNorm", "Scale"], "ReNetIRNN"),
        ("h_renet_bn_gru", ["conv7"], ["BatchNorm", "Scale"], "ReNetGRU"),
        ("h_renet_bn_from_pool4", ["pool4"], ["BatchNorm", "Scale"], "ReNetLSTM"),
        ("h_renet_bn_from_pool5", ["pool5"], ["BatchNorm", "Scale"], "ReNetLSTM"),
        ("h_renet_bn_conv7_pool5", ["pool5", "conv7"], ["BatchNorm", "Scale"], "ReNetLSTM"),
        ("h_renet_released", ["pool4", "pool5", "conv7"], ["BatchNorm", "ReLU"], "ReNetLSTM"),
    ],
)
def test_what_the_group_sees(repository: Path, model: str, inputs: list[str], normalised: list[str], unit: str) -> None:
    """Tables 4 and 5, Figure 3: each input normalised, then joined."""
    layers = list(network(repository, model).layer)
    start = next(i for i, layer in enumerate(layers) if layer.type == unit)
    tops = [layers[start].bottom[0]]
    if len(inputs) > 1:
        concat = next(layer for layer in layers if layer.type == "Concat")
        assert list(concat.top) == tops
        tops = list(concat.bottom)
    for top, expected in zip(tops, inputs, strict=True):
        chain, name = [], top
        while name != expected:
            layer = next(each for each in reversed(layers) if name in each.top and each.type not in chain)
            chain.insert(0, layer.type)
            name = layer.bottom[0] if layer.bottom[0] != name else name
            if layer.bottom[0] == layer.top[0]:  # in place: its own producer comes next
                continue
        assert chain == normalised
    has = {layer.name for layer in layers}
    assert ("conv7" in has) == ("conv7" in inputs)
    assert ("conv5_1" in has) == (inputs != ["pool4"])


def test_released_network(repository: Path) -> None:
    layers = {layer.name: layer for layer in network(repository, "h_renet_released").layer}
    assert layers["renet1_vertical"].renet_param.num_output == 160
    assert layers["renet1_vertical"].renet_param.forget_bias == 2
    assert list(layers["conv7"].convolution_param.kernel_size) == [1]
    assert layers["conv6"].convolution_param.weight_filler.std == pytest.approx(0.01)
    assert layers["conv8"].convolution_param.weight_filler.std == pytest.approx(0.1)
    crf = network(repository, "h_renet_released", "deploy_crf.prototxt").layer[-1].dense_crf_param
    assert crf.max_iter == 5


def test_released_network_has_the_authors_activations_and_rates(repository: Path) -> None:
    """No ReLU before pool5 and before conv7's normalisation, Dropout after conv6, new layers at 10 and 20."""
    layers = list(network(repository, "h_renet_released", "train_val.prototxt").layer)
    for top, expected in {
        "conv5_2": ["Convolution", "ReLU"],
        "conv5_3": ["Convolution"],
        "conv6": ["Convolution", "ReLU", "Dropout"],
        "conv7": ["Convolution"],
        "conv7_bn": ["BatchNorm", "ReLU"],
    }.items():
        assert [layer.type for layer in layers if list(layer.top) == [top]] == expected
    assert next(layer for layer in layers if layer.type == "Dropout").dropout_param.dropout_ratio == 0.5
    rates = {layer.name: [(param.lr_mult, param.decay_mult) for param in layer.param] for layer in layers}
    for name in ("conv6", "conv7", "conv8"):
        assert rates[name] == [(10, 1), (20, 0)]
    for name in ("renet1_vertical", "renet1_horizontal"):
        assert rates[name] == [(10, 1), (20, 0), (10, 1)] * 2
    assert rates["conv5_3"] == [(1, 1), (2, 0)]


def test_the_new_rate_gives_the_group_biases_twice_as_much(repository: Path, dataset: Path, tmp_path: Path) -> None:
    for model, rate, expected in (
        ("h_renet_bn", None, []),
        ("h_renet_bn", 4, [(4, 1), (8, 0), (4, 1)] * 2),
        ("h_renet_released", 1, []),
    ):
        out = tmp_path / f"{model}_{rate}"
        asked = () if rate is None else ("--new-rate", rate)
        done = generate(repository, "--model", model, "--dataset", dataset, "--out", out, *asked)
        assert done.returncode == 0, done.stderr
        group = next(
            layer for layer in parsed((out / "train_val.prototxt").read_text()).layer if layer.type == "ReNetLSTM"
        )
        assert [(param.lr_mult, param.decay_mult) for param in group.param] == expected


@pytest.mark.parametrize("model", ["fcn", "h_renet_bn", "h_renet_bn_mlfb"])
def test_table_4_with_the_crf(repository: Path, model: str) -> None:
    last = network(repository, model, "deploy_crf.prototxt").layer[-1]
    crf = last.dense_crf_param
    assert (last.type, list(last.top)) == ("DenseCRF", ["prob"])
    assert (crf.max_iter, crf.pos_w, crf.pos_xy_std) == (2, 3, 3)
    assert (crf.bi_w, crf.bi_xy_std, crf.bi_rgb_std) == (5, 80, 3)
    assert (list(crf.mean_value), crf.scale) == ([104, 117, 123], 1)


# --------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("name", "iterations", "step"),
    [
        ("fcn_voc2012", 12_000, 6_000),
        ("h_renet_voc2012", 30_000, 15_000),
        ("h_renet_bn_voc2012", 30_000, 15_000),
        ("h_renet_bn_mlfb_voc2012", 40_000, 20_000),
        ("h_renet_bn_mlfb_coco_voc2012", 120_000, 50_000),
        ("h_renet_bn_mlfb_voc2012_after_coco", 30_000, 15_000),
    ],
)
def test_schedules(repository: Path, name: str, iterations: int, step: int) -> None:
    found = solver(repository, name)
    assert (found.max_iter, found.stepsize, found.lr_policy) == (iterations, step, "step")
    assert [found.base_lr, found.gamma, found.momentum, found.weight_decay] == pytest.approx([0.001, 0.1, 0.9, 5e-4])


def test_coco_comes_first(repository: Path) -> None:
    """Table 7: VOC and COCO together, then VOC alone from those weights."""
    first, second = (solver(repository, f"h_renet_bn_mlfb_{name}") for name in ("coco_voc2012", "voc2012_after_coco"))
    assert list(first.weights) == ["models/vgg16.caffemodel"]
    assert list(second.weights) == [
        "runs/h_renet_bn_mlfb_coco_voc2012/snapshots/h_renet_bn_mlfb_coco_voc2012_iter_120000.caffemodel"
    ]
    sources = {
        name: list(
            network(repository, "h_renet_bn_mlfb", "train_val.prototxt", name).layer[0].segmentation_data_param.source
        )
        for name in ("coco_voc2012", "voc2012_trainval", "voc2012")
    }
    assert sources == {
        "coco_voc2012": ["data/voc2012/trainvalaug", "data/coco/train"],
        "voc2012_trainval": ["data/voc2012/trainvalaug"],
        "voc2012": ["data/voc2012/trainaug"],
    }
    assert second.net == "prototxt/h_renet_bn_mlfb/voc2012_trainval/train_val.prototxt"


@pytest.mark.parametrize(
    ("data", "crop"), [("voc2012", (400, 500)), ("voc2012_320x400", (320, 400)), ("voc2012_256x320", (256, 320))]
)
@pytest.mark.parametrize("model", ["fcn", "h_renet_bn_mlfb"])
def test_training_sizes(repository: Path, model: str, data: str, crop: tuple[int, int]) -> None:
    train, test = (
        layer.segmentation_data_param for layer in network(repository, model, "train_val.prototxt", data).layer[:2]
    )
    assert (train.crop_height, train.crop_width, train.batch_size, train.mirror) == (*crop, 10, True)
    assert (test.crop_height, test.batch_size) == (0, 1)
    assert (list(train.mean_value), train.scale) == ([104, 117, 123], 1)


@pytest.mark.parametrize(("frozen", "first"), [(2, "conv3_1"), (4, "conv5_1"), (0, "conv1_1")])
def test_backpropagation_skips_the_frozen_layers(
    repository: Path, dataset: Path, tmp_path: Path, frozen: int, first: str
) -> None:
    """No backward pass runs below the first layer that learns: what it would write stays as it was."""
    out = tmp_path / "net"
    done = generate(repository, "--model", "fcn", "--dataset", dataset, "--frozen", frozen, "--out", out)
    assert done.returncode == 0, done.stderr
    description = parsed((out / "train_val.prototxt").read_text())
    built = build(without_data(description, caffe.TRAIN, (1, 3, 24, 32)), tmp_path, caffe.TRAIN)
    built.blobs["data"].data[...] = np.random.default_rng(0).uniform(-100, 100, (1, 3, 24, 32))
    built.forward()
    names = [name for name in built.params if name.startswith("conv")]
    stays = names[: names.index(first)]
    for blob in built.blobs.values():
        blob.diff[...] = 777
    for name in names:
        for blob in built.params[name]:
            blob.diff[...] = 0
    built.blobs["loss"].diff[...] = 1
    built.backward()
    assert len(stays) == {0: 0, 2: 4, 4: 10}[frozen]
    for name in stays:
        assert (built.blobs[name].diff == 777).all(), f"backward wrote the gradient of {name}"
        assert all(not blob.diff.any() for blob in built.params[name])
    for name in names[len(stays) :]:
        assert built.params[name][0].diff.any(), f"{name} does not learn"


def test_one_step_trains_every_variant(dataset: Path, repository: Path, tmp_path: Path) -> None:
    """All layers that are to learn get a gradient, and it is finite."""
    for model in ("h_renet_bn_mlfb", "h_renet_l2_mlfb", "h_renet_bn_irnn", "h_renet_bn_gru", "h_renet_released"):
        out = tmp_path / model
        done = generate(repository, "--model", model, "--dataset", dataset, "--out", out, "--l2-scale", 100)
        assert done.returncode == 0, done.stderr
        description = parsed((out / "train_val.prototxt").read_text())
        built = build(without_data(description, caffe.TRAIN, (2, 3, 24, 32)), tmp_path, caffe.TRAIN)
        random = np.random.default_rng(0)
        built.blobs["data"].data[...] = random.uniform(-100, 100, (2, 3, 24, 32))
        built.blobs["label"].data[...] = random.integers(0, 5, (2, 1, 24, 32))
        built.forward()
        built.backward()
        for name, blobs in built.params.items():
            if name.startswith(("conv1_", "conv2_")) or name.endswith("_bn"):
                continue
            for blob in blobs:
                assert np.isfinite(blob.diff).all() and blob.diff.any(), f"{model}: {name}"


# -------------------------------------------------------------------------------------------- the generator


def test_options_reach_the_files(repository: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    done = generate(
        repository,
        *("--model", "h_renet_l2_mlfb", "--dataset", dataset, "--crop", "120x160", "--batch", 2, "--iter-size", 5),
        *("--new-rate", 10, "--gaussian-std", 0.1, "--l2-scale", 10000, "--mean", "1,2.5,3", "--rate", 0.002),
        *("--frozen", 0, "--weights", tmp_path / "w.caffemodel", "--iterations", 100, "--interval", 30),
        *("--out", out),
    )
    assert done.returncode == 0, done.stderr
    assert "d = 120" in done.stdout and "2,428,800 parameters" in done.stdout
    layers = {layer.name: layer for layer in parsed((out / "deploy.prototxt").read_text()).layer}
    assert list(layers["data"].transform_param.mean_value) == [1, 2.5, 3]
    assert layers["pool5_l2"].l2_normalization_param.scale == 10000
    assert layers["conv6"].convolution_param.weight_filler.std == pytest.approx(0.1)
    assert [p.lr_mult for p in layers["conv6"].param] == [10, 20]
    assert [p.lr_mult for p in layers["conv1_1"].param] == [1, 2]
    assert [p.lr_mult for p in layers["renet1_vertical"].param] == [10, 20, 10] * 2
    found = text_format.Parse((out / "solver.prototxt").read_text(), caffe_pb2.SolverParameter())
    assert (found.iter_size, found.max_iter, found.stepsize) == (5, 100, 50)
    assert (found.test_interval, found.snapshot) == (30, 30)
    assert found.base_lr == pytest.approx(0.002)
    assert list(found.weights) == [str(tmp_path / "w.caffemodel")]
    train = parsed((out / "train_val.prototxt").read_text()).layer[0].segmentation_data_param
    assert (train.batch_size, list(train.source)) == (2, [str(dataset / "trainaug")])


def test_iter_size_says_what_it_means_for_batch_normalisation(repository: Path, dataset: Path, tmp_path: Path) -> None:
    for model, said in (("h_renet_bn", True), ("h_renet", False)):
        out = tmp_path / model
        assert (
            generate(
                repository, "--model", model, "--dataset", dataset, "--batch", 2, "--iter-size", 5, "--out", out
            ).returncode
            == 0
        )
        text = (out / "solver.prototxt").read_text()
        assert ("BatchNorm's mean and variance are still those of a single pass" in text) == said
    assert "no longer the paper's setting" in (repository / "solvers/h_renet_bn_voc2012.prototxt").read_text()
    assert "no longer the paper's setting" not in (repository / "solvers/fcn_voc2012.prototxt").read_text()


def test_several_training_splits(repository: Path, dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "train/images.lmdb").mkdir(parents=True)
    content = Dataset.open(dataset)
    splits = {"train": next(iter(content.splits.values()))}
    Dataset("other", content.classes, content.palette, content.mean, 255, splits, other).save()
    out = tmp_path / "net"
    arguments = ("--model", "fcn", "--dataset", dataset, "--out", out, "--train-split", "trainaug", other / "train")
    done = generate(repository, *arguments)
    assert done.returncode == 0, done.stderr
    train = parsed((out / "train_val.prototxt").read_text()).layer[0].segmentation_data_param
    assert list(train.source) == [str(dataset / "trainaug"), str(other / "train")]

    Dataset("other", ("x", *content.classes[1:]), content.palette, content.mean, 255, splits, other).save()
    done = generate(repository, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has other labels than" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frozen", "6"], "invalid choice"),
        (["--mean", "1,2"], "is not B,G,R"),
        (["--new-rate", "0"], "is not a number over 0"),
        (["--train-split", "nowhere"], "has no split nowhere"),
    ],
)
def test_bad_options_are_told_in_one_line(
    repository: Path, dataset: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = generate(repository, "--model", "fcn", "--dataset", dataset, "--out", tmp_path / "net", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert re.fullmatch(r"generate\.py: [^\n]+\n", done.stderr)


# ------------------------------------------------------------------------------------------------------ costs


def test_network_cost(repository: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "net"
    assert generate(repository, "--model", "h_renet_bn", "--dataset", dataset, "--out", out).returncode == 0
    tool = [sys.executable, str(repository / "tools/network_cost.py"), "--size", "24x32"]
    one = subprocess.run([*tool, "--model", str(out / "deploy.prototxt")], capture_output=True, text=True, timeout=120)
    assert one.returncode == 0, one.stderr
    assert re.search(r"^conv7 +Convolution +1 x 1024 x 3 x 4 +428 x 428 +9,438,208 +0\.23$", one.stdout, re.MULTILINE)
    assert re.search(r"^renet1_vertical +ReNetLSTM .* whole image +1,099,200 +0\.03$", one.stdout, re.MULTILINE)
    files = [str(out / name) for name in ("deploy.prototxt", "train_val.prototxt")]
    markdown = tmp_path / "costs.md"
    several = subprocess.run(
        [*tool, "--model", *files, "--batch", "1", "2", "--passes", "1", "--markdown", str(markdown)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert several.returncode == 0, several.stderr
    rows = [row.split(" | ") for row in markdown.read_text().splitlines()[2:]]
    assert [(row[1], row[2]) for row in rows] == [
        ("forward", "1 x 24 x 32"),
        ("forward", "2 x 24 x 32"),
        ("training step", "1 x 24 x 32"),
        ("training step", "2 x 24 x 32"),
    ]
    memory = [int(row[6].replace(",", "")) for row in rows]
    weights = expected_parameters("h_renet_bn", 5) * 4 / 2**20
    assert memory[0] >= weights
    assert memory[2] >= 2.5 * weights  # gradients and history of what learns

    broken = tmp_path / "broken.prototxt"
    broken.write_text(files and (out / "deploy.prototxt").read_text().replace('type: "Softmax"', 'type: "Sftmax"'))
    done = subprocess.run([*tool, "--model", str(broken)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Sftmax" in done.stderr.splitlines()[-1]


def cost_table(repository: Path, *arguments: object, cwd: Path) -> tuple[list[list[str]], list[str]]:
    """The rows of the layers (name, type, shape, ...), and the cells of the summary."""
    tool = [sys.executable, str(repository / "tools/network_cost.py"), "--passes", "1"]
    done = subprocess.run([*tool, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert done.returncode == 0, done.stderr
    layers, _, summary = done.stdout.partition("\n\n")
    rows = [re.split(r"  +", line.strip()) for line in layers.splitlines()[2:]]
    return rows, re.split(r"  +", summary.splitlines()[-1].strip())


TRAINED = {
    # any data layer, any loss, with a matrix in a file that is not there
    "infogain": (
        """
layer { name: "data" type: "ImageData" top: "data" top: "label"
        image_data_param { source: "lost.txt" batch_size: 3 } transform_param { crop_size: 24 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "score"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "InfogainLoss" bottom: "score" bottom: "label" top: "loss"
        infogain_loss_param { source: "lost.binaryproto" } }
""",
        "1 x 24 x 24",
        {"label": "1 x 1 x 12 x 12", "loss_matrix": "1 x 1 x 4 x 4"},
    ),
    "layers of forks": (
        """
layer { name: "data" type: "DenseImageData" top: "data" top: "label"
        dense_image_data_param { source: "lost.txt" batch_size: 3 crop_height: 24 crop_width: 20 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "score"
        convolution_param { num_output: 4 kernel_size: 3 pad: 2 hole: 2 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BN" bottom: "score" top: "score" bn_param { bn_mode: LEARN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "SegAccuracy" bottom: "score" bottom: "label" top: "accuracy" }
""",
        "1 x 24 x 20",
        {"label": "1 x 1 x 24 x 20", "conv": "1 x 4 x 24 x 20", "accuracy": "1 x 1 x 1 x 3"},
    ),
    "two heads": (
        """
layer { name: "data" type: "Python" top: "data" top: "label" python_param { module: "lost" layer: "Lost" } }
layer { name: "small" type: "Pooling" bottom: "label" top: "small" pooling_param { kernel_size: 4 stride: 4 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "aux" type: "SoftmaxWithLoss" bottom: "conv" bottom: "small" top: "aux" loss_weight: 0.4 }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up"
        convolution_param { num_output: 4 kernel_size: 8 pad: 2 stride: 4 weight_filler { type: "bilinear" } } }
layer { name: "loss" type: "HingeLoss" bottom: "up" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "up" bottom: "label" top: "accuracy" include { phase: TEST } }
""",
        "1 x 32 x 40",
        {"label": "1 x 1 x 32 x 40", "small": "1 x 1 x 8 x 10"},
    ),
    "regression": (
        """
layer { name: "data" type: "HDF5Data" top: "data" top: "target" hdf5_data_param { source: "lost" batch_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "target" top: "loss" }
""",
        "1 x 32 x 40",
        {"target": "1 x 2 x 30 x 38"},
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_any_loss_and_any_data_layer_make_a_training(repository: Path, tmp_path: Path, name: str) -> None:
    text, size, shapes = TRAINED[name]
    (tmp_path / "net.prototxt").write_text(f'name: "mine"\n{text}')
    chosen = () if name in ("infogain", "layers of forks") else ("--size", "32x40")  # the file says the crops
    layers, summary = cost_table(repository, "--model", "net.prototxt", *chosen, cwd=tmp_path)
    assert summary[1:3] == ["training step", size]
    found = {row[0]: row[2] for row in layers}
    assert {blob: found[blob] for blob in shapes} == shapes


def test_cost_of_old_and_staged_networks(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text(
        """
input: "data" input_dim: 1 input_dim: 1 input_dim: 9 input_dim: 9
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv"
         convolution_param { num_output: 4 kernel_size: 3 } }
"""
    )
    layers, summary = cost_table(repository, "--model", "old.prototxt", "--size", "16x20", cwd=tmp_path)
    assert (summary[1:3], layers[0][2]) == (["forward", "1 x 16 x 20"], "1 x 1 x 16 x 20")
    assert layers[1][:3] == ["conv", "Convolution", "1 x 4 x 14 x 18"]

    staged = tmp_path / "staged.prototxt"
    staged.write_text(
        """
layer { name: "train" type: "Data" top: "data" include { stage: "train" } data_param { source: "a" batch_size: 1 } }
layer { name: "truth" type: "Data" top: "label" include { stage: "train" } data_param { source: "b" batch_size: 1 } }
layer { name: "deploy" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" include { stage: "train" } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { stage: "deploy" } }
"""
    )
    command = ("--model", "staged.prototxt", "--size", "8x8")
    for stage, what in (("train", "training step"), ("deploy", "forward")):
        layers, summary = cost_table(repository, *command, "--stage", stage, cwd=tmp_path)
        assert summary[1] == what
        assert [row[2] for row in layers if row[0] == "ip"] == ["1 x 5"]
    tool = [sys.executable, str(repository / "tools/network_cost.py")]
    done = subprocess.run([*tool, *command], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert "layer 'ip' reads 'data', which no layer makes in this state" in done.stderr.splitlines()[-1]
    assert "--stage adds to it one of deploy, train" in done.stderr


def test_receptive_field_of_a_deconvolution() -> None:
    network = parsed(
        """
layer { type: "Convolution" bottom: "data" top: "c" convolution_param { kernel_size: 3 stride: 4 } }
layer { type: "Deconvolution" bottom: "c" top: "up" convolution_param { kernel_size: 8 stride: 4 } }
layer { type: "Convolution" bottom: "up" top: "last" convolution_param { kernel_size: 3 } }
"""
    )
    found = receptive_fields(network)
    assert (found["c"].size, found["c"].jump) == (3, 4)
    assert (found["up"].size, found["up"].jump) == (3 + 4, 1)  # a pixel lies under two positions' kernels
    assert (found["last"].size, found["last"].jump) == (9, 1)
