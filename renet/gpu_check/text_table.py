"""Tables of text cells for a terminal.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1, underline: bool = True) -> list[str]:
    """Columns side by side as lines, the header (the first row) underlined.

    Args:
        rows: cells; the header comes first.
        left: so many columns stand to the left, those after them, with figures, to the right.
        underline: draw a line under the header.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [text.ljust(w) if i < left else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    if underline:
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines
