#!/usr/bin/env python3
"""Verify prepared datasets, snapshots and model folders: is each still what was written?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.training.verification import verify


def main(arguments: argparse.Namespace) -> None:
    """Verify one after the other, and say what is sound.

    Raises:
        UserError: something is not; names it.
    """
    for path in arguments.paths:
        for line in verify(path):
            print(line, flush=True)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="verify.py",
        description="Read everything again and compare it with the SHA-256 that were noted when it was written.",
        epilog="""examples:
  .venv/bin/python tools/verify.py data/stanford_background
  .venv/bin/python tools/verify.py data/stanford_background/fold0/test runs/n_renet my_model

Of a prepared dataset or split, every image and label is decoded, too, and labels are held to the classes. The first
damage ends the command with status 2 and a line that names file and record.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="DIR", help="a prepared dataset or split, a run's folder, a model folder"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
