"""Opening of the files that people name: regular ones, of a size that can be meant, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from renet.common.errors import UserError

MOST_BYTES = 2**31 - 1  # what is read whole; also the most that Caffe's own messages may have
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
# Limits of the process or the machine: the file is not at fault.
_NOT_THE_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def open_file(file: Path, most: int | None = MOST_BYTES) -> BinaryIO:
    """Open a file that a user named, for reading.

    Pipes and devices, which may never end, are refused, and waited for no more than files.

    Args:
        file: a path to it; links are followed.
        most: bytes that it may have; None: any number, where it is read piece by piece.

    Raises:
        UserError: no such file, a folder, a pipe or a device, too large, or the system does not let it be read; names
            the file.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        if isinstance(error, OSError) and error.errno in _NOT_THE_FILES:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{str(file)!r}: cannot be read ({reason})" if "\0" in str(file) else f"{file}: cannot be read ({reason})"
        ) from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{file}: is a folder, not a file")
        for is_kind, kind in _KINDS:
            if is_kind(status.st_mode):
                raise UserError(f"{file}: is {kind}, not a file; write what it gives into a file first")
        if most is not None and status.st_size > most:
            raise UserError(f"{file}: has {status.st_size:,} bytes; at most {most:,} are read")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(file: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file that a user named.

    Raises:
        UserError: as `open_file`.
    """
    with open_file(file, most) as stream:
        try:
            return stream.read()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from None
