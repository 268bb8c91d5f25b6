"""Atomic writes, and checksums of files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from renet.common.errors import UserError, naming

_LEFT = re.compile(r"\..+\.\d+\.[0-9a-f]{8}\.partial", re.DOTALL)  # as `partial_name` makes them
_SWEPT: set[str] = set()  # folders


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


def partial_name(file: Path) -> Path:
    """Make up a name beside a file's place for what is to become it: hidden, and no other process's.

    Where it is made is told to `swept`, so that what a killed process left there goes.
    """
    swept(file.parent)
    return file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


@contextmanager
def partial_file(file: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Open a new file beside a file's place, which goes again at the end where it is still there.

    It is locked, by which other processes see that its writer lives.
    """
    while True:
        beside = partial_name(file)
        with naming(file), open(beside, "xb") as stream:
            if hold(stream.fileno()):
                try:
                    yield beside, stream
                finally:
                    beside.unlink(missing_ok=True)
                return


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside a folder's place, locked as `partial_file` does; it goes again where it is still there."""
    while True:
        beside = partial_name(folder)
        with naming(folder):
            beside.mkdir()
            descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if hold(descriptor):
                try:
                    yield beside
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
                return
        finally:
            os.close(descriptor)


@contextmanager
def _beside(file: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside its place, which goes again where it is still there."""
    with partial_file(file) as (beside, stream):
        with naming(file):
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield beside


def hold(descriptor: int) -> bool:
    """Lock an open file or folder for as long as this process keeps it open.

    Returns:
        Whether it is ours: another process may hold it, or have just deleted it, as one whose writer is gone.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return True  # a file system without locks: nobody else can hold anything, either
    return os.fstat(descriptor).st_nlink > 0


def swept(folder: Path) -> None:
    """Delete what killed processes left half written in a folder, once in each process."""
    place = os.path.abspath(folder)
    if place in _SWEPT:
        return
    _SWEPT.add(place)
    try:
        with os.scandir(place) as entries:
            left = [Path(entry.path) for entry in entries if _LEFT.fullmatch(entry.name)]
    except OSError:
        return
    for path in left:
        remove_left(path)


def remove_left(path: Path) -> None:
    """Delete a file or folder that was held (see `hold`), if it is this user's and nobody holds it any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    finally:
        os.close(descriptor)


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
