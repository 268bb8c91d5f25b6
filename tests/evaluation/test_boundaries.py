"""Boundary scores: against references that go from pixel to pixel, with every kind of map."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json

import renet
from renet.evaluation.bootstrap import draws
from renet.evaluation.boundaries import WIDTHS, distances, nearest_labels, score_boundaries
from renet.evaluation.image_counts import ClassCounts
from renet.evaluation.scores import scores

IGNORED = 255
SIZES = [(1, 1), (1, 9), (7, 5), (12, 17), (23, 11)]


def pair(size: tuple[int, int], seed: int, void: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of three classes with some ignored pixels, and the same shifted and spotted."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (size[0] // 4 + 2, size[1] // 4 + 2))
    blocks = np.kron(coarse, np.ones((4, 4), int))
    truth = blocks[: size[0], : size[1]].astype(np.uint8)
    prediction = blocks[1 : size[0] + 1, 2 : size[1] + 2].astype(np.uint8)
    prediction[rng.random(size) < 0.05] = 2
    truth[rng.random(size) < void] = IGNORED
    return truth, prediction


def distances_pixel_by_pixel(truth: np.ndarray) -> np.ndarray:
    found = np.zeros(truth.shape)
    places = list(np.ndindex(truth.shape))
    for p in places:
        if truth[p] != IGNORED:
            others = [max(abs(p[0] - q[0]), abs(p[1] - q[1])) for q in places if truth[q] != truth[p]]
            found[p] = min(others, default=np.inf)
    return found


def boundary_f_pixel_by_pixel(
    truth: np.ndarray, prediction: np.ndarray, counts: np.ndarray, reach: float
) -> list[float]:
    """Of maps without ignored pixels; only boundary pixels in `counts` do."""

    def boundary(labels: np.ndarray, label: int) -> list[tuple[int, int]]:
        found = []
        for row, column in np.ndindex(labels.shape):
            near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            near = [(r, c) for r, c in near if 0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]]
            if labels[row, column] == label and counts[row, column] and any(labels[n] != label for n in near):
                found.append((row, column))
        return found

    result = []
    for label in range(3):
        true, predicted = boundary(truth, label), boundary(prediction, label)
        if not true:
            result.append(math.nan)
            continue
        recalled = sum(any(math.dist(p, q) <= reach for q in predicted) for p in true) / len(true)
        precise = sum(any(math.dist(p, q) <= reach for q in true) for p in predicted) / max(len(predicted), 1)
        result.append(2 * recalled * precise / (recalled + precise) if precise and recalled else 0.0)
    return result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("void", [0, 0.1, 0.6])
def test_the_trimap_is_that_pixel_by_pixel(size: tuple[int, int], void: float) -> None:
    truth, prediction = pair(size, 1, void)
    expected = distances_pixel_by_pixel(truth)
    np.testing.assert_array_equal(distances(truth, truth == IGNORED), expected)
    found = score_boundaries(truth, prediction, 3, IGNORED, 0.1).trimap
    for width, right, true, predicted in zip(WIDTHS, found.right, found.truth, found.predicted):
        band = (expected > 0) & (expected <= width)
        assert true.tolist() == [(band & (truth == label)).sum() for label in range(3)]
        assert predicted.tolist() == [(band & (prediction == label)).sum() for label in range(3)]
        assert right.tolist() == [(band & (truth == label) & (prediction == label)).sum() for label in range(3)]


def test_the_band_around_voc_labels_is_that_of_dilation_with_squares() -> None:
    truth = np.zeros((40, 50), np.uint8)
    truth[8:30, 10:37] = IGNORED
    truth[11:27, 13:34] = 2
    for width in (1, 2, 5, 40):
        square = np.ones((2 * width + 1, 2 * width + 1))
        band = ndimage.binary_dilation(truth == IGNORED, square) & (truth != IGNORED)
        found = score_boundaries(truth, truth * 0, 3, IGNORED, 0.1).trimap
        assert found.truth[width - 1].tolist() == [(band & (truth == 0)).sum(), 0, (band & (truth == 2)).sum()]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tolerance", [0, 0.05, 0.15, 1])
@pytest.mark.parametrize("void", [0, 0.3])
def test_boundary_f_is_that_pixel_by_pixel(size: tuple[int, int], tolerance: float, void: float) -> None:
    truth, prediction = pair(size, 2, void)
    filled, depth = nearest_labels(truth, truth == IGNORED)
    reach = tolerance * math.hypot(*size)
    expected = boundary_f_pixel_by_pixel(filled, prediction, depth <= max(reach, 5), reach)
    found = score_boundaries(truth, prediction, 3, IGNORED, tolerance).f
    np.testing.assert_allclose(found, expected)


def test_ignored_pixels_take_the_nearest_label() -> None:
    truth, _ = pair((23, 31), 3, 0.5)
    truth[5:15, 8:20] = IGNORED
    filled, depth = nearest_labels(truth, truth == IGNORED)
    labelled = np.argwhere(truth != IGNORED)
    for place in np.ndindex(truth.shape):
        far = np.hypot(*(labelled - place).T)
        assert depth[place] == pytest.approx(far.min())
        near = labelled[far <= 1.03 * far.min() + 1e-6]  # OpenCV's distances are within 2.1% of a straight line's
        assert filled[place] in truth[near[:, 0], near[:, 1]]


def test_boundaries_within_the_tolerance_are_right() -> None:
    truth = np.zeros((30, 40), np.uint8)  # its diagonal is 50
    truth[:, 20:] = 1
    moved = np.roll(truth, 3, axis=1)
    moved[:, :3] = 0
    np.testing.assert_array_equal(score_boundaries(truth, moved, 3, IGNORED, 0.06).f, [1, 1, np.nan])
    np.testing.assert_array_equal(score_boundaries(truth, moved, 3, IGNORED, 0.058).f, [0, 0, np.nan])
    np.testing.assert_array_equal(score_boundaries(truth, truth * 0, 3, IGNORED, 0.06).f, [0, 0, np.nan])
    # a class of the prediction alone has no score of its own
    np.testing.assert_array_equal(score_boundaries(truth * 0, truth + 1, 3, IGNORED, 0.06).f, 3 * [np.nan])
    # with VOC's band the boundary lies in its middle
    prediction = truth.copy()
    truth[:, 18:22] = IGNORED
    f = score_boundaries(truth, prediction, 3, IGNORED, 0.02).f
    assert f[:2].tolist() == [1, 1]
    # and none is made up in the midst of a wide unlabelled region
    truth[:, 8:32] = IGNORED
    assert np.isnan(score_boundaries(truth, moved, 3, IGNORED, 0.02).f).all()


@pytest.mark.parametrize("value", [1, IGNORED])
def test_no_boundary_at_all(value: int) -> None:
    truth = np.full((6, 7), value, np.uint8)
    found = score_boundaries(truth, truth * 0, 3, IGNORED, 0.1)
    assert not found.trimap.truth.any() and np.isnan(found.f).all()


def test_an_ignored_label_among_the_classes() -> None:
    truth, prediction = pair((12, 17), 5, 0)
    beyond = np.where(truth == 1, IGNORED, truth).astype(np.uint8)
    a, b = score_boundaries(truth, prediction, 3, 1, 0.1), score_boundaries(beyond, prediction, 3, IGNORED, 0.1)
    assert all(np.array_equal(getattr(a.trimap, n), getattr(b.trimap, n)) for n in ("right", "truth", "predicted"))
    np.testing.assert_array_equal(a.f, b.f)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, one of them ignored, one of a single class."""
    folder = tmp_path_factory.mktemp("boundaries")
    for number in range(6):
        truth, prediction = pair(SIZES[number % 5 + (number == 0)], number)
        truth = {4: np.full_like(truth, IGNORED), 5: np.zeros_like(truth)}.get(number, truth)
        save_labels(folder / f"labels/{number}.png", truth)
        save_labels(folder / f"this/{number}.png", prediction)
        save_labels(folder / f"other/{number}.png", prediction * 0)
    write_dataset_json(folder / "data")
    return folder


def maps(case: Path, name: str) -> list[np.ndarray]:
    from renet.data.label_maps import read_label_map

    return [read_label_map(case / f"{name}/{number}.png") for number in range(6)]


def test_scores_and_intervals_of_several_images(case: Path) -> None:
    truths, predictions = maps(case, "labels"), maps(case, "this")
    evaluation = renet.evaluate(case / "this", case / "labels", case / "data", boundary_tolerance=0.05)
    images = [score_boundaries(t, p, 3, IGNORED, 0.05) for t, p in zip(truths, predictions)]
    drawn = []
    for weights in [np.ones(6), *np.concatenate(list(draws(6, 40, 0)))]:
        f = [[image.f[label] for image, count in zip(images, weights) for _ in range(int(count))] for label in range(3)]
        means = [np.mean(known) for each in f if (known := [value for value in each if not math.isnan(value)])]
        matrix = np.zeros((3, 3), int)
        for truth, prediction, count in zip(truths, predictions, weights):
            distance = distances_pixel_by_pixel(truth)
            for place in np.argwhere((distance > 0) & (distance <= 2)):
                matrix[truth[tuple(place)], prediction[tuple(place)]] += int(count)
        drawn.append((np.mean(means), scores(matrix).mean_iou, scores(matrix).pixel_accuracy))
    found = evaluation.boundaries.scores()
    expected = np.array(drawn)
    assert found["boundary_f"] == pytest.approx(expected[0, 0])
    assert (found["trimap_mean_iou"][1], found["trimap_pixel_accuracy"][1]) == pytest.approx(expected[0, 1:])
    intervals = evaluation.intervals(resamples=40)
    np.testing.assert_allclose(intervals["boundary_f"], np.quantile(expected[1:, 0], [0.025, 0.975]))
    np.testing.assert_allclose(intervals["trimap_mean_iou"][1], np.quantile(expected[1:, 1], [0.025, 0.975]))
    arrays = renet.evaluate(predictions, truths, case / "data", boundary_tolerance=0.05)
    np.testing.assert_array_equal(arrays.boundaries.f, evaluation.boundaries.f)
    perfect = renet.evaluate([t * (t < 3) for t in truths], truths, case / "data", boundary_tolerance=0.05)
    assert (perfect.boundaries.scores()["trimap_mean_iou"] == 1).all()
    with pytest.raises(renet.UserError, match="with another tolerance"):
        evaluation.compared_with(renet.evaluate(case / "this", case / "labels", case / "data", boundary_tolerance=0.1))
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(renet.UserError, match="tolerance is a share"):
            renet.evaluate(case / "this", case / "labels", case / "data", boundary_tolerance=bad)


def evaluate(case: Path, *more: object):
    words = ("--predictions", "this", "--labels", "labels", "--dataset", "data/dataset.json", *more)
    return call_tool("evaluate.py", *words, cwd=case)


def test_the_tool_tells_writes_and_compares(case: Path) -> None:
    result = evaluate(case, "--boundaries", 0.05, "--compare", "other", "--json", "this.json", "--resamples", 60)
    assert result.returncode == 0, result.stderr
    content = json.loads((case / "this.json").read_text())
    evaluation, other = (
        renet.evaluate(case / name, case / "labels", case / "data", boundary_tolerance=0.05)
        for name in ("this", "other")
    )
    expected = evaluation.boundaries.scores()
    written = content["boundaries"]
    assert written["tolerance"] == 0.05 and written["trimap_widths"] == list(WIDTHS)
    assert written["boundary_f"] == pytest.approx(expected["boundary_f"])
    assert written["trimap_mean_iou"] == pytest.approx(expected["trimap_mean_iou"])
    assert list(written["class_boundary_f"]) == CLASSES
    assert len(content["intervals"]["trimap_pixel_accuracy"]) == len(WIDTHS)
    difference = evaluation.compared_with(other, resamples=60)["trimap_mean_iou"]
    assert content["comparison"]["trimap_mean_iou"]["difference"] == pytest.approx(difference.value)
    assert content["comparison"]["trimap_mean_iou"]["better"] == pytest.approx(difference.better)
    lines = result.stdout.splitlines()
    assert lines[0].split()[-3:] == ["boundary", "F", "%"]
    assert sum(line.startswith("within ") for line in lines) == 7
    (line,) = [line for line in lines if line.startswith("boundary F: ")]
    assert f"{100 * expected['boundary_f']:.1f}%" in line and "tolerance 5% of the diagonal" in line
    assert sum(line.startswith("mean IoU within ") for line in lines) == 7
    result = evaluate(case, "--boundaries", "--compare", "this.json", "--resamples", 10)
    assert result.returncode == 0 and "boundaries are not compared: name this.json's predictions" in result.stderr


def test_nothing_to_score_along_boundaries_is_a_dash(case: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("5\n")
    result = evaluate(case, "--boundaries", "--list", tmp_path / "one.txt", "--json", tmp_path / "one.json")
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("within 1 px")]
    assert line.split()[-2:] == ["-", "-"] and "boundary F: -%" not in result.stdout
    written = json.loads((tmp_path / "one.json").read_text())["boundaries"]
    assert written["boundary_f"] is None and set(written["trimap_mean_iou"]) == {None}
    for bad in ("1", "-1", "nan"):
        assert "is not a number in [0, 1)" in only_line(evaluate(case, "--boundaries", bad), "evaluate.py")


def test_counts_of_no_pixels_have_no_scores() -> None:
    nothing = ClassCounts(*np.zeros((3, 2, 4), int)).measures()
    assert all(np.isnan(values).all() for values in nothing.values())
