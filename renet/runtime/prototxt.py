"""Reader of networks and solvers, as Caffe's: of any age into today's form, with mistakes in one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import caffe
from caffe import upgraded_net, upgraded_solver
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from renet.common.errors import UserError
from renet.common.text_files import read_text

_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named (\w+)')
_PLACE = re.compile(r"^\d+:\d+ : '.*?': (?=\S)", re.DOTALL)
AnyMessage = TypeVar("AnyMessage", bound=Message)


def read_network(file: Path) -> caffe_pb2.NetParameter:
    """Read a network's prototxt in today's form.

    Layers of Caffe's first two generations (`layers`), `input` with `input_dim` or `input_shape`, a data layer's old
    transformation fields and BatchNorm's three `param` are rewritten by Caffe's own upgrade.

    Raises:
        UserError: no such file, no network, a field or value that Caffe does not have (with those that it has; of a
            fork's layer with what serves instead), a number that is none; names file, line and column.
    """
    return upgrade_network(read_prototxt(file, caffe_pb2.NetParameter()), file)


def read_solver(file: Path) -> caffe_pb2.SolverParameter:
    """Read a solver's prototxt in today's form: `solver_type: ADAM` becomes `type: "Adam"`.

    Raises:
        UserError: as `read_network`.
    """
    return _upgraded(read_prototxt(file, caffe_pb2.SolverParameter()), upgraded_solver, file)


def upgrade_network(network: caffe_pb2.NetParameter, file: Path) -> caffe_pb2.NetParameter:
    """Bring a network that was read from `file` into today's form; weights and state come along.

    Raises:
        UserError: an old layer has a parameter that today's form does not have.
    """
    return _upgraded(network, upgraded_net, file)


def read_prototxt(file: Path, message: AnyMessage) -> AnyMessage:
    """Fill `message` from a prototxt as it stands.

    Raises:
        UserError: as `read_network`.
    """
    return parse_prototxt(read_text(file), message, file)


def parse_prototxt(text: str, message: AnyMessage, file: Path) -> AnyMessage:
    """Fill `message` from the text of `file`.

    Raises:
        UserError: as `read_network`.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        foreign = _foreign_layer(text) if isinstance(message, caffe_pb2.NetParameter) else None
        raise UserError(f"{file}: {foreign}" if foreign else f"{file}:{_explained(error)}") from None
    for path, value in _odd_numbers(message):
        raise UserError(f"{file}: {path} is {value}, which is no number to compute with")
    return message


def _upgraded(message: AnyMessage, upgrade: Callable[[bytes], tuple[bytes, bool]], file: Path) -> AnyMessage:
    serialized, whole = upgrade(message.SerializeToString())
    if not whole:
        raise UserError(f"{file}: an old layer has a parameter that today's Caffe does not have")
    return type(message).FromString(serialized)


def _foreign_layer(text: str) -> str | None:
    """What is known of a network's first layer of a fork's type that is not here; its fields are not, either."""
    network = caffe_pb2.NetParameter()
    try:
        text_format.Parse(text, network, allow_unknown_field=True)
    except text_format.ParseError:
        return None
    here = set(caffe.layer_type_list())
    for layer in caffe_pb2.NetParameter.FromString(upgraded_net(network.SerializeToString())[0]).layer:
        if layer.type not in here and (advice := caffe.foreign_layer_advice(layer.type)):
            return f"layer {layer.name!r} is of type {layer.type}; {advice}"
    return None


def _explained(error: text_format.ParseError) -> str:
    """What is wrong, where, and which names would be right."""
    text = _PLACE.sub("", str(error))
    place = f"{error.GetLine()}:{error.GetColumn()}: "
    text = re.sub(r"^\d+:\d+ : ", "", text)
    pool = caffe_pb2.DESCRIPTOR.pool
    if found := _NO_FIELD.search(text):
        names = [field.name for field in pool.FindMessageTypeByName(found[1]).fields]
        near = difflib.get_close_matches(found[2], names, n=3)
        kind = found[1].removeprefix("caffe.")
        return f"{place}{kind} has no field {found[2]!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
    if found := _NO_VALUE.search(text):
        names = [value.name for value in pool.FindEnumTypeByName(found[1]).values]
        return f"{place}{found[2]} is no {found[1].rpartition('.')[2]}; there are {', '.join(names)}"
    return place + text


def _odd_numbers(message: Message) -> Iterator[tuple[str, float]]:
    """The fields of a message that hold NaN or infinity, with their paths."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        for part in values:
            if isinstance(part, Message):
                name = getattr(part, "name", "")
                label = f"{field.name} {name!r}" if isinstance(name, str) and name else field.name
                yield from ((f"{label}: {path}", number) for path, number in _odd_numbers(part))
            elif isinstance(part, float) and not math.isfinite(part):
                yield field.name, part
