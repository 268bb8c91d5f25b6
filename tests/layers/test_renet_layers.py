"""The ReNet layers through pycaffe beside an implementation of their equations in NumPy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from renet_reference import ReNetReference

caffe = pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

FORWARD_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 2e-3
UNITS = {
    "lstm": ("ReNetLSTM", ""),
    "lstm peephole": ("ReNetLSTM", "peephole: true"),
    "lstm cell": ("ReNetLSTM", "output: CELL"),
    "lstm peephole cell": ("ReNetLSTM", "peephole: true output: CELL"),
    "gru": ("ReNetGRU", ""),
    "irnn": ("ReNetIRNN", ""),
}


def layer_text(name: str, bottom: str, unit: str, options: str) -> str:
    return f"""layer {{ name: "{name}" type: "{unit}" bottom: "{bottom}" top: "{name}"
        renet_param {{ {options} bias_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}\n"""


def make_net(folder: Path, shape: tuple[int, ...], *layers: str, phase: int = caffe.TRAIN) -> caffe.Net:
    dimensions = " ".join(f"dim: {size}" for size in shape)
    data = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dimensions} }} }} }}'
    # A network with a loss knows by itself what to differentiate.
    options = "" if any("loss_weight" in layer for layer in layers) else "force_backward: true"
    path = folder / "net.prototxt"
    path.write_text("\n".join([options, data, *layers]))
    caffe.set_mode_cpu()
    caffe.set_random_seed(5)
    return caffe.Net(str(path), phase)


def parameters(net: caffe.Net, layer: str) -> list[np.ndarray]:
    return [blob.data.astype(np.float64) for blob in net.params[layer]]


def assert_gradient(actual: np.ndarray, expected: np.ndarray) -> None:
    """Every element within the tolerance, relative to itself or, where it is tiny, to a hundredth of the largest."""
    scale = np.maximum(np.abs(expected), np.abs(expected).max() / 100)
    assert np.all(np.abs(actual - expected) <= GRADIENT_TOLERANCE * scale)


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 2, 1, 1), (3, 1, 21, 18)])
@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("direction", ["VERTICAL", "HORIZONTAL"])
@pytest.mark.parametrize("name", UNITS)
def test_equals_the_reference(
    name: str, direction: str, patch: tuple[int, int], shape: tuple[int, ...], tmp_path: Path
) -> None:
    unit, options = UNITS[name]
    options += f" num_output: 5 direction: {direction} patch_height: {patch[0]} patch_width: {patch[1]}"
    net = make_net(tmp_path, shape, layer_text("sweep", "data", unit, options))
    random = np.random.default_rng(3)
    if unit == "ReNetIRNN":  # away from the identity, where states would grow all along a line
        for blob in (net.params["sweep"][2], net.params["sweep"][5]):
            blob.data[...] *= 0.5
    net.blobs["data"].data[...] = random.normal(size=shape)
    bottom = net.blobs["data"].data.astype(np.float64)
    reference = ReNetReference(unit, direction == "VERTICAL", patch, "CELL" in options)

    net.forward()
    expected = reference.forward(bottom, parameters(net, "sweep"))
    top = net.blobs["sweep"]
    assert top.data.shape == expected.shape
    assert np.abs(top.data - expected).max() <= FORWARD_TOLERANCE * max(1, np.abs(expected).max())

    top.diff[...] = random.normal(size=expected.shape)
    net.backward()
    bottom_diff, diffs = reference.backward(top.diff.astype(np.float64))
    assert_gradient(net.blobs["data"].diff, bottom_diff)
    for blob, diff in zip(net.params["sweep"], diffs, strict=True):
        assert_gradient(blob.diff, diff)


@pytest.mark.parametrize("name", ["lstm peephole", "gru", "irnn"])
def test_the_reference_has_the_right_gradient(name: str) -> None:
    """The judge is judged: its gradients are the slopes of its own output."""
    unit, options = UNITS[name]
    random = np.random.default_rng(11)
    gates = {"ReNetLSTM": 4, "ReNetGRU": 3, "ReNetIRNN": 1}[unit]
    shapes = [(gates * 3, 12), (gates * 3,), (gates * 3, 3)] + [(3, 3)] * ("peephole" in options)
    weights = [random.normal(scale=0.4, size=shape) for shape in shapes * 2]
    bottom = random.normal(size=(2, 2, 5, 4))
    reference = ReNetReference(unit, False, (3, 2))
    top_diff = random.normal(size=reference.forward(bottom, weights).shape)
    bottom_diff, diffs = reference.backward(top_diff)
    step = 1e-6
    for array, diff in zip([bottom, *weights], [bottom_diff, *diffs], strict=True):
        for index in itertools.islice(np.ndindex(array.shape), 0, None, 7):
            before = array[index]
            losses = []
            for value in (before + step, before - step):
                array[index] = value
                losses.append((reference.forward(bottom, weights) * top_diff).sum())
            array[index] = before
            assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(diff[index], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_group_on_images_of_any_size(phase: int, tmp_path: Path) -> None:
    """A group, vertical and then horizontal, takes maps of other sizes and numbers one after another."""
    vertical = layer_text("vertical", "data", "ReNetLSTM", "num_output: 6 patch_height: 2 patch_width: 2")
    horizontal = layer_text("horizontal", "vertical", "ReNetLSTM", "num_output: 4 direction: HORIZONTAL")
    net = make_net(tmp_path, (1, 3, 8, 8), vertical, horizontal, phase=phase)
    random = np.random.default_rng(4)
    first, second = ReNetReference("ReNetLSTM", True, (2, 2)), ReNetReference("ReNetLSTM", False)
    for shape in [(1, 3, 8, 8), (2, 3, 33, 47), (1, 3, 1, 1), (1, 3, 5, 90), (2, 3, 33, 47)]:
        net.blobs["data"].reshape(*shape)
        net.blobs["data"].data[...] = random.normal(size=shape)
        net.forward()
        bottom = net.blobs["data"].data.astype(np.float64)
        expected = second.forward(first.forward(bottom, parameters(net, "vertical")), parameters(net, "horizontal"))
        assert net.blobs["horizontal"].data.shape == expected.shape
        assert np.abs(net.blobs["horizontal"].data - expected).max() <= FORWARD_TOLERANCE

        net.blobs["horizontal"].diff[...] = random.normal(size=expected.shape)
        net.clear_param_diffs()
        net.backward()
        middle_diff, horizontal_diffs = second.backward(net.blobs["horizontal"].diff.astype(np.float64))
        bottom_diff, vertical_diffs = first.backward(middle_diff)
        assert_gradient(net.blobs["data"].diff, bottom_diff)
        for layer, diffs in (("horizontal", horizontal_diffs), ("vertical", vertical_diffs)):
            for blob, diff in zip(net.params[layer], diffs, strict=True):
                assert_gradient(blob.diff, diff)


def test_frozen_parameters_stay_out_of_the_gradient(tmp_path: Path) -> None:
    """`param { lr_mult: 0 }` of one blob leaves its gradient at zero, and the others' as they are."""
    layer = layer_text("sweep", "data", "ReNetLSTM", "num_output: 3")
    frozen = layer.replace("renet_param", "param { lr_mult: 0 } param { lr_mult: 1 } renet_param")
    loss = 'layer { type: "Reduction" bottom: "sweep" top: "loss" reduction_param { operation: SUMSQ } loss_weight: 1 }'
    diffs = []
    for text in (layer, frozen):
        net = make_net(tmp_path, (1, 2, 4, 5), text, loss)
        net.blobs["data"].data[...] = np.random.default_rng(6).normal(size=(1, 2, 4, 5))
        net.forward()
        net.backward()
        diffs.append([blob.diff.copy() for blob in net.params["sweep"]])
    assert np.abs(diffs[0][0]).max() > 0
    assert not diffs[1][0].any()
    for free, beside_frozen in zip(diffs[0][1:], diffs[1][1:], strict=True):
        np.testing.assert_array_equal(free, beside_frozen)


def test_weights_are_kept(tmp_path: Path) -> None:
    """A saved network gives the same output when it is read again."""
    layer = layer_text("sweep", "data", "ReNetLSTM", "num_output: 3 peephole: true forget_bias: 2")
    net = make_net(tmp_path, (1, 2, 4, 5), layer)
    data = np.random.default_rng(7).normal(size=(1, 2, 4, 5))
    net.blobs["data"].data[...] = data
    expected = net.forward()["sweep"].copy()
    net.save(str(tmp_path / "saved.caffemodel"))
    read = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, weights=str(tmp_path / "saved.caffemodel"))
    read.blobs["data"].data[...] = data
    np.testing.assert_array_equal(read.forward()["sweep"], expected)
