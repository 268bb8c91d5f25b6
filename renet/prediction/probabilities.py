"""Class probabilities: how they are told from what is none, and the labels that they make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from renet.common.errors import UserError

# How far from 1 the sum of a pixel's probabilities may be; half precision adds up to less.
SUM_TOLERANCE = 1e-2


def check_probabilities(maps: np.ndarray, where: str) -> None:
    """Make sure that C x H x W floating point values are probabilities of C classes.

    Raises:
        UserError: one is infinite or no number or below 0, or those of a pixel do not sum to 1; begins with `where`.
    """
    if not np.isfinite(maps).all():
        raise UserError(f"{where} has values that are infinite or no numbers")
    sums = maps.sum(axis=0, dtype=np.float32)
    worst = sums.flat[np.abs(sums - 1).argmax()]
    if maps.min() < 0 or abs(worst - 1) > SUM_TOLERANCE:
        raise UserError(
            f"{where} holds no probabilities: the values of one pixel sum to {worst:g}, the least of all is "
            f"{maps.min():g}; a last layer of type Softmax makes probabilities of scores"
        )


def most_probable(maps: np.ndarray) -> np.ndarray:
    """Choose the class of each pixel of C x H x W: H x W uint8."""
    labels = np.empty(maps.shape[1:], np.uint8)
    for row, chosen in enumerate(labels):  # NumPy copies what it compares
        chosen[:] = maps[:, row].argmax(axis=0)
    return labels


class Assembly:
    """Assembly of an image's labels, and where they are wanted its probabilities, from strips of it.

    Attributes:
        labels: H x W uint8, the class of each pixel.
        probabilities: C x H x W float32; None where they are not kept.
    """

    def __init__(self, size: tuple[int, int], keeps_probabilities: bool) -> None:
        """Begin with nothing of an image of this height and width."""
        self.labels = np.zeros(size, np.uint8)
        self.probabilities: np.ndarray | None = None
        self._keeps = keeps_probabilities

    def fill(self, strips: Iterable[np.ndarray]) -> Iterator[int]:
        """Take the strips (C x rows x W) from top to bottom, and yield after each how many rows are done."""
        height = len(self.labels)
        done = 0
        for strip in strips:
            rows = slice(done, done + strip.shape[1])
            self.labels[rows] = most_probable(strip)
            if self._keeps and strip.shape[1] == height:
                self.probabilities = strip
            elif self._keeps:
                if self.probabilities is None:
                    self.probabilities = np.empty((len(strip), *self.labels.shape), np.float32)
                self.probabilities[:, rows] = strip
            done = rows.stop
            yield done
