"""One HTML page on trained networks side by side: scores beside the paper's, curves, confusions, all pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import fraction, not_negative, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.evaluation.boundaries import TOLERANCE
from renet.visualization.page import write_page
from renet.visualization.page_content import Source
from renet.visualization.page_pictures import BUDGET

EXAMPLES = """examples:
  tools/report.py --run runs/n_renet --labels data/stanford_background/fold0/test --out page.html
  tools/report.py --run FCN=runs/fcn --run runs/h_renet --predictions "H-ReNet with CRF=runs/h_renet/predictions_crf" \\
      --labels data/voc2012/val --out comparison.html
  tools/report.py --predictions mine=results --predictions theirs=/data/theirs --labels data/own/test --out page.html

Every --run and --predictions is a column of the page, in this order. A run's predictions are those in its folder
predictions/ (predict.py --out RUN/predictions). The page is one file as long as its pictures take no more than the
budget; beyond it they lie in a folder beside it, page_files/ for page.html, and the browser loads those in view."""


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run",
        dest="columns",
        type=lambda text: Source.parse(text, is_run=True),
        action="append",
        default=[],
        metavar="[NAME=]RUN",
        help="a run folder, and what the page calls it; may be repeated",
    )
    parser.add_argument(
        "--predictions",
        dest="columns",
        type=lambda text: Source.parse(text, is_run=False),
        action="append",
        metavar="[NAME=]DIR",
        help="label maps <image id>.png of any system, or of a run after the CRF; may be repeated",
    )
    parser.add_argument("--labels", type=Path, metavar="SPLIT", help="the prepared test split: images and truth")
    parser.add_argument(
        "--dataset", metavar="NAME|DATASET.JSON", help="names and colours of the classes (default: the split's own)"
    )
    parser.add_argument(
        "--boundaries",
        type=fraction,
        nargs="?",
        const=TOLERANCE,
        metavar="TOLERANCE",
        help="also draw scores against the distance from boundaries, as evaluate.py --boundaries computes them",
    )
    parser.add_argument(
        "--images",
        type=whole_number(0),
        metavar="N",
        help="most test images on the page, from the worst to the best (default: all)",
    )
    parser.add_argument(
        "--budget",
        type=not_negative,
        default=BUDGET,
        metavar="MB",
        help="most megabytes of pictures inside the page itself (default: %(default)g)",
    )
    parser.add_argument("--title", metavar="TEXT", help="the page's heading")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML page")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write the page."""
    if not arguments.columns:
        raise UserError("nothing to report: give --run or --predictions")
    beside = write_page(
        arguments.out,
        arguments.columns,
        arguments.labels,
        arguments.dataset,
        most_images=arguments.images,
        budget=arguments.budget,
        title=arguments.title,
        boundary_tolerance=arguments.boundaries,
    )
    size = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size:.1f} MB" + (f", and its pictures in {beside}" if beside else ""))


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
