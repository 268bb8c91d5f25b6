"""Tables that say which tensor of another program's file becomes which blob of a Caffe layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.common.text_files import read_text
from renet.common.text_layout import shape_text

TABLES = Path(__file__).with_name("tables")  # the shipped ones, NAME.txt
_LINE = re.compile(
    r"(?P<blob>\S+)\s*=\s*(?P<tensor>\S+)"
    r"(?:\s+as\s+(?P<shape>\d+(?:x\d+)*))?(?:\s+every\s+(?P<steps>[1-9]\d*(?:,[1-9]\d*)*))?"
    r"(?:\s+/\s+(?P<divisors>[\d.eE+-]+(?:,[\d.eE+-]+)*))?(?P<reversed>\s+reversed)?"
)


def split_name(name: str) -> tuple[str, int]:
    """Take a tensor's name apart: layer and number of the blob.

    Raises:
        ValueError: it is not `layer.N`.
    """
    layer, _, number = name.rpartition(".")
    if not layer or not number.isdecimal():
        raise ValueError(f"{name!r} is not LAYER.N")
    return layer, int(number)


@dataclass(frozen=True)
class Entry:
    """Line of a table.

    Attributes:
        blob: `LAYER.N`.
        tensor: the other program's name, or a number.
        shape: what the tensor is brought into first; None: as it is.
        steps: every so manieth is kept along each axis, from the first on; empty: all.
        divisors: of the inputs of a convolution, one for each channel, in the other program's order.
        is_reversed: the input channels are turned round then: from R, G, B to B, G, R.
    """

    blob: str
    tensor: str
    shape: tuple[int, ...] | None
    steps: tuple[int, ...]
    divisors: tuple[float, ...]
    is_reversed: bool

    def apply(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Make the blob.

        Raises:
            ValueError: there is no such tensor, or it has not the shape that the line needs.
        """
        if self.tensor not in tensors:
            try:
                return np.array([float(self.tensor)], np.float32)
            except ValueError:
                raise ValueError(f"there is no tensor {self.tensor!r}") from None
        value = tensors[self.tensor].astype(np.float32, copy=False)
        if self.shape is not None:
            value = value.reshape(self.shape)
        if self.steps:
            if value.ndim != len(self.steps):
                raise ValueError(f"{self.tensor!r} is {shape_text(value.shape)}, which has not {len(self.steps)} axes")
            value = value[tuple(slice(None, None, step) for step in self.steps)]
        if self.divisors:
            divisors = np.array(self.divisors, np.float32)
            if value.ndim < 2 or value.shape[1] != divisors.size:
                shape = shape_text(value.shape)
                raise ValueError(f"{self.tensor!r} is {shape}, which has not {divisors.size} input channels")
            value = value / divisors.reshape(-1, *(1,) * (value.ndim - 2))
        if self.is_reversed:
            if value.ndim < 2:
                raise ValueError(f"{self.tensor!r} is {shape_text(value.shape)}, which has no input channels")
            value = value[:, ::-1]
        return np.ascontiguousarray(value)


def find_table(name: str) -> Path:
    """Find a table: a shipped one by its name, else a file.

    Raises:
        UserError: there is none.
    """
    shipped = TABLES / f"{name}.txt"
    if shipped.is_file():
        return shipped
    if not Path(name).is_file():
        there = ", ".join(sorted(file.stem for file in TABLES.glob("*.txt")))
        raise UserError(f"{name}: no such file, nor one of the shipped tables ({there})")
    return Path(name)


def read_table(file: Path) -> list[Entry]:
    """Read a table: `LAYER.N = TENSOR`, with what is done to the tensor behind it; `#` begins a comment.

    Raises:
        UserError: no such file, or a line that is none; names file and line.
    """
    entries: list[Entry] = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        found = _LINE.fullmatch(content)
        try:
            if found is None:
                raise ValueError("expected LAYER.N = TENSOR [as SHAPE] [every N,N,N,N] [/ D,D,D] [reversed]")
            split_name(found["blob"])
            if any(found["blob"] == entry.blob for entry in entries):
                raise ValueError(f"{found['blob']!r} is there twice")
            shape = tuple(map(int, found["shape"].split("x"))) if found["shape"] else None
            steps = tuple(map(int, found["steps"].split(","))) if found["steps"] else ()
            divisors = tuple(map(float, found["divisors"].split(","))) if found["divisors"] else ()
            if 0 in divisors:
                raise ValueError("a division by 0")
        except ValueError as error:
            raise UserError(f"{file}:{number}: {error}") from None
        entries.append(Entry(found["blob"], found["tensor"], shape, steps, divisors, bool(found["reversed"])))
    if not entries:
        raise UserError(f"{file}: has no line LAYER.N = TENSOR")
    return entries


def apply_table(entries: list[Entry], tensors: Mapping[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """Make the blobs that a table names, by `LAYER.N`, of the tensors of `file`.

    Raises:
        UserError: a tensor is missing or does not fit; names it.
    """
    made = {}
    for entry in entries:
        try:
            made[entry.blob] = entry.apply(tensors)
        except ValueError as error:
            raise UserError(f"{file}: {entry.blob}: {error}") from None
    return made
