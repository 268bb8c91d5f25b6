"""COCO's instances files (instances_*.json), as COCO has them and as annotation tools export them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.common.text_files import read_json

_EXPECTED = "COCO's instances_*.json is expected"


@dataclass(frozen=True, slots=True)
class Instance:
    """Annotated object.

    Attributes:
        image_id: the number of its image.
        category: its category's number.
        crowd: whether it is a region of many objects that are not told apart.
        shape: polygons (arrays x, y, x, y, ...), or runs of pixels as read ({"size": ..., "counts": ...}).
    """

    image_id: Any
    category: int
    crowd: bool
    shape: Any


@dataclass(slots=True)
class AnnotatedImage:
    """Image of an annotation file, with its objects."""

    number: int
    file_name: str
    height: int
    width: int
    instances: list[Instance] = field(default_factory=list)


@dataclass(frozen=True)
class CocoAnnotations:
    """Content of an annotation file: its images in their order, and the names of the categories by number."""

    images: list[AnnotatedImage]
    categories: dict[Any, Any]


def read_annotations(file: Path, wanted: Container[int] | None = None) -> CocoAnnotations:
    """Read an instances file.

    What is not needed is dropped while the file is parsed, so that it takes about twice the file's size in memory.

    Args:
        file: the JSON file.
        wanted: categories whose objects are kept; None: all.

    Raises:
        UserError: no such file, not JSON, or no instance annotations; names the file.
    """
    content = read_json(file, object_hook=partial(_compact, wanted))
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f'{file}: has no list "{key}"; {_EXPECTED}')
    categories = _categories(file, content["categories"])
    images: dict[Any, AnnotatedImage] = {}
    for image in content["images"]:
        if not isinstance(image, AnnotatedImage):
            raise UserError(f"{file}: an image without id, file_name, height and width; {_EXPECTED}")
        if image.number in images:
            raise UserError(f"{file}: the image {image.number} comes twice")
        images[image.number] = image
    for instance in content["annotations"]:
        if instance is None:
            continue
        if not isinstance(instance, Instance):
            raise UserError(f"{file}: an annotation without image_id, category_id and segmentation; {_EXPECTED}")
        if instance.image_id not in images:
            raise UserError(f"{file}: an annotation of the image {instance.image_id}, which the file does not list")
        images[instance.image_id].instances.append(instance)
    return CocoAnnotations(list(images.values()), categories)


def _compact(wanted: Container[int] | None, entry: dict[str, Any]) -> Any:
    """What to keep of a JSON object: Instance (None for another category), AnnotatedImage, or the object itself."""
    if {"image_id", "category_id", "segmentation"} <= entry.keys():
        number, shape = entry["category_id"], entry["segmentation"]
        if not isinstance(number, int) or not isinstance(entry["image_id"], int):
            return entry
        if wanted is not None and number not in wanted:
            return None
        if isinstance(shape, list):
            try:
                shape = [np.asarray(polygon, np.float64) for polygon in shape]
            except (TypeError, ValueError):
                shape = None  # told together with the image's name when it is drawn
        return Instance(entry["image_id"], number, bool(entry.get("iscrowd")), shape)
    if {"id", "file_name", "height", "width"} <= entry.keys():
        height, width = entry["height"], entry["width"]
        numbers = (entry["id"], height, width)
        if all(isinstance(number, int) for number in numbers) and min(height, width) > 0 and entry["file_name"]:
            return AnnotatedImage(entry["id"], str(entry["file_name"]), height, width)
    return entry


def _categories(file: Path, categories: Sequence[Any]) -> dict[Any, Any]:
    try:
        return {category["id"]: category["name"] for category in categories}
    except (KeyError, TypeError):
        raise UserError(f"{file}: a category without id and name; {_EXPECTED}") from None
