"""An ONNX file where a trained network is asked for."""

from __future__ import annotations

from pathlib import Path

from renet.common.errors import UserError
from renet.exchange.onnx_metadata import OnnxMetadata
from renet.networks import model_folder
from renet.networks.model_folder import TrainedNetwork

SUFFIX = ".onnx"


def find_network(model: Path, weights: Path | None) -> TrainedNetwork:
    """Find a network as people name it: an ONNX file, which is its own deploy network and weights, or what
    `renet.networks.model_folder.find_network` finds.

    Raises:
        UserError: a file is missing or damaged, or an ONNX file is given weights.
    """
    if model.suffix != SUFFIX:
        return model_folder.find_network(model, weights)
    if weights is not None:
        raise UserError(f"{model}: an ONNX file has its own weights; leave {weights} out")
    return TrainedNetwork(model, model, read_metadata(model).dataset)


def read_metadata(file: Path) -> OnnxMetadata:
    """Read what an ONNX file says of its network.

    Raises:
        UserError: no such file, or no ONNX; names it.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        model = onnx.load(file, load_external_data=False)
    except DecodeError:
        raise UserError(f"{file}: not ONNX, or only a part of it") from None
    return OnnxMetadata.read({each.key: each.value for each in model.metadata_props}, file)
