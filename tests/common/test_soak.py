"""A small share of `make soak`: faults at random moments, and long work whose memory stays as it is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from segmentation_helpers import REPOSITORY


def test_nothing_is_lost_by_a_few_faults() -> None:
    command = [sys.executable, REPOSITORY / "tests/soak.py", "--trials", "4", "--images", "200"]
    command += ["--tasks", "train", "predict", "--faults", "kill", "clock"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^4 faults, \d+ kills among them, 0 of them lost something$", done.stdout, re.M)
    assert done.stdout.count("did not mind") == 2
    assert "predict 200 images: " in done.stdout


def stopped_at(tmp_path: Path, pattern: str, count: int, *options: str) -> str:
    """What a campaign says that is stopped when there are so many files of this pattern."""
    command = [sys.executable, REPOSITORY / "tests/soak.py", "--tasks", "predict", *options]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while len([*tmp_path.glob(f"soak_*/{pattern}")]) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, told = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said + told
    assert told == "stopped by SIGTERM\n"
    assert not [*tmp_path.iterdir()]
    return said


def test_stopped_early_it_says_what_it_has_counted(tmp_path: Path) -> None:
    said = stopped_at(tmp_path, "trial_*", 1, "--faults", "kill")
    assert re.search(r"^\d+ faults, \d+ kills among them, 0 of them lost something$", said, re.M)


def test_stopped_early_it_says_what_work_of_long_duration_held(tmp_path: Path) -> None:
    said = stopped_at(tmp_path, "many_predicted/*.png", 600, "--trials", "0", "--images", "3000")
    assert re.search(
        r"^predict 3000 images: \d+ MiB, \d+ files, \d+ threads at 1\d%; \d+ MiB, .* at \d\d%$", said, re.M
    )
