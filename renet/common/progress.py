"""Progress on stderr: a bar on a terminal, ever rarer lines in a log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

# Seconds between two lines of progress in a log: at first, as a part of the time gone by, and at most.
SHORTEST_BETWEEN_PLAIN_LINES = 10.0
PART_BETWEEN_PLAIN_LINES = 0.05
LONGEST_BETWEEN_PLAIN_LINES = 300.0

_UP = "\x1b[A"  # with which tqdm goes back to an outer bar


class _PlainLines:
    """A stream on which tqdm's redrawn bar becomes lines of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.replace("\r", "").replace(_UP, "").strip()
        if line:
            self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class _PlainProgress(tqdm):
    """Progress as lines of a log, ever rarer: what has run for a day is not told every ten seconds."""

    def __iter__(self) -> Iterator[Any]:
        """As tqdm's, which would keep the first interval."""
        try:
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    def display(self, *arguments: Any, **more: Any) -> Any:
        """Write a line, and wait longer for the next."""
        self.mininterval = self.maxinterval = seconds_between_lines(self.format_dict["elapsed"])
        return super().display(*arguments, **more)


def seconds_between_lines(elapsed: float) -> float:
    """Compute how long to wait for the next line of a log after `elapsed` seconds of work."""
    return min(LONGEST_BETWEEN_PLAIN_LINES, max(SHORTEST_BETWEEN_PLAIN_LINES, PART_BETWEEN_PLAIN_LINES * elapsed))


def draws_bars() -> bool:
    """Tell whether progress is a bar that is drawn again and again: on a terminal, unless it is a dumb one or the
    environment asks for plain text (NO_COLOR, see no-color.org)."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    description: str,
    unit: str,
    initial: int = 0,
    rate: bool = True,
    within: bool = False,
) -> tqdm[Any]:
    """Open a progress bar on stderr; where none can be drawn (see `draws_bars`) plain lines: at the start, every ten
    seconds, later every few minutes, and at the end.

    Args:
        iterable: what is gone through; without it the caller calls `update`.
        total: how many there are; by default the iterable's length.
        description: what is done.
        unit: of what there are so many.
        initial: how many were done before.
        rate: tell how many are done in a second.
        within: of a step of another bar: nothing of it stays, and nothing is told of a short one.
    """
    # bytes read better as 11.4MB
    common = {"total": total, "desc": description, "unit": unit, "unit_scale": unit == "B", "initial": initial}
    common |= {"leave": not within, "delay": SHORTEST_BETWEEN_PLAIN_LINES if within and not draws_bars() else 0}
    if draws_bars():
        # tqdm's own form, without the rate
        form = None if rate else "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        return tqdm(iterable, dynamic_ncols=True, bar_format=form, **common)
    told = ", {rate_fmt}" if rate else ""
    return _PlainProgress(
        iterable,
        mininterval=SHORTEST_BETWEEN_PLAIN_LINES,
        bar_format=f"{{desc}}: {{n_fmt}}/{{total_fmt}} {{unit}} [{{elapsed}}<{{remaining}}{told}{{postfix}}]",
        file=_PlainLines(sys.stderr),
        **common,
    )
