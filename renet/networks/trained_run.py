"""A training's folder, read by those who come after it: what it noted, its best test, and the weights to use of it.

`renet/training/` writes such a folder. It stands for a network wherever one is asked for, as a model folder does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.text_files import read_json_object

RUN, METRICS, SNAPSHOTS, SOLVER = "run.json", "metrics.jsonl", "snapshots", "solver.prototxt"
NEWEST, BEST = "newest", "best"
# What a test measures, in words; all are fractions, and the loss is none of them.
SCORES = {"pixel_accuracy": "pixel accuracy", "class_accuracy": "class accuracy", "mean_iou": "mean IoU"}
LOSS = "loss"
MEASURES = (*reversed(SCORES), LOSS)


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
        UserError: the file is broken.
    """
    return read_json_object(folder / RUN) or {}


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
            content = json.loads(line)
        except ValueError:
            content = None
        if isinstance(content, dict) and isinstance(content.get("iteration"), int):
            metrics.append(content)
        elif number < len(lines):
            raise UserError(f"{file}: line {number} is damaged")
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
