"""Scores of predictions that lie in folders, in splits, or in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.data.catalog import load_dataset
from renet.data.dataset import Dataset
from renet.data.label_maps import read_label_map
from renet.data.split_reader import SplitReader
from renet.data.split_view import Split
from renet.evaluation.boundaries import check_tolerance
from renet.evaluation.scores import Evaluation, ImageResult, LabelSource, evaluate_images
from renet.evaluation.sizes import check_shares

Labels = str | os.PathLike[str] | Split | Iterable[np.ndarray]


def evaluate(
    predictions: str | os.PathLike[str] | Iterable[np.ndarray],
    labels: Labels,
    dataset: Dataset | str | os.PathLike[str],
    *,
    boundary_tolerance: float | None = None,
    size_shares: Sequence[float] | None = None,
) -> Evaluation:
    """Score predictions against the truth, as `tools/evaluate.py` does.

    Args:
        predictions: a folder of label maps, `<image id>.png`, or H x W arrays of class indices in the order of
            `labels`, read one by one.
        labels: the truth: a folder of label maps, a prepared split's folder or view, or H x W arrays.
        dataset: gives the classes and the ignored label: a `Dataset`, its folder, or the name of a known one.
        boundary_tolerance: score the boundaries, too (`Evaluation.boundaries`): how far apart those of truth and
            prediction may lie, as a share of the image's diagonal; 0.0075 is usual.
        size_shares: score regions of the truth by their size, too (`Evaluation.sizes`): the shares of the image between
            the bands, such as 0.01, 0.04 and 0.16.

    Raises:
        UserError: the files or arrays do not belong together, or one holds something else than classes (and, in the
            truth, the ignored label); names the file or the image.
    """
    if boundary_tolerance is not None:
        check_tolerance(boundary_tolerance)
    if size_shares is not None:
        check_shares(size_shares)
    asked = (boundary_tolerance, None if size_shares is None else tuple(size_shares))
    described = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    classes, ignored = len(described.classes), described.ignore_label
    folder = labels.folder if isinstance(labels, Split) else labels
    source = None if not isinstance(folder, str | os.PathLike) else LabelSource.open(Path(folder), None)
    if isinstance(predictions, str | os.PathLike):
        if source is None:
            raise UserError(f"{predictions}: names its images by their files, and the labels are arrays without names")
        tolerance, shares = asked
        results = evaluate_images(
            Path(predictions), source, classes, ignored, boundary_tolerance=tolerance, size_shares=shares
        )
    else:
        truths = _arrays(labels) if source is None else _truths(source)
        results = _compared(_arrays(predictions), truths, classes, ignored, asked)
    try:
        return Evaluation.of(results, described.classes)
    except ValueError as error:
        raise UserError(f"{folder if source is not None else 'the labels'}: {error}") from None


@dataclass(frozen=True)
class _Map:
    """A label map, its image's id, and where it is from."""

    image_id: str
    where: str
    labels: np.ndarray


def _truths(source: LabelSource) -> Iterator[_Map]:
    """The label map of each image of a folder or a split."""
    if not source.is_split:
        for image_id in source.ids:
            file = source.files[image_id]
            yield _Map(image_id, str(file), read_label_map(file))
        return
    with SplitReader(source.folder) as reader:
        for number, image_id in enumerate(reader.ids()):
            label = reader.label(number)
            assert label is not None, "LabelSource.open saw labels"
            yield _Map(image_id, str(source.folder / image_id), label)


def _arrays(maps: Iterable[np.ndarray]) -> Iterator[_Map]:
    """Label maps in memory, by their numbers.

    Raises:
        UserError: one is no H x W array of whole numbers from 0 to 255.
    """
    for number, each in enumerate(maps):
        values = np.asarray(each)
        if values.ndim != 2 or values.dtype.kind not in "iu" or not values.size:
            shape = " x ".join(map(str, values.shape))
            raise UserError(f"image {number}: is {shape} {values.dtype}; a label map is H x W whole numbers")
        if values.min() < 0 or values.max() > np.iinfo(np.uint8).max:
            raise UserError(f"image {number}: holds {values.min()} to {values.max()}; class indices are 8 bits")
        yield _Map(f"image {number}", f"image {number}", values.astype(np.uint8))


def _compared(
    predictions: Iterator[_Map],
    truths: Iterator[_Map],
    classes: int,
    ignore_label: int,
    asked: tuple[float | None, tuple[float, ...] | None],
) -> Iterator[ImageResult]:
    for predicted, true in zip_longest(predictions, truths):
        if predicted is None or true is None:
            more, fewer = ("labels", "predictions") if predicted is None else ("predictions", "labels")
            raise UserError(f"{(predicted or true).where}: there are more {more} than {fewer}")
        maps = (true.labels, predicted.labels)
        try:
            yield ImageResult.of(true.image_id, Path(), maps, classes, ignore_label, *asked)
        except ValueError as error:
            raise UserError(f"{true.where}: {error}") from None
