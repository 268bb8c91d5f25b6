"""What every command line of this project shares: errors told in one line, and progress."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
# Seconds between two lines of progress in a log: at first, as a part of the time gone by, and at most.
SHORTEST_BETWEEN_PLAIN_LINES = 10.0
PART_BETWEEN_PLAIN_LINES = 0.05
LONGEST_BETWEEN_PLAIN_LINES = 300.0

# The machine's state, not a programming error, even where the system names no file.
_ENVIRONMENT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})


class UserError(Exception):
    """Something that a user can mend; the message is one line that names the file or the option concerned."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line; for the commands of a tool that has several (`add_subparsers`)."""

    def error(self, message: str) -> NoReturn:
        """End with `tool: message` and status 2."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog.split()[0]}: {message} (--help explains)\n")


def run(
    main: Callable[[argparse.Namespace], int | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv` (default: the process's own), call `main` with the result, and return the exit status.

    UserError, and OSError that names a file, become one line `tool: message` on stderr and status 2; a wrong
    argument ends in SystemExit with status 2 and such a line; Ctrl-C gives 130. Everything else is a bug and is
    raised with its traceback.
    """

    parser.error = partial(CommandParser.error, parser)  # type: ignore[method-assign]
    arguments = parser.parse_args(argv)
    try:
        return main(arguments) or 0
    except UserError as error:
        return _complain(parser, str(error))
    except BrokenPipeError:
        # The reader of our output went away (`| head`): keep the interpreter from complaining at its exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in _ENVIRONMENT_ERRORS:
            raise
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _complain(parser, f"{where}{error.strerror}")
    except KeyboardInterrupt:
        _complain(parser, "interrupted")
        return EXIT_INTERRUPTED


def _complain(parser: argparse.ArgumentParser, message: str) -> int:
    print(f"{parser.prog}: {' '.join(message.split())}", file=sys.stderr)
    return EXIT_BAD_INPUT


class _PlainLines:
    """A stream on which tqdm's redrawn bar becomes lines of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.replace("\r", "").strip()
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
    """How long to wait for the next line of a log after `elapsed` seconds of work."""
    return min(LONGEST_BETWEEN_PLAIN_LINES, max(SHORTEST_BETWEEN_PLAIN_LINES, PART_BETWEEN_PLAIN_LINES * elapsed))


def draws_bars() -> bool:
    """Whether progress is a bar that is drawn again and again: on a terminal, unless it is a dumb one or the
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
    """A progress bar on stderr; where none can be drawn (see `draws_bars`) plain lines: at the start, every ten
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
