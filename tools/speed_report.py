"""What a speed comparison says: arithmetic counted, medians, shares, and the table as text and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.speed_worker import FORWARD, FORWARD_BACKWARD, PRODUCT_SIZE, Shape
from tools.text_table import aligned, markdown

COLUMNS = (
    "N, C, H, W, d",
    "pass",
    "Caffe ms",
    "PyTorch ms",
    "ratio",
    "Caffe GFLOP/s",
    "of sgemm",
    "PyTorch GFLOP/s",
    "Caffe MiB",
    "PyTorch MiB",
)
TEXT_COLUMNS = 2  # the first ones; the others are numbers


def group_flops(shape: Shape, passes: str) -> int:
    """Floating-point operations (a multiplication and an addition count as two) of a group's matrix products.

    A scan multiplies W_x (4d x P) and W_h (4d x d) at every position; a layer has two scans, the group a vertical
    layer (P = C) and a horizontal one (P = 2d). Backward has two products for each of forward's: the gradients of both
    factors.
    """
    positions = shape.num * shape.height * shape.width
    d = shape.hidden
    forward = sum(2 * 2 * positions * 4 * d * (inputs + d) for inputs in (shape.channels, 2 * d))
    return {FORWARD: forward, FORWARD_BACKWARD: 3 * forward}[passes]


def product_gflops(milliseconds: float) -> float:
    """GFLOP/s of the large matrix product that marks the processor's peak."""
    return 2 * PRODUCT_SIZE**3 / milliseconds / 1e6


@dataclass(frozen=True)
class Side:
    """One library at one shape: milliseconds of every run, and the memory (MiB) that its work took at most."""

    milliseconds: tuple[float, ...]
    peak_mib: float

    @property
    def median(self) -> float:
        """The median time in milliseconds."""
        return statistics.median(self.milliseconds)


@dataclass(frozen=True)
class Measurement:
    """Caffe, and PyTorch unless it was left out, at one shape and pass."""

    shape: Shape
    passes: str
    caffe: Side
    pytorch: Side | None

    @property
    def ratio(self) -> float | None:
        """How many times as fast Caffe is, by the medians."""
        return self.pytorch.median / self.caffe.median if self.pytorch else None

    def gflops(self, side: Side) -> float:
        """GFLOP/s of a side's median run."""
        return group_flops(self.shape, self.passes) / side.median / 1e6


def largest_difference(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """The largest difference of two sides' results, relative to the largest value of its kind (infinite for NaN)."""
    worst = 0.0
    for name, values in ours.items():
        a, b = np.array(values), np.array(theirs[name])
        difference = np.abs(a - b).max() / np.abs(b).max()
        worst = max(worst, float(difference) if np.isfinite(difference) else float("inf"))
    return worst


def _time(side: Side | None) -> str:
    if side is None:
        return "-"
    return f"{side.median:.1f} ({min(side.milliseconds):.1f}-{max(side.milliseconds):.1f})"


def rows(measurements: Sequence[Measurement], peak_gflops: float) -> list[tuple[str, ...]]:
    """The table's cells, in the order of COLUMNS; times are median (fastest-slowest)."""
    return [
        (
            ", ".join(map(str, m.shape)),
            m.passes,
            _time(m.caffe),
            _time(m.pytorch),
            f"{m.ratio:.2f}" if m.ratio else "-",
            f"{m.gflops(m.caffe):.1f}",
            f"{m.gflops(m.caffe) / peak_gflops:.0%}",
            f"{m.gflops(m.pytorch):.1f}" if m.pytorch else "-",
            f"{m.caffe.peak_mib:.0f}",
            f"{m.pytorch.peak_mib:.0f}" if m.pytorch else "-",
        )
        for m in measurements
    ]


def text_table(measurements: Sequence[Measurement], peak_gflops: float) -> str:
    """The table for a terminal."""
    return "\n".join(aligned([COLUMNS, *rows(measurements, peak_gflops)], TEXT_COLUMNS, underline=False))


def markdown_table(measurements: Sequence[Measurement], peak_gflops: float) -> str:
    """The table for a document."""
    return markdown([COLUMNS, *rows(measurements, peak_gflops)], TEXT_COLUMNS).rstrip()
