"""Frame of a command: its parser, errors in one line, exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn, TextIO

from renet.common.commands import as_typed
from renet.common.errors import UserError, is_of_the_system, told

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class CommandParser(argparse.ArgumentParser):
    """Parser whose errors are one line; for the commands of a tool that has several (`add_subparsers`)."""

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

    _adapt(parser)
    parser.error = partial(CommandParser.error, parser)  # type: ignore[method-assign]
    try:
        _check_text(parser, sys.argv[1:] if argv is None else argv)
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help, or a wrong argument
        raise SystemExit(_delivered(parser, end.code)) from None
    except OSError as error:
        return _undelivered(parser, sys.stdout, error, 1)
    return _delivered(parser, _status(main, parser, arguments))


def _check_text(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """End where an argument is no UTF-8, as a file of such a name: no record of ours and no prototxt could name it."""
    for argument in argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            parser.error(f"{argument!r} is no UTF-8 text; rename the file")


def _adapt(parser: argparse.ArgumentParser) -> None:
    """Let the parser, and those of its commands, name all commands as they are typed here."""
    parser.prog = as_typed(parser.prog)
    own_help = parser.format_help
    parser.format_help = lambda: as_typed(own_help())  # type: ignore[method-assign]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _adapt(each)


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
        print(f"{parser.prog}: {as_typed(' '.join(message.split()))}", file=sys.stderr)
    return EXIT_BAD_INPUT
