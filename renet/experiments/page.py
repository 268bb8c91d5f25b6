"""Page of an experiment: ours beside the paper's figures, what each run was, and what differs from the paper."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from renet.common.files import write_atomically
from renet.common.machine import gpu_name, processor_name, switches_text, threads
from renet.common.repository import commit, product_path
from renet.common.text_layout import markdown, shape_text
from renet.evaluation.paper_results import PaperExperiment
from renet.evaluation.sizes import SHARES, band_names
from renet.experiments.differences import differences
from renet.experiments.results import MEASURES, Report, class_iou, published, same_images, scored_splits, short_name
from renet.experiments.results_json import as_json

NONE = "–"
_SCORES = ("pixel_accuracy", "class_accuracy", "mean_iou")


def write_report(report: Report) -> tuple[Path, Path]:
    """Write `<experiment>.md` and `<experiment>.json` into the folder of the runs; return both."""
    stem = report.settings.out / report.experiment.name
    texts = {".md": markdown_text(report), ".json": json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n"}
    files = {suffix: stem.with_name(stem.name + suffix) for suffix in texts}
    for suffix, text in texts.items():
        write_atomically(files[suffix], text.encode())
    return files[".md"], files[".json"]


def markdown_text(report: Report) -> str:
    """Write the experiment's page."""
    parts = [f"# {report.experiment.title}\n"]
    if report.figure is not None:
        parts.append(f"![{report.experiment.title}]({report.figure.name})\n")
    if report.rows:
        parts += [_data_text(report), markdown(table_rows(report))]
    parts += _missing_text(report)
    parts += [f"{note}\n" for note in report.experiment.notes]
    if report.compared:
        rows = [["on held-out images", MEASURES["mean_iou"]]]
        rows += [[each.row.name, figure_text(each.figures("mean_iou"), "mean_iou")] for each in report.compared]
        parts.append(markdown(rows))
    if report.experiment.folds:
        parts.append(markdown(_fold_rows(report)))
    if report.experiment.by_size:
        parts.append(markdown(_size_rows(report)))
    if report.paper is not None and report.paper.class_iou:
        parts.append(markdown(_class_rows(report, report.paper)))
    parts += [f"{line}\n" for line in _tree_lines(report)]
    parts += ["## The runs\n", markdown(run_rows(report), left=2)]
    parts += ["## What differs from the paper\n", "".join(f"- {line}\n" for line in differences(report))]
    parts.append(f"{_machine_text(report)}\n")
    return "\n".join(parts)


def _data_text(report: Report) -> str:
    paper = report.paper
    if paper is None:
        return ""
    if same_images(report, paper):
        return f"The paper's figures: {paper.where}.\n"
    name = report.settings.dataset.name
    return (
        f"Ours were measured on {name} ({', '.join(scored_splits(report))}). The paper's: {paper.where}. **These "
        "are other images: compare the order of the rows, not their height.**\n"
    )


def figure_text(values: Sequence[float], measure: str) -> str:
    """Write the mean of several seeds' figures, and in brackets the lowest and the highest of them."""
    if not values:
        return NONE
    digits = 3 if measure == "seconds" else 1
    texts = [f"{value:.{digits}f}" for value in (mean(values), min(values), max(values))]
    return texts[0] if len(values) == 1 else f"{texts[0]} ({texts[1]} to {texts[2]})"


def paper_text(value: float | None, measure: str = "mean_iou") -> str:
    """Write a figure as the paper prints it."""
    if value is None:
        return NONE
    return f"{value:g}" if measure == "seconds" else f"{value:.1f}"


def table_rows(report: Report) -> list[list[str]]:
    """Lay out the table's cells: ours beside the paper's, then the paper's other rows; ours alone where it has none."""
    paper = report.paper
    if paper is None:
        rows = [["", *(MEASURES[measure] for measure in _SCORES)]]
        for each in report.rows:
            rows.append([each.row.name, *(figure_text(each.figures(measure), measure) for measure in _SCORES)])
        return rows
    measures = paper.measures
    rows = [["", *(text for measure in measures for text in (MEASURES[measure], "the paper's"))]]
    for each in report.rows:
        printed = published(paper, each.row.paper, measures)
        ours = [figure_text(each.figures(measure), measure) for measure in measures]
        rows.append([each.row.name, *(text for pair in zip(ours, map(paper_text, printed, measures)) for text in pair)])
    used = {each.row.paper for each in report.rows}
    for name in paper.rows:
        if name not in used:
            printed = published(paper, name, measures)
            rows.append([f"*{name}*", *(text for pair in zip(printed, measures) for text in ("", paper_text(*pair)))])
    return rows


def _missing_text(report: Report) -> Iterator[str]:
    missing = [each.row.name for each in report.rows if not each.is_complete()]
    if missing:
        yield f"Not there yet: {'; '.join(missing)}. The same command goes on.\n"


def _fold_rows(report: Report) -> list[list[str]]:
    measures = report.paper.measures if report.paper else ("mean_iou",)
    rows = [["fold", *(MEASURES[measure] for measure in measures)]]
    for position, fold in enumerate(report.experiment.folds):
        figures = [figure_text(report.rows[0].fold(position, measure), measure) for measure in measures]
        rows.append([fold, *figures])
    row = report.rows[0]
    rows.append(["mean of the folds", *(figure_text(row.figures(measure), measure) for measure in measures)])
    spreads = [row.spread_of_folds(measure) for measure in measures]
    deviations = (
        NONE if spread is None else figure_text([spread["deviation"]], measure)
        for spread, measure in zip(spreads, measures)
    )
    rows.append(["standard deviation of the folds", *deviations])
    return rows


def _size_rows(report: Report) -> list[list[str]]:
    rows = [[f"{MEASURES['mean_iou']} of regions, by share of the image", *band_names(SHARES)]]
    for each in report.rows:
        figures = (figure_text(each.by_size(band), "mean_iou") for band in range(len(SHARES) + 1))
        rows.append([each.row.name, *figures])
    return rows


def _class_rows(report: Report, paper: PaperExperiment) -> list[list[str]]:
    """IoU of each class, of the first seed; the paper's own classes where ours are others."""
    seed = report.settings.seeds[0]
    columns = [each for each in report.rows if each.row.paper in paper.class_iou]
    printed = [paper.class_iou[each.row.paper] for each in columns]
    found = [class_iou(each.results[seed][0]) for each in columns]
    header = [f"IoU % of a class (seed {seed})"]
    rows = [[*header, *(text for each in columns for text in (each.row.name, "the paper's"))]]
    names = report.settings.dataset.classes if set(report.settings.dataset.classes) & set(printed[0]) else printed[0]
    for name in names:
        cells = [[_percent(ours.get(name)), paper_text(theirs.get(name))] for ours, theirs in zip(found, printed)]
        rows.append([name, *(text for pair in cells for text in pair)])
    return rows


def _percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{100 * fraction:.1f}"


def _tree_lines(report: Report) -> Iterator[str]:
    if not report.experiment.tree:
        return
    for each in report.rows:
        for seed, results in each.results.items():
            name = f"{each.row.name}, seed {seed}" if len(each.results) > 1 else each.row.name
            for result in results:
                if result is None:
                    continue
                if result.evaluation is None:
                    yield f"{name}: the split has no labels here, so there is no score."
                if result.tree is not None and result.archive is not None:
                    yield f"{name}: the folder tree for the VOC server, checked: `{product_path(result.tree)}`"
                    yield f"{name}: the same packed, to be uploaded: `{product_path(result.archive)}`"
    if not report.runs.can_submit():
        yield "No folder tree for the VOC server was written: it takes VOC 2012's images at their own size."


def run_rows(report: Report) -> list[list[str]]:
    """Lay out what each run learnt from, and how long."""
    header = "run,learnt from,iterations,the paper's,images an iteration,crops,images seen,parameters,minutes"
    rows = [header.split(",")]
    for training in report.trainings:
        metadata = report.metadata(training)
        seconds, parameters = metadata.get("seconds"), metadata.get("parameters")
        options = training.options
        batch, passes = options.batch, training.iter_size
        rows.append(
            [
                training.name,
                ", ".join(short_name(report.settings, Path(source)) for source in training.data.train),
                f"{training.iterations:,}",
                f"{training.paper_iterations:,}",
                f"{batch} x {passes} passes" if passes > 1 else f"{batch}",
                "whole images" if options.whole_images else shape_text(options.crop),
                f"{training.images_seen:,}",
                NONE if parameters is None else f"{parameters:,}",
                NONE if seconds is None else f"{seconds / 60:.1f}",
            ]
        )
    return rows


def _machine_text(report: Report) -> str:
    found = {result.device for row in report.rows for results in row.results.values() for result in results if result}
    devices = ", ".join(sorted(filter(None, found))) or "nothing yet"
    name = gpu_name(report.settings.gpu)
    more = f" ({name})" if name else ""
    text = (
        f"Predicted on: {devices}{more}; this machine: {processor_name()}, {threads()} thread{'s' * (threads() > 1)}."
    )
    switches = {switches_text(report.metadata(each).get("switches") or {}) for each in report.trainings}
    text += "".join(f" Trained with {each}." for each in sorted(switches) if each)
    seeds = ", ".join(map(str, report.settings.seeds))
    spread = "; figures are means, in brackets the lowest and the highest" if len(report.settings.seeds) > 1 else ""
    return f"{text} Seeds: {seeds}{spread}. Commit: {commit() or 'not known'}."
