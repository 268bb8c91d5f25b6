"""What of a training does not go on bit for bit after a resumption: layers whose state no snapshot holds."""

from __future__ import annotations

from collections.abc import Iterable

from caffe.proto import caffe_pb2

_ALWAYS = {
    "HDF5Data": "reads from its first file again",
    "WindowData": "starts with its first windows again",
    "Python": "what it remembers is in no snapshot",
    "LSTM": "the state carried from batch to batch starts at zero",
    "RNN": "the state carried from batch to batch starts at zero",
}
_CONSTANT = "constant"


def starts_again(layers: Iterable[caffe_pb2.LayerParameter]) -> list[str]:
    """The layers that do not go on where they were, each in words; docs/training.md has the same table.

    SegmentationData, ImageSegData, DenseImageData, Dropout and Caffe's Data and ImageData do: what they draw and read
    follows from the seed and the number of samples done, which Solver::Restore tells every layer.

    Args:
        layers: those that are trained.
    """
    reasons = ((layer, _reason(layer)) for layer in layers)
    return [f"{layer.name} ({layer.type}: {reason})" for layer, reason in reasons if reason is not None]


def _reason(layer: caffe_pb2.LayerParameter) -> str | None:
    fillers = layer.dummy_data_param.data_filler
    if layer.type == "DummyData" and any(filler.type != _CONSTANT for filler in fillers):
        return "draws its values anew"
    if layer.type == "Pooling" and layer.pooling_param.pool == caffe_pb2.PoolingParameter.STOCHASTIC:
        return "draws anew"
    return _ALWAYS.get(layer.type)
