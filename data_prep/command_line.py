"""What every command line of this project shares: errors told in one line, and progress."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
SECONDS_BETWEEN_PLAIN_LINES = 10.0

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


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, description: str, unit: str
) -> tqdm[Any]:
    """A progress bar on stderr; where stderr is no terminal, plain lines: at the start, every ten
    seconds and at the end."""
    scale = unit == "B"  # bytes read better as 11.4MB
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=description, unit=unit, unit_scale=scale, dynamic_ncols=True)
    return tqdm(
        iterable,
        total=total,
        desc=description,
        unit=unit,
        unit_scale=scale,
        mininterval=SECONDS_BETWEEN_PLAIN_LINES,
        ascii=True,
        ncols=100,
        bar_format="{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        file=_PlainLines(sys.stderr),
    )
