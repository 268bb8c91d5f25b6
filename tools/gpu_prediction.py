"""What the ReNet layers should take on a GPU in float32, from bytes, operations and the kernels' instructions.

It is made before anything is measured, to have something to hold the measurement against: where they differ, one of
them is wrong. `tools/gpu_check.py` measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.command_line import UserError, run
from tools.benchmark_settings import SHAPES
from tools.gpu_limits import FLOAT32, data_sheet
from tools.speed_worker import Shape, parse_shape

GATES = 4  # of an LSTM
FLOAT_BYTES = 4
PRODUCT_SHARE = 0.75  # of the data sheet's rate, in a large float32 product
MEMORY_SHARE = 0.9  # of the data sheet's bandwidth, in a copy
LAUNCH = 3e-6  # seconds a kernel waits for its turn
FORWARD_LAUNCHES, BACKWARD_LAUNCHES = 5, 11
# PlanResident's figures (caffe_layers/include/caffe/renet/gpu/resident_product.cuh)
STEP_CLOCKS = 250
PASS_INSTRUCTIONS = 240
PASS_LINES = 4
MOST_PASSES = 8
MOST_UNITS = 128
WEIGHTS_IN_SHARED = 18 * 16 * 512  # bytes, beyond 96 units


class Chip(NamedTuple):
    """A GPU: its name, multiprocessors, clock in Hz, bytes of shared memory that a block may have."""

    name: str
    multiprocessors: int
    clock: float
    shared_memory: int


H200 = Chip("NVIDIA H200", 132, 1.98e9, 232448)


class Sweep(NamedTuple):
    """Seconds of one ReNet layer: recurrence and everything, forward and backward."""

    scan: float
    forward: float
    scan_backward: float
    backward: float


def ceil_divide(a: int, b: int) -> int:
    """The least integer not below a / b."""
    return -(-a // b)


def scan_seconds(chip: Chip, lines: int, steps: int, hidden: int, backward: bool) -> float:
    """Seconds of the recurrence of both scans, with the tile that PlanResident takes.

    Raises:
        UserError: for more units than a block holds the weights of.
    """
    if hidden > MOST_UNITS:
        raise UserError(f"no block holds the weights of {hidden} units in float32: at most {MOST_UNITS}")
    threads, width = ceil_divide(hidden, 8) * 32, ceil_divide(hidden, 32) * 32
    by_registers = 65536 // (128 * threads) if width <= 64 else 1
    pass_clocks = PASS_INSTRUCTIONS + PASS_LINES * GATES * hidden * width / threads
    pass_bytes = FLOAT_BYTES * (2 * PASS_LINES * width * (GATES if backward else 1) + threads)
    clocks = []
    for passes in range(1, MOST_PASSES + 1):
        shared = passes * pass_bytes + (WEIGHTS_IN_SHARED if width == 128 else 0)
        if shared > chip.shared_memory:
            break
        resident = min(by_registers, chip.shared_memory // shared)
        blocks = 2 * ceil_divide(lines, passes * PASS_LINES)
        waves = ceil_divide(blocks, resident * chip.multiprocessors)
        sharing = min(resident, ceil_divide(blocks, chip.multiprocessors))
        warps_of_quarter = ceil_divide(sharing * threads, 128)
        clocks.append(waves * (STEP_CLOCKS + warps_of_quarter * passes * pass_clocks))
    return steps * min(clocks) / chip.clock


def sweep(chip: Chip, images: int, channels: int, height: int, width: int, hidden: int, vertical: bool) -> Sweep:
    """One layer over patches of one pixel (an image's patches of s x t count as channels)."""
    rates = data_sheet(chip.name)
    operations = rates.tflops[FLOAT32] * 1e12 * PRODUCT_SHARE
    memory = rates.terabytes * 1e12 * MEMORY_SHARE / FLOAT_BYTES
    lines, steps = (images * width, height) if vertical else (images * height, width)
    positions = images * height * width
    row, gates, states = ceil_divide(channels + 1, 4) * 4, 2 * GATES * hidden, 2 * hidden
    product = max(2 * positions * row * gates / operations, positions * (row + gates) / memory)
    recurrent_product = 2 * positions * gates * hidden / operations
    moved = positions * (channels + row + 2 * states) / memory
    scan = max(scan_seconds(chip, lines, steps, hidden, False), positions * (2 * gates + 2 * states) / memory)
    back = max(scan_seconds(chip, lines, steps, hidden, True), positions * (2 * gates + 4 * states) / memory)
    forward = product + scan + moved + FORWARD_LAUNCHES * LAUNCH
    backward = 2 * product + recurrent_product + back + 2 * moved + BACKWARD_LAUNCHES * LAUNCH
    return Sweep(scan, forward, back, backward)


def group(chip: Chip, shape: Shape) -> tuple[Sweep, Sweep]:
    """A vertical and then a horizontal layer over a map of N x C x H x W."""
    images, channels, height, width, hidden = shape
    return (
        sweep(chip, images, channels, height, width, hidden, True),
        sweep(chip, images, 2 * hidden, height, width, hidden, False),
    )


def n_renet(chip: Chip, images: int, height: int, width: int) -> float:
    """Seconds of the six sweeps of N-ReNet (section 4.1: d = 40, 60, 60, first patches 2x2) forward."""
    total, channels = 0.0, 3 * 4
    for hidden in (40, 60, 60):
        total += sum(s.forward for s in group(chip, Shape(images, channels, height // 2, width // 2, hidden)))
        channels = 2 * hidden
    return total


def table(chip: Chip, shapes: Sequence[Shape]) -> str:
    """The predictions as a Markdown table; times in milliseconds."""
    lines = [
        "| N, C, H, W, d | recurrences forward | forward | recurrences backward | forward+backward |",
        "|---|---:|---:|---:|---:|",
    ]
    for shape in shapes:
        both = group(chip, shape)
        forward = sum(s.forward for s in both)
        figures = (
            sum(s.scan for s in both),
            forward,
            sum(s.scan_backward for s in both),
            forward + sum(s.backward for s in both),
        )
        lines.append(f"| {', '.join(map(str, shape))} | " + " | ".join(f"{1e3 * x:.2f}" for x in figures) + " |")
    return "\n".join(lines)


def main(arguments: argparse.Namespace) -> None:
    """Print the predictions."""
    print(f"{H200.name}, float32, milliseconds\n\n{table(H200, arguments.shapes)}\n")
    print(f"N-ReNet's sweeps at 240 x 320, one image: {1e3 * n_renet(H200, 1, 240, 320):.2f} ms")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Predict the time of ReNet layer groups on a GPU, before it is measured.",
        epilog="example:\n  tools/gpu_prediction.py --shapes 1,1024,47,63,120",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=list(SHAPES), metavar="N,C,H,W,d")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
