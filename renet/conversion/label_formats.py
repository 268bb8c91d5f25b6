"""Formats of a user's labels: what people's tools write, each read to class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.conversion.annotated_image import AnnotatedImage, Region
from renet.conversion.class_file import ClassFile
from renet.conversion.coco_annotations import read_annotations
from renet.conversion.cvat import read_cvat
from renet.data.bad_samples import SampleError
from renet.data.dataset import IGNORE_LABEL
from renet.data.image_formats import TooManyPixels, load_image

_NAMED = 5  # colours that a message names


class LabelFormat(Enum):
    """Format of labels: files for each image, or one file of all (`has_one_file`)."""

    NUMBERS = "numbers"  # PNGs whose values are the classes
    COLOURS = "colours"  # PNGs whose colours are those of the class file
    LABELME = "labelme"  # labelme's JSON
    CVAT = "cvat"  # CVAT's XML of images
    COCO = "coco"  # COCO's instances JSON

    @property
    def has_one_file(self) -> bool:
        """Whether one file has the labels of many images."""
        return self in (LabelFormat.CVAT, LabelFormat.COCO)

    @property
    def has_names(self) -> bool:
        """Whether regions have names."""
        return self is LabelFormat.LABELME or self.has_one_file

    @property
    def ending(self) -> str:
        """The ending of labels' files, with the dot."""
        return ".json" if self is LabelFormat.LABELME else ".png"


@dataclass(frozen=True)
class LabelOptions:
    """What to make of a user's labels.

    Attributes:
        format: of the files.
        ignored_names: names of regions that count nowhere.
        unlabelled: name of the class of pixels without a region; see `ClassNames.of`.
    """

    format: LabelFormat = LabelFormat.NUMBERS
    ignored_names: tuple[str, ...] = ()
    unlabelled: str | None = None


def read_annotation_file(file: Path, form: LabelFormat) -> list[AnnotatedImage]:
    """Read the file that has the labels of many images.

    Raises:
        UserError: none of that format; names the file.
    """
    if form is LabelFormat.CVAT:
        return read_cvat(file)
    content = read_annotations(file)
    images = []
    for image in content.images:
        for one in image.instances:
            if one.category not in content.categories:
                raise UserError(f"{file}: an annotation of the category {one.category}, which the file does not list")
        # In the file's order, as COCO's own tools paint them; a tool's masks are "crowds", so these count like others.
        regions = [Region(str(content.categories[one.category]), one.shape) for one in image.instances]
        images.append(AnnotatedImage(image.file_name, image.height, image.width, regions))
    return images


def colour_labels(file: Path, classes: ClassFile) -> dict[int, int]:
    """Give the label of each colour (as 0xRRGGBB) of a class file.

    Raises:
        UserError: a class has no colour, or two have the same.
    """
    labels = {_code(colour): IGNORE_LABEL for colour in classes.ignored_colours}
    for label, name in enumerate(classes.names):
        if label not in classes.coloured:
            raise UserError(f"{file}: {name!r} has no colour; --labels-as colours needs one of every class")
        code = _code(classes.palette[label])
        if code in labels:
            other = labels[code]
            named = "pixels to ignore" if other == IGNORE_LABEL else repr(classes.names[other])
            raise UserError(f"{file}: {name!r} has the colour of {named}")
        labels[code] = label
    return labels


def read_coloured_png(data: bytes, where: str, labels: Mapping[int, int]) -> np.ndarray:
    """Read a label PNG by its colours: H x W uint8. A palette's colours count, not its numbers, and no transparency.

    Args:
        data: the file's bytes.
        where: its path, for messages.
        labels: by colour, see `colour_labels`.

    Raises:
        UserError: broken, or a colour that is no class's; names them, with the number of their pixels.
    """
    try:
        pixels = np.asarray(load_image(data).convert("RGB")).astype(np.uint32)
    except TooManyPixels as error:
        raise UserError(f"{where}: {error}") from None
    except ValueError as error:
        raise UserError(f"{where}: not a PNG that can be read ({error})") from None
    codes, places, counts = np.unique(
        (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2], return_inverse=True, return_counts=True
    )
    wrong = sorted(((int(n), int(code)) for code, n in zip(codes, counts) if int(code) not in labels), reverse=True)
    if wrong:
        named = ", ".join(f"#{code:06x} ({count:,})" for count, code in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        total = sum(count for count, _ in wrong)
        raise SampleError(
            where,
            "has colours of no class in the class file",
            f" on {total:,} of {counts.sum():,} pixels: {named}{more}",
        )
    return np.array([labels[int(code)] for code in codes], np.uint8)[places].reshape(pixels.shape[:2])


def _code(colour: Sequence[int] | np.ndarray) -> int:
    red, green, blue = (int(part) for part in colour)
    return red << 16 | green << 8 | blue
