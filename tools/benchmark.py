"""Time a ReNet layer group beside the same made of PyTorch's bidirectional LSTM, on this machine's processor."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.command_line import UserError, progress, run
from data_prep.dataset import write_atomically
from data_prep.prepare import whole_number
from tools.native_process import last_words
from tools.run_folder import surroundings, threads
from tools.speed_report import (
    Measurement,
    Side,
    largest_difference,
    markdown_table,
    product_gflops,
    text_table,
)
from tools.speed_worker import FORWARD, FORWARD_BACKWARD, CrfShape, Shape

ROOT = Path(__file__).resolve().parents[1]
PEER_ENVIRONMENT = ROOT / "build" / "bench-venv"  # PyTorch is no part of the product, so it stays out of .venv
PEER_REQUIREMENTS = ("torch==2.13.0", "numpy", "pydensecrf2==1.1")
SHAPES = (
    Shape(10, 12, 120, 160, 40),  # N-ReNet's first group in training: three channels in patches of 2x2
    Shape(10, 240, 50, 63, 120),
    Shape(1, 1024, 47, 63, 120),  # H-ReNet's group on an image of 375x500
)
TOLERANCE = 1e-3  # of results, relative to the largest value; the two sides add in other orders
LIBRARIES = {"caffe": "Caffe", "pytorch": "PyTorch", "numpy": "NumPy"}
PAUSE_SECONDS = 0.25  # idle threads of one library spin for a while, at the cost of the other's next run

DESCRIPTION = f"""{__doc__}

A group is a vertical and then a horizontal layer of LSTM units, each with both scans. Both libraries get the same map,
weights and number of threads, run alternately in processes of their own, and must come to the same result. Times are
the median (fastest-slowest) of the runs; "of sgemm" is the share of the speed of a large matrix product measured in
the same minutes; MiB is the memory that the group took at most, maps and weights included."""

EXAMPLES = """examples:
  tools/benchmark.py --markdown bench.md --json bench.json
  tools/benchmark.py --runs 3 --shapes 1,1024,47,63,120
  tools/benchmark.py --threads 1 --without-pytorch

PyTorch is installed into build/bench-venv at the first call."""


class Worker:
    """A process that does one task when told (tools/speed_worker.py)."""

    def __init__(self, python: Path | str, task: str, shape: Shape | CrfShape, passes: str, thread_count: int) -> None:
        count = str(thread_count)
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        self._task = task
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            [str(python), "-m", "tools.speed_worker", task, str(shape), passes, count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            env=os.environ | variables | {"PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"},
        )
        try:
            self.version: str = self._answer()["version"]
        except BaseException:
            self.close()
            raise

    def run(self) -> float:
        """Do the task once; milliseconds."""
        return self._ask("run")["milliseconds"]

    def results(self) -> dict[str, Any]:
        """`values`: samples of what the last run computed; `peak_mib`: memory taken at most."""
        return self._ask("results")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def _ask(self, question: str) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # the answer tells what happened
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._said.seek(0)
        raise UserError(f"{self._task}: {last_words(self._said.read(), status)}")


def prepare_peer(environment: Path = PEER_ENVIRONMENT) -> Path:
    """The Python that has PyTorch; made with venv and pip where it is missing.

    Raises:
        UserError: the installation failed; the message names its log.
    """
    python, complete = environment / "bin" / "python", environment / "installed.txt"
    wanted = "\n".join(PEER_REQUIREMENTS) + "\n"
    if complete.is_file() and complete.read_text() == wanted and python.exists():
        return python
    log = environment.parent / "logs" / f"{environment.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {', '.join(PEER_REQUIREMENTS)} into {environment}", file=sys.stderr)
    with open(log, "w") as stream:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [str(python), "-m", "pip", "install", *PEER_REQUIREMENTS],
        ):
            if subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode:
                raise UserError(
                    f"PyTorch could not be installed for the comparison; the log is {log}"
                    " (--without-pytorch measures Caffe alone)"
                )
    complete.write_text(wanted)
    return python


def parse_shape(text: str) -> Shape:
    """A shape from `N,C,H,W,d`; ArgumentTypeError for anything else."""
    try:
        shape = Shape(*map(int, text.split(",")))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"'{text}' is no shape N,C,H,W,d, such as {SHAPES[0]}") from None
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"every number of the shape '{text}' must be at least 1")
    return shape


@dataclass(frozen=True)
class Comparison:
    """All that was measured."""

    measurements: list[Measurement]
    sgemm_gflops: dict[str, float]  # the best of each library
    versions: dict[str, str]
    largest_difference: float | None  # of the sides' results, relative to the largest value; None without PyTorch


def measure(
    shapes: Sequence[Shape], passes: Sequence[str], runs: int, thread_count: int, peer: Path | None
) -> Comparison:
    """Time every shape and pass on both sides, alternately.

    Args:
        shapes: the groups to time.
        passes: of FORWARD, FORWARD_BACKWARD.
        runs: timed runs of each; one more before them is not counted.
        thread_count: threads for every library.
        peer: the Python that has PyTorch, or None to time Caffe alone.

    Raises:
        UserError: a process died (out of memory, for one), or the sides' results differ.
    """
    pythons: dict[str, Path | str] = {"caffe": sys.executable} | ({"pytorch": peer} if peer else {})
    products: dict[str, Path | str] = {"numpy-product": sys.executable} | ({"pytorch-product": peer} if peer else {})
    measurements, versions, differences = [], {}, []
    product_times: dict[str, list[float]] = {task: [] for task in products}
    rounds = progress(total=len(shapes) * len(passes) * (runs + 1), description="timing", unit="round")
    with rounds, started(products, shapes[0], FORWARD, thread_count) as product_workers:
        for shape in shapes:
            for chosen in passes:
                with started(pythons, shape, chosen, thread_count) as sides:
                    times: dict[str, list[float]] = {task: [] for task in sides}
                    for number in range(runs + 1):
                        for task, worker in (sides | product_workers).items():
                            time.sleep(PAUSE_SECONDS)
                            milliseconds = worker.run()
                            if number > 0:
                                (times | product_times)[task].append(milliseconds)
                        rounds.update()
                    results = {task: worker.results() for task, worker in sides.items()}
                    versions |= {task: worker.version for task, worker in sides.items()}
                timed = {task: Side(tuple(times[task]), results[task]["peak_mib"]) for task in times}
                measurements.append(Measurement(shape, chosen, timed["caffe"], timed.get("pytorch")))
                if peer:
                    difference = largest_difference(results["caffe"]["values"], results["pytorch"]["values"])
                    if difference > TOLERANCE:
                        raise UserError(
                            f"the libraries' results differ by {difference:.1e} of the largest value at the shape"
                            f" {shape}, {chosen}: they do not compute the same"
                        )
                    differences.append(difference)
    speeds = {task.removesuffix("-product"): max(map(product_gflops, each)) for task, each in product_times.items()}
    return Comparison(measurements, speeds, versions, max(differences, default=None))


@contextlib.contextmanager
def started(
    pythons: Mapping[str, Path | str], shape: Shape | CrfShape, passes: str, thread_count: int
) -> Iterator[dict[str, Worker]]:
    """A Worker for each task, ended afterwards; `pythons` names the Python of each."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for task, python in pythons.items():
            workers[task] = Worker(python, task, shape, passes, thread_count)
            stack.callback(workers[task].close)
        yield workers


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", type=parse_shape, default=list(SHAPES), metavar="N,C,H,W,d")
    parser.add_argument("--passes", nargs="+", choices=(FORWARD, FORWARD_BACKWARD), default=[FORWARD, FORWARD_BACKWARD])
    parser.add_argument("--runs", type=whole_number(1), default=7, help="timed runs of each (default: 7)")
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        default=threads(),
        help="of every library (default: %(default)s: OMP_NUM_THREADS or all)",
    )
    parser.add_argument("--without-pytorch", action="store_true", help="time Caffe alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time and what made it")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    peer = None if arguments.without_pytorch else prepare_peer()
    compared = measure(arguments.shapes, arguments.passes, arguments.runs, arguments.threads, peer)
    made_by = surroundings() | {"threads": arguments.threads}
    made_by["versions"] |= compared.versions
    measurements, sgemm = compared.measurements, compared.sgemm_gflops
    lines = [
        f"{made_by['machine']['processor']}, {arguments.threads} threads, median of {arguments.runs} runs, commit"
        f" {(made_by['commit'] or 'none')[:12]}",
        ", ".join(f"{LIBRARIES[name]} {version}" for name, version in compared.versions.items()),
        "sgemm: " + ", ".join(f"{speed:.0f} GFLOP/s ({LIBRARIES[name]})" for name, speed in sgemm.items()),
    ]
    if compared.largest_difference is not None:
        lines.append(f"the results are equal within {compared.largest_difference:.1e} of the largest value")
    peak = max(sgemm.values())
    print("\n".join([*lines, "", text_table(measurements, peak)]))
    if arguments.json:
        report = {
            **made_by,
            "sgemm_gflops": sgemm,
            "largest_difference": compared.largest_difference,
            "measurements": [
                asdict(m) | {"shape": m.shape._asdict(), "ratio": m.ratio, "caffe_gflops": m.gflops(m.caffe)}
                for m in measurements
            ],
        }
        write_atomically(arguments.json, (json.dumps(report, indent=1) + "\n").encode())
    if arguments.markdown:
        text = "\n".join([*(f"{line}  " for line in lines), "", markdown_table(measurements, peak), ""])
        write_atomically(arguments.markdown, text.encode())


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
