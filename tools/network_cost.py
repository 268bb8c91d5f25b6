#!/usr/bin/env python3
"""Tell what networks cost and see: parameters, operations, receptive field, and memory and time measured."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.command_line import UserError, progress, run
from renet.data.dataset import write_atomically
from renet.conversion.prepare import whole_number
from prototxt.generate import crop_size
from renet.runtime.worker_process import NativeCrash, run_native
from renet.networks.analysis import LayerCost, Measured, compared_shapes, losses, measure, without_data
from renet.networks.net_state import layers_in, state_of
from renet.runtime.prototxt import read_network
from renet.common.text_table import aligned, markdown

DEFAULT_SIZE = (375, 500)

EXAMPLES = """examples:
  tools/network_cost.py --model prototxt/h_renet/voc2012/deploy.prototxt
  tools/network_cost.py --model prototxt/*/voc2012/train_val.prototxt --batch 1 10 --markdown costs.md

One network is told layer by layer. Of several, and of several batches, there is one line each: a training step (with
SGD's history) of a file that has a loss in phase TRAIN, a forward pass of any other. Memory is the most that the
process held beyond Caffe itself; images are noise, so no data is needed, and the values mean nothing."""

SUMMARY = (
    "network", "pass", "images", "parameters", "GFLOP forward", "receptive field", "memory MiB", "time ms"
)  # fmt: skip


def find_state(network: caffe_pb2.NetParameter, stages: Sequence[str], model: Path) -> caffe_pb2.NetState:
    """In which state the network is measured: phase TRAIN where it then has a loss to learn from, else TEST.

    Args:
        network: as read.
        stages: those that a solver or a program would add.
        model: its file.

    Raises:
        UserError: in that state a layer lacks what it reads; names the stages that there are.
    """
    more = caffe_pb2.NetState(stage=stages)
    state = state_of(network, caffe.TRAIN, more)
    if not losses(layers_in(network, state)):
        state = state_of(network, caffe.TEST, more)
    made: set[str] = set()
    for layer in layers_in(network, state):
        lost = [name for name in layer.bottom if name not in made]
        known = {stage for each in network.layer for rule in each.include for stage in rule.stage} - {*state.stage}
        if lost and known:
            raise UserError(
                f"{model}: layer {layer.name!r} reads {lost[0]!r}, which no layer makes in this state; --stage adds to "
                f"it one of {', '.join(sorted(known))}"
            )
        made.update(layer.top)
    return state


def training_size(network: caffe_pb2.NetParameter, state: caffe_pb2.NetState) -> tuple[int, int] | None:
    """Height and width of a training's images as a data layer crops or resizes them; None where none says it."""
    for layer in layers_in(network, state):
        crop, whole = layer.segmentation_data_param, layer.image_data_param
        if crop.crop_height and crop.crop_width:
            return crop.crop_height, crop.crop_width
        if layer.transform_param.crop_size:
            return layer.transform_param.crop_size, layer.transform_param.crop_size
        if whole.new_height and whole.new_width:
            return whole.new_height, whole.new_width
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


def what_is_compared(
    network: caffe_pb2.NetParameter, state: caffe_pb2.NetState, size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the blobs that a training compares with labels, for images of this size.

    Raises:
        NativeCrash: Caffe refuses the network.
    """
    blank = without_data(network, state, (1, 3, *size))
    (compared,) = run_native(compared_shapes, text_format.MessageToString(blank))
    return compared


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
