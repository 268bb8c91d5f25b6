"""Join what was made in parts (--part I/N): prepared datasets, and scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import CommandParser, run
from renet.conversion.prepare import report
from renet.data.dataset_parts import PARTS, join_dataset
from renet.evaluation.bootstrap import add_draw_arguments
from renet.evaluation.score_parts import folder_of, join_parts
from renet.evaluation.score_report import read_evaluation, tell_scores

EXAMPLES = """examples:
  data_prep/coco.py --annotations instances.json --images train2017 --out data/coco --part 1/8    # ... 8/8
  tools/merge.py dataset data/coco
  tools/evaluate.py --predictions predictions --labels data/x/test --dataset data/x --json scores.json --part 1/8
  tools/merge.py scores scores.json

Label maps of parts lie in one folder and need no joining: predict.py without --part
tells how many are there, and does what is missing."""

DATASET_DETAILS = f"""Reads DIR/{PARTS}/1_of_N ... N_of_N and writes DIR/<split> and DIR/dataset.json: the same records,
checksums and mean as of one conversion, which a converter without --part would also take over. The parts stay; once
it is done, they may go."""

SCORES_DETAILS = """Reads STEM.parts/1_of_N.npz ... N_of_N.npz beside STEM.json and writes that: scores, intervals and
the single images' counts are those of one evaluate.py, bit for bit."""


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
    scores = commands.add_parser(
        "scores",
        help="compute the scores of all parts",
        description="Compute the scores of all parts of evaluate.py.",
        epilog=SCORES_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scores.add_argument("scores", type=Path, metavar="JSON", help="the --json that the parts were given; it is written")
    scores.add_argument(
        "--compare",
        type=Path,
        metavar="JSON",
        help="compare with other predictions of the same images: their --json, of which there may also be parts alone",
    )
    add_draw_arguments(scores)
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Join the parts.

    Raises:
        UserError: a part is missing, damaged, or of something else; named.
    """
    if arguments.command == "dataset":
        report(*join_dataset(arguments.folder))
        return
    evaluation, dataset = join_parts(arguments.scores)
    other = None
    if arguments.compare is not None:
        in_parts = folder_of(arguments.compare).is_dir()
        other = join_parts(arguments.compare)[0] if in_parts else read_evaluation(arguments.compare)
    draws = (arguments.resamples, arguments.seed)
    tell_scores(evaluation, dataset, *draws, arguments.scores, other, arguments.compare)


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
