"""VGG-16's convolutions as trained on ImageNet, conv1_1 ... conv5_3: weights that FCN and H-ReNet start from.

From the original Caffe model, where a user has it, else from a package that carries torchvision's training. Either
way the networks take B, G, R of 0..255 with a mean taken off; what was the other way round is turned in conv1_1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from renet.weights.vgg16 import (
    ORIGINAL_MEAN,
    PACKAGE,
    TORCHVISION_MEAN,
    check_present,
    check_reaction,
    describe,
    metadata_file,
    origin_of,
    read_weights,
)

if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")  # Caffe's account of every layer is no news here

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.weights.vgg16_layers import CHANNELS, to_network

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
    """Convert the weights as the command line says; what is there already is only looked at."""
    if arguments.unchecked and not arguments.caffemodel:
        raise UserError("--unchecked goes with --caffemodel only")
    out, origin = arguments.out, origin_of(arguments)
    mean = ORIGINAL_MEAN if arguments.caffemodel else TORCHVISION_MEAN
    if out.exists():
        check_present(out, origin)
        print(f"{out} is there already, and whole")
    else:
        content = to_network(read_weights(arguments), out.stem).SerializeToString()
        if not arguments.unchecked:
            check_reaction(content, origin, mean)
        metadata = {
            "source": origin.name,
            "source_checksum": origin.checksum,
            "sha256": hashlib.sha256(content).hexdigest(),
            "mean_bgr": list(mean),
            "layers": list(CHANNELS),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(metadata_file(out), (json.dumps(metadata, indent=2) + "\n").encode())
        write_atomically(out, content)
    print(describe(out, origin, mean))


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
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
