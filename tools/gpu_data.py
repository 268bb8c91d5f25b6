"""Pack a small prepared dataset, to be unpacked beside the bundle of the GPU build."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from renet.common.argument_types import part_of_size
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.data.dataset import Dataset
from renet.packaging.gpu_data import FIRST_FOLD, STANFORD_BACKGROUND, SYNTHETIC_SCENES, choose, lay_out
from renet.packaging.libraries import NAME, pack

LIMIT_MB = 20

DESCRIPTION = f"""{__doc__}

Without --dataset and --archive it takes data/{STANFORD_BACKGROUND}, else data/{SYNTHETIC_SCENES}, else it draws
scenes. Of a dataset in folds it takes the first one. Networks find it where they look for it in the repository."""

EXAMPLES = """examples:
  tools/gpu_data.py --out build/renet-caffe-data.tar.xz
  tools/gpu_data.py --archive iccv09Data.tar.gz --image-scale 0.5
  tools/gpu_data.py --dataset data/mine --splits train val"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
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
    """Choose, pack, and tell the size."""
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Dataset.load(choose(arguments, Path(scratch)))
        splits = arguments.splits or [s for s in dataset.splits if s in FIRST_FOLD] or list(dataset.splits)
        staged = Path(scratch) / NAME
        folder = staged / "data" / dataset.name
        folder.mkdir(parents=True)
        lay_out(dataset, splits, folder)
        size = pack(staged, arguments.out, follow_links=True)
    counts = ", ".join(f"{split} ({dataset.splits[split].count} images)" for split in splits)
    print(f"{arguments.out}: {size / 1e6:.1f} MB; {dataset.name}: {counts}")
    if size > LIMIT_MB * 1e6:
        raise UserError(
            f"{arguments.out}: {size / 1e6:.1f} MB is more than the {LIMIT_MB} MB that it is meant to have"
            " (--splits and --image-scale make it smaller)"
        )


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
