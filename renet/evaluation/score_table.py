"""Score tables, for a terminal."""

from __future__ import annotations

from renet.common.text_layout import aligned
from renet.evaluation.paper_results import PaperResults, paper_results
from renet.evaluation.scores import Evaluation


def percent(fraction: float | None) -> str:
    """Write a fraction as percent with one decimal; a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def format_table(evaluation: Evaluation, dataset_name: str) -> str:
    """Lay out scores as aligned text: one line for each class, then the overall figures beside the published ones."""
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
    lines += ["", *aligned(_overall_rows(evaluation, paper)), ""]
    lines.append(f"{evaluation.images} images, {truth.sum():,} pixels scored, {evaluation.ignored_pixels:,} ignored")
    return "\n".join(lines)


def _overall_rows(evaluation: Evaluation, paper: PaperResults | None) -> list[list[str]]:
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
    for row in paper.rows if paper else ():
        if row.headline:
            figures = (row.pixel_accuracy, row.class_accuracy, row.mean_iou)
            texts = ["-" if figure is None else f"{figure:g}" for figure in figures]
            rows.append([f"{row.name} ({row.where})", *texts, "-"])
    return rows
