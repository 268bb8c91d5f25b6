"""The DenseCRF layer beside pydensecrf, where `make bench` has installed that, and the comparison's own parts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

from data_prep.command_line import UserError
from tools.benchmark_kernels import CLOSE, CLOSE_SHARE, FARTHEST, check_agreement
from tools.speed_sides import PEER_ENVIRONMENT
from tools.speed_worker import CaffeCrf, CrfShape, crf_inputs

SHAPES = (CrfShape(21, 90, 121, 2), CrfShape(2, 37, 61, 10), CrfShape(255, 20, 31, 3), CrfShape(5, 33, 1, 4))
PEER_PROGRAM = """
import sys, numpy as np
from tools.speed_worker import CrfShape, Pydensecrf
task = Pydensecrf(CrfShape(*map(int, sys.argv[1].split(","))), False, 1)
task.run()
np.save(sys.argv[2], task.results()["Q"])
"""


@pytest.fixture(scope="module")
def peer() -> Path:
    """The Python that has pydensecrf."""
    python = PEER_ENVIRONMENT / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import pydensecrf.densecrf"]).returncode:
        pytest.skip(f"no pydensecrf in {PEER_ENVIRONMENT} (make bench installs it)")
    return python


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_q_is_pydensecrfs(peer: Path, repository: Path, tmp_path: Path, shape: CrfShape) -> None:
    file = tmp_path / "q.npy"
    subprocess.run([peer, "-c", PEER_PROGRAM, str(shape), file], check=True, cwd=repository)
    task = CaffeCrf(shape, False, 1)
    task.run()
    difference = np.abs(task.results()["Q"] - np.load(file))
    assert (difference < CLOSE).mean() >= CLOSE_SHARE and difference.max() < FARTHEST


def test_the_benchmarks_crf_changes_the_scores() -> None:
    shape = CrfShape(4, 30, 41, 2)
    scores, image = crf_inputs(shape)
    assert scores.shape == (4, 30, 41) and image.shape == (30, 41, 3) and image.dtype == np.uint8
    task = CaffeCrf(shape, False, 1)
    task.run()
    q = task.results()["Q"]
    softmax = np.exp(scores) / np.exp(scores).sum(axis=0)
    assert np.allclose(q.sum(axis=0), 1, atol=1e-5) and np.abs(q - softmax).max() > 0.05


def test_results_that_differ_are_told() -> None:
    assert check_agreement({"Q": [0.5, 0.25]}, {"Q": [0.5, 0.2505]}) == pytest.approx(5e-4)
    with pytest.raises(UserError, match="do not compute the same"):
        check_agreement({"Q": [0.5, 0.25]}, {"Q": [0.5, 0.28]})
