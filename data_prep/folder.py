"""A user's own pictures and labels to LMDB splits.

Pictures of any kind that Pillow reads, and one label PNG for each, with the same name, whose pixel values are the
classes' numbers. Phone pictures with EXIF rotation, grey, CMYK, 16-bit and transparent ones are normalised once.
"""

from __future__ import annotations

import argparse
import colorsys
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ImageColor

from data_prep.command_line import UserError, run
from data_prep.dataset import MOST_CLASSES
from data_prep.image_ids import find_images, read_ids
from data_prep.images import LabelFrame, normalise, read_index_png
from data_prep.prepare import add_output_arguments, file_fingerprint, prepare, shuffled, whole_number
from data_prep.split_writer import Pair, Sample
from data_prep.text_files import numbered_lines

LABEL_SUFFIX = ".png"
_GOLDEN_RATIO = 0.618034

EXAMPLE = """\
example:
  .venv/bin/python data_prep/folder.py --images photos/ --labels labels/ --classes classes.txt --out data/mine

  photos/gate.jpg   any picture
  labels/gate.png   palette or grey PNG of the same size: pixel values 0, 1, ... for the lines of classes.txt;
                    255 where a pixel is to be ignored
  classes.txt       one name a line, a colour after it if you like:
                        sky #87ceeb
                        garden gate 170 60 45
                        lawn
"""


def read_classes(file: Path) -> tuple[list[str], np.ndarray]:
    """The classes' names and colours (C x 3 uint8, RGB) of a class file.

    A line is a name, with an optional colour at its end: `#rrggbb` or three numbers. Classes without one get colours
    that differ well from each other.

    Raises:
        UserError: no such file, no class, a name twice, too many, or a bad colour; names the file and the line.
    """
    names: list[str] = []
    colours: list[tuple[int, int, int]] = []
    for number, line in numbered_lines(file):
        name, colour = _class_line(line.split(), f"{file}, line {number}")
        if name in names:
            raise UserError(f"{file}, line {number}: the class {name!r} comes twice")
        colours.append(colour or _colour_of(len(names)))
        names.append(name)
    if not names:
        raise UserError(f"{file}: names no class; it holds one name a line")
    if len(names) > MOST_CLASSES:
        raise UserError(f"{file}: {len(names)} classes; at most {MOST_CLASSES} fit into 8-bit labels")
    return names, np.array(colours, np.uint8)


def _class_line(words: list[str], where: str) -> tuple[str, tuple[int, int, int] | None]:
    if len(words) > 3 and all(word.isdecimal() for word in words[-3:]):
        red, green, blue = (int(word) for word in words[-3:])
        if max(red, green, blue) > 255:
            raise UserError(f"{where}: the colour {red} {green} {blue} has a part above 255")
        return " ".join(words[:-3]), (red, green, blue)
    if len(words) > 1 and words[-1].startswith("#"):
        try:
            return " ".join(words[:-1]), ImageColor.getrgb(words[-1])[:3]
        except ValueError:
            raise UserError(f"{where}: {words[-1]} is no colour like #87ceeb") from None
    return " ".join(words), None


def _colour_of(number: int) -> tuple[int, int, int]:
    """A colour for class `number`: hues by the golden ratio, so that neighbours in the list lie far apart."""
    hue = (0.55 + number * _GOLDEN_RATIO) % 1.0
    value = (0.95, 0.65, 0.80)[number % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def read_pair(image: Path, label: Path, label_frame: LabelFrame) -> Pair:
    """One picture and its labels."""
    if not label.is_file():
        raise UserError(f"{label}: no such file; it would be the label of {image}")
    values = read_index_png(label.read_bytes(), str(label))
    return Pair(normalise(image.read_bytes(), str(image), values.shape, label_frame), values)


def make_samples(images: dict[str, Path], ids: Sequence[str], labels: Path, label_frame: LabelFrame) -> list[Sample]:
    """The samples of these ids, in their order."""
    samples = []
    for one in ids:
        label = labels / f"{one}{LABEL_SUFFIX}"
        samples.append(
            Sample(
                id=one,
                fingerprint=f"{label_frame}/{file_fingerprint(images[one], label)}",
                read=partial(read_pair, images[one], label, label_frame),
                label_where=str(label),
            )
        )
    return samples


def split_at_random(ids: Sequence[str], test_fraction: float, seed: int) -> dict[str, list[str]]:
    """Train and test ids; both get at least one, if the fraction is not 0 and there are two.

    Raises:
        UserError: there are too few images for two splits.
    """
    order = shuffled(ids, seed)
    if test_fraction == 0:
        return {"train": order}
    if len(order) < 2:
        raise UserError(f"{len(order)} image cannot be split into train and test; say --test-fraction 0")
    count = min(len(order) - 1, max(1, round(test_fraction * len(order))))
    return {"train": order[count:], "test": order[:count]}


def listed_splits(images: dict[str, Path], lists: dict[str, Path], folder: Path) -> dict[str, list[str]]:
    """The ids of the lists, one split a list.

    Raises:
        UserError: a list is missing or empty, names an image that there is not, or shares one with another list.
    """
    splits: dict[str, list[str]] = {}
    owner: dict[str, Path] = {}
    for split, file in lists.items():
        splits[split] = read_ids(file)
        for one in splits[split]:
            if one not in images:
                raise UserError(f"{file}: lists {one}, but {folder} has no picture of that name")
            if one in owner:
                raise UserError(f"{file}: lists {one}, which is in {owner[one]} already")
            owner[one] = file
    return splits


def main(arguments: argparse.Namespace) -> None:
    """Prepare the pictures as the command line says."""
    names, palette = read_classes(arguments.classes)
    images = find_images(arguments.images)
    if not arguments.labels.is_dir():
        raise UserError(f"{arguments.labels}: no such folder")
    if arguments.train_list:
        lists = {"train": arguments.train_list}
        if arguments.test_list:
            lists["test"] = arguments.test_list
        splits = listed_splits(images, lists, arguments.images)
    elif arguments.test_list:
        raise UserError("--test-list needs --train-list beside it")
    else:
        splits = split_at_random(list(images), arguments.test_fraction, arguments.seed)
    prepare(
        arguments.out,
        name=arguments.name or arguments.out.resolve().name,
        classes=names,
        palette=palette,
        splits={
            split: make_samples(images, ids, arguments.labels, LabelFrame(arguments.label_frame))
            for split, ids in splits.items()
        },
        training=["train"],
        image_scale=arguments.image_scale,
        skip_bad=arguments.skip_bad,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="folder.py",
        description="Your own pictures and label PNGs to LMDB splits train and test.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="pictures")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="label PNGs with the pictures' names")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="one class a line, optional colour")
    parser.add_argument("--name", help="the dataset's name (default: that of --out)")
    parser.add_argument(
        "--test-fraction", type=_fraction, default=0.2, metavar="F", help="share of the test split (default 0.2)"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the random split (default 0)")
    parser.add_argument("--train-list", type=Path, metavar="FILE", help="ids of the train split, one a line")
    parser.add_argument("--test-list", type=Path, metavar="FILE", help="ids of the test split")
    parser.add_argument(
        "--label-frame",
        choices=[frame.value for frame in LabelFrame],
        default=LabelFrame.BY_SIZE.value,
        help="which way up the labels of pictures with an EXIF rotation are: as the picture is seen (upright), as its "
        "pixels are stored (stored), or upright only where the label's size proves it and otherwise an error (default)",
    )
    add_output_arguments(parser)
    return parser


def _fraction(text: str) -> float:
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0.0 <= fraction < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1)")
    return fraction


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
