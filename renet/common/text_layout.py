"""Layout of text for people: tables, lists of names, shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from renet.gpu_check.text_table import aligned

__all__ = ["aligned", "markdown"]


def listed(names: Sequence[str], most: int = 8) -> str:
    """Write the first `most` of some names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def shape_text(shape: Iterable[int]) -> str:
    """Write an array's shape: 2 x 3 x 96 x 128."""
    return " x ".join(map(str, shape))


def markdown(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Write a Markdown table, with an end of line."""
    rule = ["---" if column < left else "---:" for column in range(len(rows[0]))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], rule, *rows[1:]))
