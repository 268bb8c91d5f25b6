"""What a training left in its run folder, as `tools/train.py` writes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.text_files import read_json_object, read_text
from renet.evaluation.scores import Evaluation
from renet.networks.trained_run import METRICS, RUN, read_metadata, read_metrics

EVALUATION = "evaluation.json"
PREDICTIONS = "predictions"


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    Attributes:
        folder: where it lies.
        name: what it is called.
        description: run.json; empty where there is none.
        training: metrics of training iterations (`iteration`, `loss`, `learning_rate`, ...), by iteration.
        testing: metrics of the test split while training (`iteration`, `loss`, `pixel_accuracy`, ...), by iteration.
        evaluation: the final scores, where `evaluate.py --json` wrote them here.
        sources: prototxt files, by name.
    """

    folder: Path
    name: str
    description: dict[str, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    testing: list[dict[str, Any]] = field(default_factory=list)
    evaluation: Evaluation | None = None
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> RunRecord:
        """Read a run folder; what it lacks (a run that is not finished) stays empty.

        Raises:
            UserError: no such folder, nothing of a run in it, or a damaged file; names it.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such run folder")
        description = read_metadata(folder)
        metrics = read_metrics(folder)
        if not description and not metrics:
            raise UserError(f"{folder}: not a run folder: neither {RUN} nor {METRICS} in it")
        content = read_json_object(folder / EVALUATION)
        try:
            evaluation = None if content is None else Evaluation.from_json(content)
        except ValueError as error:
            raise UserError(f"{folder / EVALUATION}: {error}") from None
        return cls(
            folder=folder,
            name=str(description.get("name") or folder.resolve().name),
            description=description,
            training=_of_kind(metrics, "train"),
            testing=_of_kind(metrics, "test"),
            evaluation=evaluation,
            sources={file.name: read_text(file) for file in sorted(folder.glob("*.prototxt"))},
        )


def _of_kind(metrics: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    # A run resumed from a snapshot repeats iterations: the last account of each is the one that led to the weights.
    by_iteration = {line["iteration"]: line for line in metrics if line.get("kind") == kind}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def series(lines: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Iterations and values of one metric, without what is missing or not finite."""
    pairs = [
        (float(line["iteration"]), float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]
