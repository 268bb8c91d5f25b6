"""Naming the variables of the environment that tests see, as environment.txt beside this file lists them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path


def unlisted(names: list[str]) -> list[str]:
    """Those of the environment's variables that tests do not see."""
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in listed)]
