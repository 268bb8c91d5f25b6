"""Sliding windows over an image too large for one pass, blended in a band of rows, so that memory is bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from renet.common.errors import UserError

PredictWindow = Callable[[slice, slice], np.ndarray]


@dataclass(frozen=True)
class Window:
    """Windows that an image is predicted in.

    Attributes:
        height: in pixels of the image; a smaller image is its own window.
        width: likewise.
        overlap: pixels that neighbours share at least, in both directions.
    """

    height: int
    width: int
    overlap: int

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            UserError: the window is empty, or not larger than the overlap.
        """
        if min(self.height, self.width) < 1:
            raise UserError(f"a window is at least 1 x 1, not {self.height} x {self.width}")
        if not 0 <= self.overlap < min(self.height, self.width):
            raise UserError(
                f"the overlap of windows of {self.height} x {self.width} is 0 to {min(self.height, self.width) - 1} "
                f"pixels, not {self.overlap}"
            )

    @classmethod
    def of(cls, size: tuple[int, int], overlap: int | None) -> Window:
        """Make windows of `size` (height, width); None overlaps by a quarter of the shorter side.

        Raises:
            UserError: as the constructor.
        """
        return cls(size[0], size[1], min(size) // 4 if overlap is None else overlap)


def starts(length: int, window: int, overlap: int) -> list[int]:
    """Spread as few windows as reach over `length` evenly, each sharing at least `overlap` with the next."""
    if length <= window:
        return [0]
    count = math.ceil((length - overlap) / (window - overlap))
    return [round(number * (length - window) / (count - 1)) for number in range(count)]


def ramp(length: int, overlap: int) -> np.ndarray:
    """Weigh the pixels along a window: 1 at its ends, growing by 1 a pixel up to the overlap; `length` float32."""
    inwards = np.arange(1, length + 1, dtype=np.float32)
    return np.minimum(np.minimum(inwards, inwards[::-1]), max(overlap, 1))


def blended(size: tuple[int, int], window: Window, predict: PredictWindow) -> Iterator[np.ndarray]:
    """Yield the mean of what overlapping windows say, weighted by `ramp` in both directions, from top to bottom.

    Only a band as high as a window is held: 4 bytes for each class and pixel of it.

    Args:
        size: height and width of the image.
        window: of the image.
        predict: gives the probabilities of the window at these rows and columns, C x h x w.

    Yields:
        C x rows x width float32, valid until the next is asked for. Where one window covers the image, just what
        `predict` gives.
    """
    height, width = size
    tall, wide = min(window.height, height), min(window.width, width)
    tops, lefts = starts(height, tall, window.overlap), starts(width, wide, window.overlap)
    if len(tops) == len(lefts) == 1:
        yield predict(slice(0, height), slice(0, width))
        return
    down, across = ramp(tall, window.overlap), ramp(wide, window.overlap)
    # Weights are products, and so are their sums: those along either side are enough.
    sums_down, sums_across = np.zeros(tall, np.float32), np.zeros(width, np.float32)
    for left in lefts:
        sums_across[left : left + wide] += across
    band: np.ndarray | None = None
    for top, following in zip(tops, [*tops[1:], height]):
        for left in lefts:
            found = predict(slice(top, top + tall), slice(left, left + wide))
            if band is None:
                band = np.zeros((len(found), tall, width), np.float32)
            band[:, :, left : left + wide] += found * (down[:, None] * across)
        assert band is not None, "every row has windows"
        sums_down += down
        finished = following - top
        band[:, :finished] /= sums_down[:finished, None] * sums_across
        yield band[:, :finished]
        if following == height:
            return
        for rows in (*band, sums_down):  # one class at a time, as NumPy copies what overlaps
            rows[: tall - finished] = rows[finished:].copy()
            rows[tall - finished :] = 0
