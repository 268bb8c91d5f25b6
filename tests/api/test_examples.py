"""The examples of docs/python.md, run as they stand, one after another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_pages_examples(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 5
    scenes = ["--train", "6", "--test", "2", "--size", "48x64", "--out", "data/mine"]
    script = REPOSITORY / "data_prep/synthetic_scenes.py"
    subprocess.run([sys.executable, script, *scenes], cwd=tmp_path, check=True, capture_output=True)
    street = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "street.png"), street)
    (tmp_path / "examples.py").write_text("\n".join(examples))
    done = subprocess.run([sys.executable, "examples.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("finished 20 mean IoU ")
    assert lines[1].endswith("(50, 70, 3)")
    assert lines[2] == "nowhere.png: no such file"
    assert lines[-3].endswith("(10, 10)") and lines[-2].startswith("[0.") and lines[-1].count("0.") >= 3
