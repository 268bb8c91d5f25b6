#!/usr/bin/env python3
"""Tell what networks cost and see: parameters, operations, receptive field, and memory and time measured."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from data_prep.command_line import UserError, progress, run
from data_prep.prepare import whole_number
from prototxt.generate import crop_size
from tools.native_process import NativeCrash, run_native
from tools.network_analysis import LayerCost, Measured, measure
from tools.prototxt_reader import read_network
from tools.text_table import aligned, markdown

DEFAULT_SIZE = (375, 500)

EXAMPLES = """examples:
  tools/network_cost.py --model prototxt/h_renet/voc2012/deploy.prototxt
  tools/network_cost.py --model prototxt/*/voc2012/train_val.prototxt --batch 1 10 --markdown costs.md

One network is told layer by layer. Of several, and of several batches, there is one line each: a forward pass of a
deploy.prototxt, a training step of a train_val.prototxt (with SGD's history). Memory is the most that the process held
beyond Caffe itself; images are noise, so no data is needed, and the values mean nothing."""

SUMMARY = (
    "network", "pass", "images", "parameters", "GFLOP forward", "receptive field", "memory MiB", "time ms"
)  # fmt: skip


def is_training(network: caffe_pb2.NetParameter) -> bool:
    """Whether a network has a loss to learn from."""
    return any(layer.type == "SoftmaxWithLoss" for layer in network.layer)


def training_size(network: caffe_pb2.NetParameter) -> tuple[int, int] | None:
    """The crops of a train_val network; None where they are not given."""
    for layer in network.layer:
        crop = layer.segmentation_data_param
        if crop.crop_height and crop.crop_width:
            return crop.crop_height, crop.crop_width
    return None


def field_text(costs: Sequence[LayerCost]) -> str:
    """The receptive field of the scores: the last layer's with parameters, or of the last one at all."""
    scores = [cost for cost in costs if cost.parameters] or costs
    return side_text(scores[-1].field)


def side_text(field: float) -> str:
    """A receptive field's side in words."""
    return "whole image" if math.isinf(field) else f"{field:g} x {field:g}"


def layer_rows(costs: Sequence[LayerCost]) -> list[list[str]]:
    """A table of the layers, its header first."""
    rows = [["layer", "type", "top", "receptive field", "parameters", "GFLOP"]]
    for cost in costs:
        rows.append(
            [
                cost.name,
                cost.type,
                " x ".join(map(str, cost.shape)),
                side_text(cost.field),
                f"{cost.parameters:,}" if cost.parameters else "",
                f"{cost.operations / 1e9:.2f}" if cost.operations else "",
            ]
        )
    return rows


def summary_row(name: str, train: bool, shape: tuple[int, ...], found: Measured) -> list[str]:
    """A line of the summary."""
    return [
        name,
        "training step" if train else "forward",
        f"{shape[0]} x {shape[2]} x {shape[3]}",
        f"{sum(cost.parameters for cost in found.costs):,}",
        f"{sum(cost.operations for cost in found.costs) / 1e9:.1f}",
        field_text(found.costs),
        f"{found.mebibytes:,.0f}",
        f"{found.milliseconds:,.0f}",
    ]


def main(arguments: argparse.Namespace) -> None:
    """Measure, and print the tables.

    Raises:
        UserError: a file that is no network, or one that Caffe refuses.
    """
    networks = {model: read_network(model) for model in arguments.model}
    tasks = [(model, batch) for model in networks for batch in arguments.batch]
    rows = [list(SUMMARY)]
    found = None
    for model, batch in progress(tasks, total=len(tasks), description="measuring", unit="network"):
        network = networks[model]
        train = is_training(network)
        size = arguments.size or (training_size(network) if train else None) or DEFAULT_SIZE
        shape = (batch, 3, *size)
        try:
            (found,) = run_native(measure, text_format.MessageToString(network), train, shape, arguments.passes)
        except NativeCrash as crash:
            raise UserError(f"{model}: {crash}") from None
        rows.append(summary_row(network.name or str(model), train, shape, found))
    if found is not None and len(tasks) == 1:
        print("\n".join(aligned(layer_rows(found.costs))), end="\n\n")
    print("\n".join(aligned(rows)))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")


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
        "--passes", type=whole_number(1), default=2, metavar="N", help="passes of each, for the time (default 2)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the summary here as Markdown, too")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
