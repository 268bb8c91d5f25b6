"""What the tests of the converters share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

DATA_PREP = Path(__file__).resolve().parents[1] / "data_prep"


def convert(script: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a converter as a user does, from a folder that is not the repository; `options` are the process's."""
    command = [sys.executable, str(DATA_PREP / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=300, **options)


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line (the last) with which a tool refuses; progress lines may stand before it."""
    assert result.returncode == 2, f"status {result.returncode}: {result.stderr}"
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def stock_decodings(encoded: bytes) -> list[np.ndarray]:
    """What stock Caffe's Data layer makes of an encoded Datum, without and with force_encoded_color."""
    buffer = np.frombuffer(encoded, np.uint8)
    return [cv2.imdecode(buffer, flag) for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR)]
