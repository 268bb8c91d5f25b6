"""Interp, Upsample, Unpooling, Permute and Normalize in networks as other forks write them, beside NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

caffe = pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

SHAPES = [(2, 3, 8, 12), (1, 3, 6, 4), (3, 3, 10, 8)]
# SegNet in small: two poolings with masks, and back
SEGNET = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" top: "pool1_mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "norm2" type: "Normalize" bottom: "conv2" top: "norm2"
  norm_param { across_spatial: false scale_filler { type: "constant" value: 5 } channel_shared: false } }
layer { name: "pool2" type: "Pooling" bottom: "norm2" top: "pool2" top: "pool2_mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "upsample2" type: "Upsample" bottom: "pool2" bottom: "pool2_mask" top: "upsample2"
  upsample_param { scale: 2 upsample_h: 6 upsample_w: 8 } }
layer { name: "decode2" type: "Convolution" bottom: "upsample2" top: "decode2"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "unpool1" type: "Unpooling" bottom: "decode2" bottom: "pool1_mask" top: "unpool1"
  unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_h: 12 unpool_w: 16 } }
layer { name: "small" type: "Interp" bottom: "conv1" top: "small"
  interp_param { shrink_factor: 4 pad_beg: 0 pad_end: -1 } }
layer { name: "context" type: "Interp" bottom: "small" bottom: "conv1" top: "context" }
layer { name: "both" type: "Concat" bottom: "unpool1" bottom: "context" top: "both" }
layer { name: "scores" type: "Convolution" bottom: "both" top: "scores"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""


def made(folder: Path, text: str) -> caffe.Net:
    file = folder / "net.prototxt"
    shape = " ".join(f"dim: {size}" for size in SHAPES[0])
    file.write_text(
        "force_backward: true "
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }} {text}'
    )
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    return caffe.Net(str(file), caffe.TRAIN)


def run(net: caffe.Net, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Noise of a shape through a network, forward."""
    values = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    net.blobs["data"].reshape(*shape)
    net.blobs["data"].data[...] = values
    net.forward()
    return values


def windows(values: np.ndarray) -> np.ndarray:
    """The windows of 2x2 of maps, N x C x h x w x 4."""
    n, c, h, w = values.shape
    return values.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)


def maps(parts: np.ndarray) -> np.ndarray:
    """What `windows` takes apart."""
    n, c, h, w, _ = parts.shape
    return parts.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


@pytest.mark.parametrize("kind", ["Upsample", "Unpooling"])
def test_a_mask_that_two_layers_read(kind: str, tmp_path: Path) -> None:
    parameter = {"Upsample": "", "Unpooling": "unpooling_param { kernel_size: 2 stride: 2 }"}[kind]
    net = made(
        tmp_path,
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask" '
        "pooling_param { kernel_size: 2 stride: 2 } }"
        'layer { name: "twice" type: "Power" bottom: "pool" top: "twice" power_param { scale: 2 } }'
        f'layer {{ name: "a" type: "{kind}" bottom: "pool" bottom: "mask" top: "a" {parameter} }}'
        f'layer {{ name: "b" type: "{kind}" bottom: "twice" bottom: "mask" top: "b" {parameter} }}',
    )
    for shape in SHAPES:
        parts = windows(run(net, shape))
        largest = parts == parts.max(axis=-1, keepdims=True)
        kept = maps(np.where(largest, parts, 0))
        np.testing.assert_array_equal(net.blobs["a"].data, kept)
        np.testing.assert_array_equal(net.blobs["b"].data, 2 * kept)
        noise = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
        net.blobs["a"].diff[...] = noise
        net.blobs["b"].diff[...] = 1
        net.backward()
        expected = maps(np.where(largest, windows(noise) + 2, 0))
        np.testing.assert_allclose(net.blobs["data"].diff, expected, 1e-6, 1e-6)


def test_normalized_positions_with_their_axes_turned_round(tmp_path: Path) -> None:
    net = made(
        tmp_path,
        'layer { name: "norm" type: "Normalize" bottom: "data" top: "norm" norm_param { across_spatial: false '
        'channel_shared: false scale_filler { type: "uniform" min: 5 max: 20 } } }'
        'layer { name: "turned" type: "Permute" bottom: "norm" top: "turned" permute_param { order: 0 order: 2 '
        "order: 3 order: 1 } }",
    )
    scale = net.params["norm"][0].data
    assert scale.shape == (3,)
    for shape in SHAPES:
        x = run(net, shape)
        expected = scale[:, None, None] * x / np.linalg.norm(x, axis=1, keepdims=True)
        np.testing.assert_allclose(net.blobs["turned"].data, expected.transpose(0, 2, 3, 1), 1e-5, 1e-6)


def test_a_fixed_scale_is_not_learned(tmp_path: Path) -> None:
    file, solver_file = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    layers = "".join(
        f'layer {{ name: "{name}" type: "Normalize" bottom: "data" top: "{name}" norm_param {{ {more} }} }}'
        for name, more in (("learned", ""), ("fixed", "fix_scale: true"))
    )
    file.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } } '
        f"{layers}"
        'layer { name: "loss" type: "EuclideanLoss" bottom: "learned" bottom: "data" top: "loss" } '
        'layer { name: "more" type: "EuclideanLoss" bottom: "fixed" bottom: "data" top: "more" }'
    )
    solver_file.write_text(
        f'net: "{file}" base_lr: 0.1 lr_policy: "fixed" weight_decay: 0.1 snapshot_after_train: false'
    )
    caffe.set_mode_cpu()
    solver = caffe.get_solver(str(solver_file))
    solver.net.blobs["data"].data[...] = np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4))
    solver.step(2)
    assert solver.net.params["fixed"][0].data == 1
    assert solver.net.params["learned"][0].data != 1


def test_segnet_in_small_learns(tmp_path: Path) -> None:
    """Which of three colours is the strongest, from images that are drawn anew for each step."""
    file, solver_file = tmp_path / "net.prototxt", tmp_path / "solver.prototxt"
    file.write_text(
        'layer { name: "data" type: "Input" top: "data" top: "label" input_param { '
        "shape { dim: 2 dim: 3 dim: 12 dim: 16 } shape { dim: 2 dim: 1 dim: 12 dim: 16 } } }" + SEGNET
    )
    solver_file.write_text(
        f'net: "{file}" type: "Adam" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 momentum2: 0.999 '
        "snapshot_after_train: false random_seed: 7"
    )
    caffe.set_mode_cpu()
    solver = caffe.get_solver(str(solver_file))
    random = np.random.default_rng(0)
    losses = []
    for _ in range(150):
        coarse = random.normal(0, 1, (2, 3, 3, 4))
        image = coarse.repeat(4, axis=2).repeat(4, axis=3)
        solver.net.blobs["data"].data[...] = image
        solver.net.blobs["label"].data[...] = image.argmax(axis=1)[:, None]
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
