"""What every tool does with its output: a reader that goes away, a full disk, a closed stream."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from renet.common.errors import naming
from renet.common.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = [sys.executable, str(REPOSITORY / "tools" / "runs.py")]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture()
def dead_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    "environment", [BUFFERED, BUFFERED | {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"]
)
@pytest.mark.parametrize("arguments", [["."], [".", "--json"], ["--help"]], ids=lambda arguments: arguments[-1])
def test_a_reader_that_goes_away(
    tmp_path: Path, dead_pipe: int, environment: dict[str, str], arguments: list[str]
) -> None:
    done = subprocess.run(
        [*RUNS, *arguments], cwd=tmp_path, env=environment, stdout=dead_pipe, stderr=subprocess.PIPE, timeout=60
    )
    assert done.stderr == b""
    assert done.returncode == 1 or arguments == ["--help"]  # argparse of later Pythons passes over what it cannot write


@pytest.mark.parametrize(
    "environment", [BUFFERED, BUFFERED | {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"]
)
def test_nobody_reads_the_error(tmp_path: Path, dead_pipe: int, environment: dict[str, str]) -> None:
    command = [*RUNS, "lost"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=dead_pipe, stderr=dead_pipe, timeout=60)
    assert done.returncode == 2


def test_an_error_is_told_though_nobody_reads_the_output(tmp_path: Path, dead_pipe: int) -> None:
    command = [*RUNS, "lost"]
    done = subprocess.run(
        command, cwd=tmp_path, env=BUFFERED, stdout=dead_pipe, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (2, "runs.py: lost: no such folder\n")


@pytest.mark.parametrize(
    "environment", [BUFFERED, BUFFERED | {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"]
)
def test_output_to_a_full_disk(tmp_path: Path, environment: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*RUNS, "."], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("runs.py: ")
    assert "No space left on device" in done.stderr


def test_a_closed_output(tmp_path: Path) -> None:
    done = subprocess.run(f'"{RUNS[0]}" "{RUNS[1]}" . >&-', shell=True, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = tmp_path / "large"
    file.write_bytes(b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomically(file, bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["large"]
    assert file.read_bytes() == b"old"


def test_a_name_that_the_system_gives_stays() -> None:
    with pytest.raises(FileNotFoundError) as caught, naming("other"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "given")
    assert caught.value.filename == "given"


@pytest.mark.parametrize("arguments", [[b"a\xff"], [b".", b"--json", b"\xff"]])
def test_an_argument_that_is_no_utf8(tmp_path: Path, arguments: list[bytes]) -> None:
    done = subprocess.run([*RUNS, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "\\udcff' is no UTF-8 text; rename the file" in done.stderr
    assert done.stderr.count("\n") == 1
