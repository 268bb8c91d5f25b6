"""Score tables, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from renet.common.text_layout import aligned
from renet.evaluation.bootstrap import Difference
from renet.evaluation.boundaries import WIDTHS, Boundaries
from renet.evaluation.image_counts import MEASURES
from renet.evaluation.paper_results import PaperResults, paper_results
from renet.evaluation.scores import Evaluation
from renet.evaluation.sizes import Sizes, band_names

TITLES = dict(zip(MEASURES, ("pixel accuracy", "class accuracy", "mean IoU", "freq. weighted IoU")))
SIZE_TITLES = {"size_mean_iou": "mean IoU", "size_recall": "mean recall"}
SHOWN_WIDTHS = (1, 2, 3, 5, 10, 20, 40)  # of the trimap's


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
    along = evaluation.boundaries
    class_f = None if along is None else along.class_f
    if class_f is not None:
        header.append("boundary F %")
    rows = []
    for index, name in enumerate(evaluation.classes):
        row = [name, percent(result.iou[index]), percent(result.recall[index]), percent(truth[index] / truth.sum())]
        if class_f is not None:
            row.append(_known(class_f[index]))
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
    if along is not None:
        lines += [*_boundary_lines(along, intervals), ""]
    if evaluation.sizes is not None:
        lines += [*_size_lines(evaluation.sizes, evaluation.classes, intervals), ""]
    lines.append(f"{evaluation.images} images, {truth.sum():,} pixels scored, {evaluation.ignored_pixels:,} ignored")
    return "\n".join(lines)


def format_comparison(found: Mapping[str, Difference], other: str, resamples: int, shares: Sequence[float] = ()) -> str:
    """Lay out how predictions differ from those of `other` (see `Evaluation.compared_with`), as aligned text.

    Args:
        found: the differences.
        other: what is compared with.
        resamples: of the images.
        shares: between the bands of size, where sizes were compared.
    """
    rows = [["", "this %", "other %", "difference", "95% interval", "this better %", "other better %"]]
    rows += [_comparison_row(TITLES[name], found[name]) for name in MEASURES]
    if "boundary_f" in found:
        rows.append(_comparison_row("boundary F", found["boundary_f"]))
        curve = found["trimap_mean_iou"]
        rows += [_comparison_row(f"mean IoU {_within(w)}", curve.at(WIDTHS.index(w))) for w in SHOWN_WIDTHS]
    for name, title in SIZE_TITLES.items() if "size_recall" in found else ():
        of_bands = enumerate(band_names(shares))
        rows += [_comparison_row(f"{title}, regions {band}", found[name].at(place)) for place, band in of_bands]
    how = f"{resamples} resamples of the images" if found[MEASURES[0]].interval is not None else "no resamples"
    return "\n".join([f"other: {other}; paired by image, {how}", *aligned(rows)])


def _comparison_row(name: str, each: Difference) -> list[str]:
    interval = "-" if each.interval is None else _interval(each.interval, sign="+")
    shares = ["-" if share is None else _known(share) for share in (each.better, each.worse)]
    difference = "-" if np.isnan(each.value) else f"{100 * float(each.value):+.1f}"
    return [name, _known(each.this), _known(each.other), difference, interval, *shares]


def _boundary_lines(along: Boundaries, intervals: Mapping[str, np.ndarray]) -> list[str]:
    scores = along.scores()
    rows = [["", "pixel accuracy %", "mean IoU %", *(["95% interval"] if intervals else [])]]
    for width in SHOWN_WIDTHS:
        place = WIDTHS.index(width)
        row = [_within(width), *(_known(scores[f"trimap_{n}"][place]) for n in ("pixel_accuracy", "mean_iou"))]
        rows.append([*row, *([_interval(intervals["trimap_mean_iou"][place])] if intervals else [])])
    interval = f" (95% interval {_interval(intervals['boundary_f'])})" if intervals else ""
    f = scores["boundary_f"]
    told = f"boundary F: {'-' if np.isnan(f) else f'{100 * f:.1f}%'}{interval}, tolerance "
    told += f"{100 * along.tolerance:g}% of the diagonal"
    return [*aligned(rows), "", told]


def _size_lines(by_size: Sizes, classes: Sequence[str], intervals: Mapping[str, np.ndarray]) -> list[str]:
    """IoU and recall of each class by size; "-" where no region is of the size."""
    total, scores = by_size.total, by_size.scores()
    rows = [["IoU % (recall %) of regions by share of the image", *band_names(by_size.shares)]]
    for index, name in enumerate(classes):
        cells = zip(total.iou[:, index], total.recall[:, index], total.truth[:, index])
        rows.append([name, *(f"{_known(iou)} ({_known(recall)})" if truth else "-" for iou, recall, truth in cells)])
    means = zip(scores["size_mean_iou"], scores["size_recall"])
    rows.append(["mean", *(f"{_known(iou)} ({_known(recall)})" for iou, recall in means)])
    if intervals:
        rows.append(["95% interval of the mean IoU", *map(_interval, intervals["size_mean_iou"])])
    rows.append(["regions", *(f"{count:,}" for count in by_size.regions.sum(axis=1))])
    return aligned(rows)


def _within(width: int) -> str:
    return f"within {width} px of a boundary"


def _known(value: np.ndarray | float) -> str:
    """A fraction as percent; a dash for what is not a number."""
    return percent(None if np.isnan(value) else float(value))


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
        ["", *(f"{title} %" for title in TITLES.values())],
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
