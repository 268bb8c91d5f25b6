"""Commands that hold still at a named point of their work until a signal comes, for tests that interrupt them."""

from __future__ import annotations

import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MOST_SECONDS = 120


@dataclass(frozen=True)
class Hold:
    """A point at which a command of ours, or a working process of it, holds still until a signal comes.

    Attributes:
        at: a regular expression of what happens there (see held_process/sitecustomize.py).
        number: the how manieth of these.
        sign: a file that is there once the command holds.
    """

    at: str
    number: int
    sign: Path

    @classmethod
    def make(cls, folder: Path, at: str, number: int = 1) -> Hold:
        """A point whose sign has a name of its own in the folder."""
        return cls(at, number, folder / f"holds-{secrets.token_hex(8)}")

    @property
    def environment(self) -> dict[str, str]:
        """What the command is to be started with, beside all else."""
        return {
            "PYTHONPATH": str(Path(__file__).with_name("held_process")),
            "HOLD_AT": self.at,
            "HOLD_NUMBER": str(self.number),
            "HOLD_SIGN": str(self.sign),
        }

    def is_reached(self) -> bool:
        """Whether the command holds."""
        return self.sign.exists()

    def wait(self, process: subprocess.Popen[str]) -> None:
        """Wait until it does; where the command ends instead, tell what it said."""
        end = time.monotonic() + MOST_SECONDS
        while not self.is_reached():
            assert process.poll() is None, f"ended before {self}: {process.communicate()}"
            if time.monotonic() > end:
                process.kill()
                raise AssertionError(f"did not come to {self}: {process.communicate()}")
            time.sleep(0.01)
