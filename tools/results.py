"""Write the tables of docs/results.md from docs/results.json, and add a run's scores to both."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.experiments.published_results import DOCUMENTS, figure_of_run, update

EXAMPLES = """examples:
  tools/results.py                                 # after editing docs/results.json: the page's tables anew
  tools/results.py --add runs/experiments/fcn --table ablation --row "(a) baseline FCN"
  tools/results.py --add runs/experiments/fcn --evaluation runs/experiments/fcn/evaluation_crf.json \\
      --table ablation --row "(e) baseline FCN, DenseCRF"

Of a run, the seed, commit, command, machine and seconds come from run.json, the scores from evaluation.json, and how it
was predicted from predictions/prediction.json. Runs of one row with several seeds or folds become its mean, each in
brackets; a run that is there already is replaced. docs/results.json describes the tables; the text around them is the
page's."""


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: bad input, named.
    """
    if arguments.add is None:
        if arguments.table or arguments.row or arguments.evaluation:
            raise UserError("--table, --row and --evaluation go with --add")
        print(update(arguments.documents))
        return
    if arguments.row is None:
        raise UserError("--add needs --row, the row's name in the table")
    figure = figure_of_run(arguments.add, arguments.table, arguments.row, arguments.evaluation)
    print(update(arguments.documents, lambda results: results.with_figure(figure)))


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="results.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", type=Path, metavar="RUN", help="a run folder with an evaluation.json")
    parser.add_argument("--table", metavar="NAME", help="of docs/results.json (default: kept, and shown in none)")
    parser.add_argument("--row", metavar="TEXT", help="the row's name in the table")
    parser.add_argument(
        "--evaluation", type=Path, metavar="FILE", help="another evaluation than RUN/evaluation.json, as of a CRF"
    )
    parser.add_argument(
        "--documents", type=Path, default=DOCUMENTS, metavar="DIR", help="with results.json and results.md (docs/)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
