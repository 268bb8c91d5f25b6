"""A training's folder, read by those who come after it: what it noted, its best test, and the weights to use of it.

`renet/training/` writes such a folder. It stands for a network wherever one is asked for, as a model folder does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json
from typing_extensions import NotRequired, TypedDict

from renet.common.errors import UserError
from renet.common.json_schema import STRICT, check_json, read_json_as

RUN, METRICS, SNAPSHOTS, SOLVER = "run.json", "metrics.jsonl", "snapshots", "solver.prototxt"
NEWEST, BEST = "newest", "best"
# What a test measures, in words; all are fractions, and the loss is none of them.
SCORES = {"pixel_accuracy": "pixel accuracy", "class_accuracy": "class accuracy", "mean_iou": "mean IoU"}
LOSS = "loss"
MEASURES = (*reversed(SCORES), LOSS)


class _Run(TypedDict, total=False):
    """run.json, as far as it is read; runs of earlier versions lack some."""

    __pydantic_config__ = STRICT
    name: str
    model: str | None
    network: str
    dataset: str | None
    state: str
    started: str
    finished: str | None
    message: str
    iteration: int | None
    iterations: int | None
    seed: int | None
    seconds: float
    processor_seconds: float
    keep_best: str | None
    patience: int | None
    parameters: int
    versions: dict[str, Any]
    machine: dict[str, Any]
    commit: str | None


class _Line(TypedDict):
    """A line of metrics.jsonl."""

    __pydantic_config__ = STRICT
    iteration: int
    kind: NotRequired[str]
    loss: NotRequired[float | None]
    seconds: NotRequired[float]
    pixel_accuracy: NotRequired[float | None]
    class_accuracy: NotRequired[float | None]
    mean_iou: NotRequired[float | None]


_RUN: TypeAdapter[dict[str, Any]] = TypeAdapter(_Run)
_LINE: TypeAdapter[dict[str, Any]] = TypeAdapter(_Line)


@dataclass(frozen=True)
class Best:
    """The best test of a run: the highest score or the lowest loss.

    Attributes:
        measure: of `MEASURES`.
        value: of that measure; scores are fractions.
        iteration: at which it was measured.
    """

    measure: str
    value: float
    iteration: int

    def __str__(self) -> str:
        if self.measure == LOSS:
            return f"loss {self.value:.4f}"
        return f"{SCORES[self.measure]} {100 * self.value:.1f}%"


def best_test(metrics: Iterable[Mapping[str, Any]], measure: str | None = None) -> Best | None:
    """Find the best of the tests among lines of metrics.jsonl; of equals the first.

    Args:
        metrics: the lines.
        measure: what counts; None: the mean IoU or, of a network without scores, the loss.
    """
    tests = [line for line in metrics if line.get("kind") == "test"]
    for one in ("mean_iou", LOSS) if measure is None else (measure,):
        scored = [line for line in tests if isinstance(line.get(one), int | float) and math.isfinite(line[one])]
        if scored:
            sign = -1 if one == LOSS else 1
            best = max(scored, key=lambda line: (sign * line[one], -line["iteration"]))
            return Best(one, float(best[one]), best["iteration"])
    return None


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read a run's run.json; empty where there is none.

    Raises:
        UserError: the file is broken; names the first wrong field.
    """
    file = folder / RUN
    return read_json_as(file, _RUN) if file.is_file() else {}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl, without one at the end that a killed training did not finish.

    Raises:
        UserError: another line is damaged; names it.
    """
    file = folder / METRICS
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    metrics: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            metrics.append(check_json(from_json(line), _LINE))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{file}: line {number} is damaged: {error}") from None
    return metrics


def kept_measure(metadata: Mapping[str, Any]) -> str | None:
    """Name the score by which the run keeps its best snapshot; None where it keeps the newest alone."""
    measure = metadata.get("keep_best")
    return measure if measure in MEASURES else None


def weights_of_run(run: Path, wanted: str | None = None) -> Path:
    """Choose the weights to use of a run, from a snapshot that is whole.

    Args:
        run: the run's folder.
        wanted: `newest`, or `best` by its test; None: the best where the training kept it, else the newest.

    Raises:
        UserError: no whole snapshot, or for the best none that was tested.
    """
    from renet.runtime.prototxt import read_solver  # Caffe's messages come with it
    from renet.weights import snapshots

    measure = kept_measure(read_metadata(run))
    if wanted is None:
        wanted = NEWEST if measure is None else BEST
    solver_type = read_solver(run / SOLVER).type
    found, faults = [], []
    for snapshot in snapshots.find(run / SNAPSHOTS):
        fault = snapshot.fault(solver_type)
        (faults if fault else found).append(fault or snapshot)
        if found and wanted == NEWEST:
            return found[0].weights
    if not found:
        raise UserError(f"{run / SNAPSHOTS}: no whole snapshot" + (f" ({faults[0]})" if faults else ""))
    kept = {snapshot.iteration: snapshot.weights for snapshot in found}
    best = best_test((line for line in read_metrics(run) if line["iteration"] in kept), measure)
    if best is None:
        raise UserError(
            f"{run}: none of the snapshots that are kept (iterations {', '.join(map(str, sorted(kept)))}) was tested; "
            "name the weights"
        )
    return kept[best.iteration]
