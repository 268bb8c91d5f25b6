"""Small networks of the kinds that people bring, in the words of their own files, imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from import_helpers import imported, write_weights

from renet.networks.model_folder import read_model_folder

RANDOM = np.random.default_rng(1)
CLASSES = 4
FILLERS = "scale_filler { type: 'constant' value: 1 } shift_filler { type: 'constant' value: 0.001 }"
Blobs = dict[str, list[np.ndarray]]


def blob(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


def channels(count: int, low: float = 0.5) -> np.ndarray:
    return RANDOM.uniform(low, low + 1, (1, count, 1, 1)).astype(np.float32)


def conv(name: str, bottom: str, outputs: int, more: str = "pad: 1 kernel_size: 3", kind: str = "Convolution") -> str:
    return (
        f'layer {{ bottom: "{bottom}" top: "{name}" name: "{name}" type: "{kind}" param {{ lr_mult: 1 }}\n'
        f"  convolution_param {{ num_output: {outputs} {more} }} }}\n"
    )


def old(kind: str, name: str, bottoms: str, top: str, more: str = "") -> str:
    read = " ".join(f"bottom: '{each}'" for each in bottoms.split())
    return f"layers {{ {read} top: '{top}' name: '{name}' type: {kind} {more} }}\n"


def segnet() -> tuple[str, Blobs, tuple[str, ...]]:
    """Its inference file: a data layer, pooling with a mask, Upsample, BN without statistics."""
    norm = 'layer {{ bottom: "{0}" top: "{0}" name: "{0}_bn" type: "BN" param {{ lr_mult: 1 }} bn_param {{\n'
    norm += "\tbn_mode: INFERENCE\n" + FILLERS.replace("{", "{{").replace("}", "}}") + " }} }}\n"
    text = 'layer { name: "data" type: "DenseImageData" top: "data" top: "label"\n'
    text += '  dense_image_data_param { source: "/SegNet/CamVid/test.txt"\t# Change this\n batch_size: 1 } }\n'
    text += conv("conv1", "data", 5) + norm.format("conv1")
    text += 'layer { bottom: "conv1" top: "pool1" top: "pool1_mask" name: "pool1" type: "Pooling"\n'
    text += "  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
    text += conv("conv2", "pool1", 5)
    text += 'layer { name: "upsample1" type: "Upsample" bottom: "conv2" top: "pool1_D" bottom: "pool1_mask"\n'
    text += "  upsample_param { scale: 2 upsample_w: 12 upsample_h: 9 } }\n"
    text += conv("conv1_D", "pool1_D", CLASSES)
    text += 'layer { name: "prob" type: "Softmax" bottom: "conv1_D" top: "prob" softmax_param { engine: CAFFE } }\n'
    blobs = {"conv1": [blob(5, 3, 3, 3), blob(5)], "conv1_bn": [channels(5), channels(5, -0.5)]}
    blobs |= {"conv2": [blob(5, 5, 3, 3), blob(5)], "conv1_D": [blob(CLASSES, 5, 3, 3), blob(CLASSES)]}
    return text, blobs, ("--mean", "0,0,0", "--size", "9x12")


def deconvnet() -> tuple[str, Blobs, tuple[str, ...]]:
    """Layers of before 2014, with its own types."""
    rates = "blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0"
    norm = f"bn_param {{ {FILLERS} bn_mode: INFERENCE }}"
    text = 'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 8\ninput_dim: 8\n'
    text += old(
        "CONVOLUTION", "c1", "data", "c1", f"{rates} convolution_param {{ num_output: 5 pad: 1 kernel_size: 3 }}"
    )
    text += old("BN", "bn1", "c1", "c1", norm) + old("RELU", "relu1", "c1", "c1")
    text += old("POOLING", "p1", "c1", "p1", "top: 'm1' pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    text += old(
        "UNPOOLING", "u1", "p1 m1", "u1", "unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_size: 8 }"
    )
    text += old("DECONVOLUTION", "d1", "u1", "d1", f"{rates} convolution_param {{ num_output:5 pad:1 kernel_size: 3 }}")
    text += old("BN", "debn1", "d1", "d1", norm) + old("RELU", "derelu1", "d1", "d1")
    text += old("CONVOLUTION", "seg-score-voc", "d1", "seg-score", "convolution_param { num_output: 4 kernel_size: 1 }")
    blobs = {"c1": [blob(5, 3, 3, 3), blob(5)], "bn1": [channels(5), channels(5)], "d1": [blob(5, 5, 3, 3), blob(5)]}
    blobs |= {"debn1": [channels(5), channels(5)], "seg-score-voc": [blob(CLASSES, 5, 1, 1), blob(CLASSES)]}
    return text, blobs, ("--mean", "104,116,122")


def pspnet() -> tuple[str, Blobs, tuple[str, ...]]:
    """BN with statistics in the fields of its first files, HoleConvolution, pyramid pooling with Interp."""
    norm = 'layer {{ bottom: "{0}" top: "{0}" name: "{0}/bn" type: "BN"\n'
    norm += "  bn_param {{ {1} moving_average: true decay: 0.05 }} }}\n"
    text = 'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 9\ninput_dim: 9\n'
    text += conv("c1", "data", 5, "pad: 1 kernel_size: 3 stride: 2 bias_term: false") + norm.format("c1", FILLERS)
    text += conv("c2", "c1", 5, "pad: 2 hole: 2 kernel_size: 3 bias_term: false", "HoleConvolution")
    text += norm.format("c2", FILLERS)
    text += (
        'layer { name: "pool" type: "Pooling" bottom: "c2" top: "pool" pooling_param { pool: AVE kernel_size: 5 } }\n'
    )
    text += 'layer { name: "up" type: "Interp" bottom: "pool" top: "up" interp_param { height: 5 width: 5 } }\n'
    text += 'layer { name: "both" type: "Concat" bottom: "c2" bottom: "up" top: "both" }\n'
    text += conv("conv6", "both", CLASSES, "kernel_size: 1 stride: 1")
    text += 'layer { name: "conv6_interp" type: "Interp" bottom: "conv6" top: "conv6_interp"\n'
    text += "  interp_param { zoom_factor: 2 } }\n"
    statistics = [[channels(5), channels(5, -0.5), channels(5, -0.5), channels(5)] for _ in range(2)]
    blobs = {"c1": [blob(5, 3, 3, 3)], "c1/bn": statistics[0], "c2": [blob(5, 5, 3, 3)], "c2/bn": statistics[1]}
    return text, blobs | {"conv6": [blob(CLASSES, 10, 1, 1), blob(CLASSES)]}, ("--mean", "103,116,123")


def deeplab() -> tuple[str, Blobs, tuple[str, ...]]:
    """A template with layers of before 2014, which writes its scores into files."""
    text = 'name: "${NET_ID}"\n'
    text += "layers { name: 'data' type: IMAGE_SEG_DATA top: 'data' top: 'label' include: { phase: TEST }\n"
    text += (
        '  image_data_param { root_folder: "${DATA_ROOT}" source: "${EXP}/list/${TEST_SET}.txt" has_label: false }\n'
    )
    text += "  transform_param { mean_value: 104 mean_value: 117 mean_value: 123 crop_size: 9 mirror: false } }\n"
    text += old(
        "CONVOLUTION", "c1", "data", "c1", "convolution_param { num_output: 5 pad: 1 kernel_size: 3 stride: 2 }"
    )
    text += old(
        "CONVOLUTION",
        "c2",
        "c1",
        "c2",
        "strict_dim: false convolution_param { num_output: 5 pad: 2 hole: 2 kernel_size: 3 }",
    )
    text += 'layers { bottom: "c2" top: "fc8_${EXP}" name: "fc8_${EXP}" type: CONVOLUTION\n'
    text += "  convolution_param { num_output: ${NUM_LABELS} kernel_size: 1 } }\n"
    text += 'layers { bottom: "fc8_${EXP}" top: "fc8_interp" name: "fc8_interp" type: INTERP\n'
    text += "  interp_param { zoom_factor: 2 } }\n"
    text += 'layers { name: "fc8_mat" type: MAT_WRITE bottom: "fc8_interp"\n'
    text += '  mat_write_param { prefix: "${FEATURE_DIR}/fc8/" } }\n'
    text += 'layers { name: "accuracy" type: SEG_ACCURACY bottom: "fc8_interp" bottom: "label" top: "accuracy" }\n'
    blobs = {"c1": [blob(5, 3, 3, 3), blob(5)], "c2": [blob(5, 5, 3, 3), blob(5)]}
    return (
        text,
        blobs | {"fc8_voc12": [blob(CLASSES, 5, 1, 1), blob(CLASSES)]},
        ("--set", "EXP=voc12", "--set", "NUM_LABELS=4"),
    )


def crf_as_rnn() -> tuple[str, Blobs, tuple[str, ...]]:
    """A CRF whose kernels' weights and compatibility are learnt with the network, at its end."""
    text = 'input: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 9\ninput_dim: 12\nforce_backward: true\n'
    text += conv("score", "data", CLASSES, "kernel_size: 1 engine: CAFFE")
    text += "layer { type: 'Split' name: 'splitting' bottom: 'score' top: 'unary' top: 'Q0' }\n"
    text += 'layer { name: "inference1"#if you set name\n type: "MultiStageMeanfield" bottom: "unary" bottom: "Q0"\n'
    text += (
        '  bottom: "data" top: "pred" param { lr_mult: 10000#learning rate for W_G\n } multi_stage_meanfield_param {\n'
    )
    text += "  num_iterations: 5 compatibility_mode: POTTS#Initialize\n threshold: 2 theta_alpha: 160 theta_beta: 3\n"
    text += "  theta_gamma: 3 spatial_filter_weight: 3 bilateral_filter_weight: 5 } }\n"
    matrices = [np.eye(CLASSES, dtype=np.float32).reshape(1, 1, CLASSES, CLASSES) * scale for scale in (2, 3, -1)]
    matrices = [matrix + 0.1 * blob(1, 1, CLASSES, CLASSES) for matrix in matrices]
    blobs = {"score": [blob(CLASSES, 3, 1, 1) / 20, blob(CLASSES)], "inference1": matrices}
    return text, blobs, ("--mean", "104,116,122")


KINDS: dict[str, tuple[Callable[[], tuple[str, Blobs, tuple[str, ...]]], set[str]]] = {
    "SegNet": (segnet, {"Upsample", "BN"}),
    "DeconvNet": (deconvnet, {"Unpooling", "BN"}),
    "PSPNet": (pspnet, {"Interp", "BN"}),
    "DeepLab": (deeplab, {"Interp"}),
    "CRF-as-RNN": (crf_as_rnn, {"MultiStageMeanfield"}),
}


def native(folder: Path) -> caffe_pb2.NetParameter:
    return text_format.Parse((folder / "deploy.prototxt").read_text(), caffe_pb2.NetParameter())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_runs_with_its_weights(tmp_path: Path, kind: str) -> None:
    make, types = KINDS[kind]
    text, blobs, more = make()
    (tmp_path / "net.prototxt").write_text(text)
    write_weights(tmp_path / "net.caffemodel", blobs)
    imported(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out", *more)
    layers = native(tmp_path / "out").layer
    assert types <= {layer.type for layer in layers} <= set(caffe.layer_type_list())
    network = read_model_folder(tmp_path / "out")
    built = caffe.Net(str(network.deploy), str(network.weights), caffe.TEST)
    for name, arrays in blobs.items():
        assert all(
            np.array_equal(own.data.ravel(), array.ravel())
            for own, array in zip(built.params[name], arrays, strict=True)
        )
    built.blobs["data"].data[...] = RANDOM.uniform(-100, 100, built.blobs["data"].data.shape)
    prob = built.forward()["prob"]
    assert prob.shape == (1, CLASSES, *built.blobs["data"].data.shape[2:])
    assert np.allclose(prob.sum(axis=1), 1, atol=1e-5) and prob.std() > 0.01


@pytest.mark.parametrize("kind", ["SegNet", "DeconvNet", "PSPNet"])
def test_their_normalisation_may_be_folded(tmp_path: Path, kind: str) -> None:
    text, blobs, more = KINDS[kind][0]()
    (tmp_path / "net.prototxt").write_text(text)
    write_weights(tmp_path / "net.caffemodel", blobs)
    results = []
    for folder, fold in (("kept", ()), ("folded", ("--fold-batch-norm",))):
        imported(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / folder, *more, *fold)
        network = read_model_folder(tmp_path / folder)
        built = caffe.Net(str(network.deploy), str(network.weights), caffe.TEST)
        shape = built.blobs["data"].data.shape
        built.blobs["data"].data[...] = np.random.default_rng(0).uniform(-1, 1, shape)
        results.append(built.forward()["prob"].copy())
    assert "BN" not in {layer.type for layer in native(tmp_path / "folded").layer}
    assert np.allclose(*results, atol=1e-5)


def test_pspnets_statistics_are_used(tmp_path: Path) -> None:
    text, blobs, more = pspnet()
    (tmp_path / "net.prototxt").write_text(text)
    write_weights(tmp_path / "net.caffemodel", blobs)
    imported(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out", *more)
    layers = native(tmp_path / "out").layer
    first = next(place for place, layer in enumerate(layers) if layer.type == "BN")
    description = caffe_pb2.NetParameter(layer=layers[: first + 1])
    description.layer[first].top[0] = "normal"
    (tmp_path / "part.prototxt").write_text(text_format.MessageToString(description))
    built = caffe.Net(str(tmp_path / "part.prototxt"), str(tmp_path / "out/weights.caffemodel"), caffe.TEST)
    built.blobs["data"].data[...] = RANDOM.uniform(-9, 9, built.blobs["data"].data.shape)
    built.forward()
    slope, bias, mean, variance = blobs["c1/bn"]
    expected = (built.blobs["c1"].data - mean) / np.sqrt(variance + 1e-5) * slope + bias
    assert np.allclose(built.blobs["normal"].data, expected, atol=1e-5)
