"""Reader of a pickle that holds NumPy arrays and nothing else; nothing that it names is run."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from renet.common.errors import UserError, first_line

ArrayTree = dict[str, "np.ndarray | ArrayTree"]

_TYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
_BYTE_ORDERS = ("<", ">", "=", "|")


class _Type:
    """Stands for numpy.dtype: takes what a pickle says of one and lets only floating-point numbers through."""

    def __init__(self, name: object, *_flags: object) -> None:
        if name not in _TYPES:
            raise pickle.UnpicklingError(f"an array of type {name!r}, where only floating-point numbers may be")
        self.value = np.dtype(_TYPES[name])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in _BYTE_ORDERS:
            raise pickle.UnpicklingError(f"an array of byte order {state[1]!r}")
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray: an array is made of the pickle's own bytes, so it is never larger than these."""

    def __init__(self, *_ignored: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, columns_first, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array that is not made of bytes")
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}")
        if math.prod(shape) * kind.value.itemsize != len(content):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} bytes")
        self.value = np.frombuffer(content, kind.value).reshape(shape, order="F" if columns_first else "C")


_ADMITTED = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,  # as NumPy 1 writes it
    ("numpy._core.multiarray", "_reconstruct"): _Array,  # as NumPy 2 does
}


class _Unpickler(pickle.Unpickler):
    """Knows no name of any module: those of arrays lead to the stand-ins above."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, and only NumPy arrays may be in there; nothing was run"
            ) from None


def _check_sizes(content: bytes) -> None:
    """Look whether every part of the pickle is in there as long as it says to be, before any memory is asked for: a few
    bytes may name a place in the unpickler's list of parts that takes gigabytes.

    Raises:
        ValueError: it is not, or the pickle is cut.
    """
    for opcode, argument, _position in pickletools.genops(content):
        if "PUT" in opcode.name and argument > len(content):
            raise pickle.UnpicklingError(f"it numbers a part of its {len(content)} bytes {argument}")
        if opcode.name == "BYTEARRAY8":
            raise pickle.UnpicklingError("it holds bytes that may change")


def read_array_pickle(content: bytes, where: str) -> ArrayTree:
    """Read the arrays of a pickle: dictionaries, one in another, whose keys are text and whose ends are arrays of
    floats.

    Nothing that the pickle names is imported or called, NumPy's functions included.

    Args:
        content: the pickle.
        where: its name, for messages.

    Raises:
        UserError: no whole pickle, or one that names or holds anything else; says what.
    """
    try:
        _check_sizes(content)
        return _tree(_Unpickler(io.BytesIO(content)).load(), set())
    except Exception as error:  # a broken pickle ends in errors of many kinds
        raise UserError(f"{where}: not a pickle of arrays ({first_line(error)})") from None


def _tree(loaded: object, seen: set[int]) -> ArrayTree:
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError(f"it holds {type(loaded).__name__}, not dictionaries of arrays")
    if id(loaded) in seen:  # with itself or with others; twice at each of thirty depths would be a thousand million
        raise pickle.UnpicklingError("it holds one dictionary in several places")
    seen.add(id(loaded))
    tree: ArrayTree = {}
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise pickle.UnpicklingError(f"it holds the key {key!r}, which is no text")
        if isinstance(value, _Array) and value.value is not None:
            tree[key] = value.value
        else:
            tree[key] = _tree(value, seen)
    return tree
