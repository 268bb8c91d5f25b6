"""Layer types that have an ONNX form, and what serves for those that have none."""

from __future__ import annotations

from renet.exchange import (
    convolution_layers,
    neuron_layers,
    normalization_layers,
    pooling_layers,
    recurrent_layers,
    shape_layers,
    unpooling_layers,
)
from renet.exchange.graph import Converter

CONVERTERS: dict[str, Converter] = {
    **neuron_layers.CONVERTERS,
    **convolution_layers.CONVERTERS,
    **pooling_layers.CONVERTERS,
    **unpooling_layers.CONVERTERS,
    **shape_layers.CONVERTERS,
    **normalization_layers.CONVERTERS,
    **recurrent_layers.CONVERTERS,
    "Silence": lambda graph, layer: [],
}
_INSTEAD = {
    **dict.fromkeys(
        ("DenseCRF", "MultiStageMeanfield"),
        "tools/predict.py --crf applies one to the probabilities of the exported network",
    ),
    "Python": "its code would have to travel, too",
    **dict.fromkeys(("LSTM", "RNN"), "ReNetLSTM, ReNetGRU and ReNetIRNN can be exported"),
}
_OF_TRAINING = "it belongs to a training; export the deploy network"


def instead_of(kind: str) -> str:
    """Say what serves instead of a layer type without an ONNX form."""
    if kind.endswith(("Loss", "Data")) or kind in ("Accuracy", "HDF5Output"):
        return _OF_TRAINING
    return _INSTEAD.get(kind, f"known are {', '.join(sorted(CONVERTERS))}")
