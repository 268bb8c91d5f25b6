"""Checking of JSON that people and other programs may have changed, against a schema that Python's types write."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from renet.common.errors import UserError
from renet.common.text_files import read_json

# Nothing is taken for what it is not ("3" for 3, 1 for true); what a newer version wrote beside it is kept.
STRICT = ConfigDict(strict=True, extra="allow")
_LONGEST = 60  # characters of a wrong value that a message shows
Checked = TypeVar("Checked")


def check_json(content: Any, schema: TypeAdapter[Checked]) -> Checked:
    """Check what JSON holds, and return it as it is.

    Raises:
        ValueError: it is something else; names the first wrong field, as in `splits.train.count`, and its value.
    """
    try:
        schema.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ValueError(f"{field} is missing") from None
        if first["type"] in ("too_short", "too_long"):
            wanted = first["ctx"].get("min_length", first["ctx"].get("max_length"))
            raise ValueError(f"{field} has {len(first['input'])} entries, not {wanted}") from None
        value = repr(first["input"])
        value = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
        message = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
        raise ValueError(f"{f'{field} ' if field else ''}{message}, not {value}") from None
    return content


def read_json_as(file: Path, schema: TypeAdapter[Checked]) -> Checked:
    """Read a JSON file that has a schema.

    Raises:
        UserError: as `renet.common.text_files.read_json`, or `check_json` finds a fault; names the file.
    """
    try:
        return check_json(read_json(file), schema)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
