"""Layers and kernels as tasks of the worker: a ReNet group, a dense CRF, a matrix product, a copy."""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

FORWARD, FORWARD_BACKWARD, STEP = "forward", "forward+backward", "step"
PRODUCT_SIZE = 2048
TRIAD_SIZE = 1 << 25  # values of each of three arrays, which no cache holds
TRIAD_BLOCK = 1 << 17  # values that stay in a core's second cache between the two operations on them


class Shape(NamedTuple):
    """A recurrent layer group's shape: a map N x C x H x W and the hidden units d of each scan."""

    num: int
    channels: int
    height: int
    width: int
    hidden: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


def parse_shape(text: str) -> Shape:
    """A shape from `N,C,H,W,d`; ArgumentTypeError for anything else."""
    try:
        shape = Shape(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"'{text}' is no shape N,C,H,W,d, such as 1,1024,47,63,120") from None
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"every number of the shape '{text}' must be at least 1")
    return shape


class CrfShape(NamedTuple):
    """A dense CRF's shape: class scores C x H x W and the number of mean-field iterations."""

    classes: int
    height: int
    width: int
    iterations: int

    def __str__(self) -> str:
        return ",".join(map(str, self))


class Task(Protocol):
    """Something to time."""

    version: str

    def run(self) -> None:
        """Do the work once."""

    def results(self) -> dict[str, np.ndarray]:
        """What the last run computed."""


def group_inputs(shape: Shape) -> tuple[np.ndarray, np.ndarray, list[list[np.ndarray]]]:
    """The map (N, C, H, W), the gradient of the top (N, 2d, H, W) and the parameters of a group of two LSTM layers.

    The parameters are those of the vertical and of the horizontal layer as ReNetLSTM has them: W_x, b, W_h of the
    forward scan and then of the backward scan, gates in the order i, f, o, g. All float32, equal at every call.
    """
    random = np.random.default_rng(1)
    n, c, height, width, d = shape
    bottom = random.standard_normal((n, c, height, width), dtype=np.float32)
    top_diff = random.standard_normal((n, 2 * d, height, width), dtype=np.float32)
    layers = []
    for inputs in (c, 2 * d):
        shapes = [(4 * d, inputs), (4 * d,), (4 * d, d)] * 2
        ranges = [inputs**-0.5, 0.5, d**-0.5] * 2
        layers.append([random.uniform(-r, r, s).astype(np.float32) for s, r in zip(shapes, ranges, strict=True)])
    return bottom, top_diff, layers


class CaffeGroup:
    """A vertical and a horizontal ReNetLSTM layer in a Caffe network; for forward alone, of the phase TEST."""

    def __init__(self, shape: Shape, backward: bool, threads: int) -> None:
        import caffe

        n, c, height, width, d = shape
        dimensions = " ".join(f"dim: {size}" for size in (n, c, height, width))
        text = f"""force_backward: true
            layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dimensions} }} }} }}
            layer {{ name: "vertical" type: "ReNetLSTM" bottom: "data" top: "vertical"
                     renet_param {{ num_output: {d} direction: VERTICAL }} }}
            layer {{ name: "horizontal" type: "ReNetLSTM" bottom: "vertical" top: "horizontal"
                     renet_param {{ num_output: {d} direction: HORIZONTAL }} }}"""
        caffe.set_mode_cpu()
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(text)
            file.flush()
            self._net = caffe.Net(file.name, caffe.TRAIN if backward else caffe.TEST)
        self._backward = backward
        self.version = caffe.__version__
        bottom, top_diff, layers = group_inputs(shape)
        for name, values in zip(("vertical", "horizontal"), layers, strict=True):
            for blob, value in zip(self._net.params[name], values, strict=True):
                blob.data[...] = value
        self._net.blobs["data"].data[...] = bottom
        if backward:
            self._net.blobs["horizontal"].diff[...] = top_diff

    def run(self) -> None:
        """One pass; gradients start at zero, as in every iteration of a solver."""
        if self._backward:
            self._net.clear_param_diffs()
        self._net.forward()
        if self._backward:
            self._net.backward()

    def results(self) -> dict[str, np.ndarray]:
        """The top and the gradients of the map and of the vertical layer's forward weights W_x."""
        results = {"output": self._net.blobs["horizontal"].data}
        if self._backward:
            results["input gradient"] = self._net.blobs["data"].diff
            results["weight gradient"] = self._net.params["vertical"][0].diff
        return results


class PyTorchGroup:
    """The same with two bidirectional torch.nn.LSTM modules: columns as sequences, then rows."""

    def __init__(self, shape: Shape, backward: bool, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch, self._shape, self._backward = torch, shape, backward
        self.version = torch.__version__
        bottom, top_diff, layers = group_inputs(shape)
        self._vertical = torch.nn.LSTM(shape.channels, shape.hidden, bidirectional=True)
        self._horizontal = torch.nn.LSTM(2 * shape.hidden, shape.hidden, bidirectional=True)
        self._group = torch.nn.ModuleList([self._vertical, self._horizontal]).train(backward)
        with torch.no_grad():
            for module, values in zip(self._group, layers, strict=True):
                for scan, suffix in enumerate(("", "_reverse")):
                    w_x, b, w_h = values[3 * scan : 3 * scan + 3]
                    for name, value in (("weight_ih", w_x), ("bias_ih", b), ("weight_hh", w_h)):
                        getattr(module, f"{name}_l0{suffix}").copy_(torch.from_numpy(self._reorder(value)))
                    getattr(module, f"bias_hh_l0{suffix}").zero_()
        self._bottom = torch.from_numpy(bottom).requires_grad_(backward)
        self._top_diff = torch.from_numpy(top_diff) if backward else None

    @staticmethod
    def _reorder(rows: np.ndarray) -> np.ndarray:
        """Gates i, f, o, g to PyTorch's i, f, g, o, and back."""
        i, f, o, g = np.split(rows, 4)
        return np.concatenate([i, f, g, o])

    def run(self) -> None:
        """One pass; gradients start at none, as in every iteration of an optimizer."""
        if not self._backward:
            with self._torch.inference_mode():
                self._forward()
            return
        self._group.zero_grad(set_to_none=True)
        self._bottom.grad = None
        self._forward()
        self._top.backward(self._top_diff)

    def _forward(self) -> None:
        n, c, height, width, d = self._shape
        x = self._bottom.permute(2, 0, 3, 1).reshape(height, n * width, c)
        x = self._vertical(x)[0].reshape(height, n, width, 2 * d)
        x = x.permute(2, 1, 0, 3).reshape(width, n * height, 2 * d)
        x = self._horizontal(x)[0].reshape(width, n, height, 2 * d)
        self._top = x.permute(1, 3, 2, 0)

    def results(self) -> dict[str, np.ndarray]:
        """As CaffeGroup.results."""
        results = {"output": self._top.detach().numpy()}
        if self._backward:
            results["input gradient"] = self._bottom.grad.numpy()
            results["weight gradient"] = self._reorder(self._vertical.weight_ih_l0.grad.numpy())
        return results


class NumPyProduct:
    """A product of two large matrices by NumPy's BLAS: what the processor reaches at its best."""

    def __init__(self, shape: Shape, backward: bool, threads: int) -> None:
        self.version = np.__version__
        self._a = np.random.default_rng(1).standard_normal((PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)
        self._product = np.empty_like(self._a)

    def run(self) -> None:
        """One product."""
        np.matmul(self._a, self._a, out=self._product)

    def results(self) -> dict[str, np.ndarray]:
        """The product."""
        return {"product": self._product}


class PyTorchProduct:
    """The same product by PyTorch's BLAS."""

    def __init__(self, shape: Shape, backward: bool, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self.version = torch.__version__
        self._a = torch.from_numpy(
            np.random.default_rng(1).standard_normal((PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)
        )
        self._product = torch.empty_like(self._a)

    def run(self) -> None:
        """One product."""
        self._torch.mm(self._a, self._a, out=self._product)

    def results(self) -> dict[str, np.ndarray]:
        """The product."""
        return {"product": self._product.numpy()}


class NumPyTriad:
    """a = b + s c over arrays larger than any cache, block by block in all threads: the memory's bandwidth."""

    def __init__(self, shape: Shape, backward: bool, threads: int) -> None:
        self.version = np.__version__
        self._a, self._b, self._c = (np.full(TRIAD_SIZE, value, np.float32) for value in (0, 1, 2))
        self._pool = ThreadPoolExecutor(threads)
        per_thread = -(-TRIAD_SIZE // threads)
        self._shares = [(start, min(start + per_thread, TRIAD_SIZE)) for start in range(0, TRIAD_SIZE, per_thread)]

    def run(self) -> None:
        """Once over the arrays."""
        list(self._pool.map(self._share, self._shares))

    def _share(self, share: tuple[int, int]) -> None:
        for start in range(*share, TRIAD_BLOCK):
            block = slice(start, min(start + TRIAD_BLOCK, share[1]))
            np.multiply(self._c[block], np.float32(3), out=self._a[block])
            np.add(self._a[block], self._b[block], out=self._a[block])

    def results(self) -> dict[str, np.ndarray]:
        """The sums."""
        return {"sums": self._a}


# The paper's release: weight and spread of the positional kernel, then weight, spread and colour spread of the other.
CRF_KERNELS = (3, 3, 5, 80, 3)


def crf_inputs(shape: CrfShape) -> tuple[np.ndarray, np.ndarray]:
    """Class scores (C, H, W) float32 in blocks of 8 x 8, and a picture (H, W, 3) uint8: waves with a camera's noise."""
    random = np.random.default_rng(1)
    classes, height, width, _ = shape
    y, x = np.mgrid[:height, :width]
    waves = [128 + 80 * np.sin(x / 17 + k) * np.cos(y / 23) for k in range(3)]
    image = np.stack(waves, axis=-1) + random.normal(0, 2, (height, width, 3))
    blocks = 2 * random.standard_normal((classes, -(-height // 8), -(-width // 8)), dtype=np.float32)
    scores = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return np.ascontiguousarray(scores), np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


class CaffeCrf:
    """A DenseCRF layer; its time holds the building of both lattices, as for every new picture."""

    def __init__(self, shape: CrfShape, backward: bool, threads: int) -> None:
        import caffe

        self.version = caffe.__version__
        scores, image = crf_inputs(shape)
        pos_w, pos_xy, bi_w, bi_xy, bi_rgb = CRF_KERNELS
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            for name, channels in (("scores", shape.classes), ("image", 3)):
                size = f"dim: 1 dim: {channels} dim: {shape.height} dim: {shape.width}"
                file.write(
                    f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {size} }} }} }}\n'
                )
            file.write(
                'layer { name: "crf" type: "DenseCRF" bottom: "scores" bottom: "image" top: "crf" dense_crf_param {\n'
                f"max_iter: {shape.iterations} pos_w: {pos_w} pos_xy_std: {pos_xy} bi_w: {bi_w} bi_xy_std: {bi_xy} "
                f"bi_rgb_std: {bi_rgb} order: RGB }} }}\n"
            )
            file.flush()
            self._net = caffe.Net(file.name, caffe.TEST)
        self._net.blobs["scores"].data[0] = scores
        self._net.blobs["image"].data[0] = image.transpose(2, 0, 1)

    def run(self) -> None:
        """One picture."""
        self._net.forward()

    def results(self) -> dict[str, np.ndarray]:
        """Q, C x H x W."""
        return {"Q": self._net.blobs["crf"].data[0]}


class Pydensecrf:
    """The same by pydensecrf, which computes in one thread."""

    def __init__(self, shape: CrfShape, backward: bool, threads: int) -> None:
        from importlib.metadata import version

        self.version = version("pydensecrf2")
        self._shape = shape
        scores, self._image = crf_inputs(shape)
        self._unary = np.ascontiguousarray(-scores.reshape(shape.classes, -1))

    def run(self) -> None:
        """One picture."""
        from pydensecrf import densecrf

        pos_w, pos_xy, bi_w, bi_xy, bi_rgb = CRF_KERNELS
        crf = densecrf.DenseCRF2D(self._shape.width, self._shape.height, self._shape.classes)
        crf.setUnaryEnergy(self._unary)
        crf.addPairwiseGaussian(sxy=pos_xy, compat=pos_w)
        crf.addPairwiseBilateral(sxy=bi_xy, srgb=bi_rgb, rgbim=self._image, compat=bi_w)
        self._q = np.array(crf.inference(self._shape.iterations))

    def results(self) -> dict[str, np.ndarray]:
        """As CaffeCrf.results."""
        return {"Q": self._q.reshape(self._shape[:3])}
