"""Draw small outdoor scenes in which some regions are told apart only by what lies far away in the image.

The paper's motivation (section 1) is a region that looks the same on a beach and elsewhere, and that the sea far away
decides. Here every scene has two such regions:

- the sandy ground at the bottom is `beach` where the sea lies at the horizon, and `desert` where hills do;
- the lane in the meadow is `road` where houses stand at the other side of the image, and `path` where a wood does.

Sea or hills, houses or wood are chosen by independent coins; everything else (geometry, colours, textures, light,
noise) comes from random streams that do not know how the coins fell. So two scenes that differ in a coin alone are
equal to the bit everywhere but where sea or hills, houses or wood stand, and these are at least a third of the height
(a quarter of the width) away from the region that they decide. No window smaller than that holds any hint.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.parts import add_part_argument, chosen_part
from renet.conversion.options import PART_HELP
from renet.conversion.synthetic_scenes import LARGEST, SMALLEST, convert

EXAMPLE = """\
example:
  .venv/bin/python data_prep/synthetic_scenes.py --out data/synthetic_scenes
"""


def main(arguments: argparse.Namespace) -> None:
    """Draw and write the scenes as the command line says."""
    part = chosen_part(arguments)
    convert(arguments.out, arguments.seed, arguments.train, arguments.test, arguments.size, part)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="synthetic_scenes.py",
        description="Drawn outdoor scenes with regions that only what lies far away in the image tells apart.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the prepared dataset goes")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="the same seed draws the same (default 0)"
    )
    parser.add_argument("--train", type=whole_number(1), default=600, metavar="N", help="training scenes (default 600)")
    parser.add_argument("--test", type=whole_number(1), default=100, metavar="N", help="test scenes (default 100)")
    parser.add_argument("--size", type=_size, default=(96, 128), metavar="HxW", help="of a scene (default 96x128)")
    add_part_argument(parser, PART_HELP)
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if size[0] < SMALLEST[0] or size[1] < SMALLEST[1] or max(size) > LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no height x width from {SMALLEST[0]}x{SMALLEST[1]} to {LARGEST}x{LARGEST}, such as 96x128"
        )
    return size


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
