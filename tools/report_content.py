"""What the report page shows: runs, scores, and pictures with their labels as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.command_line import UserError, progress
from data_prep.dataset import Dataset
from data_prep.split_reader import SplitReader
from tools.evaluation import Evaluation, ImageResult, LabelSource, Scores, evaluate_images, scores
from tools.label_maps import encode_label_map, read_label_map
from tools.run_record import PREDICTIONS, RunRecord

PICTURE_WIDTH = 480  # pixels; larger pictures are shrunk, for the page carries them all


@dataclass(frozen=True)
class Entry:
    """One column of the report: a network, its run where there is one, its predictions where there are some.

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
class Picture:
    """One test image in the gallery.

    Attributes:
        image_id: its id.
        width: of the shown pictures, pixels.
        height: of the shown pictures, pixels.
        source: the photograph, data URI.
        truth: its labels, data URI.
        predictions: each entry's labels, data URIs.
        accuracies: each entry's pixel accuracy; None where the truth has no labelled pixel.
        ious: each entry's mean IoU; None likewise.
        position: its number in the split.
    """

    image_id: str
    width: int
    height: int
    source: str
    truth: str
    predictions: tuple[str, ...]
    accuracies: tuple[float | None, ...]
    ious: tuple[float | None, ...]
    position: int


def gather(
    runs: Sequence[Path], predictions: Sequence[Path], names: Sequence[str], split: Path | None, dataset: Dataset | None
) -> list[Entry]:
    """Read runs and predictions, and score the predictions.

    Args:
        runs: run folders; may be empty.
        predictions: folders of label maps: one for each run in the same order, or (without runs) one for each entry;
            empty takes what the runs hold.
        names: what the page calls the entries; empty takes the runs' or folders' own names.
        split: prepared split with the truth; needed where there are predictions.
        dataset: its classes.

    Raises:
        UserError: the numbers of folders do not match, or bad input; names the file.
    """
    if runs and predictions and len(runs) != len(predictions):
        raise UserError(f"{len(runs)} runs but {len(predictions)} folders of predictions; give one for each run")
    count = len(runs) or len(predictions)
    if names and len(names) != count:
        raise UserError(f"{len(names)} names for {count} runs or predictions")
    entries = []
    for index in range(count):
        run = RunRecord.load(runs[index]) if runs else None
        folder = predictions[index] if predictions else None
        if folder is None and run is not None and split is not None and (run.folder / PREDICTIONS).is_dir():
            folder = run.folder / PREDICTIONS
        name = names[index] if names else _own_name(run, folder)
        entries.append(_entry(name, run, folder, split, dataset))
    return entries


def _own_name(run: RunRecord | None, folder: Path | None) -> str:
    if run is not None:
        return run.name
    assert folder is not None, "an entry has a run or predictions"
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == PREDICTIONS else resolved.name


def _entry(name: str, run: RunRecord | None, folder: Path | None, split: Path | None, dataset: Dataset | None) -> Entry:
    if folder is None:
        return Entry(name, run, None, run.evaluation if run else None, {})
    if split is None or dataset is None:
        raise UserError(f"{folder}: --labels is needed to show and score predictions")
    source = LabelSource.open(split)
    if not source.is_split:
        raise UserError(f"{split}: the report needs a prepared split, for it shows the images, too")
    results = evaluate_images(folder, source, len(dataset.classes), dataset.ignore_label)
    bar = progress(results, total=len(source.ids), description=f"scoring {name}", unit="image")
    images = {result.image_id: result for result in bar}
    try:
        evaluation = Evaluation.of(images.values(), dataset.classes)
    except ValueError as error:
        raise UserError(f"{split}: {error}") from None
    return Entry(name, run, folder, evaluation, images)


def image_scores(result: ImageResult) -> Scores | None:
    """One image's own scores; None where its truth has no labelled pixel."""
    return scores(result.confusion) if result.confusion.any() else None


def worst_first(entry: Entry) -> list[str]:
    """Image ids by rising pixel accuracy; images that cannot be scored come last."""
    accuracy = {}
    for image_id, result in entry.images.items():
        own = image_scores(result)
        accuracy[image_id] = 2.0 if own is None else own.pixel_accuracy
    return sorted(accuracy, key=lambda image_id: (accuracy[image_id], image_id))


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` of the ids at even distances, the first and the last among them; all where there are no more."""
    if count >= len(ids):
        return list(ids)
    return [ids[index] for index in np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))]


def pictures(entries: Sequence[Entry], split: Path, dataset: Dataset, count: int) -> list[Picture]:
    """The gallery: up to `count` images from the whole range of quality, worst of the first entry first.

    Raises:
        UserError: a damaged record or file; names it.
    """
    shown = [entry for entry in entries if entry.predictions is not None]
    if not shown or count < 1:
        return []
    chosen = spread(worst_first(shown[0]), count)
    result = []
    with SplitReader(split) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        for image_id in progress(chosen, description="pictures", unit="image"):
            index = index_of[image_id]
            image, truth = reader.image(index), reader.label(index)
            assert truth is not None, "entries are scored against this split's labels"
            own = [image_scores(entry.images[image_id]) for entry in shown]
            labels = [read_label_map(entry.predictions / f"{image_id}.png") for entry in shown if entry.predictions]
            width = min(PICTURE_WIDTH, image.shape[1])
            height = max(1, round(image.shape[0] * width / image.shape[1]))
            result.append(
                Picture(
                    image_id=image_id,
                    width=width,
                    height=height,
                    source=_photograph(image, (width, height)),
                    truth=_label_picture(truth, (width, height), dataset),
                    predictions=tuple(_label_picture(label, (width, height), dataset) for label in labels),
                    accuracies=tuple(None if s is None else s.pixel_accuracy for s in own),
                    ious=tuple(None if s is None else s.mean_iou for s in own),
                    position=index,
                )
            )
    return result


def _photograph(image: np.ndarray, size: tuple[int, int]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return _data_uri("image/jpeg", buffer.getvalue())


def _label_picture(labels: np.ndarray, size: tuple[int, int], dataset: Dataset) -> str:
    if labels.shape[::-1] != size:
        labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    return _data_uri("image/png", encode_label_map(labels, dataset))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class ClassRow:
    """One class in the table of classes; IoUs are fractions, None where a class has none.

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
    """The table of classes: those that need distant context first, where the dataset names any."""
    scored = [entry.evaluation for entry in entries if entry.evaluation is not None]
    rows = {}
    for index, name in enumerate(dataset.classes):
        published = paper.get(name)
        rows[name] = ClassRow(
            name=name,
            colour="rgb({}, {}, {})".format(*dataset.palette[index].tolist()),
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


def description_lines(run: RunRecord) -> list[tuple[str, str]]:
    """run.json as pairs of name and text, nested values in one line each."""
    return [(key.replace("_", " "), _plain(value)) for key, value in run.description.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
