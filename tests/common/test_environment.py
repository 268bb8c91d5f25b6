"""What the tests see of the environment: nothing that a developer's shell sets may hide a fault from them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from environment import unlisted

WANTED = {
    "HOME": "/nowhere",
    "https_proxy": "http://proxy:3128",
    "SSL_CERT_FILE": "/etc/ssl/our own.crt",
    "PIP_INDEX_URL": "http://index/simple",
}
HIDING = {
    "PYTHONUNBUFFERED": "1",
    "OMP_NUM_THREADS": "1",
    "GLOG_minloglevel": "2",
    "LC_ALL": "C",
    "TERM": "xterm",
    "MAKEFLAGS": "k",
    "xPIP": "",
}
SET_BY_A_LIBRARY = "CRC32C_SW_MODE"  # that of TensorBoard's checksums, where a test before has imported it


def test_continuous_integration_starts_with_what_is_listed(repository: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "make"
    stand_in.write_text('#!/bin/sh\necho "$@"\npwd\nenv -0 | sort -z | tr "\\0" "\\n"\n')
    stand_in.chmod(0o755)
    environment = WANTED | HIDING | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", repository / ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    words, folder, *lines = done.stdout.splitlines()
    assert (words, folder) == ("test", str(repository))
    seen = dict(line.split("=", 1) for line in lines)
    assert {name: seen.pop(name, None) for name in WANTED} == WANTED
    assert [seen.pop(name) for name in ("RENET_CHECK_IMAGE", "RENET_CHECK_SYSTEMS")] == ["1", "1"]
    assert seen.keys() == {"PATH", "PWD"}  # which the shell itself sets


def test_tests_see_no_other_variable() -> None:
    assert unlisted([*WANTED, *HIDING]) == list(HIDING)
    found = [name for name in unlisted(list(os.environ)) if not name.startswith("PYTEST_")]
    assert [name for name in found if name != SET_BY_A_LIBRARY] == []


def test_what_tests_start_heeds_interruptions(repository: Path) -> None:
    """Also where the tests run in the background of a script, whose processes ignore them."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import conftest, subprocess, sys; "
        "subprocess.run([sys.executable, '-c', 'import signal; print(signal.getsignal(signal.SIGINT).__name__)'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository / "tests", capture_output=True, text=True)
    assert done.stdout.strip() == signal.default_int_handler.__name__, done.stderr


def test_every_file_of_tests_is_collected(repository: Path) -> None:
    """pytest passes over folders of some names, `build` among them, unless it is told not to."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True).stdout
    collected = {line.partition("::")[0] for line in listed.splitlines() if "::" in line}
    files = {file.relative_to(repository).as_posix() for file in (repository / "tests").rglob("test_*.py")}
    assert files and files <= collected
