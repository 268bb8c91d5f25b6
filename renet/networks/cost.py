"""What networks cost and see, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.networks.analysis import LayerCost, Measured, compared_shapes, losses, without_data
from renet.networks.net_state import layers_in, state_of
from renet.runtime.worker_process import run_native

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
