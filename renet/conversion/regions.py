"""Regions of an image as annotation tools write them: polygons, and runs of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask

from renet.common.errors import UserError


@dataclass(frozen=True)
class BoxRuns:
    """Runs of pixels within a box, row by row, as CVAT has them.

    Attributes:
        left: first column of the box.
        top: first row.
        width: columns.
        height: rows.
        counts: lengths of the runs; the first is of pixels outside the region.
    """

    left: int
    top: int
    width: int
    height: int
    counts: tuple[int, ...]


def coco_runs(shape: Any, size: tuple[int, int], where: str) -> list[dict[str, Any]]:
    """Make pycocotools' run lengths of COCO's `segmentation`, after checks that it lacks: it hangs on runs that do not
    fit the image.

    Args:
        shape: polygons (arrays x, y, x, y, ...; their union), or runs down the columns ({"size": ..., "counts": ...}),
            as numbers or as text.
        size: height and width.
        where: for messages.

    Raises:
        UserError: no such shape, or one of another size than the image.
    """
    if isinstance(shape, list):
        longest = 2 * max(size)
        for polygon in shape:
            if polygon.ndim != 1 or polygon.size % 2 or not np.all(np.abs(polygon) <= longest):
                raise UserError(f"{where}: a polygon that is no list of x, y, x, y, ... within the image")
        # Fewer than three corners have no area, and pycocotools takes two for a box.
        corners = [polygon for polygon in shape if polygon.size >= 6]
        return mask.frPyObjects(corners, *size) if corners else []
    if not isinstance(shape, dict) or shape.get("size") != list(size):
        raise UserError(f"{where}: a segmentation that is neither polygons nor runs of the image's size")
    counts = shape.get("counts")
    if isinstance(counts, str):
        counts = unpack_counts(counts)
    if (
        not isinstance(counts, list)
        or not all(isinstance(count, int) and count >= 0 for count in counts)
        or sum(counts) != size[0] * size[1]
    ):
        raise UserError(f"{where}: runs of pixels that do not fill the image")
    return [mask.frPyObjects({"size": list(size), "counts": counts}, *size)]


def unpack_counts(text: str) -> list[int]:
    """Unpack the lengths of the runs in COCO's short text form.

    A character carries five bits, lowest first, and a sixth that says whether the number goes on; the last one's
    highest bit is the sign. From the fourth number on each is the difference from the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def covered(shape: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Tell which pixels a region covers: H x W bool.

    Args:
        shape: see `coco_runs`; or `BoxRuns`.
        size: height and width.
        where: for messages.

    Raises:
        UserError: no such shape, or one that does not lie in the image.
    """
    if not isinstance(shape, BoxRuns):
        runs = coco_runs(shape, size, where)
        return mask.decode(mask.merge(runs)) != 0 if runs else np.zeros(size, bool)
    bottom, right = shape.top + shape.height, shape.left + shape.width
    if min(shape.left, shape.top) < 0 or min(shape.width, shape.height) < 1 or bottom > size[0] or right > size[1]:
        raise UserError(f"{where}: a mask that does not lie in the image")
    if min(shape.counts, default=-1) < 0 or sum(shape.counts) != shape.width * shape.height:
        raise UserError(f"{where}: a mask whose runs do not fill its box")
    inside = np.repeat(np.arange(len(shape.counts)) % 2 == 1, shape.counts)
    pixels = np.zeros(size, bool)
    pixels[shape.top : bottom, shape.left : right] = inside.reshape(shape.height, shape.width)
    return pixels


def paint(regions: Iterable[tuple[int, np.ndarray]], size: tuple[int, int], ground: int) -> np.ndarray:
    """Paint labels over each other, the last on top: H x W uint8.

    Args:
        regions: label and H x W bool of each.
        size: height and width.
        ground: label of pixels that no region covers.
    """
    label = np.full(size, ground, np.uint8)
    for value, pixels in regions:
        label[pixels] = value
    return label


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float) -> Sequence[np.ndarray]:
    """Make a polygon of an ellipse that is turned clockwise, for `covered`."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    points = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    return [turned(points, degrees, centre)]


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float) -> Sequence[np.ndarray]:
    """Make a polygon of a box that is turned clockwise about its centre, for `covered`."""
    x, y = (right - left) / 2, (bottom - top) / 2
    corners = np.array([[-x, -y], [x, -y], [x, y], [-x, y]])
    return [turned(corners, degrees, ((left + right) / 2, (top + bottom) / 2))]


def turned(points: np.ndarray, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    """Turn points (N x 2, x and y from the centre) clockwise, as it looks where y points down: x, y, x, y, ..."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points @ np.array([[cosine, sine], [-sine, cosine]]) + centre).ravel()
