"""MS COCO: its objects as labels of VOC's 20 classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask

from renet.common.errors import UserError
from renet.conversion.coco_annotations import AnnotatedImage, read_annotations
from renet.conversion.prepare import OutputOptions, file_fingerprint, framed, prepare
from renet.conversion.regions import coco_runs
from renet.data.catalog import VOC2012
from renet.data.dataset import IGNORE_LABEL, Dataset
from renet.data.image_formats import check_stated_size, read_image_bytes
from renet.data.image_ids import check_name
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


def read_voc_annotations(file: Path) -> list[AnnotatedImage]:
    """Read the images of an instances file, in its order, with their objects of VOC's classes.

    Raises:
        UserError: see `read_annotations`; or categories that are not COCO's.
    """
    content = read_annotations(file, _LABELS)
    for number, name in CATEGORIES:
        if content.categories.get(number, name) != name:
            raise UserError(
                f"{file}: its category {number} is {content.categories[number]!r}, COCO's is {name!r}; the numbers "
                "must be COCO's"
            )
    if not content.categories.keys() & _LABELS.keys():
        raise UserError(f"{file}: has none of the categories of VOC's classes")
    return content.images


def draw_label(image: AnnotatedImage, where: str) -> np.ndarray:
    """Draw the class of each pixel: H x W uint8 of 0..20 and 255.

    Raises:
        UserError: an object's shape is no shape within the image; names `where`.
    """
    check_stated_size(image.height, image.width, where)
    shapes: dict[int, list[dict[str, Any]]] = {}  # in the order of the classes, the crowds last
    for instance in sorted(image.instances, key=lambda one: (one.crowd, _LABELS[one.category])):
        drawn = coco_runs(instance.shape, (image.height, image.width), where)
        shapes.setdefault(IGNORE_LABEL if instance.crowd else _LABELS[instance.category], []).extend(drawn)
    label = np.zeros((image.height, image.width), np.uint8)
    for value, runs in shapes.items():
        if runs:
            covered = mask.decode(mask.merge(runs)) != 0
            label[covered] = np.where(label[covered] == 0, value, IGNORE_LABEL)
    return label


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
    return Pair(normalise(read_image_bytes(file), str(file), label.shape, label_frame, stored_serves=True), label)


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
        UserError: see `read_voc_annotations`; the folder holds none of the images; or an image id comes a second time.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    version = file_fingerprint(annotations)
    print(f"reading {annotations}", flush=True)
    samples = []
    images = read_voc_annotations(annotations)
    for image in images:
        check_name(image.file_name, annotations)
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
