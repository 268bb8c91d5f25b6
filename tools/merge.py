"""Join what was made in parts (--part I/N): prepared datasets, and scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import CommandParser, run
from renet.conversion.prepare import report
from renet.data.dataset_parts import PARTS, join_dataset

EXAMPLES = """examples:
  data_prep/coco.py --annotations instances.json --images train2017 --out data/coco --part 1/8    # ... 8/8
  tools/merge.py dataset data/coco

Label maps of parts lie in one folder and need no joining: predict.py without --part
tells how many are there, and does what is missing."""

DATASET_DETAILS = f"""Reads DIR/{PARTS}/1_of_N ... N_of_N and writes DIR/<split> and DIR/dataset.json: the same records,
checksums and mean as of one conversion, which a converter without --part would also take over. The parts stay; once
it is done, they may go."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="merge.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="dataset|scores", parser_class=CommandParser
    )
    dataset = commands.add_parser(
        "dataset",
        help="join the parts of a prepared dataset",
        description="Join the parts of a prepared dataset.",
        epilog=DATASET_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dataset.add_argument("folder", type=Path, metavar="DIR", help="the --out that the parts were given")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Join the parts.

    Raises:
        UserError: a part is missing, damaged, or of something else; named.
    """
    report(*join_dataset(arguments.folder))


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
