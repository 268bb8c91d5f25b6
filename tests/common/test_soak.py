"""A small share of `make soak`: faults at random moments, and long work whose memory stays as it is."""

from __future__ import annotations

import re
import subprocess
import sys

from segmentation_helpers import REPOSITORY


def test_nothing_is_lost_by_a_few_faults() -> None:
    command = [sys.executable, REPOSITORY / "tests/soak.py", "--trials", "4", "--images", "200"]
    command += ["--tasks", "train", "predict", "--faults", "kill", "clock"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 faults, \d+ kills among them, 0 of them lost something$", done.stdout, re.M)
    assert done.stdout.count("did not mind") == 2
    assert "predict 200 images: " in done.stdout
