"""Command-line options that all converters share."""

from __future__ import annotations

import argparse
from pathlib import Path

from renet.common.argument_types import part_of_size
from renet.common.parts import add_part_argument, chosen_part
from renet.conversion.prepare import OutputOptions
from renet.data.images import LabelFrame

PART_HELP = "prepare this share of each split alone, into a folder of its own; merge.py joins the parts"


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every converter of source files: --out, --skip-bad, --image-scale, --label-frame,
    --keep-classes, --part."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the prepared dataset goes")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave bad samples out; they are listed here and in dataset.json"
    )
    parser.add_argument(
        "--image-scale",
        type=part_of_size,
        default=1.0,
        metavar="S",
        help="shrink images (area averages) and labels (nearest pixel centre) to this part of their size, "
        "for a quicker training; default 1: as they are",
    )
    parser.add_argument(
        "--label-frame",
        choices=[frame.value for frame in LabelFrame],
        default=LabelFrame.BY_SIZE.value,
        help="which way up the labels of images with an EXIF rotation are: as the image is seen (upright), as its "
        "pixels are stored (stored), or as the label's size tells beyond doubt, and otherwise an error (by-size, the "
        "default)",
    )
    parser.add_argument(
        "--keep-classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these classes alone, numbered in this order; pixels of the others are ignored, and images without any "
        "of these left out",
    )
    add_part_argument(parser, PART_HELP)


def output_options(arguments: argparse.Namespace) -> OutputOptions:
    """Read what `add_output_arguments` added."""
    return OutputOptions(
        arguments.out,
        arguments.image_scale,
        arguments.skip_bad,
        LabelFrame(arguments.label_frame),
        tuple(arguments.keep_classes),
        chosen_part(arguments),
    )
