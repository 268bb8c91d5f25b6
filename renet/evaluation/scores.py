"""Scores of semantic segmentation, as the VOC development kit and the paper (section 4.1) define them.

Every score comes from one confusion matrix over all pixels of all images, rows the truth and columns the prediction;
pixels that the truth leaves unlabelled count nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from renet.common.errors import UserError
from renet.common.json_schema import STRICT, check_json
from renet.data.image_ids import find_labels
from renet.data.label_maps import read_label_map
from renet.data.split_reader import LABELS, SplitReader
from renet.evaluation.bootstrap import RESAMPLES, Difference, differences, intervals, plain
from renet.evaluation.boundaries import Boundaries, ImageBoundaries, check_tolerance, score_boundaries
from renet.evaluation.image_counts import ClassCounts, ImageCounts
from renet.evaluation.sizes import ImageSizes, Sizes, check_shares, score_sizes
from renet.runtime.worker_process import children_without_interrupts

# Starting processes costs more than it saves below this many images for each.
_IMAGES_WORTH_A_PROCESS = 50
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Content(TypedDict):
    """What `Evaluation.as_json` makes, as far as it is read again."""

    __pydantic_config__ = STRICT
    iou: dict[str, float | None]
    confusion: list[list[_Count]]
    images: _Count
    ignored_pixels: _Count
    per_image: NotRequired[dict[str, dict[str, Annotated[list[_Count], Field(min_length=3, max_length=3)]]]]


_SCHEMA = TypeAdapter(_Content)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_label: int = 255) -> np.ndarray:
    """Count the pixels of one image by true and predicted class.

    Args:
        truth: H x W uint8, class indices or `ignore_label`.
        prediction: H x W uint8, class indices.
        classes: number of classes C.
        ignore_label: the truth's value for "counts nowhere"; it may be the number of a class.

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
    if 0 <= ignore_label < len(counts):
        counts[ignore_label] = 0  # also where it is the number of a class
    in_truth = counts.sum(axis=1)
    if in_truth[classes:].any():
        value = classes + int(np.flatnonzero(in_truth[classes:])[0])
        raise ValueError(
            f"the truth has the value {value} at {in_truth[value]} pixels; "
            f"labels are 0 to {classes - 1} and {ignore_label} (ignored)"
        )
    return counts[:classes, :classes].astype(np.int64)


def size_text(image: np.ndarray) -> str:
    """Write width x height of an H x W array."""
    return f"{image.shape[1]} x {image.shape[0]}"


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix; all are fractions.

    Attributes:
        pixel_accuracy: share of the labelled pixels that are predicted right.
        class_accuracy: mean recall over the classes that the truth holds (the paper's "class accuracy").
        mean_iou: mean of TP / (truth + predicted - TP) over the classes in truth or prediction.
        frequency_weighted_iou: the same mean, each class weighted by its share of the labelled pixels.
        recall: for each class; None where the truth does not hold it.
        iou: for each class; None where neither truth nor prediction holds it.
    """

    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    recall: tuple[float | None, ...]
    iou: tuple[float | None, ...]


def scores(confusion: np.ndarray) -> Scores:
    """Compute the scores of a C x C confusion matrix (rows the truth).

    Raises:
        ValueError: it holds no pixel at all, so nothing can be said.
    """
    counts = ClassCounts.of(confusion)
    if not counts.truth.any():
        raise ValueError("no labelled pixel in the truth: there is nothing to score")
    recall, iou = (tuple(plain(ratios)) for ratios in (counts.recall, counts.iou))
    return Scores(**{name: float(value) for name, value in counts.measures().items()}, recall=recall, iou=iou)


@dataclass(frozen=True)
class LabelSource:
    """Source of the truth: a prepared split, or a folder of label PNGs.

    Attributes:
        folder: the split's or the PNGs' folder.
        ids: image ids to score, in order.
        files: the label PNG of each; none of a prepared split.
    """

    folder: Path
    ids: tuple[str, ...]
    files: Mapping[str, Path]

    @property
    def is_split(self) -> bool:
        """Tell whether `folder` is a prepared split."""
        return not self.files

    @classmethod
    def open(cls, folder: Path, ids: Sequence[str] | None = None, suffix: str = "") -> LabelSource:
        """Find the labels in `folder`.

        Args:
            folder: a prepared split or label PNGs.
            ids: restricts it to these images, in this order.
            suffix: what the PNGs' names end in after the image's id, such as `_gtFine_labelTrainIds`.

        Raises:
            UserError: no labels are there, or one of `ids` has none; names the folder.
        """
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of labels")
        files: Mapping[str, Path] = {}
        if (folder / LABELS).is_dir():
            if suffix:
                raise UserError(f"{folder}: a prepared split, whose labels have no suffix such as {suffix}")
            with SplitReader(folder) as reader:
                present = reader.ids()
        else:
            files = find_labels(folder, suffix)
            present = list(files)
        if not present:
            raise UserError(f"{folder}: an empty split")
        if ids is None:
            return cls(folder, tuple(present), files)
        known = set(present)
        missing = [image_id for image_id in ids if image_id not in known]
        if missing:
            raise UserError(f"{folder}: no label of {missing[0]!r}" + _and_more(len(missing)))
        return cls(folder, tuple(ids), files)


def _and_more(count: int) -> str:
    return f" (and of {count - 1} more)" if count > 1 else ""


def predicted_files(predictions: Path, ids: Sequence[str], suffix: str = "") -> dict[str, Path]:
    """Find the predicted label map of every image, `<image id><suffix>.png`, before the work begins.

    Raises:
        UserError: no such folder, or there are none; or names the first that is missing and counts the others.
    """
    if not predictions.is_dir():
        raise UserError(f"{predictions}: no such folder of predictions")
    present = find_labels(predictions, suffix)
    missing = [image_id for image_id in ids if image_id not in present]
    if missing:
        raise UserError(
            f"{predictions / missing[0]}{suffix}.png: missing; {len(missing)} of {len(ids)} images have no prediction"
            " (an image id list restricts the scoring)"
        )
    return {image_id: present[image_id] for image_id in ids}


@dataclass(frozen=True)
class _Image:
    """An image to score: its truth is a PNG, or (None) in the task's split."""

    image_id: str
    truth: Path | None
    prediction: Path


@dataclass(frozen=True)
class _Task:
    """A run of images for one process."""

    folder: Path
    images: tuple[_Image, ...]
    classes: int
    ignore_label: int
    boundary_tolerance: float | None
    size_shares: tuple[float, ...] | None


@dataclass(frozen=True)
class ImageResult:
    """Result of one scored image.

    Attributes:
        image_id: its id.
        prediction: the file of its prediction.
        confusion: C x C int64, rows the truth.
        ignored_pixels: pixels that the truth leaves unlabelled.
        boundaries: scores along them; None where they were not asked for.
        sizes: scores by the size of regions; None likewise.
    """

    image_id: str
    prediction: Path
    confusion: np.ndarray
    ignored_pixels: int
    boundaries: ImageBoundaries | None = None
    sizes: ImageSizes | None = None

    @classmethod
    def of(
        cls,
        image_id: str,
        prediction: Path,
        maps: tuple[np.ndarray, np.ndarray],
        classes: int,
        ignore_label: int,
        boundary_tolerance: float | None = None,
        size_shares: tuple[float, ...] | None = None,
    ) -> ImageResult:
        """Score the truth and the prediction in `maps`.

        Raises:
            ValueError: as `confusion_matrix`.
        """
        truth, predicted = maps
        confusion = confusion_matrix(truth, predicted, classes, ignore_label)
        boundaries = None
        if boundary_tolerance is not None:
            boundaries = score_boundaries(truth, predicted, classes, ignore_label, boundary_tolerance)
        sizes = None
        if size_shares is not None:
            sizes = score_sizes(truth, predicted, classes, ignore_label, size_shares)
        return cls(image_id, prediction, confusion, int(truth.size - confusion.sum()), boundaries, sizes)


def _evaluate_task(task: _Task) -> list[ImageResult]:
    return list(_results(task))


def _results(task: _Task) -> Iterator[ImageResult]:
    if task.images[0].truth is not None:
        for image in task.images:
            assert image.truth is not None, "LabelSource has either files or a split"
            yield _evaluate_image(task, image, read_label_map(image.truth), image.truth)
        return
    with SplitReader(task.folder) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        for image in task.images:
            truth = reader.label(index_of[image.image_id])
            assert truth is not None, "LabelSource.open saw labels"
            yield _evaluate_image(task, image, truth, task.folder / image.image_id)


def _evaluate_image(task: _Task, image: _Image, truth: np.ndarray, where: Path) -> ImageResult:
    maps = (truth, read_label_map(image.prediction))
    asked = (task.classes, task.ignore_label, task.boundary_tolerance, task.size_shares)
    try:
        return ImageResult.of(image.image_id, image.prediction, maps, *asked)
    except ValueError as error:
        message = str(error)
        raise UserError(f"{where if message.startswith('the truth') else image.prediction}: {message}") from None


def evaluate_images(
    predictions: Path,
    source: LabelSource,
    classes: int,
    ignore_label: int = 255,
    processes: int = 1,
    suffix: str = "",
    boundary_tolerance: float | None = None,
    size_shares: tuple[float, ...] | None = None,
) -> Iterator[ImageResult]:
    """Score every image of `source` against `predictions/<image id><suffix>.png`, in the order of the ids.

    Args:
        predictions: folder of palette or 8-bit grey PNGs.
        source: the truth.
        classes: number of classes C.
        ignore_label: the truth's value for "counts nowhere".
        processes: how many may work at once; few images are done in this one.
        suffix: what the predictions' names end in after the image's id.
        boundary_tolerance: score the boundaries, too, with this tolerance (see `boundaries.TOLERANCE`).
        size_shares: score regions by size, too, with these shares of the image between the bands (see `sizes.SHARES`).

    Raises:
        UserError: a missing, broken, colour-coded or wrongly sized file, or a value out of range; names the file.
    """
    if boundary_tolerance is not None:
        check_tolerance(boundary_tolerance)
    if size_shares is not None:
        check_shares(size_shares)
    files = predicted_files(predictions, source.ids, suffix)
    images = [_Image(image_id, source.files.get(image_id), files[image_id]) for image_id in source.ids]
    processes = min(processes, len(images) // _IMAGES_WORTH_A_PROCESS)
    # Each task lists the whole split, so there are not more of them than keep the processes busy.
    chunk = max(8, len(images) // (16 * processes)) if processes > 1 else len(images)
    asked = (classes, ignore_label, boundary_tolerance, size_shares)
    tasks = [
        _Task(source.folder, tuple(images[start : start + chunk]), *asked) for start in range(0, len(images), chunk)
    ]
    if processes <= 1:
        for task in tasks:
            yield from _results(task)
        return
    # Spawned, not forked: the caller may have threads (progress bar, OpenCV), and a fork in their midst can hang.
    resource_tracker.ensure_running()  # the first process would start it, which lets interruptions through again
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            with children_without_interrupts():
                found = pool.map(_evaluate_task, tasks)
            for results in found:
                yield from results
        except BrokenProcessPool:
            raise UserError(
                f"{predictions}: a process that scored them has ended, for want of memory or file handles "
                "(--processes 1 does without it)"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class Tally:
    """Counts of a set of images, of which its scores are computed; those of the parts of a set can be joined.

    Attributes:
        confusion: C x C int64 over all images, rows the truth.
        ignored_pixels: pixels that the truth leaves unlabelled.
        image_counts: of the single images.
        boundaries: along the classes' boundaries; None where they were not asked for, or there is no image.
        sizes: by the size of regions; None likewise.
    """

    confusion: np.ndarray
    ignored_pixels: int
    image_counts: ImageCounts
    boundaries: Boundaries | None = None
    sizes: Sizes | None = None

    @classmethod
    def of(cls, results: Iterable[ImageResult], classes: int) -> Tally:
        """Add up the results of single images, maybe none."""
        confusion = np.zeros((classes, classes), np.int64)
        image_ids: list[str] = []
        table = bytearray()
        boundaries: list[ImageBoundaries] = []
        sizes: list[ImageSizes] = []
        ignored = 0
        for result in results:
            confusion += result.confusion
            image_ids.append(result.image_id)
            table += ClassCounts.of(result.confusion).as_bytes()
            if result.boundaries is not None:
                boundaries.append(result.boundaries)
            if result.sizes is not None:
                sizes.append(result.sizes)
            ignored += result.ignored_pixels
        of_images = ImageCounts.of(image_ids, table, classes)
        along = Boundaries.of(image_ids, boundaries) if boundaries else None
        by_size = Sizes.of(image_ids, sizes) if sizes else None
        return cls(confusion, ignored, of_images, along, by_size)

    @classmethod
    def joined(cls, parts: Sequence[Tally]) -> Tally:
        """Join the tallies of all parts of a set, in their order."""
        counts = [part.image_counts for part in parts]
        image_ids = tuple(image_id for each in counts for image_id in each.image_ids)
        along = [part.boundaries for part in parts if part.boundaries is not None]
        by_size = [part.sizes for part in parts if part.sizes is not None]
        return cls(
            np.sum([part.confusion for part in parts], axis=0),
            sum(part.ignored_pixels for part in parts),
            ImageCounts(image_ids, ClassCounts.joined([each.counts for each in counts])),
            Boundaries.joined(along) if along else None,
            Sizes.joined(by_size) if by_size else None,
        )


@dataclass(frozen=True)
class Evaluation:
    """Result of a whole set of images.

    Attributes:
        classes: names of the C classes.
        confusion: C x C int64 over all images, rows the truth.
        images: number of images.
        ignored_pixels: pixels that the truth leaves unlabelled.
        scores: scores of `confusion`.
        image_counts: of the single images; None where they were not kept.
        boundaries: scores along the classes' boundaries; None where they were not asked for.
        sizes: scores by the size of regions; None likewise.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    images: int
    ignored_pixels: int
    scores: Scores
    image_counts: ImageCounts | None = None
    boundaries: Boundaries | None = None
    sizes: Sizes | None = None

    @classmethod
    def of(cls, results: Iterable[ImageResult], classes: Sequence[str]) -> Evaluation:
        """Add up the results of single images.

        Raises:
            ValueError: there is no labelled pixel.
        """
        return cls.of_tally(Tally.of(results, len(classes)), classes)

    @classmethod
    def of_tally(cls, tally: Tally, classes: Sequence[str]) -> Evaluation:
        """Compute the scores of a set of images.

        Raises:
            ValueError: there is no labelled pixel.
        """
        images = len(tally.image_counts.image_ids)
        found = scores(tally.confusion)
        counts = (tally.image_counts, tally.boundaries, tally.sizes)
        return cls(tuple(classes), tally.confusion, images, tally.ignored_pixels, found, *counts)

    @property
    def pixel_accuracy(self) -> float:
        """See `Scores`, as all of these."""
        return self.scores.pixel_accuracy

    @property
    def class_accuracy(self) -> float:
        """The mean recall of the classes that the truth holds."""
        return self.scores.class_accuracy

    @property
    def mean_iou(self) -> float:
        """The mean intersection over union."""
        return self.scores.mean_iou

    @property
    def frequency_weighted_iou(self) -> float:
        """The mean in which each class counts by its share of the pixels."""
        return self.scores.frequency_weighted_iou

    @property
    def class_iou(self) -> dict[str, float | None]:
        """Intersection over union by class; None where neither truth nor prediction holds it."""
        return dict(zip(self.classes, self.scores.iou))

    def intervals(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
        """Compute 95% intervals (lower and upper bound) of the scores by a bootstrap over the images.

        Args:
            resamples: how many times images are drawn with replacement, as many as there are.
            seed: of the draws.

        Returns:
            By the names of `Scores` and, where they were asked for, of `Boundaries.measures` and `Sizes.measures`;
            nothing where there is one image only, or the single images' counts were not kept.
        """
        found: dict[str, np.ndarray] = {}
        for measured in (self.image_counts, self.boundaries, self.sizes):
            found |= {} if measured is None else intervals(measured, resamples, seed)
        return found

    def compared_with(self, other: Evaluation, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Difference]:
        """Compare with other predictions of the same images, paired by image.

        The result is by the names of `Scores`, and of `Boundaries.measures` and `Sizes.measures` where both have them.

        Args:
            other: may be of more images.
            resamples: how many times images are drawn with replacement, the same for both.
            seed: of the draws.

        Raises:
            UserError: `other` has other classes, another truth, another tolerance or other sizes, or lacks an image; or
                the single images' counts were not kept.
        """
        if self.image_counts is None or other.image_counts is None:
            raise UserError("an evaluation without its single images' counts, so nothing can be paired by image")
        if self.classes != other.classes:
            raise UserError("the other evaluation is of other classes")
        known = set(other.image_counts.image_ids)
        missing = [image_id for image_id in self.image_counts.image_ids if image_id not in known]
        if missing:
            raise UserError(f"the other evaluation has no scores of {missing[0]!r}" + _and_more(len(missing)))
        theirs = other.image_counts.select(self.image_counts.image_ids)
        differ = (self.image_counts.counts.truth != theirs.counts.truth).any(axis=1)
        if differ.any():
            image_id = self.image_counts.image_ids[int(differ.argmax())]
            raise UserError(f"the other evaluation has another truth of {image_id!r}" + _and_more(int(differ.sum())))
        found = differences(self.image_counts, theirs, resamples, seed)
        if self.boundaries is not None and other.boundaries is not None:
            if self.boundaries.tolerance != other.boundaries.tolerance:
                raise UserError("the other evaluation's boundaries were scored with another tolerance")
            along = other.boundaries.select(self.image_counts.image_ids)
            found |= differences(self.boundaries, along, resamples, seed)
        if self.sizes is not None and other.sizes is not None:
            if self.sizes.shares != other.sizes.shares:
                raise UserError("the other evaluation's sizes were parted by other shares")
            by_size = other.sizes.select(self.image_counts.image_ids)
            found |= differences(self.sizes, by_size, resamples, seed)
        return found

    def as_json(self, with_images: bool = False) -> dict[str, Any]:
        """Convert to what `evaluate.py --json` writes; fractions, null for a class without a score.

        Args:
            with_images: also the counts of the single images.
        """
        of_images = self.image_counts if with_images else None
        return {
            "pixel_accuracy": self.scores.pixel_accuracy,
            "class_accuracy": self.scores.class_accuracy,
            "mean_iou": self.scores.mean_iou,
            "frequency_weighted_iou": self.scores.frequency_weighted_iou,
            "iou": self.class_iou,
            "recall": dict(zip(self.classes, self.scores.recall)),
            "confusion": self.confusion.tolist(),
            "images": self.images,
            "ignored_pixels": self.ignored_pixels,
            **({} if self.boundaries is None else {"boundaries": self.boundaries.as_json(self.classes)}),
            **({} if self.sizes is None else {"sizes": self.sizes.as_json(self.classes)}),
            **({} if of_images is None else {"per_image": of_images.as_json(self.classes)}),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Evaluation:
        """Read what `as_json` made; scores are computed anew from the confusion matrix. Boundaries and sizes are not
        read.

        Raises:
            ValueError: the content is not an evaluation.
        """
        try:
            checked = check_json(content, _SCHEMA)
            classes, rows = tuple(checked["iou"]), checked["confusion"]
            if not len(classes) == len(rows) or any(len(row) != len(classes) for row in rows):
                raise ValueError(f"confusion is not {len(classes)} x {len(classes)} for {len(classes)} classes")
            of_images = ImageCounts.from_json(checked["per_image"], classes) if "per_image" in checked else None
        except (ValueError, KeyError) as error:
            raise ValueError(f"not an evaluation: {error}") from None
        confusion = np.array(rows, dtype=np.int64).reshape(len(classes), len(classes))
        return cls(classes, confusion, checked["images"], checked["ignored_pixels"], scores(confusion), of_images)
