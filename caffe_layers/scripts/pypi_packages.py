"""Pinned packages of PyPI that the build uses: read the pins, install them into a folder, read their headers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

STAMP = "installed.txt"


class PackageError(Exception):
    """What a folder is to be made of cannot be had, or does not serve; the message is one line."""


def read_pins(path: Path) -> dict[str, str]:
    """Package -> the line that pins it, from a file of requirements."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line.split("==")[0]: line for line in lines if line and not line.startswith("#")}


def installed(folder: Path) -> dict[str, str]:
    """What a folder was made of, as `read_pins` gives it; empty where it was left half made."""
    stamp = folder / STAMP
    return read_pins(stamp) if stamp.is_file() else {}


def install(folder: Path, lines: Iterable[str], place: str, lay_out: Callable[[Path], None], otherwise: str) -> None:
    """Make `folder` of packages: put everything beside its place, and rename it when it is whole.

    Args:
        folder: where to; what was there is replaced.
        lines: the lines that pin the packages.
        place: pip's option that takes the folder, --target or --prefix.
        lay_out: brings what pip has put into a folder into its final layout.
        otherwise: what to do where packages cannot be had, for the message.

    Raises:
        PackageError: pip failed; or what `lay_out` raises.
    """
    lines = list(lines)
    new = folder.with_name(folder.name + ".part")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    print(f"installing into {folder}: {' '.join(lines)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    command += ["--ignore-installed", f"{place}={new}", *lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip says nothing"]
        reason = next((line for line in said if line.startswith("ERROR:")), said[-1])
        raise PackageError(f"packages cannot be installed ({reason.removeprefix('ERROR:').strip()}); {otherwise}")
    lay_out(new)
    (new / STAMP).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def defined_number(header: Path, name: str) -> int | None:
    """The value of ``#define name 123`` in a header; None where there is no such header or line."""
    if not header.is_file():
        return None
    found = re.search(rf"^#define\s+{name}\s+(\d+)", header.read_text(errors="replace"), re.MULTILINE)
    return int(found[1]) if found else None
