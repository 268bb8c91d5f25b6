"""What can be said of the images without building one: the Dockerfile's sources, and what starts in the image."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "docker/Dockerfile").read_text()


def load_entrypoint():
    specification = importlib.util.spec_from_file_location("entrypoint", REPOSITORY / "docker/entrypoint.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


entrypoint = load_entrypoint()


def copied() -> list[str]:
    """What the Dockerfile copies out of the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_is_sent_to_the_build() -> None:
    allowed = [line[2:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!/")]
    assert {"packages.txt", "caffe_layers", "tools", "prototxt"} <= set(copied())
    for source in copied():
        assert (REPOSITORY / source).exists(), source
        assert any(Path(source.split("/")[0]).match(pattern) for pattern in allowed), source


def test_python_packages_and_system_packages_are_those_of_make() -> None:
    assert "make packages" in DOCKERFILE
    assert "--require-hashes -r requirements-run.lock" in DOCKERFILE
    assert "requirements-dev" not in DOCKERFILE.split("FROM ${BASE_IMAGE}\n")[1]


def test_what_changes_often_is_copied_last() -> None:
    image = DOCKERFILE.split("FROM ${BASE_IMAGE}\n")[1]
    assert image.index("COPY --from=packages") < image.index("COPY prototxt") < image.index("ARG COMMIT")
    before_compiling = DOCKERFILE.split("FROM system AS caffe")[1].split("make caffe")[0]
    assert "tools" not in before_compiling


def test_collecting_the_programs_needs_only_the_files_that_are_copied_for_it(tmp_path: Path) -> None:
    collecting = DOCKERFILE.split("LICENSE VERSION ./\n")[1].split("\nRUN")[0]
    for line in re.findall(r"^COPY (.+)$", collecting, re.M):
        source, target = line.split()
        if (REPOSITORY / source).is_dir():
            shutil.copytree(REPOSITORY / source, tmp_path / target)
        else:
            (tmp_path / target).mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / source, tmp_path / target)
    command = [sys.executable, "-c", "import sys; sys.path[:] = ['.', *filter(None, sys.path)]; import tools.dist"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
    # .venv's own paths come after the folder's
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("caffe train -solver solvers/a.prototxt", "runs"),
        ("/opt/renet-caffe/bin/caffe train", "runs"),
        ("caffe time -model a.prototxt", None),
        ("caffe", None),
        ("python tools/train.py --solver s.prototxt", "runs"),
        ("python3.11 tools/train.py --solver s.prototxt --run data/mine", "data/mine"),
        ("python tools/train.py --run=/scratch/mine", "/scratch/mine"),
        ("tools/demo.py", "runs"),
        ("python tools/demo.py --short /tmp/d", "/tmp/d"),
        ("python tools/train.py --help", None),
        ("python tools/predict.py --run x", None),
        ("python", None),
        ("bash", None),
    ],
)
def test_where_a_command_writes_its_training(command: str, folder: str | None) -> None:
    assert entrypoint.results_folder(command.split()) == (None if folder is None else Path(folder))


def test_what_is_mounted_is_kept() -> None:
    table = (
        "700 600 0:41 / / rw,relatime - overlay overlay rw\n"
        "701 700 0:43 / /proc rw - proc proc rw\n"
        "702 700 8:1 /home/me/runs /workspace/runs rw - ext4 /dev/sda1 rw\n"
        "703 700 8:1 /home/me/x /my\\040data rw - ext4 /dev/sda1 rw\n"
        "704 700 8:1 /home/me/y /Läufe/画像\\134x\\011y rw - ext4 /dev/sda1 rw\n"
    )
    points = entrypoint.mount_points(table)
    assert points == {Path("/proc"), Path("/workspace/runs"), Path("/my data"), Path("/Läufe/画像\\x\ty")}
    assert entrypoint.is_kept(Path("/Läufe/画像\\x\ty/one"), points)
    assert entrypoint.is_kept(Path("/workspace/runs/one"), points)
    assert not entrypoint.is_kept(Path("/workspace/runs2"), points)
    assert not entrypoint.is_kept(Path("/workspace"), points)


def test_a_folder_that_can_be_made_is_writable(tmp_path: Path) -> None:
    assert entrypoint.is_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert not entrypoint.is_writable(tmp_path / "file" / "b")
    if os.getuid():
        tmp_path.chmod(0o555)
        assert not entrypoint.is_writable(tmp_path / "a")


@pytest.mark.parametrize("gpu", [False, True])
def test_what_can_be_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    (tmp_path / "VERSION").write_text("1.2.3\ncommit abc\n")
    (tmp_path / "usage.txt").write_text((REPOSITORY / "docker/usage.txt").read_text())
    if gpu:
        (tmp_path / "lib/cuda").mkdir(parents=True)
    monkeypatch.setattr(entrypoint, "HERE", tmp_path)
    text = entrypoint.usage()
    assert text.startswith("ReNet-Caffe 1.2.3: ")
    assert ("--gpus all renet-caffe:gpu" in text) == gpu
    assert ("background.prototxt -gpu 0" in text) == gpu
    for file in re.findall(r"(?:tools|solvers|data_prep|docs)/\w[\w.]*\.\w+", text):
        assert (REPOSITORY / file).is_file(), file
    assert max(map(len, text.splitlines())) <= 120
