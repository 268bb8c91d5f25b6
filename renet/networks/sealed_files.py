"""Sealed files: each carries a checksum, by which an edit is known and never overwritten."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.text_files import read_text

_SEAL = "# Generated (prototxt/generate.py). An edited file is not overwritten: checksum of the other lines {checksum}."
_SEAL_PATTERN = re.compile(re.escape(_SEAL).replace(r"\{checksum\}", "([0-9a-f]{16})"))


def sealed(text: str) -> str:
    """Add a line to the end of a prototxt's first comment that tells the text's checksum."""
    lines = text.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join([*lines[:end], _SEAL.format(checksum=_checksum(lines)) + "\n", *lines[end:]])


def is_as_written(text: str) -> bool:
    """Tell whether a text is as `sealed` made it; line ends, and blanks there, do not count."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("#"):
            break
        match = _SEAL_PATTERN.fullmatch(line.rstrip())
        if match is not None:
            return match[1] == _checksum(lines[:number] + lines[number + 1 :])
    return False


def edited(files: Mapping[Path, str]) -> list[Path]:
    """List those of the files to be written (text by path) that lie there as something else than a writer's own:
    edited, or made by a person."""
    return [path for path, text in files.items() if path.exists() and not _may_be_overwritten(path, text)]


def _may_be_overwritten(path: Path, text: str) -> bool:
    try:
        there = read_text(path)
    except UserError:
        return False
    return is_as_written(there) or there == text


def _checksum(lines: list[str]) -> str:
    content = "\n".join(line.rstrip() for line in lines).rstrip("\n")
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write_texts(files: Mapping[Path, str]) -> None:
    """Write each text to its path, making folders; whether that may be is for the caller to ask (`edited`)."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
