"""A small share of `make soak`: faults at random moments, and long work whose memory stays as it is."""

from __future__ import annotations

import subprocess
import sys

from segmentation_helpers import REPOSITORY


def test_nothing_is_lost_by_a_few_faults() -> None:
    command = [sys.executable, REPOSITORY / "tests/soak.py", "--trials", "4", "--images", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 faults, 0 of them lost something" in done.stdout
    assert "predict 200 images: " in done.stdout
