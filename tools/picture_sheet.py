#!/usr/bin/env python3
"""Draw one picture of test images in rows, with their truth and predictions beside them (Figures 4 and 5)."""

from __future__ import annotations

import argparse
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.files import write_atomically
from renet.data.dataset import Dataset
from renet.visualization.page_content import own_name
from renet.visualization.sheet import png, prediction_sheet


def main(arguments: argparse.Namespace) -> None:
    """Write the sheet that the command line describes."""
    sheet, rows = prediction_sheet(
        arguments.split,
        Dataset.open(arguments.dataset),
        arguments.predictions,
        arguments.names or list(map(own_name, arguments.predictions)),
        ids=arguments.ids,
        count=arguments.count,
        width=arguments.width,
        truth_last=arguments.truth_last,
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, png(sheet))
    print(f"{arguments.out}: {rows} images")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="picture_sheet.py",
        description="Put test images, their truth and predictions into one picture.",
        epilog="""example:
  .venv/bin/python tools/picture_sheet.py --split data/synthetic_scenes/test --dataset data/synthetic_scenes \\
      --predictions runs/demo_n_renet/predictions --names N-ReNet --count 4 --out sheet.png""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", type=Path, required=True, metavar="DIR", help="prepared split with the images")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DATASET.JSON", help="classes and colours")
    parser.add_argument(
        "--predictions", type=Path, nargs="*", default=[], metavar="DIR", help="folders of label maps, one a column"
    )
    parser.add_argument("--names", nargs="*", metavar="NAME", help="titles of the predictions (default: the folders')")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--ids", nargs="+", metavar="ID", help="the images to show")
    chosen.add_argument("--count", type=whole_number(1), default=5, metavar="N", help="the first N (default 5)")
    parser.add_argument(
        "--width", type=whole_number(16), default=200, metavar="PX", help="of one picture (default 200)"
    )
    parser.add_argument("--truth-last", action="store_true", help="the truth after the predictions, not before")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
