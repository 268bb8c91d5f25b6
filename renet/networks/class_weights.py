"""Weights of the classes in a loss: from how often the training's splits have each, or as a person gives them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.common.text_files import read_text
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader


@dataclass(frozen=True)
class LabelCounts:
    """Labelled pixels of some splits; ignored ones count nowhere.

    Attributes:
        pixels: C, int64: of each class.
        beside: C, int64: of all images that have the class.
    """

    pixels: np.ndarray
    beside: np.ndarray


@dataclass(frozen=True)
class ClassWeights:
    """Weights of the classes, and where they come from.

    Attributes:
        values: C of them, 0 or more, not all 0.
        origin: in words, for a comment.
        note: on classes without a pixel; empty where there are none.
    """

    values: tuple[float, ...]
    origin: str
    note: str = ""


def median_frequency(counts: LabelCounts) -> np.ndarray:
    """Balance by median frequency (Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels", 2015):
    median(f) / f, where f is a class's share of the labelled pixels of the images that have it. NaN for absent ones."""
    frequency = counts.pixels / np.where(counts.pixels, counts.beside, 1)
    present = frequency > 0
    return np.divide(np.median(frequency[present]), frequency, where=present, out=np.full(len(frequency), np.nan))


def inverse(counts: LabelCounts) -> np.ndarray:
    """Balance by the inverse of the number of pixels, so that every class weighs as much as any other and the mean over
    the pixels is 1. NaN for absent ones."""
    present = counts.pixels > 0
    even = counts.pixels.sum() / np.count_nonzero(present)
    return np.divide(even, counts.pixels, where=present, out=np.full(len(present), np.nan))


METHODS: dict[str, Callable[[LabelCounts], np.ndarray]] = {"median_frequency": median_frequency, "inverse": inverse}
_DIGITS = 6


def chosen_class_weights(
    wanted: str | os.PathLike[str] | Sequence[float], dataset: Dataset, splits: Sequence[Path]
) -> ClassWeights:
    """Weigh the classes of a dataset.

    Args:
        wanted: a name of `METHODS`, the weights themselves in the order of the classes, or a file with a line for each
            class in that order: its weight, and after it, if one likes, its name.
        dataset: says the classes.
        splits: folders of the prepared splits whose labels are counted.

    Raises:
        UserError: no such method or file, not one sound weight for each class, or splits without a labelled pixel.
    """
    if isinstance(wanted, str) and wanted in METHODS:
        counts = count_labels(splits, dataset)
        weights = METHODS[wanted](counts)
        absent = [name for name, pixels in zip(dataset.classes, counts.pixels) if pixels == 0]
        note = f"without a pixel to learn from, and so of weight 1: {', '.join(absent)}" if absent else ""
        values = tuple(1.0 if math.isnan(weight) else float(f"{weight:.{_DIGITS}g}") for weight in weights)
        return ClassWeights(values, f"{wanted.replace('_', ' ')} of the training's labelled pixels", note)
    if isinstance(wanted, (str, os.PathLike)):
        file = Path(wanted)
        if not file.is_file():
            raise UserError(f"class weights: {wanted} is neither {' nor '.join(METHODS)} nor a file")
        return ClassWeights(_checked(_weights_of_lines(file, dataset), dataset, str(file)), f"as {file.name} has them")
    return ClassWeights(_checked(wanted, dataset, "class weights"), "as they were given")


def count_labels(splits: Iterable[Path], dataset: Dataset) -> LabelCounts:
    """Count the labelled pixels of prepared splits.

    Raises:
        UserError: a split is none, has no labels or one out of range, or none has a labelled pixel; names it.
    """
    classes = len(dataset.classes)
    pixels, beside = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for split in splits:
        with SplitReader(split) as reader, ThreadPoolExecutor() as pool:
            if not reader.has_labels:
                raise UserError(f"{split}: has no labels to count")
            labels = pool.map(reader.label, range(len(reader)))
            named = zip(reader.ids(), labels)
            for image, label in progress(named, total=len(reader), description="counting labels", unit="image"):
                counts = np.bincount(label.ravel(), minlength=256)
                counts[dataset.ignore_label] = 0
                if counts[classes:].any():
                    raise UserError(
                        f"{split}: {image} has the label {classes + int(np.argmax(counts[classes:] > 0))}; expected 0 "
                        f"to {classes - 1}, or {dataset.ignore_label} (ignored)"
                    )
                pixels += counts[:classes]
                beside[counts[:classes] > 0] += counts.sum()
    if not pixels.any():
        raise UserError(f"{', '.join(map(str, splits))}: without a labelled pixel there is nothing to weigh classes by")
    return LabelCounts(pixels, beside)


def _weights_of_lines(file: Path, dataset: Dataset) -> list[float]:
    weights = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        weight, _, name = line.strip().partition(" ")
        if not weight:
            continue
        try:
            weights.append(float(weight))
        except ValueError:
            raise UserError(
                f"{file}: line {number}: {weight!r} is no number; expected a weight, or a weight and its class"
            ) from None
        expected = dataset.classes[len(weights) - 1] if len(weights) <= len(dataset.classes) else ""
        if name.strip() not in ("", expected):
            raise UserError(
                f"{file}: line {number}: is of {name.strip()!r}, and the dataset's class there is {expected!r}"
            )
    return weights


def _checked(weights: Sequence[float], dataset: Dataset, where: str) -> tuple[float, ...]:
    if len(weights) != len(dataset.classes):
        raise UserError(f"{where}: {len(weights)} weights for {len(dataset.classes)} classes")
    for name, weight in zip(dataset.classes, weights):
        if not 0 <= weight < math.inf:
            raise UserError(f"{where}: the weight of {name} is {weight}, expected a number of 0 or more")
    if not any(weights):
        raise UserError(f"{where}: every weight is 0, so that nothing would be learnt")
    return tuple(map(float, weights))
