"""What every command line of this project shares: errors told in one line, and progress."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
_ENVIRONMENT_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),  # disks and their limits
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),  # limits of a process or of the machine
    }
)


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
    argument ends in SystemExit with status 2 and such a line; Ctrl-C gives 130; where nobody reads the output any
    more (`| head`) the tool ends silently with status 1. Everything else is a bug and is raised with its traceback.
    """

    parser.error = partial(CommandParser.error, parser)  # type: ignore[method-assign]
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help, or a wrong argument
        raise SystemExit(_delivered(parser, end.code)) from None
    except OSError as error:
        return _undelivered(parser, sys.stdout, error, 1)
    return _delivered(parser, _status(main, parser, arguments))


def _status(
    main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> int:
    try:
        return main(arguments) or 0
    except UserError as error:
        return _complain(parser, str(error))
    except BrokenPipeError:
        return 1
    except OSError as error:
        if not is_of_the_system(error):
            raise
        return _complain(parser, told(error))
    except KeyboardInterrupt:
        _complain(parser, "interrupted")
        return EXIT_INTERRUPTED


def is_of_the_system(error: OSError) -> bool:
    """Whether a file or the machine is at fault, and not the program."""
    return error.filename is not None or error.errno in _ENVIRONMENT_ERRORS


def told(error: OSError) -> str:
    """A system's error in one line, with the file where it names one."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{where}{error.strerror}"


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Let errors of the system name `file` where they do not by themselves: a write into an open file, for example."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(file)
        raise


def _delivered(parser: argparse.ArgumentParser, status: int) -> int:
    """The exit status, once all that was printed is written.

    The interpreter would write the rest at its exit, where a fault cannot be told any more but as an ignored exception.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # as it is where the caller closed it
                stream.flush()
        except OSError as error:
            status = _undelivered(parser, stream, error, status)
    return status


def _undelivered(parser: argparse.ArgumentParser, stream: TextIO, error: OSError, status: int) -> int:
    """The exit status where what the stream holds cannot be written."""
    # Let it go nowhere, so that the interpreter has nothing to complain of at its exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    if isinstance(error, BrokenPipeError):
        return status or 1
    return _complain(parser, f"cannot write to {stream.name.strip('<>')}: {error.strerror}")


def _complain(parser: argparse.ArgumentParser, message: str) -> int:
    with suppress(OSError):  # nobody may read this, either
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
