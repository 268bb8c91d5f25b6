"""Recurrent layer group of the paper's section 3, with LSTM, GRU or IRNN units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.spec import PRECISIONS, ZERO, Network, Options

VERTICAL = caffe_pb2.ReNetParameter.VERTICAL
HORIZONTAL = caffe_pb2.ReNetParameter.HORIZONTAL

UNIFORM = {"type": "uniform", "min": -0.2, "max": 0.2}
INITIALISATION = (
    "Weights start uniform in [-0.2, 0.2], biases at 0 (as in the authors' release, which also lifts the\n"
    "forget gate's bias)."
)


@dataclass(frozen=True)
class Unit:
    """Kind of recurrent unit.

    Attributes:
        layer: the type of the layer.
        gates: how many d x P input matrices (and d x d recurrent ones, and biases) a scan has.
        weight_filler: of the weights at the start.
        initialisation: says so, as a comment.
    """

    layer: str
    gates: int
    weight_filler: dict[str, Any]
    initialisation: str


LSTM = Unit("ReNetLSTM", 4, UNIFORM, INITIALISATION)
GRU = Unit("ReNetGRU", 3, UNIFORM, "Weights start uniform in [-0.2, 0.2], biases at 0.")
# With inputs of unit variance, uniform weights let the sums of an identity recurrence grow to hundreds.
IRNN = Unit(
    "ReNetIRNN",
    1,
    {"type": "gaussian", "std": 0.001},
    "The recurrent weights start as the identity. The others start small: what an identity adds up along a whole\n"
    "line must stay small at first, so not uniform in [-0.2, 0.2] as an LSTM's.",
)


def layer_parameters(channels: int, units: int, patch: int = 1, gates: int = LSTM.gates) -> int:
    """Count the parameters of one ReNet layer: in each of two scans W_x (d x P), W_h (d x d) and b (d) for each gate, P
    = channels * patch^2."""
    return 2 * gates * units * (channels * patch**2 + units + 1)


def group_parameters(channels: int, units: int, patch: int = 1, gates: int = LSTM.gates) -> int:
    """Count the parameters of a group: the vertical layer over patches, and the horizontal one over its 2 * units
    channels."""
    return layer_parameters(channels, units, patch, gates) + layer_parameters(2 * units, units, 1, gates)


def units_of_equal_size(channels: int, lstm_units: int, gates: int) -> int:
    """Choose the d that brings a group of units with so many gates closest to an LSTM group's count of parameters."""
    target = group_parameters(channels, lstm_units)
    return min(range(1, 4 * lstm_units + 1), key=lambda d: abs(group_parameters(channels, d, 1, gates) - target))


def renet_group(
    network: Network,
    number: int,
    units: int,
    patch: int = 1,
    *,
    options: Options,
    unit: Unit = LSTM,
    rate: float = 1,
    comment: str = "",
    sweep_comment: str = "",
) -> None:
    """Add a vertical ReNet layer, then a horizontal one, on top of the network's last layer.

    Args:
        network: to add to.
        number: of the group, from 1.
        units: d, hidden units of one scan; each layer's top has 2d channels.
        patch: side of the square patches that the vertical layer sees; the horizontal one sees single positions.
        options: of the network: what is added to the forget gates' biases at initialisation (LSTM), and the precision.
        unit: kind of recurrent unit.
        rate: learning rate multiplier of the weights; other than 1, the biases learn at twice it and do not decay.
        comment: above the vertical layer.
        sweep_comment: above the horizontal layer.
    """
    weights, bias = {"lr_mult": rate, "decay_mult": 1}, {"lr_mult": 2 * rate, "decay_mult": 0}
    for name, direction, side, text in (
        ("vertical", VERTICAL, patch, comment),
        ("horizontal", HORIZONTAL, 1, sweep_comment),
    ):
        layer = getattr(L, unit.layer)(
            network.last,
            # Of both scans: W_x, b, W_h
            **({} if rate == 1 else {"param": [weights, bias, weights] * 2}),
            renet_param={
                "num_output": units,
                "direction": direction,
                "patch_height": side,
                "patch_width": side,
                "weight_filler": unit.weight_filler,
                "bias_filler": ZERO,
                **({"forget_bias": options.forget_bias} if unit is LSTM else {}),
                **({"precision": _precision(options)} if options.precision != PRECISIONS[0] else {}),
            },
        )
        network.add(f"renet{number}_{name}", layer, text)


def _precision(options: Options) -> int:
    return caffe_pb2.ReNetParameter.Precision.Value(options.precision)
