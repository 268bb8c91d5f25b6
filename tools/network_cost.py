#!/usr/bin/env python3
"""Tell what networks cost and see: parameters, operations, receptive field, and memory and time measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import crop_size, whole_number
from renet.common.command_line import run
from renet.common.files import write_atomically
from renet.common.text_layout import aligned, markdown
from renet.networks.cost import DEFAULT_SIZE, SUMMARY, layer_rows, network_costs
from renet.networks.model_folder import read_model_folder

EXAMPLES = """examples:
  tools/network_cost.py --model prototxt/h_renet/voc2012/deploy.prototxt
  tools/network_cost.py --model prototxt/*/voc2012/train_val.prototxt --batch 1 10 --markdown costs.md

One network is told layer by layer. Of several, and of several batches, there is one line each: a training step (with
SGD's history) of a file that has a loss in phase TRAIN, a forward pass of any other. Memory is the most that the
process held beyond Caffe itself; images are noise, so no data is needed, and the values mean nothing."""


def main(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables."""
    models = [read_model_folder(model).deploy if model.is_dir() else model for model in arguments.model]
    costs = network_costs(models, arguments.batch, arguments.size, arguments.stage, arguments.passes)
    if len(costs) == 1:
        print("\n".join(aligned(layer_rows(costs[0].measured.costs))), end="\n\n")
    rows = [list(SUMMARY), *(cost.row() for cost in costs)]
    print("\n".join(aligned(rows)))
    if arguments.markdown:
        write_atomically(arguments.markdown, markdown(rows).encode())


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="network_cost.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE|DIR",
        help="deploy or train_val prototxts, and model folders",
    )
    parser.add_argument(
        "--size",
        type=crop_size,
        metavar="HxW",
        help="of the images (default: a train_val's crops, else {}x{})".format(*DEFAULT_SIZE),
    )
    parser.add_argument(
        "--batch", type=whole_number(1), nargs="+", default=[1], metavar="N", help="images at once (default 1)"
    )
    parser.add_argument(
        "--stage",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of a file with stages, such as train or deploy: as a solver's train_state says them",
    )
    parser.add_argument(
        "--passes", type=whole_number(1), default=2, metavar="N", help="passes of each, for the time (default 2)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary here as Markdown, too")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
