"""Merge this project's messages into Caffe's ``caffe.proto``."""

from __future__ import annotations

import re

_EXTENSION = re.compile(r"^extend (\w+) \{\n(.*?)^\}\n*", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^ *(?:optional|repeated) \w+ (\w+) = (\d+)", re.MULTILINE)


class MergeError(Exception):
    """The two files do not fit together; the message is one line."""


def merge(upstream: str, messages: list[str]) -> str:
    """Text of ``caffe.proto`` with the files ``messages`` appended; the fields of their ``extend NAME { ... }`` go into
    Caffe's own message of that name, as if they had always been there.

    Raises MergeError where Caffe has no such message, or where a field's number or name is taken already.
    """
    bodies = []
    for text in messages:
        for name, fields in _EXTENSION.findall(text):
            upstream = _with_fields(upstream, name, fields)
        # syntax and package may stand in a file only once, and upstream's do
        bodies.append(re.sub(r"^(syntax|package)\b[^\n]*\n+", "", _EXTENSION.sub("", text), flags=re.MULTILINE))
    return "\n".join([upstream, *bodies])


def _with_fields(upstream: str, message: str, fields: str) -> str:
    found = re.search(rf"^message {message} \{{\n(.*?)^\}}\n", upstream, re.DOTALL | re.MULTILINE)
    if not found:
        raise MergeError(f"caffe.proto has no message {message}")
    for name, number in _FIELD.findall(fields):
        if re.search(rf"= {number}\b", found[1]) or re.search(rf"\b{name} =", found[1]):
            raise MergeError(f"{message} has a field {name} or number {number} already")
    end = found.end(1)
    return upstream[:end] + fields + upstream[end:]
