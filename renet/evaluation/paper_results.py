"""Results printed in the paper (arXiv 1603.04871), to stand beside ours; paper_results.json holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("paper_results.json")


@dataclass(frozen=True)
class PaperRow:
    """Published result; percent, None where the source gives none.

    Attributes:
        name: whose result.
        where: table and data it was measured on.
        pixel_accuracy: percent of pixels.
        class_accuracy: mean recall over classes.
        mean_iou: mean intersection over union.
        headline: whether it is the figure to compare with first.
    """

    name: str
    where: str
    pixel_accuracy: float | None = None
    class_accuracy: float | None = None
    mean_iou: float | None = None
    headline: bool = False


@dataclass(frozen=True)
class PaperResults:
    """Published results on one dataset.

    Attributes:
        rows: overall results.
        class_iou: percent for each class name; empty where the paper prints none.
        class_iou_source: what `class_iou` was measured with and on.
    """

    rows: tuple[PaperRow, ...]
    class_iou: dict[str, float]
    class_iou_source: str


@cache
def paper_results(dataset_name: str) -> PaperResults | None:
    """Read the published figures for a dataset (`stanford_background`, `voc2012`); None for any other."""
    entry = json.loads(_FILE.read_text(encoding="utf-8"))["datasets"].get(dataset_name)
    if entry is None:
        return None
    per_class = entry.get("per_class_iou")
    return PaperResults(
        rows=tuple(PaperRow(**row) for row in entry["rows"]),
        class_iou=per_class["iou"] if per_class else {},
        class_iou_source=f"{per_class['name']}, {per_class['where']}" if per_class else "",
    )


@dataclass(frozen=True)
class PaperExperiment:
    """Published figures of one of the paper's experiments.

    Attributes:
        where: table or section, and the data it was measured on.
        dataset: that data's name.
        split: of it; empty where it has several.
        measures: names of a row's figures: scores in percent, `seconds` for an image.
        rows: figures by the row's name, None where the paper gives none.
        class_iou: for some rows, percent for each class name.
    """

    where: str
    dataset: str
    split: str
    measures: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    class_iou: dict[str, dict[str, float]]


@cache
def paper_experiment(name: str) -> PaperExperiment | None:
    """Read the published figures of an experiment (`table4`, `irnn`, ...); None where it has none, as a figure has."""
    entry = json.loads(_FILE.read_text(encoding="utf-8"))["experiments"].get(name)
    if entry is None:
        return None
    return PaperExperiment(
        entry["where"],
        entry["dataset"],
        entry["split"],
        tuple(entry["measures"]),
        {row: tuple(figures) for row, figures in entry["rows"].items()},
        entry.get("class_iou", {}),
    )
