"""What this repository knows of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "VERSION"  # its first line is the version; in an archive or an image a second one is `commit <which>`


def version() -> str:
    """The version of this repository, archive or image."""
    return (ROOT / VERSION).read_text(encoding="utf-8").split()[0]


def commit() -> str | None:
    """The repository's commit, with `+changes` where tracked files differ from it.

    In an archive or an image it is the one that they were made from. None where nothing tells it.
    """
    try:
        # first, for an archive may lie in some other repository
        noted = (ROOT / VERSION).read_text(encoding="utf-8").partition("\ncommit ")[2].strip()
    except OSError:
        noted = ""
    if noted:
        return noted
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changes.stdout.strip() else "")
