"""One side of a speed comparison, in a process of its own:
`python -m renet.benchmark.worker TASK ARGUMENT PASS THREADS`.

It speaks JSON lines: one line when it is ready (`{"version": ..., "onednn": ...}`), then one answer for each line that
it reads: `run` -> `{"milliseconds": ...}`, `results` -> `{"values": {name: [...]}, "peak_mib": ...}`, `layers` ->
`{"layers": [...]}`, `errors` -> `{"layers": [...], "labels": [...]}`. It needs NumPy and the side's own library and
nothing of this project beyond the standard library, so that it works in the other library's environment too.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from renet.benchmark.layer_tasks import (
    FORWARD,
    CrfShape,
    Shape,
    Task,
)

SAMPLES = 997  # values of each result that the two sides are compared by


class Kind(NamedTuple):
    """How a task is made: its library, which is no part of the memory that the work takes, the class, and what the
    argument on the command line stands for."""

    library: str
    module: str
    name: str
    argument: type[Any] = str

    def make(self, argument: str, backward: bool, threads: int) -> Task:
        """The task; `backward` for anything but a forward pass."""
        kind = getattr(importlib.import_module(self.module), self.name)
        shape = argument if self.argument is str else self.argument(*map(int, argument.split(",")))
        return kind(shape, backward, threads)


_HERE = "renet.benchmark.worker"
TASKS = {
    "caffe": Kind("caffe", _HERE, "CaffeGroup", Shape),
    "pytorch": Kind("torch", _HERE, "PyTorchGroup", Shape),
    "numpy-product": Kind("numpy", _HERE, "NumPyProduct", Shape),
    "numpy-triad": Kind("numpy", _HERE, "NumPyTriad", Shape),
    "pytorch-product": Kind("torch", _HERE, "PyTorchProduct", Shape),
    "caffe-crf": Kind("caffe", _HERE, "CaffeCrf", CrfShape),
    "pydensecrf": Kind("pydensecrf.densecrf", _HERE, "Pydensecrf", CrfShape),
    "caffe-network": Kind("caffe", "renet.benchmark.network_tasks", "CaffeNetwork"),
    "pytorch-network": Kind("torch", "renet.benchmark.network_tasks", "PyTorchNetwork"),
    "caffe-loading": Kind("caffe", "renet.benchmark.data_tasks", "CaffeLoading"),
    "pytorch-loading": Kind("torch", "renet.benchmark.data_tasks", "PyTorchLoading"),
    "conversion": Kind("numpy", "renet.benchmark.data_tasks", "Conversion"),
    "evaluation": Kind("numpy", "renet.benchmark.data_tasks", "Evaluation"),
    "numpy-evaluation": Kind("numpy", "renet.benchmark.data_tasks", "NumPyEvaluation"),
}


def resident_mib(field: str) -> float:
    """A size of this process in MiB: VmRSS (now) or VmHWM (at most, since reset_peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def reset_peak() -> None:
    """Let VmHWM start anew."""
    Path("/proc/self/clear_refs").write_text("5")


def sampled(values: np.ndarray) -> list[float]:
    """Up to SAMPLES values, evenly spread."""
    flat = values.ravel()
    return flat[np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(int)].tolist()


def children_mib() -> float:
    """What this process's living children hold now, shared pages by parts, or what the largest one that ended held."""
    living = 0.0
    for file in Path("/proc/self/task").glob("*/children"):
        for child in file.read_text().split():
            for line in Path(f"/proc/{child}/smaps_rollup").read_text().splitlines():
                living += int(line.split()[1]) / 1024 if line.startswith("Pss:") else 0
    return max(living, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main(arguments: list[str]) -> None:
    """Serve until the input ends."""
    name, argument, passes, threads = arguments
    # Only answers go to the pipe, whatever a library prints.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    kind = TASKS[name]
    importlib.import_module(kind.library)
    reset_peak()
    before = resident_mib("VmRSS")
    task = kind.make(argument, passes != FORWARD, int(threads))
    onednn = "libdnnl" in Path("/proc/self/maps").read_text()
    print(json.dumps({"version": task.version, "onednn": onednn}), file=answers)
    for line in sys.stdin:
        question = line.strip()
        if question == "run":
            start = time.perf_counter()
            task.run()
            answer: dict[str, Any] = {"milliseconds": (time.perf_counter() - start) * 1e3}
        elif question == "layers":
            answer = {"layers": task.layers()}
        elif question == "errors":
            answer = task.errors()
        else:
            peak = resident_mib("VmHWM") - before + children_mib()
            answer = {"values": {key: sampled(value) for key, value in task.results().items()}, "peak_mib": peak}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(sys.argv[1:])
