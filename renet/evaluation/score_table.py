"""Score tables, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from renet.common.text_layout import aligned
from renet.evaluation.bootstrap import Difference
from renet.evaluation.image_counts import MEASURES
from renet.evaluation.paper_results import PaperResults, paper_results
from renet.evaluation.scores import Evaluation


def percent(fraction: float | None) -> str:
    """Write a fraction as percent with one decimal; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def format_table(evaluation: Evaluation, dataset_name: str, intervals: Mapping[str, np.ndarray] = {}) -> str:
    """Lay out scores as aligned text: one line for each class, then the overall figures beside the published ones.

    Args:
        evaluation: the scores.
        dataset_name: whose published figures stand beside.
        intervals: of the overall figures (see `Evaluation.intervals`).
    """
    paper = paper_results(dataset_name)
    result = evaluation.scores
    truth = evaluation.confusion.sum(axis=1)
    header = ["class", "IoU %", "recall %", "share of truth %"]
    if paper and paper.class_iou:
        header.append("paper's IoU %")
    rows = []
    for index, name in enumerate(evaluation.classes):
        row = [name, percent(result.iou[index]), percent(result.recall[index]), percent(truth[index] / truth.sum())]
        if paper and paper.class_iou:
            published = paper.class_iou.get(name)
            row.append("-" if published is None else f"{published:.1f}")
        rows.append(row)
    lines = aligned([header, *rows])
    if paper and paper.class_iou:
        lines.append(f"(paper's IoU: {paper.class_iou_source})")
    absent = [name for name, iou in zip(evaluation.classes, result.iou) if iou is None]
    if absent:
        lines.append(f"in neither truth nor prediction, so left out of the mean IoU: {', '.join(absent)}")
    unseen = [
        name
        for name, iou, recall in zip(evaluation.classes, result.iou, result.recall)
        if recall is None and iou == 0.0
    ]
    if unseen:
        lines.append(f"predicted but not in the truth (IoU 0, left out of the class accuracy): {', '.join(unseen)}")
    lines += ["", *aligned(_overall_rows(evaluation, paper, intervals)), ""]
    lines.append(f"{evaluation.images} images, {truth.sum():,} pixels scored, {evaluation.ignored_pixels:,} ignored")
    return "\n".join(lines)


def format_comparison(found: Mapping[str, Difference], other: str, resamples: int) -> str:
    """Lay out how predictions differ from those of `other` (see `Evaluation.compared_with`), as aligned text."""
    rows = [["", "this %", "other %", "difference", "95% interval", "this better %", "other better %"]]
    for name in MEASURES:
        each = found[name]
        interval = "-" if each.interval is None else _interval(each.interval, sign="+")
        shares = [percent(None if share is None else float(share)) for share in (each.better, each.worse)]
        values = (percent(float(each.this)), percent(float(each.other)), f"{100 * float(each.value):+.1f}")
        rows.append([name.replace("_", " "), *values, interval, *shares])
    how = f"{resamples} resamples of the images" if found[MEASURES[0]].interval is not None else "no resamples"
    return "\n".join([f"other: {other}; paired by image, {how}", *aligned(rows)])


def _interval(bounds: np.ndarray, sign: str = "") -> str:
    """Two bounds in percent."""
    if np.isnan(bounds).any():
        return "-"
    return " to ".join(f"{100 * bound:{sign}.1f}" for bound in bounds)


def _overall_rows(
    evaluation: Evaluation, paper: PaperResults | None, intervals: Mapping[str, np.ndarray]
) -> list[list[str]]:
    result = evaluation.scores
    rows = [
        ["", "pixel accuracy %", "class accuracy %", "mean IoU %", "freq. weighted IoU %"],
        [
            "this",
            percent(result.pixel_accuracy),
            percent(result.class_accuracy),
            percent(result.mean_iou),
            percent(result.frequency_weighted_iou),
        ],
    ]
    if intervals:
        rows.append(["95% interval", *(_interval(intervals[name]) for name in MEASURES)])
    for row in paper.rows if paper else ():
        if row.headline:
            figures = (row.pixel_accuracy, row.class_accuracy, row.mean_iou)
            texts = ["-" if figure is None else f"{figure:g}" for figure in figures]
            rows.append([f"{row.name} ({row.where})", *texts, "-"])
    return rows
