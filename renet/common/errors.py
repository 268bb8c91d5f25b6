"""Errors that a user can mend, and faults of the system, in one line each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

# The machine's state, not a programming error, even where the system names no file.
_ENVIRONMENT_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),  # disks and their limits
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),  # limits of a process or of the machine
    }
)


class UserError(Exception):
    """Error that a user can mend; the message is one line that names the file or the option concerned."""


def is_of_the_system(error: OSError) -> bool:
    """Tell whether a file or the machine is at fault, and not the program."""
    return error.filename is not None or error.errno in _ENVIRONMENT_ERRORS


def told(error: OSError) -> str:
    """Write a system's error in one line, with the file where it names one."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror}"


def first_line(error: Exception) -> str:
    """Take the first line of an error that a library raised; the error's type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Make errors of the system name `file` where they do not by themselves: a write into an open file, for example."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(file)
        raise
