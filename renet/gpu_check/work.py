"""A network's work: its passes and inputs, operations and bytes, the time that no code can go below, and how far two
sides' results may differ.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FORWARD, FORWARD_BACKWARD, STEP = "forward", "forward+backward", "step"
FLOAT32, TF32, BF16 = "FLOAT32", "TF32", "BF16"
PRECISIONS = (FLOAT32, TF32, BF16)
GRADIENT = " gradient"  # ends the names of results that are a gradient's
# Of gradients in a network with ReLUs and maxima, for rounding decides some of them the other way. Up to 2e-2 was seen
# between the two sides on small images, 8e-3 between PyTorch's own float32 and float64, 0.12 with factors in TF32.
BRANCHING = {"ReLU", "Pooling"}
BRANCHING_TOLERANCE = {FLOAT32: 1e-1, TF32: 3e-1}
FLOAT_BYTES = 4
SHARED = {"Input", "Split"}  # layers that give what they take, without a copy on the way forward
SHAPE_ONLY = {"BilinearInterpolation", "Crop", "Interp"}  # ask all bottoms but the first for their shape alone
UPDATE_ACCESSES = 5  # of a parameter in a solver's step: reads gradient, history and value, writes history and value


class Input(NamedTuple):
    """What is fed, as benchmark_net -inputs has it; `classes` > 0: whole numbers below it."""

    name: str
    shape: tuple[int, ...]
    classes: int = 0


def parse_inputs(text: str) -> list[Input]:
    """The inputs of `name:N,C,H,W` or `name:N,C,H,W:classes`, separated by spaces."""
    items = [item.split(":") for item in text.split()]
    return [Input(name, tuple(map(int, shape.split(","))), *map(int, classes)) for name, shape, *classes in items]


def largest_difference(ours: Sequence[float], reference: Sequence[float], least_scale: float = 0.0) -> float:
    """The largest difference, relative to the largest value of `reference`, which counts as `least_scale` where it is
    less; infinite for NaN and for other counts."""
    differences = [abs(a - b) for a, b in zip(ours, reference)]
    if len(ours) != len(reference) or any(each != each for each in differences):
        return float("inf")
    worst, scale = max(differences, default=0.0), max(map(abs, reference), default=0.0)
    scale = max(scale, least_scale)
    return worst / scale if scale else (0.0 if worst == 0 else float("inf"))


class Rates(NamedTuple):
    """What a GPU can do at most.

    Attributes:
        tflops: 10^12 floating-point operations a second, by precision of a matrix product's factors.
        terabytes: 10^12 bytes of memory a second, reading and writing together.
        source: where the figures come from.
    """

    tflops: dict[str, float]
    terabytes: float
    source: str


# Makers' data sheets: dense products in each precision, and memory. Without tensor cores for a type it has the rate of
# float32.
DATA_SHEETS = (
    (r"H200", (67.0, 494.7, 989.4), 4.8),
    (r"H100.*(HBM3|SXM)|^NVIDIA H100$", (67.0, 494.7, 989.4), 3.35),
    (r"H100 PCIe", (51.2, 378.0, 756.0), 2.0),
    (r"H100", (51.2, 378.0, 756.0), 3.35),
    (r"(A100|A800).*80GB", (19.5, 156.0, 312.0), 2.04),
    (r"A100|A800", (19.5, 156.0, 312.0), 1.555),
    (r"L40S", (91.6, 183.0, 362.0), 0.864),
    (r"L4\b", (30.3, 60.0, 121.0), 0.3),
    (r"A10G?\b", (31.2, 62.5, 125.0), 0.6),
    (r"RTX 4090", (82.6, 82.6, 165.2), 1.008),
    (r"RTX 3090", (35.6, 35.6, 71.0), 0.936),
    (r"T4\b", (8.1, 8.1, 8.1), 0.32),
)


def data_sheet(name: str) -> Rates | None:
    """The rates that the maker gives for the GPU called `name`; None for one that is not listed."""
    for pattern, tflops, terabytes in DATA_SHEETS:
        if re.search(pattern, name):
            return Rates(dict(zip(PRECISIONS, tflops)), terabytes, "data sheet")
    return None


def product(sizes: Sequence[int]) -> int:
    """The product of sizes; 1 for none."""
    result = 1
    for size in sizes:
        result *= size
    return result


def positions(shape: Sequence[int]) -> int:
    """Places of a map N x C x ...: all axes but the channels."""
    return product(shape) // shape[1] if len(shape) > 1 else product(shape)


def operations(layers: Sequence[Mapping[str, Any]], backward: bool) -> int:
    """Floating-point operations of a network's matrix products; a multiplication and an addition count as two.

    Every weight (a parameter with two or more axes) is multiplied once at each position of what its layer gives; a
    deconvolution's at each position of what it takes. Backward has a product for the weights' gradient, and another
    for the gradient of what the layer takes, where that is asked for.

    Args:
        layers: the network's, as benchmark_net writes them.
        backward: whether the backward pass counts, too.
    """
    total = 0
    for layer in layers:
        weights = sum(product(shape) for shape in layer["params"] if len(shape) > 1)
        if weights:
            places = positions((layer["bottoms"] if layer["type"] == "Deconvolution" else layer["tops"])[0])
            products = 1 + (backward and layer["backward"]) * (1 + layer["propagate_down"])
            total += 2 * places * weights * products
    return total


def moved_bytes(layers: Sequence[Mapping[str, Any]], backward: bool, update: bool = False) -> int:
    """Bytes that a network must move where each layer reads what it takes and writes what it gives once.

    Backward reads the gradient of what the layer gave and what it took, and writes gradients of what it took (where
    asked for) and of its parameters.

    Args:
        layers: the network's, as benchmark_net writes them.
        backward: whether the backward pass counts, too.
        update: whether a solver's update with momentum counts, too.
    """
    values = 0
    for layer in layers:
        if layer["type"] in SHARED:
            continue
        bottoms = layer["bottoms"][:1] if layer["type"] in SHAPE_ONLY else layer["bottoms"]
        taken, given, held = (sum(map(product, shapes)) for shapes in (bottoms, layer["tops"], layer["params"]))
        values += taken + given + held
        if backward and layer["backward"]:
            values += given + taken * (1 + layer["propagate_down"]) + 2 * held
            values += UPDATE_ACCESSES * held * update
    return FLOAT_BYTES * values


class Floor(NamedTuple):
    """The time that no implementation can go below: milliseconds, and what sets it ("arithmetic" or "memory")."""

    milliseconds: float
    limit: str


def floor(operation_count: int, byte_count: int, rates: Rates, precision: str) -> Floor:
    """The longer one of the time for the operations and the time for the bytes."""
    arithmetic = operation_count / rates.tflops[precision] / 1e9
    memory = byte_count / rates.terabytes / 1e9
    return Floor(arithmetic, "arithmetic") if arithmetic >= memory else Floor(memory, "memory")
