"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def peer_command(repository: Path) -> list[str]:
    """PyTorch's side of the comparisons on a GPU (tools/gpu_peer.py), on the processor; without PyTorch the test
    skips."""
    environment = repository / "build" / "bench-venv"
    if not (environment / "installed.txt").is_file():
        pytest.skip(f"no PyTorch in {environment}: make bench installs it")
    return [str(environment / "bin" / "python"), str(repository / "tools" / "gpu_peer.py"), "cpu"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, from RENET_SHARED_DATA or beside the repository; without one the test skips."""
    named = os.environ.get("RENET_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (RENET_SHARED_DATA names another folder)")
    return folder
