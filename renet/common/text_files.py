"""Reading of text that people and their programs wrote, on whatever system: lists, class files, JSON, prototxt."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.input_files import read_bytes

# UTF-32's mark first: it begins with UTF-16's.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_HEAD = 1024


def read_text(file: Path) -> str:
    """Read a UTF-8 file, without a byte-order mark, its lines ended by newlines alone.

    Raises:
        UserError: no such file, a folder, a pipe or a device, or no UTF-8 text; names the file and says how to convert
            it.
    """
    return decode_text(read_bytes(file), file)


def decode_text(content: bytes, where: str | Path) -> str:
    """Decode a file's bytes as `read_text` does.

    Raises:
        UserError: no UTF-8 text; names `where`.
    """
    coding = _other_unicode(content)
    if coding is not None:
        raise UserError(f"{where}: is {coding} text; save it as UTF-8 ({_conversion(coding)})")
    if b"\0" in content:
        raise UserError(f"{where}: not a text file (it holds zero bytes)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
        raise UserError(
            f"{where}, line {line}: not UTF-8 text (the byte 0x{content[error.start]:02x}); save it as UTF-8 "
            f"({_conversion('WINDOWS-1252')}, if it was written on Windows)"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(file: Path) -> list[str]:
    """Read the lines of a list, without spaces and tabs around them; empty lines and those that begin with # do not
    count.

    Raises:
        UserError: as `read_text`.
    """
    return [line for _, line in numbered_lines(file) if not line.startswith("#")]


def numbered_lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines that are not empty, with their numbers from 1 on, without spaces and tabs around them.

    Raises:
        UserError: as `read_text`.
    """
    # Not splitlines(), which also ends a line where an editor shows none (form feeds, U+2028).
    lines = ((number, line.strip()) for number, line in enumerate(read_text(file).split("\n"), start=1))
    return [(number, line) for number, line in lines if line]


def read_json(file: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read a JSON file.

    Raises:
        UserError: as `read_text`; or not JSON, or a part of it; names the file, line and column.
    """
    try:
        return json.loads(read_text(file), object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: not JSON, or a part of it ({error})") from None
    except RecursionError:
        raise UserError(f"{file}: JSON that is nested too deeply") from None
    except ValueError:  # Python's limit
        raise UserError(f"{file}: holds a number of thousands of digits") from None


def read_json_object(file: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file; None where there is no such file.

    Raises:
        UserError: as `read_json`; or something else than an object.
    """
    if not file.is_file():
        return None
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: damaged: not a JSON object")
    return content


def _other_unicode(content: bytes) -> str | None:
    """UTF-16 or UTF-32 where the bytes are that, told by the mark or, without one, by ASCII's zero bytes."""
    for mark, coding in _OTHER_MARKS:
        if content.startswith(mark):
            return coding
    head = content[:_HEAD]
    for zeros, letters, coding in ((1, 0, "UTF-16LE"), (0, 1, "UTF-16BE")):
        if len(head) >= 4 and not len(head) % 2 and not any(head[zeros::2]) and all(head[letters::2]):
            return coding
    return None


def _conversion(coding: str) -> str:
    return f"iconv -f {coding} -t UTF-8 OLD > NEW"
