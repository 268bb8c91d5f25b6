"""labelme's JSON: a file for each image, with polygons and other shapes by name."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from renet.common.errors import UserError, first_line
from renet.common.text_files import read_json
from renet.conversion.annotated_image import ClassNames
from renet.conversion.regions import paint
from renet.data.bad_samples import SampleError
from renet.data.image_formats import check_stated_size, load_image

# What labelme draws of lines and points where it makes masks of them.
_LINE_WIDTH, _POINT_RADIUS = 10, 5
_CORNERS = {"circle": 2, "rectangle": 2, "line": 2, "point": 1, "mask": 2}  # others have any number


def read_labelme(file: Path, classes: ClassNames) -> np.ndarray:
    """Draw a file's shapes as labelme does, each over those before it: H x W uint8.

    Raises:
        UserError: not labelme's JSON, a shape that is no such one, or a name that is no class; names the file.
    """
    content = read_json(file)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise UserError(f'{file}: has no list "shapes"; labelme\'s JSON is expected')
    size = content.get("imageHeight"), content.get("imageWidth")
    if not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"{file}: has no imageHeight and imageWidth; save it with labelme again")
    for shape in shapes:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise UserError(f"{file}: has a shape without a label")
    unknown = classes.unknown(shape["label"] for shape in shapes)
    if unknown is not None:
        raise SampleError(file, unknown)
    check_stated_size(*size, str(file))
    return paint(_regions(shapes, size, classes, file), size, classes.unlabelled)


def _regions(
    shapes: list[dict[str, Any]], size: tuple[int, int], classes: ClassNames, file: Path
) -> Iterator[tuple[int, np.ndarray]]:
    for number, shape in enumerate(shapes, start=1):
        where = f"{file}: shape {number} ({shape['label']})"
        yield classes.label_of(shape["label"]), _covered(shape, size, where)


def _covered(shape: dict[str, Any], size: tuple[int, int], where: str) -> np.ndarray:
    """The pixels of a shape: H x W bool."""
    kind = shape.get("shape_type") or "polygon"
    try:
        points = np.array(shape.get("points"), np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        points = np.array([[np.nan, np.nan]])
    if not np.isfinite(points).all() or len(points) != _CORNERS.get(kind, len(points)) or not len(points):
        raise UserError(f"{where}: its points are not those of a {kind}")
    if kind == "mask":
        return _pasted(shape.get("mask"), points, size, where)
    image = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(image)
    corners = [tuple(point) for point in points.tolist()]
    if kind == "polygon":
        if len(corners) > 2:
            draw.polygon(corners, fill=1, outline=1)
    elif kind == "rectangle":
        draw.rectangle([*points.min(axis=0).tolist(), *points.max(axis=0).tolist()], fill=1, outline=1)
    elif kind in ("circle", "point"):
        radius = _POINT_RADIUS if kind == "point" else float(np.hypot(*(points[0] - points[1])))
        draw.ellipse([*(points[0] - radius).tolist(), *(points[0] + radius).tolist()], fill=1, outline=1)
    elif kind in ("line", "linestrip"):
        draw.line(corners, fill=1, width=_LINE_WIDTH)
    else:
        raise UserError(f"{where}: is a {kind}, which is none of labelme's shapes with an area")
    return np.asarray(image)


def _pasted(text: Any, points: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """The pixels of a mask: a PNG in base64, from the first point on."""
    try:
        small = np.asarray(load_image(base64.b64decode(text, validate=True)).convert("L")) != 0
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: its mask cannot be read ({first_line(error)})") from None
    left, top = (int(part) for part in points.min(axis=0))
    bottom, right = top + small.shape[0], left + small.shape[1]
    if min(left, top) < 0 or bottom > size[0] or right > size[1]:
        raise UserError(f"{where}: its mask does not lie in the image")
    pixels = np.zeros(size, bool)
    pixels[top:bottom, left:right] = small
    return pixels
