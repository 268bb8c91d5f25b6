"""What Caffe says on stderr in this process, kept back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_ERRORS_ALONE = 2
_LEVEL = "_ZN3fLI17FLAGS_minloglevelE"  # glog's flag, which pycaffe sets only once and for the whole process


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Caffe says below an error from stderr in here, whichever thread it is said in."""
    import caffe

    level = ctypes.c_int32.in_dll(ctypes.CDLL(caffe._caffe.__file__), _LEVEL)
    before = level.value
    level.value = max(before, _ERRORS_ALONE)
    try:
        yield
    finally:
        level.value = before
