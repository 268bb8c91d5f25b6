"""Temporary folders and files, which go with the process that made them, even one that was killed: then the next does
it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renet.common.errors import naming
from renet.common.files import hold, remove_left

_PREFIX = "renet-scratch-"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")  # as tempfile makes them


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder of a name that nobody can tell beforehand, which this user alone can read, and delete it at the
    end."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(left.name):
            remove_left(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process took it for one that was left
        try:
            if hold(descriptor):
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


@contextmanager
def scratch_file(text: str, suffix: str) -> Iterator[Path]:
    """Write a text into a file of its own in a `scratch_folder`."""
    with scratch_folder() as folder:
        file = folder / f"file{suffix}"
        with naming(file):
            file.write_text(text, encoding="utf-8")
        yield file
