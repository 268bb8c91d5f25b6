"""Convert MS COCO's objects to labels of VOC's 20 classes, in one LMDB split: images to pretrain on.

Instance annotations as distributed (Lin et al., "Microsoft COCO: common objects in context", ECCV 2014). The paper's
section 4.2 takes train and val together and keeps the images with more than 900 pixels of the 20 classes. An image's
label is drawn once: what has too few pixels is left out while the split is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.conversion.coco import MIN_PIXELS, convert
from renet.conversion.options import add_output_arguments, output_options

EXAMPLE = """\
examples:
  # the paper's images: train and val together, 123,287
  .venv/bin/python data_prep/coco.py --annotations annotations/instances_train2017.json \\
      annotations/instances_val2017.json --images train2017 val2017 --out data/coco

  # the first of four parts, which may be prepared on four machines; tools/merge.py joins them
  .venv/bin/python data_prep/coco.py --annotations annotations/instances_train2017.json \\
      --images train2017 --out data/coco --part 1/4

  then "data/coco/train" is a source of SegmentationData, alone or beside "data/voc2012/trainvalaug"

labels:
  0         no object of the 20 classes: other categories, and their crowds, are background
  1 .. 20   VOC's classes in VOC's order
  255       objects of two different classes overlap, or a crowd of one of the classes
"""


def main(arguments: argparse.Namespace) -> None:
    """Prepare the images as the command line says."""
    convert(arguments.annotations, arguments.images, arguments.min_pixels, output_options(arguments))


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="coco.py",
        description="MS COCO with labels of VOC's 20 classes to the LMDB split train, to pretrain on.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--annotations", type=Path, nargs="+", required=True, metavar="FILE", help="instances_*.json, one or several"
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="DIR", help="their images' folders, in the same order"
    )
    parser.add_argument(
        "--min-pixels",
        type=whole_number(0),
        default=MIN_PIXELS,
        metavar="N",
        help=f"take images with more than N pixels of the 20 classes (default {MIN_PIXELS})",
    )
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
