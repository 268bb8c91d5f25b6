"""Time the DenseCRF layer beside pydensecrf on this machine's processor, and compare what they compute."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.command_line import UserError, progress, run
from data_prep.dataset import write_atomically
from data_prep.prepare import whole_number
from tools.benchmark import PAUSE_SECONDS, prepare_peer, started
from tools.run_folder import surroundings, threads
from tools.speed_worker import FORWARD, CrfShape

SHAPES = tuple(CrfShape(21, 375, 500, iterations) for iterations in (2, 10))
CLOSE, CLOSE_SHARE, FARTHEST = 1e-3, 0.999, 2e-2  # of the values of Q: the layer's contract with pydensecrf

DESCRIPTION = f"""{__doc__}

Both get the same scores and picture (waves with a camera's noise), build their lattices anew each time, and run
alternately in processes of their own. pydensecrf computes in one thread; the layer uses --threads."""

EXAMPLES = """examples:
  tools/crf_benchmark.py --runs 9 --markdown crf.md
  tools/crf_benchmark.py --threads 1

PyTorch and pydensecrf are installed into build/bench-venv at the first call."""


@dataclass(frozen=True)
class CrfMeasurement:
    """Times of one shape, milliseconds, and the two sides' largest difference of Q."""

    shape: CrfShape
    caffe: tuple[float, ...]
    peer: tuple[float, ...]
    largest_difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast as pydensecrf the layer is, by the medians."""
        return statistics.median(self.peer) / statistics.median(self.caffe)


def check_agreement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference of two samples of Q.

    Raises:
        UserError: they differ by more than the contract allows.
    """
    differences = np.abs(np.subtract(ours, theirs))
    share = float((differences < CLOSE).mean())
    if share < CLOSE_SHARE or differences.max() >= FARTHEST:
        raise UserError(
            f"the layer and pydensecrf do not compute the same: {100 * share:.2f}% of the values of Q are within "
            f"{CLOSE:g}, the farthest differs by {differences.max():.2g}"
        )
    return float(differences.max())


def measure(shapes: Sequence[CrfShape], runs: int, thread_count: int, peer: Path) -> list[CrfMeasurement]:
    """Time both sides alternately, after one run that is not counted.

    Raises:
        UserError: a process died, or the results differ.
    """
    measurements = []
    with progress(total=len(shapes) * (runs + 1), description="timing", unit="round") as rounds:
        for shape in shapes:
            with started({"caffe-crf": sys.executable, "pydensecrf": peer}, shape, FORWARD, thread_count) as sides:
                times: dict[str, list[float]] = {name: [] for name in sides}
                for number in range(runs + 1):
                    for name, worker in sides.items():
                        time.sleep(PAUSE_SECONDS)
                        milliseconds = worker.run()
                        if number > 0:
                            times[name].append(milliseconds)
                    rounds.update()
                values = [worker.results()["values"]["Q"] for worker in sides.values()]
            difference = check_agreement(*values)
            measurements.append(CrfMeasurement(shape, *map(tuple, times.values()), difference))
    return measurements


def table(measurements: Sequence[CrfMeasurement]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| classes, height, width | iterations | DenseCRF ms | pydensecrf ms | ratio | largest difference of Q |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for m in measurements:
        ours, theirs = (
            f"{statistics.median(side):.0f} ({min(side):.0f}-{max(side):.0f})" for side in (m.caffe, m.peer)
        )
        size = f"{m.shape.classes}, {m.shape.height}, {m.shape.width}"
        lines.append(
            f"| {size} | {m.shape.iterations} | {ours} | {theirs} | {m.ratio:.1f} | {m.largest_difference:.1e} |"
        )
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=whole_number(1), default=7, help="timed runs of each (default: 7)")
    parser.add_argument(
        "--threads", type=whole_number(1), default=threads(), help="of the layer (default: %(default)s)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    measurements = measure(SHAPES, arguments.runs, arguments.threads, prepare_peer())
    made_by = surroundings()
    text = (
        f"{made_by['machine']['processor']}, {arguments.threads} threads, median (fastest-slowest) of {arguments.runs}"
        f" runs, commit {(made_by['commit'] or 'none')[:12]}\n\n{table(measurements)}\n"
    )
    print(text)
    if arguments.markdown:
        write_atomically(arguments.markdown, text.encode())


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
