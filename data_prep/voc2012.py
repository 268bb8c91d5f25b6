"""Convert PASCAL VOC 2012 segmentation to LMDB splits, with the labels of SBD for more training images.

VOC's development kit as distributed, and SBD's (Hariharan et al., "Semantic contours from inverse detectors", ICCV
2011): the paper's section 4.2 trains on the images of both and tests on VOC's val and test.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.conversion.options import add_output_arguments, output_options
from renet.conversion.voc2012 import AUGMENTED_LABEL_FOLDER, LISTS, convert
from renet.data.catalog import VOC2012

EXAMPLE = """\
examples:
  # VOC's own splits: train, val, trainval, and test where VOC2012test.tar is unpacked into the same folder
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit/VOC2012 --out data/voc2012

  # with SBD also trainaug (10,582 images) and trainvalaug (12,031), the paper's training sets
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --sbd benchmark_RELEASE --out data/voc2012

  # the same labels as PNGs: SegmentationClassAug in the folder VOC2012, train_aug.txt among the lists or anywhere
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --out data/voc2012
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --aug SegmentationClassAug --split trainaug=train_aug.txt \\
      --split val=val.txt --out data/voc2012

  # some of the classes, others ignored
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --split train=train.txt --split val=val.txt \\
      --keep-classes background cat cow dog horse sheep person --out data/voc2012_animals

  VOCdevkit/VOC2012/  JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val,trainval,test}.txt
  benchmark_RELEASE/dataset/  img/*.jpg, cls/*.mat, train.txt, val.txt
"""


def main(arguments: argparse.Namespace) -> None:
    """Prepare the dataset as the command line says."""
    convert(output_options(arguments), arguments.voc, arguments.sbd, arguments.aug, arguments.split)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="voc2012.py",
        description="PASCAL VOC 2012 to LMDB splits train, val, trainval and test (without labels); with SBD's labels "
        "also trainaug and trainvalaug.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--voc", type=Path, required=True, metavar="DIR", help="the folder VOC2012, or the VOCdevkit that holds it"
    )
    parser.add_argument(
        "--sbd", type=Path, metavar="DIR", help="SBD: the folder benchmark_RELEASE, or the dataset within it"
    )
    parser.add_argument(
        "--aug",
        type=Path,
        metavar="DIR",
        help=f"label PNGs of more images (default: {AUGMENTED_LABEL_FOLDER} in the folder VOC2012, if it is there)",
    )
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME=LIST",
        help=f"take this list, once for each of {', '.join(VOC2012.images)} that is wanted, in place of those in "
        f"{LISTS}: ids or paths, or pairs of an image and its label",
    )
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
