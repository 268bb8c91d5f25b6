"""Repository, or what pip installed of it: its places, version and commit, and the paths that prototxts name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from renet.common.errors import UserError

_ABOVE = Path(__file__).resolve().parents[2]
# What a wheel holds beside the library; a repository, an archive or an image has it all in one folder.
INSTALLED = (_ABOVE / "renet_caffe").is_dir()
# VERSION, prototxt/, solvers/ and the commands
SHIPPED = _ABOVE / "renet_caffe" if INSTALLED else _ABOVE
# data/, models/ and runs/: of an installation where the user stands
ROOT = Path.cwd() if INSTALLED else _ABOVE
VERSION = "VERSION"  # its first line is the version; in an archive or an image a second one is `commit <which>`


def version() -> str:
    """Read the version of this repository, archive, image or installation."""
    return (SHIPPED / VERSION).read_text(encoding="utf-8").split()[0]


def commit() -> str | None:
    """Find the repository's commit, with `+changes` where tracked files differ from it.

    In an archive, an image or an installation it is the one that they were made from. None where nothing tells it.
    """
    try:
        # first, for an archive may lie in some other repository
        noted = (SHIPPED / VERSION).read_text(encoding="utf-8").partition("\ncommit ")[2].strip()
    except OSError:
        noted = ""
    if noted or INSTALLED:
        return noted or None
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changes.stdout.strip() else "")


def product_path(path: Path) -> str:
    """Write `path` as prototxts name it: from the repository's root where it lies inside, else in full."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(absolute)


def find_file(name: str, file: Path) -> Path:
    """Find the path `name` that stands in the prototxt `file`: from that file's own folder, so that a folder can be
    copied, else from the current folder, as in Caffe, else from the repository's root, else among what is shipped.

    Raises:
        UserError: to nothing.
    """
    for base in (file.parent, Path(), ROOT, SHIPPED):
        if (base / name).exists():
            if base != file.parent and Path.cwd() == ROOT and (ROOT / name).exists():
                return Path(name)  # as it is written, which stock Caffe understands there
            return Path(path_for_caffe(base / name))
    raise UserError(f"{file}: {name!r} leads to nothing, neither from its own or the current folder nor from {ROOT}")


def shipped_file(path: Path) -> Path:
    """Find a file that is named as in the repository, `solvers/x.prototxt`: where an installation has it, if there is
    none of that name where the user stands."""
    shipped = SHIPPED / path
    return shipped if not path.exists() and shipped.exists() else path


def path_for_caffe(path: Path) -> str:
    """Write `path` from the repository's root where this process stands there and the path lies inside, else in
    full."""
    absolute = Path(os.path.abspath(path))
    inside = Path.cwd() == ROOT and absolute.is_relative_to(ROOT)
    return str(absolute.relative_to(ROOT) if inside else absolute)
