"""Weights that a training starts from: which layers they fill, and what does not fit, told before Caffe would abort."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from data_prep.command_line import UserError

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LEGACY_FIELDS = ("num", "channels", "height", "width")
_MOST_NAMES = 8


@dataclass(frozen=True)
class Filled:
    """What one file did to a network.

    Attributes:
        file: the weights.
        layers: names of the layers that it filled, in the network's order.
        unused: names of the file's layers with weights that the network does not have; None where that is unknown.
    """

    file: Path
    layers: list[str]
    unused: list[str] | None

    def __str__(self) -> str:
        text = f"{_layers(self.layers)} filled from {self.file}: {_span(self.layers)}"
        if self.unused is None:
            return text
        return f"{text}; {len(self.unused)} in the file unused{_after_colon(_listed(self.unused))}"


def split_names(weights: Iterable[str]) -> list[str]:
    """The files that a solver's `weights` fields name; like Caffe, each may hold several between commas."""
    return [name.strip() for field in weights for name in field.split(",")]


def check_file(file: Path) -> None:
    """Make sure that there is something to read.

    Raises:
        UserError: no such file, or an empty one.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights")
    if not file.stat().st_size:
        raise UserError(f"{file}: empty; weights are a .caffemodel or Caffe's HDF5 file")


def fill(network: caffe.Net, files: Sequence[Path]) -> list[Filled]:
    """Copy the weights of the files into the layers of the same names, one file after the other.

    An HDF5 file is left to Caffe, which ends the process where something in it does not fit.

    Args:
        network: as Caffe built it.
        files: a .caffemodel of any age, or Caffe's HDF5 file.

    Raises:
        UserError: a file is missing or broken, fills no layer, or a layer of its has another shape than the network's.
    """
    return [_fill(network, file) for file in files]


def untouched(network: caffe.Net, filled: Iterable[Filled]) -> list[str]:
    """The layers with weights that no file filled, in the network's order."""
    done = {name for one in filled for name in one.layers}
    return [name for name in network.params if name not in done]


def report(network: caffe.Net, filled: Sequence[Filled]) -> list[str]:
    """What came from where, and what starts from scratch: one line each."""
    rest = untouched(network, filled)
    lines = [*map(str, filled), f"{_layers(rest)} from scratch{_after_colon(', '.join(rest))}"]
    return [f"weights: {line}" for line in lines]


def facts(network: caffe.Net, filled: Sequence[Filled]) -> dict[str, Any]:
    """The same for run.json."""
    return {
        "weights": [{"file": str(one.file), "filled": one.layers, "unused": one.unused} for one in filled],
        "layers_from_scratch": untouched(network, filled),
    }


def _fill(network: caffe.Net, file: Path) -> Filled:
    check_file(file)
    with open(file, "rb") as stream:
        hdf5 = stream.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    filled = _fill_from_hdf5(network, file) if hdf5 else _fill_from_model(network, file)
    if not filled.layers:
        names = "" if filled.unused is None else f"it has {_listed(filled.unused) or 'no layer with weights'}, "
        raise UserError(f"{file}: fills no layer: {names}the network has {_listed(list(network.params))}")
    return filled


def _fill_from_model(network: caffe.Net, file: Path) -> Filled:
    stored = _read_model(file)
    present = set(network._layer_names)
    for name, blobs in stored:
        if name in present:
            _check_layer(network, name, blobs, file)
    network.copy_from(str(file))
    names = {name for name, blobs in stored if blobs}
    return Filled(
        file,
        [name for name in network.params if name in names],
        sorted({name for name in names if name not in present}, key=[name for name, _ in stored].index),
    )


def _read_model(file: Path) -> list[tuple[str, Sequence[Any]]]:
    """Names and blobs of a model's layers, in all three formats that Caffe reads."""
    network = caffe_pb2.NetParameter()
    try:
        network.ParseFromString(file.read_bytes())
    except DecodeError:
        raise UserError(f"{file}: not a Caffe model, or only a part of one") from None
    oldest = [layer.layer if layer.HasField("layer") else layer for layer in network.layers]
    found = [(layer.name, layer.blobs) for layer in [*network.layer, *oldest]]
    if not found:
        raise UserError(f"{file}: not a Caffe model, or only a part of one: it has no layers")
    return found


def _check_layer(network: caffe.Net, name: str, blobs: Sequence[Any], file: Path) -> None:
    """Compare a stored layer with the network's as Caffe does.

    Raises:
        UserError: they differ, or the stored values are not whole.
    """
    wanted = [tuple(blob.shape) for blob in network.params.get(name, [])]
    shapes = [_shape(blob) for blob in blobs]
    if len(wanted) != len(shapes) or not all(map(_fits, blobs, shapes, wanted)):
        raise UserError(
            f"{file}: the layer {name!r} has {_shapes(shapes)} there and {_shapes(wanted)} in the network; a layer that"
            " is to start from scratch needs another name"
        )
    for blob, shape in zip(blobs, shapes):
        values = np.array(blob.double_data or blob.data)
        if values.size != np.prod(shape, dtype=np.int64):
            raise UserError(f"{file}: only a part of a model: the layer {name!r} lacks values")
        if not np.isfinite(values).all():
            raise UserError(f"{file}: the layer {name!r} has values that are infinite or no numbers")


def _shape(blob: Any) -> tuple[int, ...]:
    if any(map(blob.HasField, _LEGACY_FIELDS)):
        return tuple(getattr(blob, field) for field in _LEGACY_FIELDS)
    return tuple(blob.shape.dim)


def _fits(blob: Any, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if any(map(blob.HasField, _LEGACY_FIELDS)):  # four dimensions, filled up with ones in front
        return len(wanted) <= 4 and shape == (1,) * (4 - len(wanted)) + wanted
    return shape == wanted


def _fill_from_hdf5(network: caffe.Net, file: Path) -> Filled:
    """Let Caffe read the file, and see which layers are others afterwards."""
    before = _checksums(network)
    network.copy_from(str(file))
    after = _checksums(network)
    return Filled(file, [name for name in network.params if before[name] != after[name]], None)


def _checksums(network: caffe.Net) -> dict[str, list[int]]:
    return {name: [zlib.crc32(blob.data.tobytes()) for blob in blobs] for name, blobs in network.params.items()}


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(" x ".join(map(str, shape)) or "1" for shape in shapes) or "no weights"


def _span(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} ... {names[-1]}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _layers(names: Sequence[str]) -> str:
    return f"{len(names)} layer{'' if len(names) == 1 else 's'}"


def _after_colon(text: str) -> str:
    return f": {text}" if text else ""
