"""tools/export_onnx.py: whole networks in onnxruntime and OpenVINO, what the file says, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import caffe
import numpy as np
import onnx
import pytest
from caffe import layers as L
from caffe import params as P
from onnx_engines import Engines, compare
from segmentation_helpers import CLASSES, PALETTE, call_tool, only_line, write_dataset_json, write_weights

from renet.common.errors import UserError
from renet.exchange import onnx_export
from renet.exchange.onnx_export import OnnxExport, perform
from renet.networks.deploy_network import DeployOptions

REPOSITORY = Path(__file__).resolve().parents[2]
SIZES = [(1, 33, 40), (2, 24, 31), (1, 49, 26)]
# Of networks that do not take all sizes.
FITTING = {"segnet": [(1, 360, 480)], "deconvnet": [(1, 224, 224), (2, 224, 256)]}
MODELS = sorted({file.parent.parent.name for file in (REPOSITORY / "prototxt").glob("*/*/deploy.prototxt")})


def runs(sizes: list[tuple[int, int, int]] = SIZES, name: str = "data") -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(5)
    return [{name: random.normal(0, 3, (n, 3, h, w)).astype(np.float32)} for n, h, w in sizes]


def deploy_of(model: str) -> Path:
    return next((REPOSITORY / "prototxt" / model).glob("*/deploy.prototxt"))


@pytest.mark.parametrize("model", [model for model in MODELS if model not in ("conv_small_crf", "crf_as_rnn")])
def test_shipped_network_made_narrow(model: str, engines: Engines, tmp_path: Path) -> None:
    narrow = re.sub(
        r"num_output: (\d+)", lambda found: f"num_output: {max(int(found[1]) // 16, 9)}", deploy_of(model).read_text()
    )
    file = tmp_path / "deploy.prototxt"
    file.write_text(narrow)
    compare(engines, file, tmp_path, runs(FITTING.get(model, SIZES)))


def test_shipped_network_at_its_width(engines: Engines, tmp_path: Path) -> None:
    compare(engines, deploy_of("h_renet_bn_mlfb"), tmp_path, runs([(1, 33, 40), (2, 8, 17), (1, 9, 8)]))


def alexnet(data: L) -> L:
    conv1 = L.Convolution(data, num_output=8, kernel_size=5, stride=2)
    norm1 = L.LRN(L.ReLU(conv1, in_place=True), local_size=5, alpha=1e-2, beta=0.75)
    pool1 = L.Pooling(norm1, kernel_size=3, stride=2, pool=P.Pooling.MAX)
    conv2 = L.Convolution(pool1, num_output=8, kernel_size=3, pad=1, group=2)
    fc6 = L.InnerProduct(L.ReLU(conv2, in_place=True), num_output=12)
    return L.Softmax(L.InnerProduct(L.Dropout(L.ReLU(fc6, in_place=True), in_place=True), num_output=5))


def fire(data: L) -> L:
    squeezed = L.ReLU(L.Convolution(data, num_output=4, kernel_size=1), in_place=True)
    one = L.ReLU(L.Convolution(squeezed, num_output=6, kernel_size=1), in_place=True)
    three = L.ReLU(L.Convolution(squeezed, num_output=6, kernel_size=3, pad=1), in_place=True)
    return L.Concat(one, three)


def squeezenet(data: L) -> L:
    conv1 = L.ReLU(L.Convolution(data, num_output=8, kernel_size=3, stride=2), in_place=True)
    pool = L.Pooling(fire(conv1), kernel_size=3, stride=2, pool=P.Pooling.MAX)
    conv10 = L.ReLU(L.Convolution(L.Dropout(fire(pool), in_place=True), num_output=5, kernel_size=1), in_place=True)
    return L.Softmax(L.Pooling(conv10, pool=P.Pooling.AVE, global_pooling=True))


def normalised(data: L, **convolution: int) -> L:
    conv = L.Convolution(data, bias_term=False, **convolution)
    return L.Scale(L.BatchNorm(conv, in_place=True), bias_term=True, in_place=True)


def resnet(data: L) -> L:
    conv1 = L.ReLU(normalised(data, num_output=8, kernel_size=7, stride=2, pad=3), in_place=True)
    pool1 = L.Pooling(conv1, kernel_size=3, stride=2, pool=P.Pooling.MAX)
    short = normalised(pool1, num_output=12, kernel_size=1, stride=2)
    branch = L.ReLU(normalised(pool1, num_output=4, kernel_size=1, stride=2), in_place=True)
    branch = L.ReLU(normalised(branch, num_output=4, kernel_size=3, pad=1), in_place=True)
    total = L.ReLU(L.Eltwise(short, normalised(branch, num_output=12, kernel_size=1)), in_place=True)
    pooled = L.Pooling(total, pool=P.Pooling.AVE, global_pooling=True)
    return L.Softmax(L.InnerProduct(pooled, num_output=5))


def mobilenet(data: L) -> L:
    conv1 = L.ReLU(normalised(data, num_output=8, kernel_size=3, stride=2, pad=1), in_place=True)
    depthwise = L.ReLU(normalised(conv1, num_output=8, kernel_size=3, pad=1, group=8), in_place=True)
    # A bottleneck of version 2
    wide = L.ReLU(normalised(depthwise, num_output=16, kernel_size=1), in_place=True)
    wide = L.ReLU(normalised(wide, num_output=16, kernel_size=3, pad=1, group=16), in_place=True)
    total = L.Eltwise(depthwise, normalised(wide, num_output=8, kernel_size=1))
    pooled = L.Pooling(total, pool=P.Pooling.AVE, global_pooling=True)
    return L.Softmax(L.Convolution(pooled, num_output=5, kernel_size=1))


def fcn8s(data: L) -> L:
    conv1 = L.ReLU(L.Convolution(data, num_output=6, kernel_size=3, pad=100), in_place=True)
    pool3 = L.Pooling(conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    pool4 = L.Pooling(L.Convolution(pool3, num_output=6, kernel_size=3, pad=1), kernel_size=2, stride=2)
    fc7 = L.ReLU(L.Convolution(L.Pooling(pool4, kernel_size=2, stride=2), num_output=8, kernel_size=7), in_place=True)
    score = L.Convolution(L.Dropout(fc7, in_place=True), num_output=5, kernel_size=1)
    up = {"num_output": 5, "bias_term": False}
    upscore2 = L.Deconvolution(score, convolution_param={**up, "kernel_size": 4, "stride": 2})
    of_pool4 = L.Crop(L.Convolution(pool4, num_output=5, kernel_size=1), upscore2, axis=2, offset=5)
    upscore4 = L.Deconvolution(
        L.Eltwise(upscore2, of_pool4), convolution_param={**up, "kernel_size": 4, "stride": 2, "group": 5}
    )
    of_pool3 = L.Crop(L.Convolution(pool3, num_output=5, kernel_size=1), upscore4, axis=2, offset=9)
    upscore8 = L.Deconvolution(L.Eltwise(upscore4, of_pool3), convolution_param={**up, "kernel_size": 4, "stride": 2})
    return L.Softmax(L.Crop(upscore8, data, axis=2, offset=31))


def mtcnn(data: L) -> L:
    conv1 = L.PReLU(L.Convolution(data, num_output=6, kernel_size=3), in_place=True)
    pool1 = L.Pooling(conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    conv3 = L.PReLU(L.Convolution(pool1, num_output=8, kernel_size=3), in_place=True)
    return L.Concat(
        L.Softmax(L.Convolution(conv3, num_output=2, kernel_size=1)), L.Convolution(conv3, num_output=4, kernel_size=1)
    )


@pytest.mark.parametrize("build", [alexnet, squeezenet, resnet, mobilenet, fcn8s, mtcnn])
def test_network_of_the_zoos_kind(build: object, engines: Engines, tmp_path: Path) -> None:
    network = caffe.NetSpec()
    network.data = L.Input(input_param={"shape": {"dim": [1, 3, 33, 40]}})
    network.prob = build(network.data)  # type: ignore[operator]
    file = tmp_path / "deploy.prototxt"
    file.write_text(str(network.to_proto()))
    compare(engines, file, tmp_path, runs([(n, 33, 40) for n in (1, 2, 3)] if build is alexnet else SIZES))


def test_several_inputs_and_outputs(engines: Engines, tmp_path: Path) -> None:
    file = tmp_path / "deploy.prototxt"
    file.write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 8 } input: "gate" input_shape { dim: 1 dim: 2 } '
        'layer { name: "c" bottom: "data" top: "c" type: "Convolution" convolution_param { num_output: 4 '
        'kernel_size: 3 } } layer { name: "g" bottom: "gate" top: "g" type: "InnerProduct" '
        'inner_product_param { num_output: 4 } } layer { name: "s" bottom: "c" bottom: "g" top: "s" type: "Scale" '
        'scale_param { axis: 0 } } layer { name: "a" bottom: "s" top: "a" type: "Sigmoid" } '
        'layer { name: "b" bottom: "s" top: "b" type: "TanH" }'
    )
    gates = np.random.default_rng(1).normal(size=(2, 2)).astype(np.float32)
    given = [run | {"gate": gates[:n]} for run, n in zip(runs([(1, 9, 8), (2, 7, 11)]), (1, 2), strict=True)]
    compare(engines, file, tmp_path, given, options=DeployOptions("data"))


TRANSFORM = "transform_param { mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.02 }"
DEPLOY = f"""
name: "tiny"
layer {{ name: "data" type: "Input" top: "data" {TRANSFORM} input_param {{ shape {{ dim: 1 dim: 3 dim: 6 dim: 5 }} }} }}
layer {{ name: "classify" type: "Convolution" bottom: "data" top: "scores"
         convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 }} }}
"""
SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }'
CRF = 'layer { name: "prob" type: "DenseCRF" bottom: "scores" bottom: "data" top: "prob" dense_crf_param { pos_w: 2 } }'


def tiny(folder: Path, end: str = SOFTMAX) -> tuple[Path, Path]:
    """A network's prototxt and weights."""
    model = folder / "deploy.prototxt"
    model.write_text(DEPLOY + end)
    random = np.random.default_rng(0)
    blobs = [random.normal(size=(3, 3, 3, 3)), random.normal(size=3)]
    return model, write_weights(folder / "net.caffemodel", {"classify": blobs})


def export(folder: Path, *more: object, end: str = SOFTMAX) -> tuple[dict[str, object], onnx.ModelProto, str]:
    """The metadata, the file, and what the command says."""
    model, weights = tiny(folder, end)
    command = ("--model", model, "--weights", weights, "--out", "net.onnx", *more)
    done = call_tool("export_onnx.py", *command, cwd=folder)
    assert done.returncode == 0, done.stderr
    network = onnx.load(folder / "net.onnx")
    onnx.checker.check_model(network, full_check=True)
    return {each.key: json.loads(each.value) for each in network.metadata_props}, network, done.stdout


def test_metadata_and_open_sizes(tmp_path: Path) -> None:
    metadata, network, said = export(tmp_path, "--dataset", write_dataset_json(tmp_path / "data"))
    assert metadata == {
        "input": "data",
        "output": "prob",
        "mean": [10, 20, 30],
        "scale": pytest.approx(0.02),
        "channel_order": "BGR",
        "dataset": "three_things",
        "classes": CLASSES,
        "palette": PALETTE,
        "ignore_label": 255,
    }
    (given,) = network.graph.input
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == [
        *("batch", 3, "height", "width")
    ]
    assert [each.name for each in network.graph.output] == ["prob"]
    assert "data (batch x 3 x height x width) to prob (batch x 3 x ? x ?)" in said
    assert "not known" not in said


def test_mean_and_classes_that_nobody_says_are_told(tmp_path: Path) -> None:
    model, weights = tiny(tmp_path)
    model.write_text(model.read_text().replace(TRANSFORM, ""))
    done = call_tool("export_onnx.py", "--model", model, "--weights", weights, "--out", "n.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--mean" in done.stdout
    assert "--dataset" in done.stdout


def test_crf_is_left_out_by_until(engines: Engines, tmp_path: Path) -> None:
    metadata, network, said = export(tmp_path, "--until", "classify", end=CRF)
    assert [each.name for each in network.graph.output] == ["scores"]
    (left_out,) = metadata["left_out"]  # type: ignore[misc]
    assert "pos_w: 2" in left_out
    assert 'left out: "prob" (DenseCRF)' in said
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), str(tmp_path / "net.caffemodel"), caffe.TEST)
    (run,) = runs([(1, 6, 5)])
    net.blobs["data"].data[...] = run["data"]
    net.forward()
    for found in engines.run(tmp_path / "net.onnx", [run]).values():
        np.testing.assert_allclose(found[0]["scores"], net.blobs["scores"].data, atol=1e-4)


def test_until_keeps_what_the_layer_needs_alone(tmp_path: Path) -> None:
    more = 'layer { name: "other" type: "TanH" bottom: "scores" top: "other" }' + SOFTMAX
    _, network, _ = export(tmp_path, "--until", "prob", end=more)
    assert [each.name for each in network.graph.output] == ["prob"]
    assert "Tanh" not in [node.op_type for node in network.graph.node]


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (CRF, r'the layer "prob" \(DenseCRF\) has no ONNX form: .*--crf.*; --until classify leaves it out'),
        (
            'layer { name: "mine" type: "Python" bottom: "scores" top: "prob" '
            'python_param { module: "m" layer: "M" } }',
            r'the layer "mine" \(Python\) has no ONNX form: .*--until classify',
        ),
        (
            'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "data" top: "loss" }',
            r'"loss" \(SoftmaxWithLoss\) .*belongs to a training',
        ),
        (
            'layer { name: "s" type: "SPP" bottom: "scores" top: "prob" spp_param { pyramid_height: 2 } }',
            r'"s" \(SPP\) has no ONNX form: known are AbsVal, .*Threshold',
        ),
        (
            'layer { name: "p" type: "Pooling" bottom: "scores" top: "p" top: "mask" '
            "pooling_param { kernel_size: 2 stride: 3 } }",
            r'"p" \(Pooling\) has no ONNX form: its second top, the mask, has one only where stride is at most',
        ),
        (
            'layer { name: "c" type: "Convolution" bottom: "scores" top: "c" '
            "convolution_param { num_output: 2 kernel_size: 1 axis: 2 } }",
            r'"c" \(Convolution\) has no ONNX form: axis: 2',
        ),
        (
            'layer { name: "n" type: "BatchNorm" bottom: "scores" top: "n" '
            "batch_norm_param { use_global_stats: false } }",
            r'"n" \(BatchNorm\) has no ONNX form: use_global_stats',
        ),
    ],
    ids=str,
)
def test_what_has_no_onnx_form_is_named(end: str, message: str, tmp_path: Path) -> None:
    model, weights = tiny(tmp_path, end)
    with pytest.raises(UserError, match=message):
        list(perform(OnnxExport(model, weights, tmp_path / "net.onnx", allow_missing=True)))
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("end", "words", "message"),
    [
        (SOFTMAX, ("--until", "nothing"), 'has no layer "nothing" to end with'),
        (SOFTMAX, ("--output-blob", "scores"), r'has no output "scores" \(it has: prob\)'),
        (SOFTMAX, ("--out", "nowhere/net.onnx"), "there is no folder nowhere"),
        (SOFTMAX, ("--out", "."), "is a folder"),
        (SOFTMAX, ("--dataset", "none"), "none"),
        ('layer { name: "prob" type: "Softmax" bottom: "no" top: "prob" }', (), "Caffe cannot make this network"),
    ],
    ids=["until", "output", "folder", "no file", "dataset", "network"],
)
def test_bad_input_is_told_in_a_line(end: str, words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    model, weights = tiny(tmp_path, end)
    command = ("--model", model, "--weights", weights, "--out", "net.onnx", *words)
    line = only_line(call_tool("export_onnx.py", *command, cwd=tmp_path), "export_onnx.py")
    assert re.search(message, line), line
    assert not list(tmp_path.glob("*.onnx"))


def test_weights_beyond_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = tiny(tmp_path)
    monkeypatch.setattr(onnx_export, "LARGEST", 100)
    with pytest.raises(UserError, match="2 GB at most"):
        list(perform(OnnxExport(model, weights, tmp_path / "net.onnx")))
