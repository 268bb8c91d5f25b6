"""The paper's own figures (arXiv 1603.04871), to stand beside ours; paper_results.json holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("paper_results.json")


@dataclass(frozen=True)
class PaperRow:
    """One published result; percent, None where the source gives none.

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
    """What the paper says of one dataset.

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
    """The published figures for a dataset (`stanford_background`, `voc2012`); None for any other."""
    entry = json.loads(_FILE.read_text(encoding="utf-8"))["datasets"].get(dataset_name)
    if entry is None:
        return None
    per_class = entry.get("per_class_iou")
    return PaperResults(
        rows=tuple(PaperRow(**row) for row in entry["rows"]),
        class_iou=per_class["iou"] if per_class else {},
        class_iou_source=f"{per_class['name']}, {per_class['where']}" if per_class else "",
    )
