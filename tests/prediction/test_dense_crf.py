"""The DenseCRF layer beside pydensecrf, where `make bench` has installed that, and the comparison's own parts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

from renet.benchmark.kernel_parts import CLOSE, CLOSE_SHARE, FARTHEST, check_agreement, time_crf
from renet.benchmark.kernel_tasks import crf_inputs
from renet.benchmark.settings import PYDENSECRF, QUICK, Settings
from renet.benchmark.sides import PEER_ENVIRONMENT
from renet.common.errors import UserError
from renet.data.split_reader import decode_image
from renet.prediction.crf_inference import DenseCrf
from renet.prediction.crf_parameters import NORMALIZATIONS, CrfParameters

SHAPES = ((21, 90, 121, 2), (2, 37, 61, 10), (255, 20, 31, 3), (5, 33, 1, 4))
# of any scores, picture and parameters
PROGRAM_OF_INPUTS = """
import sys, numpy as np
from pydensecrf import densecrf
given = np.load(sys.argv[1])
scores, image = given["scores"], given["image"]
iterations, pos_w, pos_xy, bi_w, bi_xy, bi_rgb = given["parameters"]
sides = {"SYMMETRIC": densecrf.NORMALIZE_SYMMETRIC, "AFTER": densecrf.NORMALIZE_AFTER,
         "BEFORE": densecrf.NORMALIZE_BEFORE, "NONE": densecrf.NO_NORMALIZATION}[str(given["normalization"])]
crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(scores))
crf.setUnaryEnergy(np.ascontiguousarray(-scores.reshape(len(scores), -1)))
crf.addPairwiseGaussian(sxy=pos_xy, compat=pos_w, normalization=sides)
crf.addPairwiseBilateral(sxy=bi_xy, srgb=bi_rgb, rgbim=image[:, :, ::-1].copy(), compat=bi_w, normalization=sides)
np.save(sys.argv[2], np.array(crf.inference(int(iterations))).reshape(scores.shape))
"""
Inference = Callable[[np.ndarray, np.ndarray, CrfParameters], np.ndarray]


def assert_equal_answers(difference: np.ndarray) -> None:
    """The contract with pydensecrf."""
    assert (difference < CLOSE).mean() >= CLOSE_SHARE and difference.max() < FARTHEST


@pytest.fixture(scope="module")
def peer() -> Path:
    """The Python that has pydensecrf."""
    python = PEER_ENVIRONMENT / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import pydensecrf.densecrf"]).returncode:
        pytest.skip(f"no pydensecrf in {PEER_ENVIRONMENT} (make bench installs it)")
    return python


@pytest.fixture
def pydensecrf(peer: Path, tmp_path: Path) -> Inference:
    """pydensecrf's Q of scores (C, H, W) and a picture (H, W, 3) BGR."""

    def infer(scores: np.ndarray, image: np.ndarray, parameters: CrfParameters) -> np.ndarray:
        given, found = tmp_path / "given.npz", tmp_path / "q.npy"
        numbers, sides = list(parameters.numbers().values()), parameters.normalization
        np.savez(given, scores=scores, image=image, parameters=numbers, normalization=sides)
        subprocess.run([peer, "-c", PROGRAM_OF_INPUTS, given, found], check=True)
        return np.load(found)

    return infer


def block_probabilities(classes: int, height: int, width: int) -> np.ndarray:
    """Probabilities (C, H, W) of blocks of 8 x 8 pixels."""
    scores = crf_inputs(classes, height, width)[0]
    return np.exp(scores) / np.exp(scores).sum(axis=0)


def difference(pydensecrf: Inference, image: np.ndarray, parameters: CrfParameters, classes: int = 5) -> np.ndarray:
    """What lies between the layer's Q and pydensecrf's."""
    probabilities = block_probabilities(classes, *image.shape[:2])
    ours = DenseCrf(classes, parameters).apply(probabilities, image)
    return np.abs(ours - pydensecrf(np.log(probabilities), image, parameters))


@pytest.mark.parametrize("width", [61, 62, 63, 64])
def test_dark_pictures_of_any_number_of_pixels(pydensecrf: Inference, width: int) -> None:
    # pydensecrf fills the pixels up to a multiple of four with black ones at the top left, and the lattice's vertices
    # that these have carry what dark pixels around them say
    image = np.random.default_rng(2).integers(3, 6, (47, width, 3))
    for iterations in (1, 5, 10):
        assert_equal_answers(difference(pydensecrf, image.astype(np.uint8), CrfParameters(max_iter=iterations)))


@pytest.mark.parametrize("name", ["2007_000033", "2007_000042"])
def test_photographs(pydensecrf: Inference, shared_data: Path, name: str) -> None:
    file = shared_data / "voc_samples" / "VOC2012" / "JPEGImages" / f"{name}.jpg"
    image = decode_image(file.read_bytes())
    # no multiple of four pixels, dark ones among them
    image = np.ascontiguousarray(image[20:241, 30:331] // 3)
    for parameters in (CrfParameters(), CrfParameters(max_iter=5, bi_xy_std=50), CrfParameters(max_iter=10)):
        assert_equal_answers(difference(pydensecrf, image, parameters, 21))


@pytest.mark.parametrize("normalization", NORMALIZATIONS[1:])
@pytest.mark.parametrize("width", [61, 64])
def test_all_normalisations(pydensecrf: Inference, normalization: str, width: int) -> None:
    image = crf_inputs(5, 47, width)[1]
    # without one the rows of K sum to hundreds
    weights = {"pos_w": 0.05, "bi_w": 0.02} if normalization == "NONE" else {}
    for iterations in (1, 5):
        parameters = CrfParameters(max_iter=iterations, normalization=normalization, **weights)
        assert_equal_answers(difference(pydensecrf, image, parameters))
        others = [replace(parameters, normalization=other) for other in NORMALIZATIONS if other != normalization]
        probabilities = block_probabilities(5, *image.shape[:2])
        q = DenseCrf(5, parameters).apply(probabilities, image)
        # each is another answer, so that none stands for another
        assert all(np.abs(DenseCrf(5, other).apply(probabilities, image) - q).max() > 0.01 for other in others)


def test_what_is_left_is_rounding(pydensecrf: Inference) -> None:
    # scores that lie one unit in the last place higher or lower move pydensecrf's own answer as far
    shape, parameters = (21, 90, 121, 10), CrfParameters(max_iter=10)
    probabilities, image = block_probabilities(*shape[:3]), crf_inputs(*shape[:3])[1]
    scores = np.log(probabilities)
    up = np.random.default_rng(3).random(scores.shape) < 0.5
    theirs = pydensecrf(scores, image, parameters)
    own = np.abs(
        pydensecrf(np.nextafter(scores, np.where(up, np.inf, -np.inf), dtype=np.float32), image, parameters) - theirs
    )
    left = np.abs(DenseCrf(21, parameters).apply(probabilities, image) - theirs)
    assert 0 < left.max() < 10 * own.max() and np.quantile(left, 0.999) < 10 * np.quantile(own, 0.999)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_q_is_pydensecrfs(peer: Path, shape: tuple[int, int, int, int]) -> None:
    settings = Settings(QUICK, 1, 1, sys.executable, build=None, stock=None, peer=peer, onednn=False)
    assert time_crf(settings, shape)["differences"][PYDENSECRF] < FARTHEST


def test_the_benchmarks_crf_changes_the_scores() -> None:
    scores, image = crf_inputs(4, 30, 41)
    assert scores.shape == (4, 30, 41) and image.shape == (30, 41, 3) and image.dtype == np.uint8
    softmax = np.exp(scores) / np.exp(scores).sum(axis=0)
    q = DenseCrf(4, CrfParameters(max_iter=2)).apply(softmax, image)
    assert np.allclose(q.sum(axis=0), 1, atol=1e-5) and np.abs(q - softmax).max() > 0.05


def test_results_that_differ_are_told() -> None:
    assert check_agreement({"crf": [0.5, 0.25]}, {"crf": [0.5, 0.250005]}) == pytest.approx(5e-6)
    with pytest.raises(UserError, match="do not compute the same"):
        check_agreement({"crf": [0.5, 0.25]}, {"crf": [0.5, 0.28]})
