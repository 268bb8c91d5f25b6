"""Sliding windows: where they lie, how they are blended, and that the memory is that of a band."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from renet.common.errors import UserError
from renet.prediction.probabilities import Assembly, most_probable
from renet.prediction.windows import Window, blended, starts


@pytest.mark.parametrize("length", [1, 7, 8, 9, 13, 14, 50, 101])
@pytest.mark.parametrize(("window", "overlap"), [(8, 0), (8, 3), (8, 7), (1, 0), (200, 10)])
def test_windows_reach_over_the_image_with_their_overlap(length: int, window: int, overlap: int) -> None:
    found = starts(length, min(window, length), overlap)
    assert found[0] == 0 and found[-1] + min(window, length) == length
    gaps = np.diff(found)
    assert (gaps >= 1).all() and (gaps <= window - overlap).all()
    # no fewer would do
    assert len(found) == 1 or (len(found) - 2) * (window - overlap) + window < length


def reference(maps: np.ndarray, window: Window) -> tuple[np.ndarray, int]:
    """What windows give that each say the map plus their own number, pixel by pixel in float64; and their count."""
    _, height, width = maps.shape
    tall, wide = min(window.height, height), min(window.width, width)
    total, weights = np.zeros(maps.shape), np.zeros((height, width))
    number = 0
    for top in starts(height, tall, window.overlap):
        for left in starts(width, wide, window.overlap):
            for row in range(tall):
                for column in range(wide):
                    most = max(window.overlap, 1)
                    weight = min(row + 1, tall - row, most) * min(column + 1, wide - column, most)
                    total[:, top + row, left + column] += weight * (maps[:, top + row, left + column] + number)
                    weights[top + row, left + column] += weight
            number += 1
    return total / weights, number


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (23, 31), (8, 40), (40, 8)])
@pytest.mark.parametrize("window", [Window(8, 8, 3), Window(5, 9, 0), Window(9, 6, 5), Window(64, 7, 2)])
def test_blending_is_that_pixel_by_pixel(size: tuple[int, int], window: Window) -> None:
    maps = np.random.default_rng(1).random((3, *size)).astype(np.float32)
    calls = []

    def predict(rows: slice, columns: slice) -> np.ndarray:
        calls.append((rows, columns))
        return maps[:, rows, columns] + np.float32(len(calls) - 1)

    assembly = Assembly(size, keeps_probabilities=True)
    done = list(assembly.fill(blended(size, window, predict)))
    expected, number = reference(maps, window)
    assert len(calls) == number and done == sorted(set(done)) and done[-1] == size[0]
    np.testing.assert_allclose(assembly.probabilities, expected, rtol=1e-5)
    np.testing.assert_array_equal(assembly.labels, assembly.probabilities.argmax(axis=0))
    labels_alone = Assembly(size, keeps_probabilities=False)
    calls.clear()
    list(labels_alone.fill(blended(size, window, predict)))
    np.testing.assert_array_equal(labels_alone.labels, assembly.labels)
    assert labels_alone.probabilities is None


def test_the_memory_is_that_of_a_band() -> None:
    classes, size, window = 40, (2000, 300), Window(50, 60, 10)
    one = np.random.default_rng(2).random((classes, 50, 60)).astype(np.float32)
    assembly = Assembly(size, keeps_probabilities=False)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        list(assembly.fill(blended(size, window, lambda rows, columns: one)))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    band = 4 * classes * window.height * size[1]
    assert band < peak < band + 4 * one.nbytes < 4 * classes * size[0] * size[1] / 10


def test_the_most_probable_class_is_the_first_of_equals() -> None:
    maps = np.random.default_rng(3).integers(0, 3, (5, 9, 11)).astype(np.float32)
    np.testing.assert_array_equal(most_probable(maps), maps.argmax(axis=0))
    assert most_probable(maps).dtype == np.uint8


@pytest.mark.parametrize(("size", "overlap"), [((0, 4), 0), ((4, 5), 4), ((4, 5), -1)])
def test_windows_that_cannot_be(size: tuple[int, int], overlap: int) -> None:
    with pytest.raises(UserError, match="window"):
        Window.of(size, overlap)
    assert Window.of((40, 60), None) == Window(40, 60, 10)
