"""Runner of this repository's scripts one after another, each shown as a user would type it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

from renet.common.commands import as_typed
from renet.common.repository import ROOT, SHIPPED


class Stopped(Exception):
    """End of a command with another status than 0; the argument is the status for the caller."""


def command_line(script: str, *arguments: object) -> str:
    """Write the command as a person types it, from the repository's root."""
    return as_typed(f".venv/bin/python {shlex.join([script, *map(str, arguments)])}")


def command(script: str, *arguments: object) -> None:
    """Run one of the repository's scripts in its root, as a user does, and show how.

    Ctrl-C reaches the script by itself; SIGTERM is passed on. Either way the script ends in its own manner.

    Raises:
        Stopped: it failed or was stopped; it has said why.
    """
    print(f"\n$ {command_line(script, *arguments)}", flush=True)
    previous = {}
    file = script if ROOT == SHIPPED else str(SHIPPED / script)
    with subprocess.Popen([sys.executable, file, *map(str, arguments)], cwd=ROOT) as process:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(
                number, lambda received, _: process.send_signal(received) if received == signal.SIGTERM else None
            )
        status = process.wait()
    for number, handler in previous.items():
        signal.signal(number, handler)
    if status:
        raise Stopped(status if status > 0 else 128 - status)
