"""`import renet` as programs do it: anywhere, soon, and without Caffe."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import renet

REPOSITORY = Path(__file__).resolve().parents[2]


def test_it_is_quick_and_loads_neither_caffe_nor_numpy(tmp_path: Path) -> None:
    code = "import sys, renet; print({'caffe', 'numpy', 'cv2'} & set(sys.modules))"
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        seconds.append(time.monotonic() - start)
        assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")
    assert min(seconds) < 1


def test_every_name_is_there_typed_and_told() -> None:
    assert (REPOSITORY / "renet/py.typed").exists()
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    for name in renet.__all__:
        assert getattr(renet, name).__doc__, name
        assert name in dir(renet)
        assert f"renet.{name}" in page, f"docs/python.md does not tell of {name}"
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        renet.Predicter  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'rite'"):
        renet.networks.rite  # noqa: B018


def test_types_and_homes_name_the_same() -> None:
    tree = ast.parse((REPOSITORY / "renet/__init__.py").read_text(), feature_version=(3, 8))
    imported = {
        alias.name: node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name: imported[name] for name in renet._HOMES} == renet._HOMES
    assert {*renet._HOMES, "networks"} == set(renet.__all__)
