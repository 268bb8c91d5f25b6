"""One side of a speed comparison, in a process of its own: `python -m renet.benchmark.worker LIBRARY TASK JOB`.

It answers questions (renet.gpu_check.conversation): run -> {"milliseconds": ...}, results -> {"values": {name: [...]},
"peak_mib": ...}, and what the task answers beside. It needs NumPy, the side's own library and the standard library, so
that it works in the other library's environment too.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from renet.gpu_check.conversation import serve

SAMPLES = 997  # values of each result that the two sides are compared by


class Task(Protocol):
    """Something to time; it is made of its job, a JSON object that has `threads` and `library`, too."""

    version: str

    def run(self) -> dict[str, np.ndarray]:
        """Do the work once; what it came to."""


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


class Timed:
    """Answers for a task; what it does not know itself the task answers."""

    def __init__(self, task: Task, before: float) -> None:
        self._task, self._before = task, before

    def run(self, times: int = 1) -> dict[str, float]:
        """The time of one run, of so many that follow each other."""
        start = time.perf_counter()
        for _ in range(times):
            self._results = self._task.run()
        return {"milliseconds": (time.perf_counter() - start) * 1e3 / times}

    def results(self) -> dict[str, Any]:
        """Samples of the results, and the memory that the work took at most beyond the library."""
        peak = resident_mib("VmHWM") - self._before + children_mib()
        return {"values": {name: sampled(each) for name, each in self._results.items()}, "peak_mib": peak}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def begin() -> tuple[dict[str, Any], Timed]:
    """Make the task that the command line names."""
    library, task, job = sys.argv[1:]
    importlib.import_module(library)  # it is no part of the memory that the work takes
    reset_peak()
    before = resident_mib("VmRSS")
    module, name = task.split(".")
    made = getattr(importlib.import_module(f"renet.benchmark.{module}"), name)(json.loads(job))
    onednn = "libdnnl" in Path("/proc/self/maps").read_text()
    return {"version": made.version, "onednn": onednn}, Timed(made, before)


if __name__ == "__main__":
    serve(begin)
