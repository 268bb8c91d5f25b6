"""Convert VGG-16's convolutions as trained on ImageNet, conv1_1 ... conv5_3: weights that FCN and H-ReNet start from.

From the original Caffe model, where a user has it, else from a package that carries torchvision's training. Either
way the networks take B, G, R of 0..255 with a mean taken off; what was the other way round is turned in conv1_1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")  # before Caffe is loaded, whose account of every layer is no news

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.weights.vgg16 import PACKAGE, convert

EXAMPLE = """\
examples:
  # torchvision's training, 64 MB through pip
  .venv/bin/python data_prep/vgg16.py --out models/vgg16.caffemodel

  # the authors' own training
  .venv/bin/python data_prep/vgg16.py --caffemodel VGG_ILSVRC_16_layers.caffemodel --out models/vgg16.caffemodel

  # then
  .venv/bin/python tools/train.py --solver SOLVER --weights models/vgg16.caffemodel
"""


def main(arguments: argparse.Namespace) -> None:
    """Convert the weights as the command line says."""
    if arguments.unchecked and not arguments.caffemodel:
        raise UserError("--unchecked goes with --caffemodel only")
    print(convert(arguments.out, arguments.caffemodel, arguments.archive, arguments.unchecked))


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="vgg16.py",
        description="VGG-16's convolutions, trained on ImageNet, as Caffe weights to start a training from.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where to, such as models/vgg16.caffemodel"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--caffemodel", type=Path, metavar="FILE", help="a VGG-16 of Caffe's, B, G, R of 0..255")
    source.add_argument("--archive", type=Path, metavar="FILE", help=f"{PACKAGE.file}; default: fetch it through pip")
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="take a --caffemodel even if it reacts to photographs as no VGG-16 should",
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
