"""What a training left in its run folder, as `tools/train.py` writes it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renet.common.command_line import UserError
from renet.common.text_files import read_json, read_text
from renet.evaluation.scores import Evaluation

METRICS = "metrics.jsonl"
DESCRIPTION = "run.json"
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
        description = _read_json(folder / DESCRIPTION) or {}
        metrics = _read_metrics(folder / METRICS)
        if not description and not metrics:
            raise UserError(f"{folder}: not a run folder: neither {DESCRIPTION} nor {METRICS} in it")
        content = _read_json(folder / EVALUATION)
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
    by_iteration = {line["iteration"]: line for line in metrics if line.get("kind") == kind and "iteration" in line}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def series(lines: list[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Iterations and values of one metric, without what is missing or not finite."""
    pairs = [
        (float(line["iteration"]), float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return [x for x, _ in pairs], [y for _, y in pairs]


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: damaged: not a JSON object")
    return content


def _read_metrics(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    metrics = []
    for number, line in enumerate(lines, 1):
        try:
            content = json.loads(line)
        except ValueError:
            if number == len(lines):
                break  # the line that a killed training was writing
            raise UserError(f"{file}: line {number} is damaged") from None
        if not isinstance(content, dict):
            raise UserError(f"{file}: line {number} is no JSON object")
        metrics.append(content)
    return metrics
