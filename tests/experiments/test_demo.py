"""tools/demo.py in its short form: every step from nothing to the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from renet.experiments.demo import table


def demo(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "tools" / "demo.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_short_demo_from_nothing_and_again(repository: Path, tmp_path: Path) -> None:
    first = demo(repository, "--short", tmp_path)
    assert first.returncode == 0, first.stderr
    page = (tmp_path / "index.html").read_text()
    assert "n_renet_small" in page
    assert "conv_small" in page
    for model in ("n_renet_small", "conv_small"):
        evaluation = json.loads((tmp_path / model / "evaluation.json").read_text())
        assert evaluation["images"] == 3
        assert f"{100 * evaluation['pixel_accuracy']:.1f}" in first.stdout
    assert "mean IoU where distant context decides" in first.stdout
    weights = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.caffemodel")}
    again = demo(repository, "--short", tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("trained already") == 2
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.caffemodel")} == weights


def test_a_failing_step_ends_the_demo(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("in the way")
    done = demo(repository, "--short", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "demo.py: stopped there; the same command goes on from it"
    assert "tools/train.py" not in done.stdout


def test_table_leaves_out_what_has_no_score() -> None:
    scores = {"pixel_accuracy": 0.5, "class_accuracy": 0.25, "mean_iou": 0.125}
    evaluations = {
        "one": {**scores, "iou": {"beach": 0.75, "road": 0.25}},
        "two": {**scores, "iou": {"beach": None, "road": 0.1}},
    }
    lines = [line.rsplit(maxsplit=2) for line in table(evaluations, ("beach", "road")).splitlines()[1:]]
    assert lines[0][1:] == ["50.0", "50.0"]
    assert lines[3] == ["IoU of beach", "75.0", "-"]
    assert [float(cell) for cell in lines[5][1:]] == pytest.approx([50, 10])
