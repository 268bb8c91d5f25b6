"""SHA-256 of a snapshot's files, noted beside them: `..._iter_N.sha256`, in the form of `sha256sum`, which can check
it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from renet.common.errors import UserError
from renet.common.files import file_sha256, write_atomically

_ENDING = ".sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def checksum_file(file: Path) -> Path:
    """Name the file in which the SHA-256 of a snapshot's file stands."""
    return file.with_suffix(_ENDING)


def write_checksums(files: Sequence[Path]) -> None:
    """Note the SHA-256 of a snapshot's files."""
    lines = [f"{file_sha256(file)}  {file.name}\n" for file in files]
    write_atomically(checksum_file(files[0]), "".join(lines).encode())


def noted_checksum(file: Path) -> str | None:
    """Read the SHA-256 that is noted of a file; None where there is none."""
    try:
        content = checksum_file(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = (_LINE.fullmatch(line) for line in content.splitlines())
    return next((match[1] for match in found if match is not None and match[2] == file.name), None)


def checksum_fault(file: Path, content: bytes | None = None) -> str | None:
    """Find out whether a file is another than its noted SHA-256 says, and say so; None where it is the same, or nothing
    is noted.

    Args:
        file: of a snapshot.
        content: the file's, where it has been read; else it is read here, piece by piece.
    """
    noted = noted_checksum(file)
    if noted is None or noted == (file_sha256(file) if content is None else hashlib.sha256(content).hexdigest()):
        return None
    return (
        f"{file}: is not the file that was written: damaged or changed since (its SHA-256 is not the one in "
        f"{checksum_file(file).name}; delete that if the change was meant)"
    )


def check_checksum(file: Path) -> None:
    """Make sure that a file is the one whose SHA-256 is noted, if one is.

    Raises:
        UserError: it is another; names the file.
    """
    fault = checksum_fault(file)
    if fault is not None:
        raise UserError(fault)
