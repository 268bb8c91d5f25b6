"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2  # noqa: F401  # at its import it sets LD_LIBRARY_PATH, which goes with the rest
import pytest
from environment import unlisted

REPOSITORY = Path(__file__).resolve().parents[1]


# Before any test's module takes a copy of the environment
for variable in unlisted(list(os.environ)):
    del os.environ[variable]
# What is started in the background of a script inherits that Ctrl-C is ignored; what tests start would, too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def terminals() -> None:
    """Where no terminal can be opened, as in a root folder without /dev/pts, the test skips."""
    try:
        ends = os.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be opened ({error}): is /dev/pts mounted?")
    for end in ends:
        os.close(end)


@pytest.fixture(scope="session")
def peer_command(repository: Path) -> list[str]:
    """PyTorch's side of the comparisons on a GPU (renet/gpu_check/pytorch_peer.py), on the processor; without PyTorch
    the test skips."""
    environment = repository / "build" / "bench-venv"
    if not (environment / "installed.txt").is_file():
        pytest.skip(f"no PyTorch in {environment}: make bench installs it")
    return [str(environment / "bin" / "python"), str(repository / "renet" / "gpu_check" / "pytorch_peer.py"), "cpu"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, from RENET_SHARED_DATA or beside the repository; without one the test skips."""
    named = os.environ.get("RENET_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (RENET_SHARED_DATA names another folder)")
    return folder
