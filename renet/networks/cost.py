"""Costs of networks as rows of a table: parameters, operations, receptive field, memory and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.common.text_layout import shape_text
from renet.networks.analysis import LayerCost, Measured, compared_shapes, losses, measure, without_data
from renet.networks.net_state import layers_in, state_of
from renet.runtime.prototxt import read_network
from renet.runtime.worker_process import NativeCrash, run_native

DEFAULT_SIZE = (375, 500)
SUMMARY = (
    "network", "pass", "images", "parameters", "GFLOP forward", "receptive field", "memory MiB", "time ms"
)  # fmt: skip


def find_state(network: caffe_pb2.NetParameter, stages: Sequence[str], model: Path) -> caffe_pb2.NetState:
    """Choose the state in which a network is measured: phase TRAIN where it then has a loss to learn from, else TEST.

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
    """Find height and width of a training's images as a data layer crops or resizes them; None where none says it."""
    for layer in layers_in(network, state):
        for crop in (layer.segmentation_data_param, layer.dense_image_data_param):
            if crop.crop_height and crop.crop_width:
                return crop.crop_height, crop.crop_width
        if layer.transform_param.crop_size:
            return layer.transform_param.crop_size, layer.transform_param.crop_size
        for whole in (layer.image_data_param, layer.dense_image_data_param):
            if whole.new_height and whole.new_width:
                return whole.new_height, whole.new_width
    return None


def field_text(costs: Sequence[LayerCost]) -> str:
    """Write the receptive field of the scores: the last layer's with parameters, or of the last one at all."""
    scores = [cost for cost in costs if cost.parameters] or costs
    return side_text(scores[-1].field)


def side_text(field: float) -> str:
    """Write a receptive field's side."""
    return "whole image" if math.isinf(field) else f"{field:g} x {field:g}"


def layer_rows(costs: Sequence[LayerCost]) -> list[list[str]]:
    """Lay out a table of the layers, its header first."""
    rows = [["layer", "type", "top", "receptive field", "parameters", "GFLOP"]]
    for cost in costs:
        rows.append(
            [
                cost.name,
                cost.type,
                shape_text(cost.shape),
                side_text(cost.field),
                f"{cost.parameters:,}" if cost.parameters else "",
                f"{cost.operations / 1e9:.2f}" if cost.operations else "",
            ]
        )
    return rows


def shapes_beside_labels(
    network: caffe_pb2.NetParameter, state: caffe_pb2.NetState, size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Find the shapes of the blobs that a training compares with labels, for images of this size.

    Raises:
        NativeCrash: Caffe refuses the network.
    """
    blank = without_data(network, state, (1, 3, *size))
    (compared,) = run_native(compared_shapes, text_format.MessageToString(blank))
    return compared


@dataclass(frozen=True)
class NetworkCost:
    """Costs of one network with one batch.

    Attributes:
        name: the network's, or its file's.
        train: a training step; else a forward pass.
        shape: N x 3 x H x W of the images.
        measured: what a pass took.
    """

    name: str
    train: bool
    shape: tuple[int, int, int, int]
    measured: Measured

    def row(self) -> list[str]:
        """Write a row below `SUMMARY`."""
        costs = self.measured.costs
        return [
            self.name,
            "training step" if self.train else "forward",
            f"{self.shape[0]} x {self.shape[2]} x {self.shape[3]}",
            f"{sum(cost.parameters for cost in costs):,}",
            f"{sum(cost.operations for cost in costs) / 1e9:.1f}",
            field_text(costs),
            f"{self.measured.mebibytes:,.0f}",
            f"{self.measured.milliseconds:,.0f}",
        ]


def network_costs(
    models: Sequence[Path],
    batches: Sequence[int],
    size: tuple[int, int] | None = None,
    stages: Sequence[str] = (),
    passes: int = 2,
) -> list[NetworkCost]:
    """Measure each network with each batch, in a process of its own.

    Args:
        models: deploy or train_val prototxts.
        batches: images at once.
        size: of the images, height and width; None: a train_val's crops, else `DEFAULT_SIZE`.
        stages: see `find_state`.
        passes: see `measure`.

    Raises:
        UserError: a file that is no network, or one that Caffe refuses.
    """
    networks = {model: read_network(model) for model in models}
    states = {model: find_state(network, stages, model) for model, network in networks.items()}
    tasks = [(model, batch) for model in networks for batch in batches]
    found: list[NetworkCost] = []
    compared: dict[Path, dict[str, tuple[int, ...]]] = {}
    for model, batch in progress(tasks, total=len(tasks), description="measuring", unit="network"):
        network, state = networks[model], states[model]
        train = state.phase == caffe.TRAIN
        image_size = size or (training_size(network, state) if train else None) or DEFAULT_SIZE
        shape = (batch, 3, *image_size)
        try:
            if train and model not in compared:
                compared[model] = shapes_beside_labels(network, state, image_size)
            fed = text_format.MessageToString(without_data(network, state, shape, compared.get(model)))
            (measured,) = run_native(measure, fed, train, passes)
        except NativeCrash as crash:
            raise UserError(f"{model}: {crash}") from None
        found.append(NetworkCost(network.name or str(model), train, shape, measured))
    return found
