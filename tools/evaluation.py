"""Scores of semantic segmentation, as the VOC development kit and the paper (section 4.1) define them.

Every score comes from one confusion matrix over all pixels of all images, rows the truth and columns the prediction;
pixels that the truth leaves unlabelled count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.command_line import UserError
from data_prep.split_reader import LABELS, SplitReader
from tools.label_maps import read_label_map
from tools.native_process import children_without_interrupts

# Starting processes costs more than it saves below this many images for each.
_IMAGES_WORTH_A_PROCESS = 50


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_label: int = 255) -> np.ndarray:
    """Count the pixels of one image by true and predicted class.

    Args:
        truth: H x W uint8, class indices or `ignore_label`.
        prediction: H x W uint8, class indices.
        classes: number of classes C.
        ignore_label: the truth's value for "counts nowhere".

    Returns:
        C x C int64, rows the truth, columns the prediction.

    Raises:
        ValueError: the sizes differ, or a value is neither a class nor (in the truth) the ignored label. A prediction
            must name a class everywhere, also where the truth is ignored, as in the development kit.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"the prediction is {size_text(prediction)}, the truth {size_text(truth)}")
    pairs = truth.astype(np.uint16) << 8 | prediction
    counts = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    in_prediction = counts.sum(axis=0)
    if in_prediction[classes:].any():
        value = classes + int(np.flatnonzero(in_prediction[classes:])[0])
        raise ValueError(
            f"the prediction has the value {value} at {in_prediction[value]} pixels; classes are 0 to {classes - 1}"
        )
    in_truth = counts.sum(axis=1)
    in_truth[ignore_label] = 0
    if in_truth[classes:].any():
        value = classes + int(np.flatnonzero(in_truth[classes:])[0])
        raise ValueError(
            f"the truth has the value {value} at {in_truth[value]} pixels; "
            f"labels are 0 to {classes - 1} and {ignore_label} (ignored)"
        )
    return counts[:classes, :classes].astype(np.int64)


def size_text(image: np.ndarray) -> str:
    """Width x height of an H x W array, as people say it."""
    return f"{image.shape[1]} x {image.shape[0]}"


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix; all are fractions.

    Attributes:
        pixel_accuracy: share of the labelled pixels that are predicted right.
        class_accuracy: mean recall over the classes that the truth holds (the paper's "class accuracy").
        mean_iou: mean of TP / (truth + predicted - TP) over the classes in truth or prediction.
        recall: for each class; None where the truth does not hold it.
        iou: for each class; None where neither truth nor prediction holds it.
    """

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    recall: tuple[float | None, ...]
    iou: tuple[float | None, ...]


def scores(confusion: np.ndarray) -> Scores:
    """The scores of a C x C confusion matrix (rows the truth).

    Raises:
        ValueError: it holds no pixel at all, so nothing can be said.
    """
    right = np.diag(confusion).astype(np.float64)
    truth = confusion.sum(axis=1).astype(np.float64)
    union = truth + confusion.sum(axis=0) - right
    total = truth.sum()
    if total == 0:
        raise ValueError("no labelled pixel in the truth: there is nothing to score")
    recall = tuple(float(r / t) if t else None for r, t in zip(right, truth))
    iou = tuple(float(r / u) if u else None for r, u in zip(right, union))
    return Scores(float(right.sum() / total), _mean(recall), _mean(iou), recall, iou)


def _mean(values: Iterable[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))


@dataclass(frozen=True)
class LabelSource:
    """Where the truth comes from: a prepared split, or a folder of label PNGs.

    Attributes:
        folder: the split's or the PNGs' folder.
        ids: image ids to score, in order.
        is_split: whether `folder` is a prepared split.
    """

    folder: Path
    ids: tuple[str, ...]
    is_split: bool

    @classmethod
    def open(cls, folder: Path, ids: Sequence[str] | None = None) -> LabelSource:
        """Look into `folder`; `ids` restricts it to these images, in this order.

        Raises:
            UserError: no labels are there, or one of `ids` has none; names the folder.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of labels")
        is_split = (folder / LABELS).is_dir()
        if is_split:
            with SplitReader(folder) as reader:
                present = reader.ids()
        else:
            present = sorted(file.stem for file in folder.glob("*.png"))
        if not present:
            raise UserError(f"{folder}: neither a prepared split with {LABELS} nor a folder of label PNGs")
        if ids is None:
            return cls(folder, tuple(present), is_split)
        known = set(present)
        missing = [image_id for image_id in ids if image_id not in known]
        if missing:
            raise UserError(f"{folder}: no label of {missing[0]!r}" + _and_more(len(missing)))
        return cls(folder, tuple(ids), is_split)


def _and_more(count: int) -> str:
    return f" (and of {count - 1} more)" if count > 1 else ""


def check_predictions_exist(predictions: Path, ids: Sequence[str]) -> None:
    """Make sure that every image has a prediction `<image id>.png`, before the work begins.

    Raises:
        UserError: names the first that is missing and counts the others.
    """
    if not predictions.is_dir():
        raise UserError(f"{predictions}: no such folder of predictions")
    present = {file.name for file in predictions.iterdir()}
    missing = [image_id for image_id in ids if f"{image_id}.png" not in present]
    if missing:
        raise UserError(
            f"{predictions / missing[0]}.png: missing; {len(missing)} of {len(ids)} images have no prediction"
            " (an image id list restricts the scoring)"
        )


@dataclass(frozen=True)
class _Task:
    """A run of images for one process: numbers and ids within a label source."""

    source: LabelSource
    predictions: Path
    positions: tuple[int, ...]
    classes: int
    ignore_label: int


@dataclass(frozen=True)
class ImageResult:
    """One scored image.

    Attributes:
        image_id: its id.
        confusion: C x C int64, rows the truth.
        ignored_pixels: pixels that the truth leaves unlabelled.
    """

    image_id: str
    confusion: np.ndarray
    ignored_pixels: int


def _evaluate_task(task: _Task) -> list[ImageResult]:
    source = task.source
    if not source.is_split:
        return [
            _evaluate_image(task, source.ids[position], read_label_map(source.folder / f"{source.ids[position]}.png"))
            for position in task.positions
        ]
    with SplitReader(source.folder) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        results = []
        for position in task.positions:
            image_id = source.ids[position]
            truth = reader.label(index_of[image_id])
            assert truth is not None, "LabelSource.open saw labels"
            results.append(_evaluate_image(task, image_id, truth))
        return results


def _evaluate_image(task: _Task, image_id: str, truth: np.ndarray) -> ImageResult:
    file = task.predictions / f"{image_id}.png"
    prediction = read_label_map(file)
    try:
        confusion = confusion_matrix(truth, prediction, task.classes, task.ignore_label)
    except ValueError as error:
        message = str(error)
        where = file
        if message.startswith("the truth"):
            where = task.source.folder / (image_id if task.source.is_split else f"{image_id}.png")
        raise UserError(f"{where}: {message}") from None
    return ImageResult(image_id, confusion, int(truth.size - confusion.sum()))


def evaluate_images(
    predictions: Path, source: LabelSource, classes: int, ignore_label: int = 255, processes: int = 1
) -> Iterator[ImageResult]:
    """Score every image of `source` against `predictions/<image id>.png`, in the order of the ids.

    Args:
        predictions: folder of palette or 8-bit grey PNGs.
        source: the truth.
        classes: number of classes C.
        ignore_label: the truth's value for "counts nowhere".
        processes: how many may work at once; few images are done in this one.

    Raises:
        UserError: a missing, broken, colour-coded or wrongly sized file, or a value out of range; names the file.
    """
    check_predictions_exist(predictions, source.ids)
    processes = min(processes, len(source.ids) // _IMAGES_WORTH_A_PROCESS)
    chunk = 8 if processes > 1 else 1
    tasks = [
        _Task(source, predictions, tuple(range(start, min(start + chunk, len(source.ids)))), classes, ignore_label)
        for start in range(0, len(source.ids), chunk)
    ]
    if processes <= 1:
        for task in tasks:
            yield from _evaluate_task(task)
        return
    # Spawned, not forked: the caller may have threads (progress bar, OpenCV), and a fork in their midst can hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            with children_without_interrupts():
                found = pool.map(_evaluate_task, tasks)
            for results in found:
                yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class Evaluation:
    """The result of a whole set.

    Attributes:
        classes: names of the C classes.
        confusion: C x C int64 over all images, rows the truth.
        images: number of images.
        ignored_pixels: pixels that the truth leaves unlabelled.
        scores: scores of `confusion`.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    images: int
    ignored_pixels: int
    scores: Scores

    @classmethod
    def of(cls, results: Iterable[ImageResult], classes: Sequence[str]) -> Evaluation:
        """Add up the results of single images.

        Raises:
            ValueError: there is no labelled pixel.
        """
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        images = ignored = 0
        for result in results:
            confusion += result.confusion
            images += 1
            ignored += result.ignored_pixels
        return cls(tuple(classes), confusion, images, ignored, scores(confusion))

    def as_json(self) -> dict[str, Any]:
        """What `evaluate.py --json` writes; fractions, null for a class without a score."""
        return {
            "pixel_accuracy": self.scores.pixel_accuracy,
            "class_accuracy": self.scores.class_accuracy,
            "mean_iou": self.scores.mean_iou,
            "iou": dict(zip(self.classes, self.scores.iou)),
            "recall": dict(zip(self.classes, self.scores.recall)),
            "confusion": self.confusion.tolist(),
            "images": self.images,
            "ignored_pixels": self.ignored_pixels,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Evaluation:
        """The inverse of `as_json`; the scores are computed anew from the confusion matrix.

        Raises:
            ValueError: the content is not an evaluation.
        """
        try:
            classes = tuple(content["iou"])
            confusion = np.array(content["confusion"], dtype=np.int64)
            images, ignored = int(content["images"]), int(content["ignored_pixels"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an evaluation: {error}") from None
        if confusion.shape != (len(classes), len(classes)):
            raise ValueError(f"not an evaluation: a {confusion.shape} confusion matrix of {len(classes)} classes")
        return cls(classes, confusion, images, ignored, scores(confusion))
