"""CVAT's XML, "CVAT for images 1.1": all images of a task with their shapes in one file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from renet.common.errors import UserError
from renet.common.input_files import read_bytes
from renet.conversion.annotated_image import AnnotatedImage, Region
from renet.conversion.regions import BoxRuns, ellipse, rectangle

_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def read_cvat(file: Path) -> list[AnnotatedImage]:
    """Read the images of a file.

    Shapes lie over each other by z_order, and of equals in the file's order. Those without an area are left out,
    with a line that says how many.

    Raises:
        UserError: not CVAT's XML of images, or a shape that is no such one; names the file.
    """
    try:
        root = ElementTree.fromstring(read_bytes(file))
    except ElementTree.ParseError as error:
        raise UserError(f"{file}: not XML, or a part of it ({error})") from None
    if root.tag != "annotations" or (root.find("image") is None and root.find("track") is None):
        raise UserError(f'{file}: has no <annotations> with <image>s; CVAT\'s export "CVAT for images 1.1" is expected')
    if root.find("track") is not None:
        raise UserError(f'{file}: has tracks of a film, not images; export it from CVAT as "CVAT for images 1.1"')
    left_out: Counter[str] = Counter()
    images = []
    for element in root.iterfind("image"):
        name = element.get("name", "")
        where = f"{file}: image {name}"
        height, width = (_numbers(element, where, int, side)[0] for side in ("height", "width"))
        if not name or min(height, width) < 1:
            raise UserError(f"{where}: has no name, height and width")
        regions = []
        for shape in sorted(element, key=lambda one: _numbers(one, where, int, "z_order", missing="0")[0]):
            if shape.tag in _SHAPES:
                regions.append(Region(shape.get("label", ""), _SHAPES[shape.tag](shape, where)))
            elif shape.tag in _WITHOUT_AREA:
                left_out[shape.tag] += 1
            elif shape.tag != "tag":
                raise UserError(f"{where}: has a <{shape.tag}>, which is none of {', '.join(_SHAPES)}")
        images.append(AnnotatedImage(name, height, width, regions))
    if left_out:
        told = ", ".join(f"{count} {tag}" for tag, count in left_out.items())
        print(f"{file}: left out, since they have no area: {told}")
    return images


def _numbers(
    element: ElementTree.Element, where: str, kind: Callable[[str], Any], *names: str, missing: str | None = None
) -> list[Any]:
    """Attributes as numbers."""
    try:
        values = [kind(element.get(name, missing)) for name in names]  # type: ignore[arg-type]
        finite = all(map(math.isfinite, values))
    except (TypeError, ValueError, OverflowError):
        finite = False
    if not finite:
        raise UserError(f"{where}: a <{element.tag}> without numbers as its {', '.join(names)}")
    return values


def _polygon(shape: ElementTree.Element, where: str) -> Any:
    try:
        return [np.array([pair.split(",") for pair in shape.get("points", "").split(";")], np.float64).ravel()]
    except ValueError:
        raise UserError(f'{where}: a <polygon> whose points are no "x,y;x,y;..."') from None


def _box(shape: ElementTree.Element, where: str) -> Any:
    corners = _numbers(shape, where, float, "xtl", "ytl", "xbr", "ybr")
    return rectangle(*corners, *_numbers(shape, where, float, "rotation", missing="0"))


def _ellipse(shape: ElementTree.Element, where: str) -> Any:
    x, y, across, down = _numbers(shape, where, float, "cx", "cy", "rx", "ry")
    return ellipse((x, y), (across, down), *_numbers(shape, where, float, "rotation", missing="0"))


def _mask(shape: ElementTree.Element, where: str) -> Any:
    box = _numbers(shape, where, int, "left", "top", "width", "height")
    try:
        return BoxRuns(*box, tuple(int(count) for count in shape.get("rle", "").split(",")))
    except ValueError:
        raise UserError(f"{where}: a <mask> whose rle is no list of numbers") from None


_SHAPES = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}
