"""ONNX graph that grows a node at a time, and a layer of Caffe as a converter sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

OPSET = 17  # the last one in which every reduction but a sum has its axes as an attribute, as older programs want them
IR_VERSION = 8
Size = int | str  # a number, or the name of a tensor that holds one, int64 of shape (1,)


@dataclass(frozen=True)
class Layer:
    """Layer of a built network.

    Attributes:
        parameter: a caffe_pb2.LayerParameter in today's form.
        bottoms: names of the tensors that it reads.
        shapes: the shapes of its bottoms at the size that the prototxt says.
        tops: names of the blobs that it writes.
        top_shapes: their shapes.
        weights: its parameter blobs.
        sized: of each bottom, whether its height and width follow the image's.
    """

    parameter: Any
    bottoms: list[str]
    shapes: list[tuple[int, ...]]
    tops: list[str]
    top_shapes: list[tuple[int, ...]]
    weights: list[np.ndarray]
    sized: list[bool]

    @property
    def name(self) -> str:
        """The layer's own name."""
        return self.parameter.name

    @property
    def rank(self) -> int:
        """How many axes bottom[0] has."""
        return len(self.shapes[0])

    def axis(self, axis: int) -> int:
        """Count an axis of bottom[0] from the front, which may be given from the back."""
        return axis % self.rank


class NoOnnxForm(Exception):
    """A setting of a layer that ONNX does not know; the message says which, and what serves instead."""


@dataclass
class Graph:
    """Nodes and constants of an ONNX graph.

    Attributes:
        nodes: in the order of computation.
        constants: by name.
        fixed_by: the layer that needs the image's size as the prototxt says it; None: any size will do.
    """

    reserved: frozenset[str] = frozenset()
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    fixed_by: str | None = None
    _prefix: str = ""
    _names: set[str] = field(default_factory=set)
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def begin(self, layer: str) -> None:
        """Name what follows after a layer."""
        self._prefix = layer

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node, and return the name of its first output; more are that name with `:1` and so on."""
        name = self._unique(f"{self._prefix}/{operator}")
        names = [name, *(f"{name}:{number}" for number in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return name

    def constant(self, values: Any, kind: type | None = None) -> str:
        """Add an array, float32 unless it is of integers (int64); equal ones are kept once."""
        array = np.asarray(values)
        wanted = kind or (np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32)
        array = np.asarray(array, wanted, order="C")  # a layer's weights stay where they are
        key = (array.shape, array.dtype.str, hashlib.sha256(array.reshape(-1).view(np.uint8)).digest())
        if key not in self._known:
            name = self._unique(f"{self._prefix}/constant")
            self.constants[name] = array
            self._known[key] = name
        return self._known[key]

    def shape(self, value: str) -> str:
        """The shape of a tensor, int64."""
        return self._once(("shape", value), lambda: self.add("Shape", value))

    def size(self, value: str, axis: int, end: int | None = None) -> str:
        """The sizes of a tensor's axes from `axis` to before `end` (default: of that axis), int64."""
        stop = axis + 1 if end is None else end
        return self._once(
            ("size", value, axis, stop),
            lambda: self.add("Slice", self.shape(value), self.constant([axis]), self.constant([stop])),
        )

    def join(self, sizes: Sequence[Size]) -> str:
        """Join sizes to a shape."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(np.array(sizes, np.int64))
        parts = [size if isinstance(size, str) else self.constant([size]) for size in sizes]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def reshape(self, value: str, sizes: Sequence[Size]) -> str:
        """Give a tensor another shape; 0 keeps the size of the same axis, -1 is what is left over."""
        return self.add("Reshape", value, self.join(sizes))

    def transpose(self, value: str, order: Sequence[int]) -> str:
        """Bring the axes into another order."""
        return self.add("Transpose", value, perm=list(order))

    def scaled(self, value: str, factor: float, shift: float = 0) -> str:
        """Compute value * factor + shift, without the operations that change nothing."""
        if factor != 1:
            value = self.add("Mul", value, self.constant(np.float32(factor)))
        return self.add("Add", value, self.constant(np.float32(shift))) if shift else value

    def needs_fixed_size(self, layer: Layer) -> None:
        """Note that a layer takes images of one size only, where its bottom follows the image's size."""
        if self.fixed_by is None and layer.sized[0]:
            self.fixed_by = layer.name

    def _once(self, key: tuple[Any, ...], make: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _unique(self, name: str) -> str:
        wanted, number = name, 1
        while wanted in self._names or wanted in self.reserved:
            number += 1
            wanted = f"{name}_{number}"
        self._names.add(wanted)
        return wanted


# From a layer to the tensors of its tops.
Converter = Callable[[Graph, Layer], list[str]]
