"""Types of options for argparse: each turns text into a value, or says what was expected."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable


def whole_number(least: int) -> Callable[[str], int]:
    """Make an argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def part_of_size(text: str) -> float:
    """Read a scale factor over 0 and up to 1."""
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0.0 < scale <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no factor over 0 and up to 1")
    return scale


def crop_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH as two numbers."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 120x160")
    return int(match[1]), int(match[2])


def mean_bgr(text: str) -> tuple[float, float, float]:
    """Read B,G,R as three numbers."""
    try:
        blue, green, red = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not B,G,R, such as 104,117,123") from None
    return blue, green, red


def positive(text: str) -> float:
    """Read a number over 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return number


def not_negative(text: str) -> float:
    """Read a number of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return number


def fraction(text: str) -> float:
    """Read a share of a whole, from 0 up to but not 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1)")
    return share


def pixel(text: str) -> tuple[int, int]:
    """Read COLUMN,ROW as two numbers."""
    column, comma, row = text.partition(",")
    if not (comma and column.isdecimal() and row.isdecimal()):
        raise argparse.ArgumentTypeError(f"a pixel is COLUMN,ROW such as 64,48, not {text!r}")
    return int(column), int(row)
