"""Content of the report page: runs, their scores, classes and confusions (page_pictures.py has the pictures)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.data.dataset import Dataset
from renet.evaluation.scores import Evaluation, ImageResult, LabelSource, Scores, evaluate_images, scores
from renet.training.run_record import PREDICTIONS, RunRecord

MOST_CONFUSIONS = 5  # told in words below a matrix


@dataclass(frozen=True)
class Entry:
    """Column of the report: a network, its run where there is one, its predictions where there are some.

    Attributes:
        name: what the page calls it.
        run: its run folder's content.
        predictions: folder of label maps.
        evaluation: scores over the whole split.
        images: results of single images, by id; empty without predictions.
    """

    name: str
    run: RunRecord | None
    predictions: Path | None
    evaluation: Evaluation | None
    images: dict[str, ImageResult]


@dataclass(frozen=True)
class Source:
    """Source of a column of the report.

    Attributes:
        folder: a run folder, or a folder of label maps.
        is_run: which of both.
        name: what the page calls it; empty takes its own.
    """

    folder: Path
    is_run: bool
    name: str = ""

    @classmethod
    def parse(cls, text: str, is_run: bool) -> Source:
        """Read `[NAME=]FOLDER`; a folder whose own name has a "=" is taken as it is."""
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            return cls(Path(text), is_run)
        return cls(Path(folder), is_run, name)


def gather(
    sources: Sequence[Source], split: Path | None, dataset: Dataset | None, boundary_tolerance: float | None = None
) -> list[Entry]:
    """Read runs and predictions, and score the predictions.

    Args:
        sources: one for each column; a run brings the label maps in its folder predictions/, where it has one.
        split: prepared split with the truth; needed where there are predictions.
        dataset: its classes.
        boundary_tolerance: as of `evaluate_images`.

    Raises:
        UserError: bad input; names the file.
    """
    entries = []
    for source in sources:
        if not source.is_run:
            name = source.name or own_name(source.folder)
            entries.append(_entry(name, None, source.folder, split, dataset, boundary_tolerance))
            continue
        run = RunRecord.load(source.folder)
        # the curves take the name from there
        run = replace(run, name=source.name or run.name)
        own = source.folder / PREDICTIONS
        folder = own if split is not None and own.is_dir() else None
        entries.append(_entry(run.name, run, folder, split, dataset, boundary_tolerance))
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two columns are called {twice}: give names, as in --run NAME=FOLDER")
    return entries


def own_name(folder: Path) -> str:
    """Name a folder of predictions: by its run, where it is a run's `predictions`, else by itself."""
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == PREDICTIONS else resolved.name


def _entry(
    name: str,
    run: RunRecord | None,
    folder: Path | None,
    split: Path | None,
    dataset: Dataset | None,
    boundary_tolerance: float | None,
) -> Entry:
    if folder is None:
        return Entry(name, run, None, run.evaluation if run else None, {})
    if split is None or dataset is None:
        raise UserError(f"{folder}: --labels is needed to show and score predictions")
    source = LabelSource.open(split)
    if not source.is_split:
        raise UserError(f"{split}: the report needs a prepared split, for it shows the images, too")
    processes = len(os.sched_getaffinity(0))
    results = evaluate_images(
        folder,
        source,
        len(dataset.classes),
        dataset.ignore_label,
        processes,
        boundary_tolerance=boundary_tolerance,
    )
    bar = progress(results, total=len(source.ids), description=f"scoring {name}", unit="image")
    images = {result.image_id: result for result in bar}
    try:
        evaluation = Evaluation.of(images.values(), dataset.classes)
    except ValueError as error:
        raise UserError(f"{split}: {error}") from None
    return Entry(name, run, folder, evaluation, images)


def image_scores(result: ImageResult) -> Scores | None:
    """Compute one image's own scores; None where its truth has no labelled pixel."""
    return scores(result.confusion) if result.confusion.any() else None


@dataclass(frozen=True)
class ClassRow:
    """Class in the table of classes; IoUs are fractions, None where a class has none.

    Attributes:
        name: the class.
        colour: CSS colour; empty for a mean over several classes.
        ious: one for each entry.
        paper: the paper's figure, as a fraction.
    """

    name: str
    colour: str
    ious: tuple[float | None, ...]
    paper: float | None


@dataclass(frozen=True)
class ClassGroup:
    """Classes that belong together, with their mean as the last row where they are several.

    Attributes:
        title: what they have in common; empty where there is only one group.
        rows: the classes.
        mean: their mean over the classes that have an IoU; None for a single group.
        highlighted: whether the table should draw the eye to it.
    """

    title: str
    rows: tuple[ClassRow, ...]
    mean: ClassRow | None
    highlighted: bool


def class_groups(entries: Sequence[Entry], dataset: Dataset, paper: dict[str, float]) -> list[ClassGroup]:
    """Make the table of classes: those that need distant context first, where the dataset names any."""
    scored = [entry.evaluation for entry in entries if entry.evaluation is not None]
    rows = {}
    for index, name in enumerate(dataset.classes):
        published = paper.get(name)
        rows[name] = ClassRow(
            name=name,
            colour=_css(dataset.palette[index].tolist()),
            ious=tuple(evaluation.scores.iou[index] for evaluation in scored),
            paper=None if published is None else published / 100,
        )
    distant = [rows.pop(name) for name in dataset.distant_context_classes]
    if not distant:
        return [ClassGroup("", tuple(rows.values()), None, False)]
    groups = [_group("Told apart by distant context only", distant, True)]
    return [*groups, _group("Other classes", list(rows.values()), False)] if rows else groups


def _group(title: str, rows: Sequence[ClassRow], highlighted: bool) -> ClassGroup:
    means = []
    for column in zip(*(row.ious for row in rows)):
        present = [iou for iou in column if iou is not None]
        means.append(float(np.mean(present)) if present else None)
    return ClassGroup(title, tuple(rows), ClassRow("mean of these", "", tuple(means), None), highlighted)


@dataclass(frozen=True)
class ConfusionRow:
    """Confusions of one class's pixels.

    Attributes:
        name: the class.
        colour: CSS colour.
        pixels: of this class in the truth.
        counts: of them, by predicted class.
        shares: the counts as fractions of `pixels`; None where there are no pixels.
    """

    name: str
    colour: str
    pixels: int
    counts: tuple[int, ...]
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of one entry.

    Attributes:
        entry: its name.
        rows: the classes of the truth.
        largest: the largest confusions: true class, predicted class, share of the true class's pixels.
    """

    entry: str
    rows: tuple[ConfusionRow, ...]
    largest: tuple[tuple[str, str, float], ...]


def confusion_tables(scored: Sequence[Entry], dataset: Dataset) -> list[Confusion]:
    """Make the confusion matrix of every entry that has scores."""
    tables = []
    for entry in scored:
        assert entry.evaluation is not None, "scored entries only"
        matrix = entry.evaluation.confusion
        rows = []
        for name, rgb, counts in zip(dataset.classes, dataset.palette.tolist(), matrix):
            pixels = int(counts.sum())
            shares = tuple((counts / pixels).tolist()) if pixels else None
            rows.append(ConfusionRow(name, _css(rgb), pixels, tuple(counts.tolist()), shares))
        pairs = [
            (row.name, dataset.classes[column], share)
            for number, row in enumerate(rows)
            for column, share in enumerate(row.shares or ())
            if column != number and share > 0
        ]
        pairs.sort(key=lambda pair: -pair[2])
        tables.append(Confusion(entry.name, tuple(rows), tuple(pairs[:MOST_CONFUSIONS])))
    return tables


def _css(rgb: Sequence[int]) -> str:
    return "rgb({}, {}, {})".format(*rgb)


def description_lines(run: RunRecord) -> list[tuple[str, str]]:
    """Flatten run.json to pairs of name and text, nested values in one line each."""
    return [(key.replace("_", " "), _plain(value)) for key, value in run.description.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
