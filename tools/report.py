"""One HTML page on trained networks side by side: scores beside the paper's, curves, confusions, all pictures."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.data.catalog import find_dataset
from renet.visualization.page import render
from renet.visualization.page_content import (
    Source,
    gather,
)
from renet.visualization.page_pictures import (
    BUDGET,
    check_is_ours,
    megabytes,
    picture_folder,
    pictures,
    remove_beside,
    write_beside,
)

EXAMPLES = """examples:
  tools/report.py --run runs/n_renet --labels data/stanford_background/fold0/test --out page.html
  tools/report.py --run FCN=runs/fcn --run runs/h_renet --predictions "H-ReNet with CRF=runs/h_renet/predictions_crf" \\
      --labels data/voc2012/val --out comparison.html
  tools/report.py --predictions mine=results --predictions theirs=/data/theirs --labels data/own/test --out page.html

Every --run and --predictions is a column of the page, in this order. A run's predictions are those in its folder
predictions/ (predict.py --out RUN/predictions). The page is one file as long as its pictures take no more than the
budget; beyond it they lie in a folder beside it, page_files/ for page.html, and the browser loads those in view."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
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


def not_negative(text: str) -> float:
    """An argparse type: a number of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return number


def main(arguments: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        UserError: bad input, named.
    """
    out: Path = arguments.out
    if not arguments.columns:
        raise UserError("nothing to report: give --run or --predictions")
    check_is_ours(picture_folder(out))
    dataset = None
    if arguments.labels is not None or arguments.dataset is not None:
        dataset = find_dataset(arguments.dataset, arguments.labels)
    entries = gather(arguments.columns, arguments.labels, dataset)
    gallery = []
    if arguments.labels is not None and dataset is not None:
        gallery = pictures(entries, arguments.labels, dataset, arguments.images)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = megabytes(gallery) > arguments.budget
    page = render(entries, arguments.labels, dataset, gallery, arguments.title, picture_folder(out) if beside else None)
    if beside:
        write_beside(out, gallery)
    write_atomically(out, page.encode())
    if not beside:
        remove_beside(out)
    size = out.stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB" + (f", and its pictures in {picture_folder(out)}" if beside else ""))


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
