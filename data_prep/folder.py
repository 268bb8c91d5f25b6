"""Convert a user's own images and labels to LMDB splits.

Images of any kind that Pillow reads, and labels: PNGs of class numbers or colours, or what labelme, CVAT and COCO's
tools write. Phone EXIF rotation, grey, CMYK, 16-bit and transparent ones are normalised once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import fraction, whole_number
from renet.common.command_line import run
from renet.conversion.folder import TEST_FRACTION, convert, find_splits
from renet.conversion.folder_splits import Source
from renet.conversion.label_formats import LabelFormat, LabelOptions
from renet.conversion.label_remap import make_label_remap, old_and_new
from renet.conversion.options import add_output_arguments, output_options
from renet.data.image_ids import bare_suffix

EXAMPLE = """\
examples:
  .venv/bin/python data_prep/folder.py --images photos/ --labels labels/ --classes classes.txt --val-fraction 0.1 \\
      --out data/mine

  photos/gate.jpg   any image
  labels/gate.png   palette or grey PNG of the same size: pixel values 0, 1, ... for the lines of classes.txt;
                    255 where a pixel is to be ignored
  classes.txt       one name a line, a colour before or after it if you like:
                        sky #87ceeb
                        garden gate 170 60 45
                        lawn

  # CamVid: a folder for each split, 11 is void
  .venv/bin/python data_prep/folder.py --split train=CamVid/train:CamVid/trainannot \\
      --split val=CamVid/val:CamVid/valannot --split test=CamVid/test:CamVid/testannot \\
      --classes camvid.txt --ignore-label 11 --out data/camvid

  # Cityscapes: names with suffixes, in folders of cities
  .venv/bin/python data_prep/folder.py --split train=leftImg8bit/train:gtFine/train \\
      --split val=leftImg8bit/val:gtFine/val --image-suffix _leftImg8bit --label-suffix _gtFine_labelTrainIds \\
      --classes cityscapes.txt --out data/cityscapes

  # labelme's JSON files beside the images; CVAT's and COCO's one file of all images
  .venv/bin/python data_prep/folder.py --images photos --labels photos --labels-as labelme --classes labels.txt \\
      --out data/mine
  .venv/bin/python data_prep/folder.py --images task/images --labels task/annotations.xml --labels-as cvat \\
      --classes classes.txt --out data/mine
"""


def main(arguments: argparse.Namespace) -> None:
    """Prepare the images as the command line says."""
    suffixes = bare_suffix(arguments.image_suffix), bare_suffix(arguments.label_suffix)
    splits = find_splits(
        Source(arguments.images, arguments.labels, *suffixes, LabelFormat(arguments.labels_as)),
        arguments.split,
        arguments.test_fraction,
        arguments.val_fraction,
        arguments.seed,
    )
    remap = make_label_remap(arguments.map, arguments.ignore_label)
    labels = LabelOptions(LabelFormat(arguments.labels_as), tuple(arguments.ignore_name), arguments.unlabelled)
    convert(arguments.classes, splits, remap, output_options(arguments), arguments.name, labels)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="folder.py",
        description="Your own images and labels to LMDB splits, such as train, val and test.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="images, or subfolders of them")
    parser.add_argument(
        "--labels", type=Path, metavar="DIR|FILE", help="labels with the images' names; of cvat and coco, the one file"
    )
    parser.add_argument(
        "--labels-as",
        choices=[one.value for one in LabelFormat],
        default=LabelFormat.NUMBERS.value,
        help="numbers: PNGs whose values are the classes (default); colours: PNGs in the class file's colours; "
        'labelme: its JSON files; cvat: the XML of "CVAT for images 1.1"; coco: an instances JSON, polygons or RLE',
    )
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="one class a line, optional colour")
    parser.add_argument("--name", help="the dataset's name (default: that of --out)")
    names = parser.add_argument_group("names that differ")
    names.add_argument(
        "--image-suffix",
        default="",
        metavar="TEXT",
        help="what follows the name in images' files: _leftImg8bit for x_leftImg8bit.png",
    )
    names.add_argument(
        "--label-suffix",
        default="",
        metavar="TEXT",
        help="what follows the name in labels' files: _gtFine_labelTrainIds for x_gtFine_labelTrainIds.png",
    )
    numbers = parser.add_argument_group("labels' numbers")
    numbers.add_argument(
        "--ignore-label",
        type=whole_number(0),
        action="append",
        default=[],
        metavar="N",
        help="pixels of this number count nowhere, as those of 255 do; may come again",
    )
    numbers.add_argument(
        "--map",
        type=old_and_new,
        nargs="+",
        action="extend",
        default=[],
        metavar="OLD=NEW",
        help="other numbers: 11=255 (255 is ignored), 0-2=255 (all to one), 1-150=0-149 (one by one)",
    )
    regions = parser.add_argument_group("labelme, cvat and coco")
    regions.add_argument(
        "--unlabelled",
        metavar="CLASS",
        help="class of pixels in no region (default: the class background or _background_; without one, they count "
        "nowhere)",
    )
    regions.add_argument(
        "--ignore-name",
        action="append",
        default=[],
        metavar="NAME",
        help="regions of this name count nowhere; may come again",
    )
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=IMAGES:LABELS|LIST",
        help="a split of this name, once for each: a folder of images and one of their labels; or a list of images "
        "in --images, one a line, or of paths of images and their labels. Without it, train and test are drawn",
    )
    splits.add_argument(
        "--test-fraction",
        type=fraction,
        metavar="F",
        help=f"share of the test split that is drawn at random (default {TEST_FRACTION})",
    )
    splits.add_argument(
        "--val-fraction",
        type=fraction,
        default=0.0,
        metavar="F",
        help="share of train that becomes val, to choose settings by, after test is drawn (default 0)",
    )
    splits.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the drawn split (default 0)")
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
