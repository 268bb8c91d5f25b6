"""DenseCRF and MultiStageMeanfield beside a dense reference in NumPy: the lattice as a matrix, every option."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

import caffe
from caffe.proto import caffe_pb2

from renet.prediction.crf_parameters import NORMALIZATIONS

CLASSES, BATCH, ITERATIONS = 4, 2, 3
SIZES = ((5, 7), (9, 3), (1, 6))  # of one network, one after the other
SETTINGS = {"pos_w": 1.5, "pos_xy_std": 2.5, "bi_w": 2.0, "bi_xy_std": 6.0, "bi_rgb_std": 25.0}
# of the parameter blobs, by the settings that make them
SHAPES = {
    "": [],
    "learn: true": [(CLASSES,), (CLASSES,), (CLASSES, CLASSES)],
    "kernel_weights: MATRIX": [(1, 1, CLASSES, CLASSES)] * 2,
    "compatibility: MATRIX": [(1, 1, CLASSES, CLASSES)],
    "kernel_weights: MATRIX compatibility: MATRIX": [(1, 1, CLASSES, CLASSES)] * 3,
}


def simplex(feature: np.ndarray) -> list[tuple[tuple[int, ...], np.float32]]:
    """The corners of a point's simplex in the permutohedral lattice, and its weights there (Adams et al. 2010)."""
    d = len(feature)
    deviation = np.float32(np.sqrt(2 / 3) * (d + 1))
    scaled = feature * np.array([np.float32(1 / np.sqrt((k + 2) * (k + 1))) * deviation for k in range(d)], np.float32)
    elevated, total = np.zeros(d + 1, np.float32), np.float32(0)
    for k in range(d, 0, -1):
        elevated[k] = total - np.float32(k) * scaled[k - 1]
        total += scaled[k - 1]
    elevated[0] = total
    whole = np.rint(elevated * np.float32(1 / (d + 1)))
    origin, excess = (whole * (d + 1)).astype(int), int(whole.sum())
    # places in the descending order of the differences; the first of equal ones comes first
    rank = np.argsort(np.argsort(-(elevated - origin.astype(np.float32)), kind="stable")) + excess
    origin = origin + (d + 1) * ((rank < 0).astype(int) - (rank > d))
    rank %= d + 1
    difference = (elevated - origin.astype(np.float32)) * np.float32(1 / (d + 1))
    sorted_ = np.zeros(d + 1, np.float32)
    sorted_[rank] = difference
    weights = [1 + sorted_[d] - sorted_[0], *(sorted_[d - r] - sorted_[d + 1 - r] for r in range(1, d + 1))]
    return [(tuple(origin + r - (d + 1) * (rank + r > d)), weight) for r, weight in enumerate(weights)]


def lattice_matrix(features: np.ndarray) -> np.ndarray:
    """K (P x P) of P points' features (P x d): splat, blur along each axis, slice."""
    count, d = features.shape
    simplices = [simplex(feature) for feature in features]
    filling = simplex(np.zeros(d, np.float32)) if count % 4 else []
    keys = dict.fromkeys(key for corners in [*simplices, filling] for key, _ in corners)
    number = {key: n for n, key in enumerate(keys)}
    splat = np.zeros((len(number), count))
    for point, corners in enumerate(simplices):
        for key, weight in corners:
            splat[number[key], point] += weight
    values = splat
    for axis in range(d + 1):
        blur = np.eye(len(number))
        step = np.ones(d + 1, int) - (d + 1) * (np.arange(d + 1) == axis)
        for key, sign in itertools.product(number, (1, -1)):
            neighbour = number.get(tuple(np.add(key, sign * step)))
            if neighbour is not None:
                blur[number[key], neighbour] = 0.5
        values = blur @ values
    return splat.T @ values / (1 + 2.0**-d)


def normalised(kernel: np.ndarray, normalization: str) -> np.ndarray:
    """N of K (P x P)."""
    sums = kernel.sum(axis=1)
    after = {"SYMMETRIC": sums**-0.5, "AFTER": 1 / sums}.get(normalization, np.ones_like(sums))
    before = {"SYMMETRIC": sums**-0.5, "BEFORE": 1 / sums}.get(normalization, np.ones_like(sums))
    return after[:, None] * kernel * before


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the first axis."""
    power = np.exp(logits - logits.max(axis=0))
    return power / power.sum(axis=0)


def reference(
    scores: np.ndarray,
    start: np.ndarray,
    image: np.ndarray,
    normalization: str,
    matrices: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The logits of the last iteration: C x H x W of scores and start (C x H x W) and an image (3 x H x W)."""
    _, height, width = scores.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
    place = np.stack([x, y], axis=1)
    colour = image.reshape(3, -1).T.astype(np.float32)
    kernels = (
        place / np.float32(SETTINGS["pos_xy_std"]),
        np.hstack([place / np.float32(SETTINGS["bi_xy_std"]), colour / np.float32(SETTINGS["bi_rgb_std"])]),
    )
    filters = [normalised(lattice_matrix(features), normalization) for features in kernels]
    logits = start.reshape(len(start), -1).astype(float)
    for _ in range(ITERATIONS):
        q = softmax(logits)
        message = sum(matrices[f"W{k}"] @ q @ filters[k].T for k in range(2))
        logits = scores.reshape(len(scores), -1) - matrices["mu"] @ message
    return logits.reshape(scores.shape)


def inputs(size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Scores, start and an image of whole numbers, each of a batch."""
    random = np.random.default_rng(sum(size))
    maps = {name: random.standard_normal((BATCH, CLASSES, *size)) for name in ("scores", "start")}
    return maps | {"image": random.integers(0, 256, (BATCH, 3, *size))}


def network(folder: Path, layer: str, bottoms: tuple[str, ...]) -> caffe.Net:
    """A network of one layer over inputs that are named as `inputs` names them."""
    text = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 1 dim: {channels} dim: 2 '
        "dim: 2 } } }\n"
        for name, channels in (("scores", CLASSES), ("start", CLASSES), ("image", 3))
        if name in bottoms
    )
    names = " ".join(f'bottom: "{name}"' for name in bottoms)
    file = folder / "net.prototxt"
    file.write_text(f'{text}layer {{ name: "crf" {names} top: "crf" {layer} }}\n')
    return caffe.Net(str(file), caffe.TEST)


def run(net: caffe.Net, maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """The layer's top for the inputs that the network has."""
    for name in net.inputs:
        net.blobs[name].reshape(*maps[name].shape)
        net.blobs[name].data[...] = maps[name]
    return net.forward()["crf"].copy()


def blob_values(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Parameters that differ everywhere, of both signs off the diagonals."""
    random = np.random.default_rng(7)
    values = [random.standard_normal(shape) / 2 for shape in shapes]
    for value in values[: 2 if len(values) > 1 else 0]:  # of the kernels
        value[...] += 2 * np.eye(CLASSES) if value.ndim > 1 else 2
    return values


def matrices_of(values: list[np.ndarray]) -> dict[str, np.ndarray]:
    """W0, W1 and mu that parameter blobs stand for; those without are fixed."""
    found = {"W0": SETTINGS["pos_w"] * np.eye(CLASSES), "W1": SETTINGS["bi_w"] * np.eye(CLASSES)}
    found["mu"] = 1 - np.eye(CLASSES)
    for name, value in zip(("mu",) if len(values) == 1 else ("W0", "W1", "mu"), values):
        found[name] = np.diag(value) if value.ndim == 1 else value.reshape(CLASSES, CLASSES)
    return found


@pytest.mark.parametrize("learned", SHAPES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_dense_crf_is_its_definition(tmp_path: Path, normalization: str, learned: str) -> None:
    settings = " ".join(f"{name}: {value}" for name, value in SETTINGS.items())
    net = network(
        tmp_path,
        f'type: "DenseCRF" dense_crf_param {{ {settings} max_iter: {ITERATIONS} order: RGB '
        f"normalization: {normalization} {learned} }}",
        ("scores", "image"),
    )
    values = blob_values(SHAPES[learned])
    blobs = net.params["crf"] if learned else []
    assert [tuple(blob.shape) for blob in blobs] == SHAPES[learned]
    for blob, value in zip(blobs, values):
        blob.data[...] = value
    for size in SIZES:
        maps = inputs(size)
        found = run(net, maps)
        for n in range(BATCH):
            logits = reference(
                maps["scores"][n], maps["scores"][n], maps["image"][n], normalization, matrices_of(values)
            )
            assert np.abs(found[n] - softmax(logits)).max() < 2e-5, (size, n)


def test_multi_stage_meanfield_with_weights_of_a_file(tmp_path: Path) -> None:
    """A .caffemodel as CRF-as-RNN's Caffe writes it, blobs with the old four dimensions, loads by the layer's name."""
    values = blob_values(SHAPES["kernel_weights: MATRIX compatibility: MATRIX"])
    file = caffe_pb2.NetParameter()
    layer = file.layer.add(name="crf", type="MultiStageMeanfield")
    for value in values:
        layer.blobs.add(num=1, channels=1, height=CLASSES, width=CLASSES, data=value.ravel())
    (tmp_path / "net.caffemodel").write_bytes(file.SerializeToString())
    theirs: dict[str, Any] = {
        "num_iterations": ITERATIONS,
        "compatibility_mode": "POTTS",
        "threshold": 2,
        "theta_alpha": SETTINGS["bi_xy_std"],
        "theta_beta": SETTINGS["bi_rgb_std"],
        "theta_gamma": SETTINGS["pos_xy_std"],
        "spatial_filter_weight": 3,
        "bilateral_filter_weight": 5,
    }
    text = " ".join(f"{name}: {value}" for name, value in theirs.items())
    net = network(
        tmp_path,
        f'type: "MultiStageMeanfield" multi_stage_meanfield_param {{ {text} }} '
        "param { lr_mult: 10000 } param { lr_mult: 10000 } param { lr_mult: 1000 }",
        ("scores", "start", "image"),
    )
    net.copy_from(str(tmp_path / "net.caffemodel"))
    for size in SIZES:
        maps = inputs(size)
        found = run(net, maps)
        for n in range(BATCH):
            expected = reference(maps["scores"][n], maps["start"][n], maps["image"][n], "AFTER", matrices_of(values))
            assert np.abs(found[n] - expected).max() < 1e-4, (size, n)
