"""What the system refuses (no room, files too large, too few handles) ends in one line that names the file."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from segmentation_helpers import REPOSITORY, only_line, save_labels, write_dataset_json, write_split, write_weights

from renet.common.errors import UserError
from renet.runtime.worker_process import run_native

DEPLOY = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""
COUNT = 3


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A network, a split of noisy images with labels, and predictions with their probabilities."""
    folder = tmp_path_factory.mktemp("system")
    (folder / "deploy.prototxt").write_text(DEPLOY)
    write_weights(folder / "net.caffemodel", {"scores": [np.eye(3).reshape(3, 3, 1, 1) / 50, np.zeros(3)]})
    write_dataset_json(folder / "data")
    rng = np.random.default_rng(0)
    samples = {}
    for number in range(COUNT):
        image, labels = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), rng.integers(0, 3, (90, 120))
        samples[f"p{number}"] = (image, labels.astype(np.uint8))
        save_labels(folder / f"predictions/p{number}.png", labels)
        (folder / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"images/p{number}.png"), image)
    write_split(folder / "data/test", samples)
    return folder


def limited(limit: int, largest: int, folder: Path, tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A tool under one limit of the system."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # which would be cut off, too
        preexec_fn=lambda: resource.setrlimit(limit, (largest, largest)),
    )


PREDICT = ("--model", "deploy.prototxt", "--weights", "net.caffemodel", "--input", "images", "--dataset", "data")
REPORT = ("--predictions", "mine=predictions", "--labels", "data/test")
CASES: dict[str, Callable[[Path], tuple[str, tuple[object, ...], str]]] = {
    "predict": lambda out: ("predict.py", (*PREDICT, "--out", out), f"{out}/p0.png"),
    "probabilities": lambda out: (
        "predict.py",
        (*PREDICT, "--out", out, "--probabilities"),
        f"{out}/probabilities/p0.npz",
    ),
    "report": lambda out: ("report.py", (*REPORT, "--out", out / "page.html"), f"{out}/page.html"),
    "report's pictures": lambda out: (
        "report.py",
        (*REPORT, "--budget", 0, "--out", out / "page.html"),
        f"{out}/page_files/",
    ),
    "evaluate": lambda out: (
        "evaluate.py",
        ("--predictions", "predictions", "--labels", "data/test", "--dataset", "data", "--json", out / "scores.json"),
        f"{out}/scores.json",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_the_system_lets_grow_no_further(workshop: Path, tmp_path: Path, case: str) -> None:
    tool, arguments, file = CASES[case](tmp_path / "out")
    # Room for records and for what working processes say, but not for what is written last.
    line = only_line(
        limited(resource.RLIMIT_FSIZE, 300 if case == "evaluate" else 1000, workshop, tool, *arguments), tool
    )
    assert file in line and os.strerror(errno.EFBIG) in line
    assert not [left for left in (tmp_path / "out").rglob("*") if "partial" in left.name]


def refuse(code: int) -> Iterator[None]:
    """A working process that a call of the system fails in, without the name of a file."""
    yield None
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.EROFS])
def test_what_the_system_refuses_a_working_process(code: int) -> None:
    with pytest.raises(UserError, match=os.strerror(code)):
        list(run_native(refuse, code))


def test_a_bug_in_a_working_process_is_told_as_one() -> None:
    with pytest.raises(RuntimeError, match="Traceback"):
        list(run_native(refuse, errno.ENOTTY))
