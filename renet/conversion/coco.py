"""MS COCO: its objects as labels of VOC's 20 classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask

from renet.common.errors import UserError
from renet.common.text_files import read_json
from renet.conversion.prepare import OutputOptions, file_fingerprint, framed, prepare
from renet.data.catalog import VOC2012
from renet.data.dataset import IGNORE_LABEL, Dataset
from renet.data.images import LabelFrame, normalise
from renet.data.split_writer import LeftOut, Pair, Sample

NAME = "coco"
SPLIT = "train"
MIN_PIXELS = 900


# The categories of VOC's classes 1 to 20, in that order, by number and name.
CATEGORIES = (
    (5, "airplane"),
    (2, "bicycle"),
    (16, "bird"),
    (9, "boat"),
    (44, "bottle"),
    (6, "bus"),
    (3, "car"),
    (17, "cat"),
    (62, "chair"),
    (21, "cow"),
    (67, "dining table"),
    (18, "dog"),
    (19, "horse"),
    (4, "motorcycle"),
    (1, "person"),
    (64, "potted plant"),
    (20, "sheep"),
    (63, "couch"),
    (7, "train"),
    (72, "tv"),
)


_LABELS = {number: label for label, (number, _) in enumerate(CATEGORIES, start=1)}
_EXPECTED = "COCO's instances_*.json is expected"


@dataclass(frozen=True, slots=True)
class Instance:
    """Annotated object of one of VOC's classes.

    Attributes:
        image_id: the number of its image.
        label: VOC's class, 1..20.
        crowd: whether it is a region of many objects that are not told apart.
        shape: polygons (arrays x, y, x, y, ...), or runs of pixels as read ({"size": ..., "counts": ...}).
    """

    image_id: Any
    label: int
    crowd: bool
    shape: Any


@dataclass(slots=True)
class AnnotatedImage:
    """Image of an annotation file, with its objects of VOC's classes."""

    number: int
    file_name: str
    height: int
    width: int
    instances: list[Instance] = field(default_factory=list)


def read_annotations(file: Path) -> list[AnnotatedImage]:
    """Read the images of an instances file, in its order.

    What is not needed is dropped while the file is parsed, so that it takes about twice the file's size in memory.

    Raises:
        UserError: no such file, not JSON, no instance annotations, or categories that are not COCO's; names the file.
    """
    content = read_json(file, object_hook=_compact)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f'{file}: has no list "{key}"; {_EXPECTED}')
    _check_categories(file, content["categories"])
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
    return list(images.values())


def _compact(entry: dict[str, Any]) -> Any:
    """What to keep of a JSON object: Instance (None for another category), AnnotatedImage, or the object itself."""
    if {"image_id", "category_id", "segmentation"} <= entry.keys():
        number, shape = entry["category_id"], entry["segmentation"]
        if not isinstance(number, int) or not isinstance(entry["image_id"], int):
            return entry
        if number not in _LABELS:
            return None
        if isinstance(shape, list):
            try:
                shape = [np.asarray(polygon, np.float64) for polygon in shape]
            except (TypeError, ValueError):
                shape = None  # told together with the image's name when it is drawn
        return Instance(entry["image_id"], _LABELS[number], bool(entry.get("iscrowd")), shape)
    if {"id", "file_name", "height", "width"} <= entry.keys():
        height, width = entry["height"], entry["width"]
        numbers = (entry["id"], height, width)
        if all(isinstance(number, int) for number in numbers) and min(height, width) > 0 and entry["file_name"]:
            return AnnotatedImage(entry["id"], str(entry["file_name"]), height, width)
    return entry


def _check_categories(file: Path, categories: Sequence[Any]) -> None:
    try:
        names = {category["id"]: category["name"] for category in categories}
    except (KeyError, TypeError):
        raise UserError(f"{file}: a category without id and name; {_EXPECTED}") from None
    for number, name in CATEGORIES:
        if names.get(number, name) != name:
            raise UserError(
                f"{file}: its category {number} is {names[number]!r}, COCO's is {name!r}; the numbers must be COCO's"
            )
    if not names.keys() & _LABELS.keys():
        raise UserError(f"{file}: has none of the categories of VOC's classes")


def draw_label(image: AnnotatedImage, where: str) -> np.ndarray:
    """Draw the class of each pixel: H x W uint8 of 0..20 and 255.

    Raises:
        UserError: an object's shape is no shape within the image; names `where`.
    """
    shapes: dict[int, list[dict[str, Any]]] = {}  # in the order of the classes, the crowds last
    for instance in sorted(image.instances, key=lambda one: (one.crowd, one.label)):
        drawn = _runs(instance.shape, image, where)
        shapes.setdefault(IGNORE_LABEL if instance.crowd else instance.label, []).extend(drawn)
    label = np.zeros((image.height, image.width), np.uint8)
    for value, runs in shapes.items():
        if runs:
            covered = mask.decode(mask.merge(runs)) != 0
            label[covered] = np.where(label[covered] == 0, value, IGNORE_LABEL)
    return label


def _runs(shape: Any, image: AnnotatedImage, where: str) -> list[dict[str, Any]]:
    """The shape as pycocotools' run lengths, after checks that it lacks: it hangs on runs that do not fit the image."""
    size = (image.height, image.width)
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
        or sum(counts) != image.height * image.width
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


def read_pair(image: AnnotatedImage, file: Path, where: str, min_pixels: int, label_frame: LabelFrame) -> Pair:
    """Read one image and draw its labels, which lie as the annotations' height and width of the image say.

    Raises:
        UserError: either is bad; names the file.
        LeftOut: the labels have `min_pixels` pixels of the 20 classes, or fewer.
    """
    if not image.instances:
        raise LeftOut("no object of the 20 classes")
    label = draw_label(image, where)
    if np.count_nonzero((label != 0) & (label != IGNORE_LABEL)) <= min_pixels:
        raise LeftOut(f"{min_pixels} pixels of the 20 classes, or fewer (--min-pixels)")
    return Pair(normalise(file.read_bytes(), str(file), label.shape, label_frame, stored_serves=True), label)


def make_samples(
    annotations: Path, folder: Path, min_pixels: int, label_frame: LabelFrame, owners: dict[str, Path]
) -> list[Sample]:
    """List the samples of one annotation file, in its order.

    Args:
        annotations: the file.
        folder: that of its images.
        min_pixels: see `read_pair`.
        label_frame: which way up the annotations are, where the sizes that they state do not tell.
        owners: the annotation file of each image id so far; this file's are added.

    Raises:
        UserError: see `read_annotations`; the folder holds none of the images; or an image id comes a second time.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    version = file_fingerprint(annotations)
    print(f"reading {annotations}", flush=True)
    samples = []
    images = read_annotations(annotations)
    for image in images:
        file = folder / image.file_name
        image_id = file.stem
        if image_id in owners:
            raise UserError(f"{annotations}: the image {image_id} is in {owners[image_id]} already")
        owners[image_id] = annotations
        where = f"{annotations}: image {image_id}"
        samples.append(
            Sample(
                id=image_id,
                fingerprint=framed(f"{version}/{min_pixels}/{file_fingerprint(file)}", label_frame),
                read=partial(read_pair, image, file, where, min_pixels, label_frame),
                label_where=where,
            )
        )
    if not any((folder / image.file_name).is_file() for image in images):
        raise UserError(f"{folder}: holds none of the {len(images)} images of {annotations}")
    objects = sum(len(image.instances) for image in images)
    print(f"{annotations}: {len(images)} images with {objects} objects of the 20 classes", flush=True)
    return samples


def convert(annotations: Sequence[Path], folders: Sequence[Path], min_pixels: int, output: OutputOptions) -> Dataset:
    """Prepare one split, `train`, of the images of all annotation files.

    Args:
        annotations: instances_*.json, one or several.
        folders: their images' folders, in the same order.
        min_pixels: see `read_pair`.
        output: where to and how.

    Raises:
        UserError: not as many folders as files; see `make_samples` and `prepare`.
    """
    if len(annotations) != len(folders):
        raise UserError(
            f"--annotations names {len(annotations)} files and --images {len(folders)} folders; "
            "each file needs a folder"
        )
    owners: dict[str, Path] = {}
    samples = [
        sample
        for file, folder in zip(annotations, folders)
        for sample in make_samples(file, folder, min_pixels, output.label_frame, owners)
    ]
    return prepare(
        output,
        name=NAME,
        classes=VOC2012.classes,
        palette=VOC2012.palette,
        splits={SPLIT: samples},
        training=[SPLIT],
    )
