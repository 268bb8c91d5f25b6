"""Prototxts taken apart without a message: other Caffes' files have fields that ours does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format

from renet.common.errors import UserError

_ENDS = {"{": "}", "<": ">"}
_WHERE = re.compile(r"^\d+:\d+ : ('.*?': (?=\S))?", re.DOTALL)  # what a tokenizer puts before its message
_BARE = re.compile(r"[-\w.+]+")


class Word(str):
    """A number, a name of an enum, true or false: what stands without quotation marks."""

    __slots__ = ()


@dataclass
class Node:
    """Message as it is written.

    Attributes:
        fields: names and values in their order; a text in quotation marks is a str, any other one a Word.
    """

    fields: list[tuple[str, Node | str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """List the texts of a field."""
        return [value for key, value in self.fields if key == name and isinstance(value, str)]

    def value(self, name: str, default: str = "") -> str:
        """Find a field's text, the last one where it is repeated."""
        return next(reversed(self.values(name)), default)

    def nodes(self, name: str) -> list[Node]:
        """List the messages of a field."""
        return [value for key, value in self.fields if key == name and isinstance(value, Node)]

    def node(self, name: str) -> Node:
        """Find a field's message, an empty one where there is none."""
        return next(reversed(self.nodes(name)), Node())

    def has(self, name: str) -> bool:
        """Tell whether a field is there."""
        return any(key == name for key, _ in self.fields)

    def drop(self, *names: str) -> None:
        """Take fields out."""
        self.fields = [(key, value) for key, value in self.fields if key not in names]

    def put(self, name: str, *values: Node | str) -> None:
        """Give a field these values and no others, in the place of its first one."""
        place = next((place for place, (key, _) in enumerate(self.fields) if key == name), len(self.fields))
        self.drop(name)
        self.fields[place:place] = [(name, value) for value in values]

    def lines(self, indent: str = "") -> Iterator[str]:
        """Write the message as prototxt, line by line."""
        for name, value in self.fields:
            if isinstance(value, Node):
                yield f"{indent}{name} {{"
                yield from value.lines(indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {value if isinstance(value, Word) else _quoted(value)}"

    def text(self) -> str:
        """Write the message as prototxt."""
        return "".join(f"{line}\n" for line in self.lines())


def parse_tree(text: str, file: Path) -> Node:
    """Take the text of `file` apart.

    Raises:
        UserError: it is no prototxt; names file, line and column.
    """
    tokens = text_format.Tokenizer(text.splitlines())
    root = Node()
    try:
        while not tokens.AtEnd():
            _read_field(tokens, root)
    except text_format.ParseError as error:
        place = "" if error.GetLine() is None else f":{error.GetLine()}:{error.GetColumn()}"
        raise UserError(f"{file}{place}: no prototxt ({_WHERE.sub('', str(error))})") from None
    return root


def _read_field(tokens: text_format.Tokenizer, node: Node) -> None:
    name = tokens.ConsumeIdentifier()
    has_colon = tokens.TryConsume(":")
    if has_colon and tokens.TryConsume("["):
        while not tokens.TryConsume("]"):
            node.fields.append((name, _read_value(tokens)))
            tokens.TryConsume(",")
    else:
        if not has_colon and tokens.token not in _ENDS:
            raise tokens.ParseError(f"expected ':' or '{{' after {name!r}")
        node.fields.append((name, _read_value(tokens)))
    if not tokens.TryConsume(","):
        tokens.TryConsume(";")


def _read_value(tokens: text_format.Tokenizer) -> Node | str:
    end = _ENDS.get(tokens.token)
    if end is not None:
        tokens.NextToken()
        inner = Node()
        while not tokens.TryConsume(end):
            if tokens.AtEnd():
                raise tokens.ParseError(f"expected {end!r}")
            _read_field(tokens, inner)
        return inner
    if tokens.token[:1] in ("'", '"'):
        return tokens.ConsumeString()
    token = tokens.token
    sign = "-" if tokens.TryConsume("-") else ""
    if sign:
        token = tokens.token
    if not _BARE.fullmatch(token):
        raise tokens.ParseError(f"expected a value, not {token!r}")
    tokens.NextToken()
    return Word(sign + token)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
