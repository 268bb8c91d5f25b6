"""How far the trainings in a folder are: their states, iterations and best scores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.networks.trained_run import (
    METRICS,
    RUN,
    SNAPSHOTS,
    Best,
    best_test,
    kept_measure,
    read_metadata,
    read_metrics,
)
from renet.training.run_folder import LOG, is_held, raise_for_want_of_files

RUNNING, STOPPED, FINISHED, FAILED, UNKNOWN = "running", "stopped", "finished", "failed", "unknown"
# What run.json says, for a run that no process holds: one that was killed could not say so.
_STATES = {"running": STOPPED, "interrupted": STOPPED, "finished": FINISHED, "failed": FAILED}


@dataclass(frozen=True)
class RunState:
    """What is known of one run folder; None where it does not tell.

    Attributes:
        folder: the run's.
        state: RUNNING (a process holds it), STOPPED (a resumption goes on), FINISHED, FAILED, or UNKNOWN where run.json
            cannot be read.
        iteration: how far it is.
        iterations: how far it is to go.
        best: of its tests, by the score by which the run keeps its best snapshot, else as `best_test` has it.
        seconds: that it has trained.
        written: when it last wrote something, seconds of the epoch.
        message: why it failed or finished early, or what is damaged.
    """

    folder: Path
    state: str
    iteration: int | None
    iterations: int | None
    best: Best | None
    seconds: float | None
    written: float
    message: str | None

    @classmethod
    def of(cls, folder: Path) -> RunState:
        """Look into a run's folder, whatever state it is in."""
        held = is_held(folder)
        metadata: dict[str, Any] = {}
        metrics: list[dict[str, Any]] = []
        message = None
        try:
            metadata = read_metadata(folder)
            metrics = read_metrics(folder)
        except OSError as error:
            raise_for_want_of_files(error)
            message = str(error)
        except UserError as error:
            message = str(error)
        state = RUNNING if held else _STATES.get(metadata.get("state"), STOPPED if message is None else UNKNOWN)
        iteration = metadata.get("iteration")
        if state == RUNNING:
            # run.json tells of snapshots, metrics of what came after
            iteration = max([iteration or 0, *(line["iteration"] for line in metrics)])
        seconds = [part["seconds"] for part in (metadata, *metrics) if "seconds" in part]
        return cls(
            folder,
            state,
            iteration,
            metadata.get("iterations"),
            best_test(metrics, kept_measure(metadata)),
            float(max(seconds)) if seconds else None,
            max(_modified(file) for file in (folder, folder / RUN, folder / METRICS, folder / LOG)),
            message or (str(metadata["message"]) if state in (FAILED, FINISHED) and metadata.get("message") else None),
        )


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        state: `finished`, or `interrupted` (a resumption goes on).
        iteration: how far it came.
        folder: the run's.
        weights: the .caffemodel of the last snapshot; None where the solver wants none.
        best: of its tests.
        best_weights: the .caffemodel of that test, where the training was to keep it.
    """

    state: str
    iteration: int
    folder: Path
    weights: Path | None
    best: Best | None
    best_weights: Path | None = None


def is_run(folder: Path) -> bool:
    """Whether tools/train.py made the folder, or began to."""
    return (folder / RUN).is_file() or ((folder / LOG).is_file() and (folder / SNAPSHOTS).is_dir())


def find_runs(folder: Path) -> Iterator[Path]:
    """The run folders in `folder` and below, which may be one itself; nothing is looked for inside a run."""
    seen = set()
    for name, subfolders, _ in os.walk(folder, onerror=raise_for_want_of_files, followlinks=True):
        place = os.path.realpath(name)
        is_new = place not in seen  # a link may lead to a folder above it
        seen.add(place)
        if is_new and is_run(Path(name)):
            yield Path(name)
            is_new = False
        subfolders[:] = sorted(subfolders) if is_new else []


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
