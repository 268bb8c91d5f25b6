"""Weights that a training starts from: what they fill, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe
import h5py
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from segmentation_helpers import write_weights

from renet.common.errors import UserError
from renet.weights import initial_weights
from renet.weights.weight_files import Filled, load

NETWORK = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "score" type: "InnerProduct" bottom: "conv2" top: "score"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""
SHAPES = {"conv1": [(4, 3, 3, 3), (4,)], "conv2": [(5, 4, 1, 1), (5,)], "score": [(2, 80), (2,)]}


@pytest.fixture
def network(tmp_path: Path) -> caffe.Net:
    file = tmp_path / "net.prototxt"
    file.write_text(NETWORK)
    return caffe.Net(str(file), caffe.TRAIN)


def model(tmp_path: Path, name: str = "w.caffemodel", **layers: list[tuple[int, ...]]) -> Path:
    """A model whose layers have blobs of these shapes, filled with 1, 2, 3, ..."""
    message = caffe_pb2.NetParameter()
    for layer_name, shapes in layers.items():
        layer = message.layer.add(name=layer_name, type="Convolution")
        for shape in shapes:
            blob = layer.blobs.add()
            blob.shape.dim.extend(shape)
            blob.data.extend(np.arange(1, 1 + np.prod(shape)))
    file = tmp_path / name
    file.write_bytes(message.SerializeToString())
    return file


def counted(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)


def test_filled_unused_and_from_scratch(network: caffe.Net, tmp_path: Path) -> None:
    file = model(tmp_path, conv2=SHAPES["conv2"], fc8=[(7, 7)], conv1=SHAPES["conv1"], relu1=[], loss=[])
    before = network.params["score"][0].data.copy()
    filled = initial_weights.fill(network, [file])
    assert filled == [Filled(file, ["conv1", "conv2"], ["fc8"])]
    for name in ("conv1", "conv2"):
        for blob, shape in zip(network.params[name], SHAPES[name]):
            np.testing.assert_array_equal(blob.data, counted(shape))
    np.testing.assert_array_equal(network.params["score"][0].data, before)
    assert initial_weights.report(network, filled) == [
        f"weights: 2 layers filled from {file}: conv1, conv2; 1 in the file unused: fc8",
        "weights: 1 layer from scratch: score",
    ]
    assert initial_weights.metadata(network, filled) == {
        "weights": [{"file": str(file), "filled": ["conv1", "conv2"], "unused": ["fc8"]}],
        "layers_from_scratch": ["score"],
    }


def test_several_files_one_after_the_other(network: caffe.Net, tmp_path: Path) -> None:
    one = model(tmp_path, "one", **SHAPES)
    two = model(tmp_path, "two", score=SHAPES["score"], **{f"x{n}": [(1,)] for n in range(10)})
    filled = initial_weights.fill(network, [one, two])
    assert initial_weights.report(network, filled) == [
        f"weights: 3 layers filled from {one}: conv1 ... score; 0 in the file unused",
        f"weights: 1 layer filled from {two}: score; 10 in the file unused: x0, x1, x2, x3, x4, x5, x6, x7 and 2 more",
        "weights: 0 layers from scratch",
    ]


TWINS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "one" type: "Convolution" bottom: "data" top: "one" param { name: "w" } param { name: "b" }
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "two" type: "Convolution" bottom: "one" top: "two" param { name: "w" } param { name: "b" }
  convolution_param { num_output: 3 kernel_size: 1 } }
"""


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
def test_layers_that_share_their_weights(tmp_path: Path, suffix: str) -> None:
    """HDF5 holds a shared blob once, under its owner's name."""
    (tmp_path / "net.prototxt").write_text(TWINS)
    network, other = (caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN) for _ in range(2))
    file = tmp_path / f"weights{suffix}"
    (network.save_hdf5 if suffix == ".h5" else network.save)(str(file))
    assert load(other, file, every_layer=True) == Filled(file, ["one", "two"], [])
    np.testing.assert_array_equal(other.params["two"][0].data, network.params["one"][0].data)


def test_names_are_split_as_caffe_does() -> None:
    assert initial_weights.split_names(["a, b", "c"]) == ["a", "b", "c"]
    assert initial_weights.split_names([]) == []


@pytest.mark.parametrize("oldest", [False, True])
def test_models_of_both_old_formats(network: caffe.Net, tmp_path: Path, oldest: bool) -> None:
    message = caffe_pb2.NetParameter()
    for name, shapes in SHAPES.items():
        kind = "INNER_PRODUCT" if name == "score" else "CONVOLUTION"
        if oldest:
            layer = message.layers.add().layer
            layer.name, layer.type = name, "innerproduct" if name == "score" else "conv"
        else:
            layer = message.layers.add(name=name, type=kind)
        for shape in shapes:
            four = (1,) * (4 - len(shape)) + shape
            blob = layer.blobs.add(num=four[0], channels=four[1], height=four[2], width=four[3])
            blob.data.extend(counted(shape).ravel())
    file = tmp_path / "old.caffemodel"
    file.write_bytes(message.SerializeToString())
    (filled,) = initial_weights.fill(network, [file])
    assert (filled.layers, filled.unused) == (list(SHAPES), [])
    np.testing.assert_array_equal(network.params["score"][0].data, counted((2, 80)))


def test_hdf5_of_caffes_own(network: caffe.Net, tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    for name in SHAPES:
        network.params[name][0].data[...] = counted(SHAPES[name][0])
    network.save_hdf5(str(file))
    text = NETWORK.replace('"conv2" type', '"other" type')
    (tmp_path / "other.prototxt").write_text(text)
    other = caffe.Net(str(tmp_path / "other.prototxt"), caffe.TRAIN)
    filled = initial_weights.fill(other, [file])
    assert filled == [Filled(file, ["conv1", "score"], ["conv2"])]
    np.testing.assert_array_equal(other.params["conv1"][0].data, counted((4, 3, 3, 3)))
    assert initial_weights.report(other, filled) == [
        f"weights: 2 layers filled from {file}: conv1, score; 1 in the file unused: conv2",
        "weights: 1 layer from scratch: other",
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"conv1": SHAPES["conv1"], "score": [(21, 80), (21,)]},
            r"the layer 'score' has 21 x 80 and 21 there and 2 x 80 and 2 in the network; .* needs another name",
        ),
        ({"conv1": SHAPES["conv1"][:1]}, r"the layer 'conv1' has 4 x 3 x 3 x 3 there and 4 x 3 x 3 x 3 and 4 in the"),
        ({"relu1": [(4,)]}, r"the layer 'relu1' has 4 there and no weights in the network"),
        ({"score": []}, r"the layer 'score' has no weights there and 2 x 80 and 2 in the network"),
        ({"fc6": [(3,)], "fc7": [(3,)]}, r"fills no layer: it has fc6, fc7, the network has conv1, conv2, score$"),
        ({"loss": []}, r"fills no layer: it has no layer with weights, the network has conv1"),
    ],
)
@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
def test_what_does_not_fit_is_told_and_nothing_is_filled(
    network: caffe.Net, tmp_path: Path, suffix: str, layers: dict[str, list[tuple[int, ...]]], message: str
) -> None:
    before = network.params["conv1"][0].data.copy()
    file = write_weights(
        tmp_path / f"w{suffix}", {name: [counted(shape) for shape in shapes] for name, shapes in layers.items()}
    )
    with pytest.raises(UserError, match=rf"w\{suffix}: {message}"):
        initial_weights.fill(network, [file])
    np.testing.assert_array_equal(network.params["conv1"][0].data, before)


def lose_a_value(message: Any) -> None:
    message.layer[0].blobs[0].data.pop()


def spoil_a_value(message: Any) -> None:
    message.layer[0].blobs[0].data[0] = np.nan


def overflow_in_doubles(message: Any) -> None:
    blob = message.layer[0].blobs[0]
    blob.double_data.extend(blob.data)
    blob.double_data[0] = 1e300
    del blob.data[:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose_a_value, "only a part of a model: the layer 'conv1' lacks values"),
        (spoil_a_value, "the layer 'conv1' has values that are infinite or no numbers"),
        (overflow_in_doubles, "the layer 'conv1' has values that are infinite or no numbers"),
    ],
)
def test_spoilt_values_are_told(network: caffe.Net, tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    file = model(tmp_path, **SHAPES)
    message = caffe_pb2.NetParameter.FromString(file.read_bytes())
    change(message)
    file.write_bytes(message.SerializeToString())
    with pytest.raises(UserError, match=said):
        initial_weights.fill(network, [file])


def hdf5(folder: Path, dataset: str) -> bytes:
    """HDF5 with one dataset of this name."""
    with h5py.File(folder / "one.h5", "w") as content:
        content.create_dataset(dataset, data=np.zeros(3))
    return (folder / "one.h5").read_bytes()


def test_broken_files_are_told(network: caffe.Net, tmp_path: Path) -> None:
    whole = model(tmp_path, **SHAPES).read_bytes()
    for content, said in (
        (b"", "empty; weights are"),
        (b"not a model", "not a Caffe model, or only a part of one$"),
        (whole[:-3], "not a Caffe model, or only a part of one$"),
        (caffe_pb2.NetParameter(name="x").SerializeToString(), "not a Caffe model, .* it has no layers$"),
    ):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(UserError, match=f"broken: {said}"):
            initial_weights.fill(network, [tmp_path / "broken"])
    with h5py.File(tmp_path / "whole.h5", "w") as content:
        content.create_dataset("data/conv1/0", data=np.zeros(1000))
    for name, content, said in (
        ("cut.h5", (tmp_path / "whole.h5").read_bytes()[:-100], "not HDF5 that can be read, or only a part of it"),
        ("other.h5", hdf5(tmp_path, "images"), "HDF5, but not of Caffe's weights: no group 'data' of layers$"),
        ("flat.h5", hdf5(tmp_path, "data/conv1"), "HDF5, but not of Caffe's weights: no group 'data' of layers$"),
        ("group.h5", hdf5(tmp_path, "data/block/0/0"), "HDF5, .* the layer 'block' has a blob '0'$"),
        ("named.h5", hdf5(tmp_path, "data/conv1/kernel"), "HDF5, .* the layer 'conv1' has a blob 'kernel'$"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: {said}"):
            initial_weights.fill(network, [tmp_path / name])
    with pytest.raises(UserError, match="nowhere: no such file of weights"):
        initial_weights.fill(network, [tmp_path / "nowhere"])


def link_outside(content: h5py.File, other: Path) -> None:
    content["data/conv1/0"] = h5py.ExternalLink(str(other), "data/conv1/0")


def link_layer_outside(content: h5py.File, other: Path) -> None:
    content["data/conv1"] = h5py.ExternalLink(str(other), "data/conv1")


def link_within(content: h5py.File, other: Path) -> None:
    content["values"] = np.zeros(3)
    content["data/conv1/0"] = h5py.SoftLink("/values")


def values_outside(content: h5py.File, other: Path) -> None:
    content.create_dataset("data/conv1/0", (3,), np.float32, external=[(str(other), 0, 12)])


def virtual_values(content: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "data/conv1/0", (3,))
    content.create_virtual_dataset("data/conv1/0", layout)


def endless_groups(content: h5py.File, other: Path) -> None:
    group = content.create_group("data")
    group["again"] = group


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (link_outside, "/data/conv1/0 is a link; "),
        (link_layer_outside, "/data/conv1 is a link; "),
        (link_within, "/data/conv1/0 is a link; "),
        (values_outside, "/data/conv1/0 has its values in another file; "),
        (virtual_values, "/data/conv1/0 has its values in another file; "),
        (endless_groups, "lies too deep for Caffe's weights"),
    ],
)
def test_hdf5_that_leads_elsewhere_is_refused(
    network: caffe.Net, tmp_path: Path, make: Callable[[h5py.File, Path], None], said: str
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as content:
        content["data/conv1/0"] = np.zeros(3, np.float32)
    with h5py.File(tmp_path / "w.h5", "w") as content:
        make(content, tmp_path / "other.h5")
    with pytest.raises(UserError, match=f"w.h5: .*{said}"):
        initial_weights.fill(network, [tmp_path / "w.h5"])
