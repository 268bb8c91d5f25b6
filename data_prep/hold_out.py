"""Set images of a prepared training split aside: two new splits, one to learn from and one to choose settings by.

What is chosen by images that the network has learnt from (a dense CRF's parameters, a threshold) fits those alone.
Which images are set aside depends on their ids alone, a tenth of them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.parts import add_part_argument, chosen_part
from renet.data.dataset import Dataset
from renet.data.held_out import HELD_OUT, LEARN, hold_out

EXAMPLE = """\
example:
  .venv/bin/python data_prep/hold_out.py --split data/voc2012/trainaug --out data/voc2012_held_out

  train on data/voc2012_held_out/train, predict data/voc2012_held_out/held_out with --probabilities, and search there:
  .venv/bin/python tools/crf.py search --predictions runs/x/held_out --split data/voc2012_held_out/held_out \\
      --out runs/x/crf_search
"""


def main(arguments: argparse.Namespace) -> None:
    """Write the two splits.

    Raises:
        UserError: bad input, named.
    """
    dataset = Dataset.of_split(arguments.split[0])
    if dataset is None:
        raise UserError(f"{arguments.split[0]}: no prepared split with a dataset.json above it")
    made = hold_out(arguments.split, dataset, arguments.out, chosen_part(arguments))
    for name in (LEARN, HELD_OUT):
        print(f"{made.folder / name}: {made.splits[name].count} images")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="hold_out.py",
        description="Part a prepared training split into two: one to learn from, and a tenth to choose settings by.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", type=Path, nargs="+", required=True, metavar="SPLIT", help="prepared, with labels")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help=f"gets dataset.json and the splits {LEARN}, {HELD_OUT}"
    )
    add_part_argument(parser, "copy this share of both splits alone, into a folder of its own; merge.py joins them")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
