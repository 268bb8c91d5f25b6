"""Convert the Stanford Background dataset, the archive as distributed, to LMDB splits.

715 outdoor photographs, each with a text file of region labels (Gould, Fulton and Koller, "Decomposing a scene into
geometric and semantically consistent regions", ICCV 2009); the paper's section 4.1 evaluates on five random folds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.conversion.options import add_output_arguments, output_options
from renet.conversion.stanford_background import HOMES, convert

EXAMPLE = """\
examples:
  # the archive as distributed (fetched where --archive is left out), five random folds
  .venv/bin/python data_prep/stanford_background.py --archive iccv09Data.tar.gz --out data/stanford_background

  # one fold from lists of ids, at half the size
  .venv/bin/python data_prep/stanford_background.py --archive iccv09Data.tar.gz --fold-lists lists/ \\
      --image-scale 0.5 --out data/stanford_background_half
"""


def main(arguments: argparse.Namespace) -> None:
    """Prepare the dataset as the command line says."""
    convert(
        output_options(arguments),
        archive=arguments.archive,
        root=arguments.root,
        fold_lists=arguments.fold_lists,
        folds=arguments.folds,
        seed=arguments.seed,
    )


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="stanford_background.py",
        description="The Stanford Background dataset to LMDB splits fold0/train, fold0/test, ...",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--archive", type=Path, metavar="FILE", help=f"the archive as distributed; default: fetch {HOMES[0]}"
    )
    source.add_argument("--root", type=Path, metavar="DIR", help="the archive unpacked")
    folds = parser.add_mutually_exclusive_group()
    folds.add_argument("--folds", type=whole_number(2), default=5, metavar="N", help="even random folds (default 5)")
    folds.add_argument("--fold-lists", type=Path, metavar="DIR", help="one fold: ids in train.txt and test.txt")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the random folds (default 0)")
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
