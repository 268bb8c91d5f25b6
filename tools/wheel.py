#!/usr/bin/env python3
"""Pack a build into a wheel for `pip install`: Caffe, pycaffe, the library renet, networks and commands.

It is for the Python that runs this, and for any Linux whose C library is as new as this system's. Every library that a
system may lack is in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.repository import ROOT
from renet.packaging.wheel import write_wheel

EXAMPLES = """examples:
  .venv/bin/python tools/wheel.py
  .venv/bin/python tools/wheel.py --out /tmp/wheels"""


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="wheel.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cpu", metavar="DIR", help="what to pack")
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "caffe-source", metavar="DIR", help="Caffe's")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where to (default: dist)")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Make the wheel, and tell what came of it."""
    print(write_wheel(arguments.out.absolute(), arguments.build.resolve(), arguments.source.resolve()))


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
