#!/usr/bin/env python3
"""Go the whole path on drawn scenes: data, training, prediction, scores, and a page that compares two networks.

Every step is a command of this repository, printed before it runs. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from renet.common.command_line import run
from renet.common.commands import as_typed
from renet.common.script_command import Stopped
from renet.experiments.demo import Places, demo


def main(arguments: argparse.Namespace) -> int:
    """Run the demo; the status of the step that stopped it, else 0."""
    began = time.monotonic()
    short = arguments.short is not None
    places = Places(Path("data/synthetic_scenes"), Path("runs/demo"))
    if short:
        folder = Path(os.path.abspath(arguments.short))
        places = Places(folder / "scenes", folder)
    try:
        demo(places, short)
    except Stopped as stopped:
        print(as_typed("demo.py: stopped there; the same command goes on from it"), file=sys.stderr)
        return stopped.args[0]
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    print(f"done in {minutes} min {seconds} s; the page, with all pictures in it: {places.page}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Draw scenes, train N-ReNet and a small convolutional network on them, and compare the two.",
        epilog="""examples:
  .venv/bin/python tools/demo.py
  .venv/bin/python tools/demo.py --short /tmp/demo

In the scenes some regions look alike from near (beach and desert, road and path) and are told apart only by what
stands far away. `make demo` runs this; delete runs/demo to train anew.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--short",
        type=Path,
        metavar="DIR",
        help="a few steps on tiny scenes, all in DIR: whether everything works",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
