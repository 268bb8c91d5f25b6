"""Pixel counts of single images by class, of which the scores of any selection of the images can be computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MEASURES = ("pixel_accuracy", "class_accuracy", "mean_iou", "frequency_weighted_iou")


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; not a number where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def mean_of_numbers(values: np.ndarray) -> np.ndarray:
    """Average the last axis over what is a number; not a number where nothing is."""
    there = ~np.isnan(values)
    return ratio(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1))


def rows_of(image_ids: Sequence[str], among: Sequence[str]) -> list[int]:
    """Find the place of each image among others; all are there."""
    place = {image_id: number for number, image_id in enumerate(among)}
    return [place[image_id] for image_id in image_ids]


@dataclass(frozen=True)
class ClassCounts:
    """Pixels by class, ... x C: of one set of images, or of several.

    Attributes:
        right: predicted right.
        truth: in the truth.
        predicted: in the prediction, where the truth is labelled.
    """

    right: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, confusion: np.ndarray) -> ClassCounts:
        """Count in ... x C x C, rows the truth."""
        return cls(np.diagonal(confusion, axis1=-2, axis2=-1).copy(), confusion.sum(axis=-1), confusion.sum(axis=-2))

    @classmethod
    def joined(cls, several: Sequence[ClassCounts]) -> ClassCounts:
        """Put counts of several sets one after another, along the first axis."""
        return cls(*(np.concatenate([getattr(each, name) for each in several]) for name in cls.__annotations__))

    def select(self, rows: Sequence[int]) -> ClassCounts:
        """Take these rows of the first axis."""
        return ClassCounts(self.right[rows], self.truth[rows], self.predicted[rows])

    def as_bytes(self) -> bytes:
        """Pack the three as int64. One buffer of many images does not scatter small arrays over the heap, which keeps
        the large ones between them from going back."""
        return np.stack([self.right, self.truth, self.predicted]).astype(np.int64).tobytes()

    @property
    def recall(self) -> np.ndarray:
        """... x C; not a number where the truth does not hold the class."""
        return ratio(self.right, self.truth)

    @property
    def iou(self) -> np.ndarray:
        """... x C; not a number where neither truth nor prediction holds the class."""
        return ratio(self.right, self.truth + self.predicted - self.right)

    def measures(self) -> dict[str, np.ndarray]:
        """Compute each of `MEASURES` (see `Scores`); not a number where there is no labelled pixel."""
        total = self.truth.sum(axis=-1)
        iou = self.iou
        weighted = (np.where(np.isnan(iou), 0.0, iou) * self.truth).sum(axis=-1)
        values = (ratio(self.right.sum(axis=-1), total), mean_of_numbers(self.recall), mean_of_numbers(iou))
        return dict(zip(MEASURES, (*values, ratio(weighted, total))))


@dataclass(frozen=True)
class ImageCounts:
    """Counts of single images.

    Attributes:
        image_ids: the N images.
        counts: N x C.
    """

    image_ids: tuple[str, ...]
    counts: ClassCounts

    @classmethod
    def of(cls, image_ids: Sequence[str], table: bytes | bytearray, classes: int) -> ImageCounts:
        """Put single images together, whose `ClassCounts.as_bytes` follow one another."""
        right, truth, predicted = np.frombuffer(table, np.int64).reshape(len(image_ids), 3, classes).swapaxes(0, 1)
        return cls(tuple(image_ids), ClassCounts(right, truth, predicted))

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the measures of B selections in which each of the N images counts `weights` (B x N) times: B each."""
        counts = self.counts
        return ClassCounts(*(weights @ each for each in (counts.right, counts.truth, counts.predicted))).measures()

    def select(self, image_ids: Sequence[str]) -> ImageCounts:
        """Take these images, in this order; each is one of them."""
        return ImageCounts(tuple(image_ids), self.counts.select(rows_of(image_ids, self.image_ids)))

    def as_json(self, classes: Sequence[str]) -> dict[str, dict[str, list[int]]]:
        """Convert to, for each image and each class in it: pixels right, in the truth, predicted."""
        table = np.stack([self.counts.right, self.counts.truth, self.counts.predicted], axis=-1)
        return {
            image_id: {name: row.tolist() for name, row in zip(classes, rows) if row.any()}
            for image_id, rows in zip(self.image_ids, table)
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], classes: Sequence[str]) -> ImageCounts:
        """Read what `as_json` made.

        Raises:
            ValueError, KeyError: more pixels are right than there are, or there is no such class.
        """
        number = {name: index for index, name in enumerate(classes)}
        table = np.zeros((len(content), len(classes), 3), np.int64)
        for rows, of_image in zip(table, content.values()):
            for name, values in of_image.items():
                rows[number[name]] = values
        if (table < 0).any() or (table[..., :1] > table[..., 1:]).any():
            raise ValueError("more pixels are right than there are")
        return cls(tuple(content), ClassCounts(table[..., 0], table[..., 1], table[..., 2]))
