"""Atomic writes, and checksums of files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from renet.common.errors import UserError, naming


def write_atomically(file: Path, content: bytes) -> None:
    """Write `file` so that at any moment it is the old one or the new one, also after a power cut."""
    # Machines that share a folder may have processes of one number.
    beside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with naming(file), open(beside, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def write_json(file: Path, content: Any) -> None:
    """Write `content` as JSON, an entry a line, as `write_atomically` does."""
    write_atomically(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Make a rename within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(file: Path) -> str:
    """Compute a file's SHA-256, in hexadecimal, as `file_checksum` does."""
    return file_checksum(file, "sha256")


def file_checksum(file: Path, algorithm: str) -> str:
    """Compute a file's checksum by one of hashlib's algorithms, in hexadecimal.

    Raises:
        UserError: there is no such file.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    with file.open("rb") as stream:
        checksum = hashlib.new(algorithm)
        while block := stream.read(1 << 20):
            checksum.update(block)
        return checksum.hexdigest()
