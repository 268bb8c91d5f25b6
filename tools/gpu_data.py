"""Pack a small prepared dataset, to be unpacked beside the bundle of the GPU build."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import part_of_size
from renet.common.command_line import run
from renet.common.repository import ROOT
from renet.packaging.gpu_data import STANFORD_BACKGROUND, SYNTHETIC_SCENES, write_data

DESCRIPTION = f"""{__doc__}

Without --dataset and --archive it takes data/{STANFORD_BACKGROUND}, else data/{SYNTHETIC_SCENES}, else it draws
scenes. Of a dataset in folds it takes the first one. Networks find it where they look for it in the repository."""

EXAMPLES = """examples:
  tools/gpu_data.py --out build/renet-caffe-data.tar.xz
  tools/gpu_data.py --archive iccv09Data.tar.gz --image-scale 0.5
  tools/gpu_data.py --dataset data/mine --splits train val"""


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", type=Path, metavar="DIR", help="a prepared dataset")
    source.add_argument("--archive", type=Path, metavar="FILE", help="Stanford Background's, to be prepared first")
    parser.add_argument(
        "--image-scale", type=part_of_size, default=1.0, metavar="FACTOR", help="of --archive's images (default 1)"
    )
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: the first fold, or all without folds")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "renet-caffe-data.tar.xz", metavar="FILE")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Pack the dataset, and tell the size."""
    print(write_data(arguments.out, arguments.dataset, arguments.archive, arguments.image_scale, arguments.splits))


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
