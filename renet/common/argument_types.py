"""Types of options for argparse: each turns text into a value, or says what was expected."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

from renet.common.float32 import in_float32


def whole_number(least: int) -> Callable[[str], int]:
    """Make an argparse type: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def whole_number_or(word: str) -> Callable[[str], int | str]:
    """Make an argparse type: a whole number of 0 or more, or this word."""

    def parse(text: str) -> int | str:
        if text != word and not text.isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number, and not {word!r}")
        return word if text == word else int(text)

    return parse


def part_of_size(text: str) -> float:
    """Read a factor over 0 and up to 1."""
    return _number(text, lambda scale: 0 < scale <= 1, "no factor over 0 and up to 1")


def positive(text: str) -> float:
    """Read a number over 0."""
    return _number(text, lambda number: 0 < number < math.inf, "not a number over 0")


def not_negative(text: str) -> float:
    """Read a number of 0 or more."""
    return _number(text, lambda number: 0 <= number < math.inf, "no number of 0 or more")


def fraction(text: str) -> float:
    """Read a share of a whole, from 0 up to but not 1."""
    return _number(text, lambda share: 0 <= share < 1, "not a number in [0, 1)")


def factor(text: str) -> float:
    """Read a number other than 0."""
    return _number(text, lambda number: number != 0 and in_float32(number), "no number other than 0")


def _number(text: str, is_valid: Callable[[float], bool], complaint: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not is_valid(number):
        raise argparse.ArgumentTypeError(f"{text!r} is {complaint}")
    return number


def mean_bgr(text: str) -> tuple[float, float, float]:
    """Read B,G,R as three numbers; one number stands for all three."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(in_float32, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not B,G,R, such as 104,117,123")
    blue, green, red = numbers * (3 // len(numbers))
    return blue, green, red


def crop_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH as two numbers."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 120x160")
    return int(match[1]), int(match[2])


def pixel(text: str) -> tuple[int, int]:
    """Read COLUMN,ROW as two numbers."""
    column, comma, row = text.partition(",")
    if not (comma and column.isdecimal() and row.isdecimal()):
        raise argparse.ArgumentTypeError(f"a pixel is COLUMN,ROW such as 64,48, not {text!r}")
    return int(column), int(row)
