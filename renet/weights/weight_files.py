"""Weight files: what one holds, whether that fits a network, and copying it there.

One checker for a .caffemodel of any age and for Caffe's HDF5 files, since Caffe ends the process where something does
not fit, leaves layers that a file lacks as they are, and copies what is no number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.common.input_files import read_bytes
from renet.common.text_layout import listed, shape_text
from renet.weights.checksums import check_checksum

_LEGACY_FIELDS = ("num", "channels", "height", "width")
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LFS = b"version https://git-lfs.github.com/"
_DEEPEST_HDF5 = 8  # a layer's name may have slashes in it
_HDF5_LAYERS = "data"  # the group in which Caffe keeps a group for each layer


@dataclass(frozen=True)
class StoredBlob:
    """Blob as a file holds it.

    Attributes:
        shape: its dimensions.
        whole: whether it has as many values as these say.
        padded: whether the shape is the four numbers of before 2015, filled up with ones in front.
    """

    shape: tuple[int, ...]
    whole: bool = True
    padded: bool = False

    def fits(self, wanted: tuple[int, ...]) -> bool:
        """Tell whether Caffe copies it into a blob of this shape."""
        if self.padded:
            return len(wanted) <= 4 and self.shape == (1,) * (4 - len(wanted)) + wanted
        return self.shape == wanted


# Of one layer, by their numbers: an HDF5 file leaves out those that the layer shares with another one.
Blobs = Mapping[int, StoredBlob]


@dataclass(frozen=True)
class Filled:
    """Layers of a network that one file filled.

    Attributes:
        file: the weights.
        layers: names of the layers that it filled, in the network's order.
        unused: names of the file's layers with weights that the network does not have.
    """

    file: Path
    layers: list[str]
    unused: list[str]


def check_file(file: Path) -> None:
    """Make sure that there is a file to read.

    Raises:
        UserError: no such file, or an empty one.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights")
    if not file.stat().st_size:
        raise UserError(f"{file}: empty; weights are a .caffemodel or Caffe's HDF5 file")
    with open(file, "rb") as stream:
        check_is_no_pointer(stream.read(len(_LFS)), file)


def check_is_no_pointer(content: bytes, file: Path) -> None:
    """Make sure that a file is not what Git LFS leaves in the place of a large one.

    Raises:
        UserError: it is; says how to get the file.
    """
    if content.startswith(_LFS):
        raise UserError(f"{file}: a pointer of Git LFS in the place of the file; `git lfs pull` gets it")


def load(network: Any, file: Path, every_layer: bool = False, advice: str = "") -> Filled:
    """Copy a file's weights into the layers of the same names.

    Args:
        network: a caffe.Net.
        file: a .caffemodel of any age, or Caffe's HDF5 file.
        every_layer: refuse a file that lacks a layer of the network.
        advice: what else could be done then, told in brackets.

    Raises:
        UserError: the file is missing or broken, fills no layer or not all that it has to, a layer has another shape
            than the network's, or a value is infinite or no number. Names the file and the layer.
    """
    stored = read_layers(file)
    present = set(network._layer_names)
    hint = (
        "it belongs to another network"
        if every_layer
        else "a layer that is to start from scratch needs another name (generate.py --weights-from gives it one)"
    )
    for name, blobs in stored:
        if name in present:
            _check_layer(network, name, blobs, file, hint)
    # By their memory, since layers may share weights.
    given = {
        _address(network.params[name][number]) for name, blobs in stored if name in network.params for number in blobs
    }
    filled = [name for name, blobs in network.params.items() if given.issuperset(map(_address, blobs))]
    held = list(dict.fromkeys(name for name, blobs in stored if blobs))
    if not filled:
        has = listed(held) or "no layer with weights"
        raise UserError(f"{file}: fills no layer: it has {has}, the network has {listed(list(network.params))}")
    missing = [name for name in network.params if name not in filled]
    if missing and every_layer:
        raise UserError(
            f"{file}: no weights for the layer {missing[0]!r} ({len(missing)} of {len(network.params)} layers are "
            "missing); it belongs to another network" + (f" ({advice})" if advice else "")
        )
    network.copy_from(str(file))
    for name in filled:
        if not all(np.isfinite(blob.data).all() for blob in network.params[name]):
            raise UserError(f"{file}: the layer {name!r} has values that are infinite or no numbers")
    return Filled(file, filled, [name for name in held if name not in present])


def read_layers(file: Path) -> list[tuple[str, Blobs]]:
    """Read names and blobs of a file's layers, in all formats that Caffe reads.

    Raises:
        UserError: no such file, not weights, or only a part of them, or another file than its noted SHA-256 says; names
            the file.
    """
    check_file(file)
    check_checksum(file)
    with open(file, "rb") as stream:
        hdf5 = stream.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    return _read_hdf5(file) if hdf5 else _read_model(file)


def blob_shape(blob: Any) -> tuple[int, ...]:
    """Read a BlobProto's shape, in the present or the old way (num, channels, height, width)."""
    return tuple(getattr(blob, field) for field in _LEGACY_FIELDS) if _is_legacy(blob) else tuple(blob.shape.dim)


def _is_legacy(blob: Any) -> bool:
    return any(map(blob.HasField, _LEGACY_FIELDS))


def _read_model(file: Path) -> list[tuple[str, Blobs]]:
    from caffe.proto import caffe_pb2
    from google.protobuf.message import DecodeError

    try:
        network = caffe_pb2.NetParameter.FromString(read_bytes(file))
    except DecodeError:
        raise UserError(f"{file}: not a Caffe model, or only a part of one") from None
    # `layers` is how files of before 2015 hold theirs, and `layers { layer }` how the oldest do.
    oldest = [layer.layer if layer.HasField("layer") else layer for layer in network.layers]
    found = [(layer.name, dict(enumerate(map(_stored, layer.blobs)))) for layer in [*network.layer, *oldest]]
    if not found:
        raise UserError(f"{file}: not a Caffe model, or only a part of one: it has no layers")
    return found


def _stored(blob: Any) -> StoredBlob:
    shape = blob_shape(blob)
    return StoredBlob(shape, len(blob.double_data or blob.data) == math.prod(shape), _is_legacy(blob))


def _read_hdf5(file: Path) -> list[tuple[str, Blobs]]:
    import h5py  # most programs do without

    try:
        with h5py.File(file) as content:
            _check_is_alone(content, file)
            layers = content.get(_HDF5_LAYERS)
            if not isinstance(layers, h5py.Group) or not all(isinstance(one, h5py.Group) for one in layers.values()):
                raise UserError(f"{file}: HDF5, but not of Caffe's weights: no group {_HDF5_LAYERS!r} of layers")
            return [
                (name, dict(_stored_hdf5(number, blob, name, file) for number, blob in layer.items()))
                for name, layer in layers.items()
            ]
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"{file}: not HDF5 that can be read, or only a part of it ({error})") from None


def _check_is_alone(group: Any, file: Path, where: str = "") -> None:
    """Make sure that an HDF5 file holds its values itself: Caffe would follow it into any other file.

    Raises:
        UserError: a part of it leads elsewhere; names it.
    """
    import h5py

    for name in group:
        place = f"{where}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{file}: {place} is a link; weights that lie in the file itself are read")
        inside = group[name]
        if isinstance(inside, h5py.Group):
            if place.count("/") > _DEEPEST_HDF5:
                raise UserError(f"{file}: {place} lies too deep for Caffe's weights")
            _check_is_alone(inside, file, place)
        elif isinstance(inside, h5py.Dataset) and (inside.external or inside.is_virtual):
            raise UserError(
                f"{file}: {place} has its values in another file; weights that lie in the file itself are read"
            )


def _stored_hdf5(number: str, blob: Any, layer: str, file: Path) -> tuple[int, StoredBlob]:
    # a layer with a slash in its name is a group in a group
    if not number.isdecimal() or not hasattr(blob, "shape"):
        raise UserError(f"{file}: HDF5, but not of Caffe's weights: the layer {layer!r} has a blob {number!r}")
    return int(number), StoredBlob(blob.shape)


def _check_layer(network: Any, name: str, blobs: Blobs, file: Path, hint: str) -> None:
    """Compare a stored layer with the network's as Caffe does.

    Raises:
        UserError: they differ, or the stored values are not whole.
    """
    own = list(network.params.get(name, ()))
    wanted = {number: tuple(blob.shape) for number, blob in enumerate(own)}
    # An HDF5 file leaves out the blobs that another layer owns.
    all_own = Counter(_address(blob) for others in network.params.values() for blob in others)
    expected = {number for number, blob in enumerate(own) if number in blobs or all_own[_address(blob)] == 1}
    if set(blobs) != expected or not all(blob.fits(wanted[number]) for number, blob in blobs.items()):
        there = _shapes([blobs[number].shape for number in sorted(blobs)])
        here = _shapes(list(wanted.values()))
        raise UserError(f"{file}: the layer {name!r} has {there} there and {here} in the network; {hint}")
    if not all(blob.whole for blob in blobs.values()):
        raise UserError(f"{file}: only a part of a model: the layer {name!r} lacks values")


def _address(blob: Any) -> int:
    return blob.data.ctypes.data


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " and ".join(shape_text(shape) or "1" for shape in shapes) or "no weights"
