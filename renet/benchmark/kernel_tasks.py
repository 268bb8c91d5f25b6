"""Kernels as tasks of renet.benchmark.worker: a matrix product, a triad, a dense CRF by pydensecrf."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

PRODUCT_SIZE = 2048
TRIAD_SIZE = 1 << 25  # values of each of three arrays, which no cache holds
TRIAD_BLOCK = 1 << 17  # values that stay in a core's second cache between the two operations on them
# The paper's release: weight and spread of the positional kernel, then weight, spread and colour spread of the other.
CRF_KERNELS = (3, 3, 5, 80, 3)
PHOTOGRAPH = "photograph"  # among the numbers of a CRF's shape


class Product:
    """A product of two large matrices by the BLAS of NumPy, what the processor reaches at its best, or of PyTorch."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._library = library = importlib.import_module(job["library"])
        self.version = library.__version__
        matrix = np.random.default_rng(1).standard_normal((PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)
        if job["library"] == "torch":
            library.set_num_threads(job["threads"])
            matrix = library.from_numpy(matrix)
        self._matrix, self._product = matrix, library.empty_like(matrix)

    def run(self) -> dict[str, np.ndarray]:
        """One product."""
        self._library.matmul(self._matrix, self._matrix, out=self._product)
        return {"product": np.asarray(self._product)}


class Triad:
    """a = b + s c over arrays larger than any cache, block by block in all threads: the memory's bandwidth."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.version, threads = np.__version__, job["threads"]
        self._a, self._b, self._c = (np.full(TRIAD_SIZE, value, np.float32) for value in (0, 1, 2))
        self._pool = ThreadPoolExecutor(threads)
        per_thread = -(-TRIAD_SIZE // threads)
        self._shares = [(start, min(start + per_thread, TRIAD_SIZE)) for start in range(0, TRIAD_SIZE, per_thread)]

    def run(self) -> dict[str, np.ndarray]:
        """Once over the arrays; the sums."""
        list(self._pool.map(self._share, self._shares))
        return {"sums": self._a}

    def _share(self, share: tuple[int, int]) -> None:
        for start in range(*share, TRIAD_BLOCK):
            block = slice(start, min(start + TRIAD_BLOCK, share[1]))
            np.multiply(self._c[block], np.float32(3), out=self._a[block])
            np.add(self._a[block], self._b[block], out=self._a[block])


def crf_inputs(classes: int, height: int, width: int, photograph: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Class scores (C, H, W) float32 in blocks of 8 x 8, and an image (H, W, 3) uint8.

    Args:
        classes: C.
        height: H, with a photograph at most 400.
        width: W, with a photograph at most 600.
        photograph: part of scikit-image's cup of coffee, not waves with a camera's noise.
    """
    random = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 80 * np.sin(x / 17 + k) * np.cos(y / 23) for k in range(3)]
    image = np.stack(waves, axis=-1) + random.normal(0, 2, (height, width, 3))
    blocks = 2 * random.standard_normal((classes, -(-height // 8), -(-width // 8)), dtype=np.float32)
    scores = blocks.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    if photograph:
        import skimage.data  # the Python of pydensecrf lacks it

        image = skimage.data.coffee()[:height, :width]
    return np.ascontiguousarray(scores), np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))


def crf_text(shape: Sequence[int | str]) -> str:
    """The network of a DenseCRF layer; its time holds the building of both lattices, as for every new image.

    Args:
        shape: as in `Scale.crfs`.
    """
    classes, height, width, iterations = shape[:4]
    pos_w, pos_xy, bi_w, bi_xy, bi_rgb = CRF_KERNELS
    text = ""
    for name, channels in (("scores", classes), ("image", 3)):
        size = f"dim: 1 dim: {channels} dim: {height} dim: {width}"
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {size} }} }} }}\n'
    return (
        f'{text}layer {{ name: "crf" type: "DenseCRF" bottom: "scores" bottom: "image" top: "crf" dense_crf_param {{\n'
        f"max_iter: {iterations} pos_w: {pos_w} pos_xy_std: {pos_xy} bi_w: {bi_w} bi_xy_std: {bi_xy} "
        f"bi_rgb_std: {bi_rgb} order: RGB }} }}\n"
    )


def write_crf_inputs(shape: Sequence[int | str], folder: Path) -> None:
    """Write what both sides of a CRF compute with, as benchmark_net -dump does: scores and image, each C x H x W."""
    scores, image = crf_inputs(*shape[:3], photograph=PHOTOGRAPH in shape)
    scores.tofile(folder / "scores.data.f32")
    image.transpose(2, 0, 1).astype(np.float32).tofile(folder / "image.data.f32")


class Pydensecrf:
    """A dense CRF by pydensecrf, which computes in one thread."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        from importlib.metadata import version

        self.version = version("pydensecrf2")
        *self._size, self._iterations = job["shape"][:4]
        scores, image = (
            np.fromfile(Path(job["values"]) / f"{name}.data.f32", np.float32) for name in ("scores", "image")
        )
        self._unary = -scores.reshape(self._size[0], -1)
        self._image = np.ascontiguousarray(image.reshape(3, *self._size[1:]).transpose(1, 2, 0).astype(np.uint8))

    def run(self) -> dict[str, np.ndarray]:
        """One image; Q, C x H x W."""
        from pydensecrf import densecrf

        classes, height, width = self._size
        pos_w, pos_xy, bi_w, bi_xy, bi_rgb = CRF_KERNELS
        crf = densecrf.DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(self._unary)
        crf.addPairwiseGaussian(sxy=pos_xy, compat=pos_w)
        crf.addPairwiseBilateral(sxy=bi_xy, srgb=bi_rgb, rgbim=self._image, compat=bi_w)
        return {"crf": np.array(crf.inference(self._iterations)).reshape(self._size)}
