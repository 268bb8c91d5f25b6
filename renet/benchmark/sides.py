"""The sides of a speed comparison: processes that do the same work in turn, and are held to the same results."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.gpu_check.conversation import Conversation, Died, last_words
from renet.gpu_check.work import BRANCHING_TOLERANCE, FLOAT32, GRADIENT, largest_difference

PEER_ENVIRONMENT = ROOT / "build" / "bench-venv"  # PyTorch is no part of the product, so it stays out of .venv
PEER_REQUIREMENTS = (
    *("torch==2.13.0", "numpy==2.4.6", "pillow==13.0.0", "pydensecrf2==1.1"),
    *("onnxruntime==1.32.0", "openvino==2026.4.1"),
)
LEAST_MILLISECONDS = 200.0  # of a run whose work can be repeated
PAUSE_SECONDS = 0.25  # idle threads of one library spin for a while, at the cost of the other's next run
BFLOAT16_TOLERANCE = 0.3  # of results, relative to the largest value; it has 8 bits, and the weights are random
TOLERANCE = 1e-3  # of results, relative to the largest value; the sides add in other orders


Check = Callable[[Mapping[str, list[float]], Mapping[str, list[float]]], float]


def check_results(
    ours: Mapping[str, list[float]],
    theirs: Mapping[str, list[float]],
    tolerance: float = TOLERANCE,
    branching: bool = False,
) -> float:
    """The largest difference of two sides' results, relative to the largest value of each.

    Args:
        ours: samples by name.
        theirs: likewise.
        tolerance: the difference that is allowed.
        branching: rounding decides some ReLUs and maxima the other way: gradients may differ by BRANCHING_TOLERANCE,
            and do not count.

    Raises:
        UserError: a result is on one side alone, or differs by more.
    """
    if ours.keys() != theirs.keys():
        raise UserError(f"the two sides do not give the same: {sorted(ours.keys() ^ theirs.keys())} on one side alone")
    worst = 0.0
    for name in ours:
        may_branch = branching and name.endswith(GRADIENT)
        difference = largest_difference(ours[name], theirs[name])
        if difference > (BRANCHING_TOLERANCE[FLOAT32] if may_branch else tolerance):
            raise UserError(f"the two sides do not come to the same: {name} differs by {difference:.1e} of its largest")
        worst = worst if may_branch else max(worst, difference)
    return worst


def check_whole_gradient(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two sides' results, where a gradient counts as one vector of all parameters.

    Before a convolution and a batch normalisation, say, nothing depends on a bias: what two sides compute for its
    gradient is rounding, which nothing compares with. The vectors may differ by BRANCHING_TOLERANCE of their length.

    Raises:
        UserError: as of `check_results`.
    """
    results, gradients = (
        tuple({name: side[name] for name in side if name.endswith(GRADIENT) == wanted} for side in (ours, theirs))
        for wanted in (False, True)
    )
    worst = check_results(*results)
    if gradients[0].keys() != gradients[1].keys():
        raise UserError(f"gradients on one side alone: {sorted(gradients[0].keys() ^ gradients[1].keys())}")
    own, other = ([value for name in sorted(side) for value in side[name]] for side in gradients)
    difference = math.dist(own, other) / math.hypot(*other) if gradients[0] else 0.0
    if not difference < BRANCHING_TOLERANCE[FLOAT32]:
        raise UserError(
            f"the two sides do not come to the same: the gradients differ by {difference:.1e} of their length"
        )
    return worst


class Side(NamedTuple):
    """One side of a comparison.

    Attributes:
        library: the module of Python that does the work.
        task: a class of renet.benchmark's modules, as in "network_tasks.CaffeNetwork".
        python: the Python that has the library.
        job: what the task needs to know; it becomes JSON.
        variables: more of its environment.
        caffe: the build folder that has Caffe, where that is not the Python's own.
        check: tells the largest difference of the first side's results and this one's, or raises UserError.
    """

    library: str
    task: str
    python: Path | str
    job: Mapping[str, Any]
    variables: Mapping[str, str] = {}
    caffe: Path | None = None
    check: Check = check_results


class Worker(Conversation):
    """A side's process (renet/benchmark/worker.py); any failure of it is a UserError that begins with its name."""

    def __init__(self, name: str, side: Side, thread_count: int, log: Path) -> None:
        """Start it and wait until it is ready; `log` is where it says what it says."""
        self._name = name
        count = str(thread_count)
        environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        job = json.dumps({**side.job, "library": side.library, "threads": thread_count})
        command = [str(side.python), "-m", "renet.benchmark.worker", side.library, side.task, job]
        environment |= {**import_path(side.caffe), "GLOG_minloglevel": "2", **side.variables}
        with self._told():
            super().__init__(command, os.environ | environment, ROOT, log)

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """The answer to a question."""
        with self._told():
            return super().ask(do, **details)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Died as error:
            raise UserError(f"{self._name}: {error}") from None


def import_path(caffe: Path | None) -> dict[str, str]:
    """The variable by which Python finds this library, and Caffe in a build folder."""
    return {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *([caffe / "python"] if caffe else [])]))}


@contextlib.contextmanager
def started(sides: Mapping[str, Side], thread_count: int) -> Iterator[dict[str, Worker]]:
    """A Worker for each side, started in their order, ended afterwards."""
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))
        workers = {}
        for name, side in sides.items():
            workers[name] = stack.enter_context(Worker(name, side, thread_count, logs / f"{len(workers)}.log"))
        yield workers


def in_turn(workers: Mapping[str, Worker], runs: int, times: int = 1) -> Iterator[tuple[str, Worker, float]]:
    """Run all workers in turn, once more than `runs`; yields of every run but the first its side and milliseconds.

    Each run does the work so many times, and has the time of one.
    """
    for number in range(runs + 1):
        for name, worker in workers.items():
            time.sleep(PAUSE_SECONDS)
            milliseconds = worker.ask("run", times=times)["milliseconds"]
            if number > 0:
                yield name, worker, milliseconds


def compare(sides: Mapping[str, Side], runs: int, thread_count: int, repeats: bool = False) -> dict[str, Any]:
    """Time all sides in turn, after one run of each that is not counted.

    Args:
        sides: by name; the first one's results are those that the others' are held to.
        runs: timed runs of each.
        thread_count: threads for every library.
        repeats: the work may be done again with the same result: short work is, as often on each side, until a run
            takes LEAST_MILLISECONDS on the fastest, for a single pass after a pause is that of a processor that wakes.

    Returns:
        `sides`: by name, milliseconds of every run, peak_mib, version and onednn; `differences`: by name of each side
        but the first.

    Raises:
        UserError: a process died (out of memory, for one), or results differ too much.
    """
    with started(sides, thread_count) as workers:
        times: dict[str, list[float]] = {name: [] for name in workers}
        fastest = min(milliseconds for _, _, milliseconds in in_turn(workers, 1)) if repeats else LEAST_MILLISECONDS
        for name, _, milliseconds in in_turn(workers, runs, max(1, round(LEAST_MILLISECONDS / fastest))):
            times[name].append(round(milliseconds, 3))
        results = {name: worker.ask("results") for name, worker in workers.items()}
        measured = {
            name: {"milliseconds": times[name], "peak_mib": round(results[name]["peak_mib"], 1), **worker.ready}
            for name, worker in workers.items()
        }
    first, *others = results
    differences = {name: sides[name].check(results[first]["values"], results[name]["values"]) for name in others}
    return {"sides": measured, "differences": differences}


def has_onednn(python: Path | str, build: Path | None) -> bool:
    """Whether a Python's Caffe, or that of a build folder, computes by oneDNN.

    Raises:
        UserError: there is none that can be imported.
    """
    question = "import caffe; print('libdnnl' in open('/proc/self/maps').read())"
    environment = os.environ | import_path(build)
    asked = subprocess.run([python, "-c", question], env=environment, capture_output=True, text=True)
    if asked.returncode:
        raise UserError(f"Caffe cannot be imported: {last_words(asked.stderr, asked.returncode)}")
    return asked.stdout.strip() == "True"


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
