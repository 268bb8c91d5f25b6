"""The sides of a speed comparison: processes that do the same work in turn, and are held to the same results."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from renet.benchmark.layer_tasks import CrfShape, Shape
from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.runtime.worker_process import last_words

PEER_ENVIRONMENT = ROOT / "build" / "bench-venv"  # PyTorch is no part of the product, so it stays out of .venv
PEER_REQUIREMENTS = ("torch==2.13.0", "numpy==2.4.6", "pillow==13.0.0", "pydensecrf2==1.1")
PAUSE_SECONDS = 0.25  # idle threads of one library spin for a while, at the cost of the other's next run


class Worker:
    """A process that does one task when told (renet/benchmark/worker.py).

    Attributes:
        version: of the library that does it.
        onednn: whether that library has loaded oneDNN.
    """

    def __init__(
        self,
        python: Path | str,
        task: str,
        argument: Shape | CrfShape | Path | str,
        passes: str,
        thread_count: int,
        variables: Mapping[str, str] | None = None,
        caffe: Path | None = None,
    ) -> None:
        """Start it and wait until it is ready.

        Args:
            python: the Python that has the task's library.
            task: one of renet.benchmark.worker.TASKS.
            argument: the shape or file that the task takes.
            passes: FORWARD, FORWARD_BACKWARD or STEP.
            thread_count: threads for every library.
            variables: more of its environment.
            caffe: the build folder that has Caffe, where that is not the Python's own.

        Raises:
            UserError: it died; the message tells why.
        """
        count = str(thread_count)
        environment = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count)
        paths = [str(ROOT)] if caffe is None else [str(ROOT), str(caffe / "python")]
        environment |= {"PYTHONPATH": os.pathsep.join(paths), "GLOG_minloglevel": "2", **(variables or {})}
        self._task = task
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            [str(python), "-m", "renet.benchmark.worker", task, str(argument), passes, count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            env=os.environ | environment,
        )
        try:
            ready = self._answer()
        except BaseException:
            self.close()
            raise
        self.version: str = ready["version"]
        self.onednn: bool = ready["onednn"]

    def run(self) -> float:
        """Do the task once; milliseconds."""
        return self._ask("run")["milliseconds"]

    def results(self) -> dict[str, Any]:
        """`values`: samples of what was computed; `peak_mib`: memory taken at most."""
        return self._ask("results")

    def layers(self) -> list[dict[str, Any]]:
        """One forward pass layer by layer (of a task that has layers)."""
        return self._ask("layers")["layers"]

    def errors(self) -> dict[str, Any]:
        """How far a task that has layers is from double precision (`network_tasks.CaffeNetwork.errors`)."""
        return self._ask("errors")

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


class Side(NamedTuple):
    """One side: what Worker takes, but for what all sides share."""

    task: str
    python: Path | str
    argument: Shape | CrfShape | Path | str
    variables: Mapping[str, str] | None = None
    caffe: Path | None = None


@contextlib.contextmanager
def started(sides: Mapping[str, Side], passes: str, thread_count: int) -> Iterator[dict[str, Worker]]:
    """A Worker for each side, started in their order, ended afterwards."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, side in sides.items():
            workers[name] = Worker(
                side.python, side.task, side.argument, passes, thread_count, side.variables, side.caffe
            )
            stack.callback(workers[name].close)
        yield workers


Check = Callable[[Mapping[str, list[float]], Mapping[str, list[float]]], float]


def compare(sides: Mapping[str, Side], passes: str, runs: int, thread_count: int, check: Check) -> dict[str, Any]:
    """Time all sides in turn, after one run of each that is not counted.

    Args:
        sides: by name; the first one's results are those that the others' are held to.
        passes: FORWARD, FORWARD_BACKWARD or STEP.
        runs: timed runs of each.
        thread_count: threads for every library.
        check: tells the largest difference of two sides' results (the first side's come first), or raises UserError.

    Returns:
        `sides`: by name, milliseconds of every run, peak_mib, version and onednn; `differences`: by name of each side
        but the first.

    Raises:
        UserError: a process died (out of memory, for one), or results differ too much.
    """
    with started(sides, passes, thread_count) as workers:
        times: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(runs + 1):
            for name, worker in workers.items():
                time.sleep(PAUSE_SECONDS)
                milliseconds = worker.run()
                if number > 0:
                    times[name].append(milliseconds)
        results = {name: worker.results() for name, worker in workers.items()}
        measured = {
            name: {
                "milliseconds": [round(each, 3) for each in times[name]],
                "peak_mib": round(results[name]["peak_mib"], 1),
                "version": worker.version,
                "onednn": worker.onednn,
            }
            for name, worker in workers.items()
        }
    first, *others = results
    differences = {name: check(results[first]["values"], results[name]["values"]) for name in others}
    return {"sides": measured, "differences": differences}
