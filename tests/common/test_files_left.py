"""What a killed process leaves half written is removed by the next one; what lives, or is not ours, stays."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from segmentation_helpers import REPOSITORY

from renet.common import files
from renet.common.files import write_atomically
from renet.common.scratch import scratch_file, scratch_folder
from renet.visualization import page_pictures

HOLDERS = {
    "file": "from renet.common.files import partial_file\nwith partial_file(folder / 'x.json') as (path, stream):",
    "folder beside": "from renet.common.files import partial_folder\nwith partial_folder(folder / 'x_files') as path:",
    "folder": "from renet.networks import model_folder\nwith model_folder.new_model_folder(folder / 'model') as path:",
    "scratch": "from renet.common.scratch import scratch_folder\nwith scratch_folder() as path:",
}


@contextmanager
def holder(kind: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds something half written, and its path."""
    code = f"import sys\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n{HOLDERS[kind]}\n"
    code += "    print(path, flush=True)\n    sys.stdin.read()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment, **pipes) as process:
        path = Path(process.stdout.readline().strip())
        try:
            assert path.exists()
            yield process, path
        finally:
            process.kill()


def start_anew(folder: Path) -> None:
    """What a new process does that writes there."""
    files._SWEPT.clear()
    write_atomically(folder / "other.json", b"{}")
    with scratch_folder():
        pass


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with holder(kind, tmp_path) as (process, path):
        start_anew(tmp_path)
        assert path.exists(), "its process lives"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.exists()
    start_anew(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["other.json"]


def test_a_pages_pictures_are_removed_where_their_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(page_pictures, "_files", lambda _: seen.extend(os.listdir(tmp_path)) or iter(()))
    page_pictures.write_beside(tmp_path / "page.html", [])
    assert len(seen) == 1 and files._LEFT.fullmatch(seen[0]), seen
    assert os.listdir(tmp_path) == ["page_files"]


def test_what_is_not_ours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [".x.partial", ".x.12.partial", "x.12.01234567.partial", "renet-scratch-mine", "renet-data", "file"]
    for name in others:
        (tmp_path / name).write_text("")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    links = [".x.12.01234567.partial", "renet-scratch-abcdefgh"]
    for name in links:
        (tmp_path / name).symlink_to(outside)
    start_anew(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, *links, "outside", "other.json"])
    assert (outside / "precious").exists()


def test_temporary_files_are_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_file("text", ".prototxt") as first, scratch_file("text", ".prototxt") as second:
        assert first.parent != second.parent
        assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
        assert first.read_text() == "text"
    assert os.listdir(tmp_path) == []


def test_two_processes_begin_at_once(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from renet.common import files\nfrom renet.common.scratch import scratch_file\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "for number in range(200):\n"
        "    files._SWEPT.clear()\n"
        "    files.write_atomically(folder / f'{sys.argv[1]}.json', str(number).encode())\n"
        "    with scratch_file('text', '.x') as file:\n"
        "        assert file.read_text() == 'text'\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code, name], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)
        for name in "abc"
    ]
    assert [(process.communicate()[1], process.returncode) for process in started] == 3 * [(b"", 0)]
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.json", "c.json"]
