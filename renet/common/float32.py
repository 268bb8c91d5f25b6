"""Range check of numbers that people give and Caffe keeps in 32 bits."""

from __future__ import annotations

import math

import numpy as np

# Python's floats: NumPy's would be compared in 32 bits.
_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)


def in_float32(value: float) -> bool:
    """Tell whether 32 bits hold a number: not NaN or infinity, also not after rounding, and 0 only where it is 0."""
    return math.isfinite(value) and abs(value) <= _LARGEST and (value == 0 or abs(value) >= _SMALLEST)
