"""How fast a GPU could be, and how far two sides' results may differ."""

from __future__ import annotations

import math
from typing import Any

import pytest

from renet.benchmark.tables import group_flops
from renet.gpu_check import entries
from renet.gpu_check.work import (
    BF16,
    FLOAT32,
    FORWARD,
    FORWARD_BACKWARD,
    TF32,
    Input,
    Rates,
    data_sheet,
    floor,
    largest_difference,
    moved_bytes,
    operations,
    parse_inputs,
)


def layer(kind: str, bottoms: list, tops: list, params: list, **changes: bool) -> dict[str, Any]:
    sides = {"backward": True, "propagate_down": False, **changes}
    return {"type": kind, "bottoms": bottoms, "tops": tops, "params": params, **sides}


def renet_layer(inputs: int, d: int, taken: list[int], given: list[int]) -> dict[str, Any]:
    params = [[4 * d, inputs], [4 * d], [4 * d, d]] * 2
    return layer("ReNetLSTM", [taken], [given], params, propagate_down=True)


CONVOLUTION = layer("Convolution", [[2, 3, 8, 6]], [[2, 5, 4, 3]], [[5, 3, 2, 2], [5]])
DECONVOLUTION = layer("Deconvolution", [[1, 4, 3, 2]], [[1, 1, 6, 4]], [[4, 1, 2, 2]])
PRODUCT = layer("InnerProduct", [[7, 10]], [[7, 3]], [[3, 10], [3]])
RESIZE = layer("BilinearInterpolation", [[1, 2, 3, 4], [1, 9, 6, 8]], [[1, 2, 6, 8]], [])
LOSS = layer("SoftmaxWithLoss", [[1, 2, 6, 8], [1, 1, 6, 8]], [[]], [])
SPLIT = layer("Split", [[4, 4]], [[4, 4], [4, 4]], [])


def test_operations_of_a_group_are_those_of_the_processors_benchmark() -> None:
    for shape in entries.SHAPES:
        n, c, height, width, d = shape
        middle = [n, 2 * d, height, width]
        layers = [renet_layer(c, d, [n, c, height, width], middle), renet_layer(2 * d, d, middle, middle)]
        assert operations(layers, False) == group_flops(shape, FORWARD)
        assert operations(layers, True) == group_flops(shape, FORWARD_BACKWARD)


def test_operations_of_other_layers() -> None:
    forward = 2 * (2 * 4 * 3) * (5 * 3 * 2 * 2)
    assert operations([CONVOLUTION], False) == forward
    assert operations([CONVOLUTION], True) == 2 * forward
    assert operations([CONVOLUTION | {"backward": False}], True) == forward
    assert operations([DECONVOLUTION], False) == 2 * (3 * 2) * (4 * 2 * 2)
    assert operations([PRODUCT], False) == 2 * 7 * 30
    assert operations([RESIZE, LOSS, SPLIT], True) == 0


def test_bytes_of_other_layers() -> None:
    held, taken, given = 33, 70, 21
    forward = held + taken + given
    backward = forward + given + taken + 2 * held
    assert moved_bytes([RESIZE], False) == 4 * (24 + 96)
    assert moved_bytes([SPLIT], True) == 0
    assert moved_bytes([PRODUCT], False) == 4 * forward
    assert moved_bytes([PRODUCT], True) == 4 * backward
    assert moved_bytes([PRODUCT | {"propagate_down": True}], True) == 4 * (backward + taken)
    assert moved_bytes([PRODUCT], True, update=True) == 4 * (backward + 5 * held)


def test_floor_is_the_longer_one() -> None:
    rates = Rates({FLOAT32: 10.0, TF32: 40.0, BF16: 80.0}, 2.0, "measured")
    assert floor(2 * 10**10, 10**9, rates, FLOAT32) == (pytest.approx(2.0), "arithmetic")
    assert floor(2 * 10**10, 10**9, rates, BF16) == (pytest.approx(0.5), "memory")


@pytest.mark.parametrize(
    ("name", "float32", "terabytes"),
    [
        ("NVIDIA H200", 67.0, 4.8),
        ("NVIDIA H100 80GB HBM3", 67.0, 3.35),
        ("NVIDIA H100 PCIe", 51.2, 2.0),
        ("NVIDIA A100-SXM4-40GB", 19.5, 1.555),
        ("NVIDIA A100-SXM4-80GB", 19.5, 2.04),
        ("NVIDIA A10G", 31.2, 0.6),
        ("Tesla T4", 8.1, 0.32),
        ("NVIDIA L4", 30.3, 0.3),
        ("NVIDIA L40S", 91.6, 0.864),
    ],
)
def test_data_sheets(name: str, float32: float, terabytes: float) -> None:
    rates = data_sheet(name)
    assert rates
    assert (rates.tflops[FLOAT32], rates.terabytes) == (float32, terabytes)


def test_an_unknown_gpu_has_no_data_sheet() -> None:
    assert data_sheet("Imaginary 1") is None


def test_largest_difference() -> None:
    assert largest_difference([1.0, -3.0], [1.0, -4.0]) == 0.25
    assert largest_difference([0.0], [0.0]) == 0
    for ours, reference in (([1.0], [0.0]), ([math.nan, 0.0], [1.0, 0.0]), ([1.0], [1.0, 1.0])):
        assert largest_difference(ours, reference) == math.inf


def test_inputs_are_parsed() -> None:
    assert parse_inputs("data:2,3 label:2:8") == [Input("data", (2, 3), 0), Input("label", (2,), 8)]
    assert parse_inputs("") == []
