"""Atomic writes, and checksums of files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renet.common.errors import UserError, naming


def write_atomically(file: Path, content: bytes) -> None:
    """Write `file` so that at any moment it is the old one or the new one, also after a power cut."""
    with _beside(file, content) as beside:
        os.replace(beside, file)
    sync_folder(file.parent)


def write_new(file: Path, content: bytes) -> bool:
    """Write `file` whole if there is none; of several writers, on several machines, one alone succeeds.

    Returns:
        Whether this call wrote it.
    """
    with _beside(file, content) as beside:
        try:
            os.link(beside, file)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            if file.exists():  # a file system without hard links: two at one moment may both write
                return False
            os.replace(beside, file)
    sync_folder(file.parent)
    return True


@contextmanager
def _beside(file: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside its place, which goes again where it is still there."""
    # Machines that share a folder may have processes of one number.
    beside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with naming(file), open(beside, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


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
