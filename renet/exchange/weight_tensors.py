"""Weights as named tensors, for programs other than Caffe: NumPy's .npz and .safetensors, out and in.

The blob N of a layer is the tensor `layer.N`. What a .caffemodel says beside that (types of layers, and which shapes
are the four numbers of before 2015) goes along as metadata, so that the way back gives the same content.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.archives import load_npz
from renet.common.errors import UserError, first_line
from renet.common.files import write_atomically
from renet.common.input_files import read_bytes
from renet.exchange.name_table import apply_table, read_table, split_name
from renet.weights.weight_files import blob_shape, check_file, read_layers

CAFFEMODEL, NPZ, SAFETENSORS = ".caffemodel", ".npz", ".safetensors"
HDF5 = (".h5", ".hdf5")
READ = (CAFFEMODEL, *HDF5, NPZ, SAFETENSORS)
WRITTEN = (CAFFEMODEL, NPZ, SAFETENSORS)
_METADATA = "metadata"  # the array of an .npz that holds it as JSON; no tensor's name, as it has no number
_LEGACY_AXES = 4
_MOST_BYTES = 2**33  # of an .npz: what Caffe itself can hold is a quarter of it


@dataclass(frozen=True)
class NamedWeights:
    """Weights of a network.

    Attributes:
        tensors: by name, `layer.N`, float32, in the order of the layers.
        types: of layers, by name, where they are known.
        legacy: names of the tensors whose shapes are the four numbers of before 2015, filled up with ones in front.
    """

    tensors: Mapping[str, np.ndarray]
    types: Mapping[str, str] = field(default_factory=dict)
    legacy: tuple[str, ...] = ()

    def layers(self) -> dict[str, list[str]]:
        """Group the tensors' names by layer, in the order of the blobs."""
        found: dict[str, dict[int, str]] = {}
        for name in self.tensors:
            layer, number = split_name(name)
            found.setdefault(layer, {})[number] = name
        return {layer: [blobs[number] for number in sorted(blobs)] for layer, blobs in found.items()}

    def arrays(self) -> dict[str, list[np.ndarray]]:
        """Group the tensors by layer, in the order of the blobs."""
        return {layer: [self.tensors[name] for name in names] for layer, names in self.layers().items()}


def convert_weights(source: Path, out: Path, names: Path | None = None) -> NamedWeights:
    """Write weights in another format; both formats are told by the files' endings.

    Args:
        source: the weights.
        out: the file to write.
        names: a table of what the tensors of another program become (see `name_table`); None: they are named as here.

    Returns:
        What was written.

    Raises:
        UserError: an ending is unknown, or the source is missing, damaged, or no weights of a network; names the file.
    """
    if out.suffix not in WRITTEN:
        raise UserError(f"{out}: weights are written as {', '.join(WRITTEN)}, told by the name's ending")
    if not out.parent.is_dir():
        raise UserError(f"{out}: there is no folder {out.parent}")
    weights = read_weights(source) if names is None else read_foreign(source, names)
    writers: dict[str, Callable[[NamedWeights], bytes]] = {
        CAFFEMODEL: _as_caffemodel,
        NPZ: _as_npz,
        SAFETENSORS: _as_safetensors,
    }
    write_atomically(out, writers[out.suffix](weights))
    return weights


def read_weights(file: Path) -> NamedWeights:
    """Read weights of any of the formats.

    Raises:
        UserError: as `convert_weights`.
    """
    if file.suffix not in READ:
        raise UserError(f"{file}: weights are read as {', '.join(READ)}, told by the name's ending")
    check_file(file)
    if file.suffix == CAFFEMODEL:
        return _of_caffemodel(file)
    if file.suffix in HDF5:
        return _of_hdf5(file)
    tensors, metadata = _of_npz(file) if file.suffix == NPZ else _of_safetensors(file)
    return _numbered(_described(file, tensors, metadata), file)


def read_foreign(file: Path, names: Path) -> NamedWeights:
    """Read what a table says of the tensors of another program, or of another network of Caffe's.

    Raises:
        UserError: as `convert_weights`; the table is damaged, or a tensor is missing or has not the shape that the
            table needs; names the file.
    """
    if file.suffix in (NPZ, SAFETENSORS):
        check_file(file)
        tensors, _ = _of_npz(file) if file.suffix == NPZ else _of_safetensors(file)
    else:
        tensors = read_weights(file).tensors
    return _numbered(NamedWeights(apply_table(read_table(names), tensors, file)), names)


def _numbered(weights: NamedWeights, file: Path) -> NamedWeights:
    for layer, names in weights.layers().items():
        if [split_name(name)[1] for name in names] != list(range(len(names))):
            raise UserError(f"{file}: the layer {layer!r} has {', '.join(names)}; its tensors are numbered from 0")
    return weights


def _described(file: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> NamedWeights:
    """The weights of a file that is not Caffe's."""
    if not tensors:
        raise UserError(f"{file}: holds no tensors")
    try:
        for name, tensor in tensors.items():
            split_name(name)
            if not np.issubdtype(tensor.dtype, np.floating):
                raise ValueError(f"{name!r} is {tensor.dtype}, not of floating point")
        types = json.loads(metadata.get("types", "{}"))
        order = {layer: place for place, layer in enumerate(types)}
        names = sorted(tensors, key=lambda name: order.get(split_name(name)[0], len(order)))
        legacy = tuple(name for name in json.loads(metadata.get("legacy", "[]")) if tensors[name].ndim == _LEGACY_AXES)
        return NamedWeights({name: tensors[name].astype(np.float32) for name in names}, types, legacy)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: not a network's weights by layer and number, such as conv1.0: {error}") from None


def _metadata(weights: NamedWeights) -> dict[str, str]:
    return {"format": "caffe", "types": json.dumps(weights.types), "legacy": json.dumps(weights.legacy)}


# ---------------------------------------------------------------------------------------------------- Caffe's formats


def _of_caffemodel(file: Path) -> NamedWeights:
    stored = dict(read_layers(file))  # tells what is no model, or only a part of one
    from caffe.proto import caffe_pb2

    network = caffe_pb2.NetParameter.FromString(read_bytes(file))
    oldest = [layer.layer if layer.HasField("layer") else layer for layer in network.layers]
    tensors, types, legacy = {}, {}, []
    for layer in [*network.layer, *oldest]:
        if not layer.blobs:
            continue
        # The types of files of before 2015 are numbers
        types[layer.name] = layer.type if isinstance(layer.type, str) else ""
        for number, blob in enumerate(layer.blobs):
            name = f"{layer.name}.{number}"
            if not stored[layer.name][number].whole:
                raise UserError(f"{file}: only a part of a model: the layer {layer.name!r} lacks values")
            values = np.array(blob.double_data or blob.data, np.float32)
            tensors[name] = values.reshape(blob_shape(blob))
            if stored[layer.name][number].padded:
                legacy.append(name)
    if not tensors:
        raise UserError(f"{file}: no layer has weights")
    return NamedWeights(tensors, types, tuple(legacy))


def _of_hdf5(file: Path) -> NamedWeights:
    import h5py

    layers = read_layers(file)
    with h5py.File(file) as content:
        tensors = {
            f"{name}.{number}": np.array(content[f"data/{name}/{number}"], np.float32)
            for name, blobs in layers
            for number in sorted(blobs)
        }
    if not tensors:
        raise UserError(f"{file}: no layer has weights")
    return NamedWeights(tensors)


def _as_caffemodel(weights: NamedWeights) -> bytes:
    from caffe.proto import caffe_pb2

    network = caffe_pb2.NetParameter()
    for layer, names in weights.layers().items():
        made = network.layer.add(name=layer, type=weights.types.get(layer, ""))
        for name in names:
            blob, tensor = made.blobs.add(), weights.tensors[name]
            if name in weights.legacy:
                blob.num, blob.channels, blob.height, blob.width = tensor.shape
            else:
                blob.shape.dim.extend(tensor.shape)
            blob.data.extend(tensor.ravel())
    return network.SerializeToString()


# --------------------------------------------------------------------------------------------------- the other formats


def _of_npz(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    content: dict[str, Any] = load_npz(file, _MOST_BYTES, what="NumPy's .npz of arrays")
    try:
        metadata = json.loads(str(content.pop(_METADATA, "{}")))
        if not isinstance(metadata, dict):
            raise ValueError(f"{_METADATA} is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not NumPy's .npz of arrays, or only a part of it ({first_line(error)})") from None
    return content, metadata


def _of_safetensors(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as content:
            return {name: content.get_tensor(name) for name in content.keys()}, content.metadata() or {}  # noqa: SIM118
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{file}: not safetensors that can be read, or only a part ({first_line(error)})") from None


def _as_npz(weights: NamedWeights) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **weights.tensors, **{_METADATA: np.array(json.dumps(_metadata(weights)))})
    return stream.getvalue()


def _as_safetensors(weights: NamedWeights) -> bytes:
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(tensor) for name, tensor in weights.tensors.items()}, _metadata(weights))
