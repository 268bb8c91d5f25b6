#!/usr/bin/env python3
"""Tell what networks cost and see: parameters, operations, receptive field, and memory and time measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import caffe
from google.protobuf import text_format

from renet.common.argument_types import crop_size, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.progress import progress
from renet.common.text_table import aligned, markdown
from renet.networks.analysis import measure, without_data
from renet.networks.cost import SUMMARY, find_state, layer_rows, summary_row, training_size, what_is_compared
from renet.runtime.prototxt import read_network
from renet.runtime.worker_process import NativeCrash, run_native

DEFAULT_SIZE = (375, 500)

EXAMPLES = """examples:
  tools/network_cost.py --model prototxt/h_renet/voc2012/deploy.prototxt
  tools/network_cost.py --model prototxt/*/voc2012/train_val.prototxt --batch 1 10 --markdown costs.md

One network is told layer by layer. Of several, and of several batches, there is one line each: a training step (with
SGD's history) of a file that has a loss in phase TRAIN, a forward pass of any other. Memory is the most that the
process held beyond Caffe itself; images are noise, so no data is needed, and the values mean nothing."""


def main(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables.

    Raises:
        UserError: a file that is no network, or one that Caffe refuses.
    """
    networks = {model: read_network(model) for model in arguments.model}
    states = {model: find_state(network, arguments.stage, model) for model, network in networks.items()}
    tasks = [(model, batch) for model in networks for batch in arguments.batch]
    rows = [list(SUMMARY)]
    found, compared = None, {}
    for model, batch in progress(tasks, total=len(tasks), description="measuring", unit="network"):
        network, state = networks[model], states[model]
        train = state.phase == caffe.TRAIN
        size = arguments.size or (training_size(network, state) if train else None) or DEFAULT_SIZE
        shape = (batch, 3, *size)
        try:
            if train and model not in compared:
                compared[model] = what_is_compared(network, state, size)
            fed = text_format.MessageToString(without_data(network, state, shape, compared.get(model)))
            (found,) = run_native(measure, fed, train, arguments.passes)
        except NativeCrash as crash:
            raise UserError(f"{model}: {crash}") from None
        rows.append(summary_row(network.name or str(model), train, shape, found))
    if found is not None and len(tasks) == 1:
        print("\n".join(aligned(layer_rows(found.costs))), end="\n\n")
    print("\n".join(aligned(rows)))
    if arguments.markdown:
        write_atomically(arguments.markdown, markdown(rows).encode())


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="network_cost.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, nargs="+", required=True, metavar="FILE", help="deploy or train_val prototxts"
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
