"""Scores by size: against a reference that grows regions pixel by pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json

import renet
from renet.evaluation.bootstrap import draws
from renet.evaluation.image_counts import ClassCounts
from renet.evaluation.sizes import SHARES, band_names, score_sizes

IGNORED = 255
PARTS = (0.04, 0.2)


def pair(size: tuple[int, int], seed: int, void: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of three classes and single pixels of them, with some ignored; and the same with every fifth wrong."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (size[0] // 4 + 2, size[1] // 4 + 2))
    truth = np.kron(coarse, np.ones((4, 4), int))[: size[0], : size[1]].astype(np.uint8)
    truth[rng.random(size) < 0.05] = 1
    prediction = np.where(rng.random(size) < 0.2, rng.integers(0, 3, size), truth).astype(np.uint8)
    truth[rng.random(size) < void] = IGNORED
    return truth, prediction


def regions_pixel_by_pixel(truth: np.ndarray) -> list[tuple[int, set[tuple[int, int]]]]:
    """Class and pixels of each region."""
    left = {p for p in np.ndindex(truth.shape) if truth[p] != IGNORED}
    found = []
    while left:
        start = left.pop()
        region, edge = {start}, [start]
        while edge:
            row, column = edge.pop()
            for near in [(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]:
                if near in left and truth[near] == truth[start]:
                    left.remove(near)
                    region.add(near)
                    edge.append(near)
        found.append((int(truth[start]), region))
    return found


def counts_pixel_by_pixel(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right, truth, certainly and possibly predicted, bands x 3; where regions of two bands are about as near (OpenCV's
    distances are good to 2%) a wrong pixel may be either's. And the numbers of regions."""
    found = regions_pixel_by_pixel(truth)
    band_of = [sum(len(region) / truth.size >= part for part in PARTS) for _, region in found]
    counts, number = np.zeros((4, 3, 3), int), np.zeros((3, 3), int)
    for (label, region), band in zip(found, band_of):
        number[band, label] += 1
        counts[1, band, label] += len(region)
        right = sum(prediction[p] == label for p in region)
        counts[[0, 2, 3], band, label] += right
    for p in np.ndindex(truth.shape):
        label = prediction[p]
        if truth[p] in (IGNORED, label):
            continue
        near: dict[int, float] = {}
        for (other, region), band in zip(found, band_of):
            if other == label:
                near[band] = min(near.get(band, math.inf), min(math.dist(p, q) for q in region))
        nearest = [band for band, distance in near.items() if distance <= 1.02 * min(near.values())]
        for band in nearest:
            counts[3, band, label] += 1
            counts[2, band, label] += len(nearest) == 1
    return counts, number


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (12, 17), (23, 11)])
@pytest.mark.parametrize("void", [0, 0.1, 0.6, 1])
def test_counts_are_those_pixel_by_pixel(size: tuple[int, int], void: float) -> None:
    truth, prediction = pair(size, 1, void)
    found = score_sizes(truth, prediction, 3, IGNORED, PARTS)
    (right, true, least, most), regions = counts_pixel_by_pixel(truth, prediction)
    np.testing.assert_array_equal(found.counts.right, right)
    np.testing.assert_array_equal(found.counts.truth, true)
    np.testing.assert_array_equal(found.regions, regions)
    assert (least <= found.counts.predicted).all() and (found.counts.predicted <= most).all()
    np.testing.assert_array_equal(found.counts.predicted.sum(axis=0), _of_present(truth, prediction))


def _of_present(truth: np.ndarray, prediction: np.ndarray) -> list[int]:
    """Predicted pixels of each class that the truth holds."""
    counted = prediction[truth != IGNORED]
    return [np.count_nonzero(counted == label) if (truth == label).any() else 0 for label in range(3)]


def test_a_wrong_pixel_counts_for_the_nearest_region() -> None:
    truth = np.zeros((20, 40), np.uint8)
    truth[5, 3], truth[8:18, 20:38] = 1, 1  # one pixel, and more than a fifth of the image
    prediction = truth.copy()
    prediction[5, 5], prediction[0, 36:40], prediction[19, 0] = 1, 1, 2
    found = score_sizes(truth, prediction, 3, IGNORED, PARTS).counts
    np.testing.assert_array_equal(found.right[:, 1], [1, 0, 180])
    np.testing.assert_array_equal(found.predicted[:, 1], [2, 0, 184])
    assert not found.predicted[:, 2].any(), "there is no region of it"
    assert found.iou[0, 1] == 0.5


def test_a_region_of_just_the_share_is_in_the_larger_band() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[0, :4] = 1
    assert score_sizes(truth, truth, 2, IGNORED, PARTS).regions[:, 1].tolist() == [0, 1, 0]
    assert band_names(SHARES) == ["below 1%", "1 to 4%", "4 to 16%", "16% and more"]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Six images; predictions `this`, and `other`, which never finds the leaf."""
    write_dataset_json(tmp_path / "data")
    for number in range(6):
        truth, prediction = pair((24, 30), number)
        save_labels(tmp_path / "labels" / f"i{number}.png", truth)
        save_labels(tmp_path / "this" / f"i{number}.png", prediction)
        save_labels(tmp_path / "other" / f"i{number}.png", np.where(prediction == 1, 0, prediction))
    return tmp_path


def evaluated(case: Path, name: str = "this", shares: tuple[float, ...] = PARTS) -> renet.Evaluation:
    return renet.evaluate(case / name, case / "labels", case / "data", size_shares=shares)


def test_of_a_set(case: Path) -> None:
    evaluation = evaluated(case)
    single = [score_sizes(*pair((24, 30), number), 3, IGNORED, PARTS) for number in range(6)]
    total = ClassCounts(*(sum(getattr(s.counts, name) for s in single) for name in ("right", "truth", "predicted")))
    scores = evaluation.sizes.scores()
    np.testing.assert_allclose(scores["size_recall"], np.nanmean(total.right / total.truth, axis=1))
    np.testing.assert_allclose(scores["size_mean_iou"], np.nanmean(total.iou, axis=1))
    arrays = [pair((24, 30), number) for number in range(6)]
    alike = renet.evaluate([p for _, p in arrays], [t for t, _ in arrays], case / "data", size_shares=PARTS)
    np.testing.assert_array_equal(alike.sizes.counts.predicted, evaluation.sizes.counts.predicted)


def test_intervals_and_differences_are_those_of_resampled_sets(case: Path) -> None:
    this, other = evaluated(case), evaluated(case, "other")
    weights = np.concatenate(list(draws(6, 50, 3)))
    ours, theirs = [], []
    for row in weights.astype(int):
        for each, values in ((this, ours), (other, theirs)):
            chosen = np.repeat(np.arange(6), row)
            counts = each.sizes.counts.select(chosen)
            summed = ClassCounts(*(n.sum(axis=0) for n in (counts.right, counts.truth, counts.predicted)))
            values.append(np.nanmean(np.where(summed.truth, summed.iou, np.nan), axis=1))
    expected = np.quantile(ours, (0.025, 0.975), axis=0).T
    np.testing.assert_allclose(this.intervals(50, 3)["size_mean_iou"], expected)
    found = this.compared_with(other, 50, 3)["size_mean_iou"]
    np.testing.assert_allclose(found.interval, np.quantile(np.subtract(ours, theirs), (0.025, 0.975), axis=0).T)
    assert (found.better == 1).all()
    with pytest.raises(renet.UserError, match="sizes were parted by other shares"):
        this.compared_with(evaluated(case, "other", (0.1,)))


def test_the_tool_tells_and_writes_them(case: Path) -> None:
    words = ("--labels", "labels", "--dataset", "data/dataset.json", "--resamples", 20, "--json", "out.json")
    done = call_tool(
        "evaluate.py", "--predictions", "this", "--compare", "other", *words, "--by-size", *PARTS, cwd=case
    )
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    assert all(band in done.stdout for band in ("below 4%", "4 to 20%", "20% and more"))
    evaluation = evaluated(case)
    regions = evaluation.sizes.regions.sum(axis=1)
    assert lines["regions"].split()[1:] == [str(count) for count in regions]
    assert "mean recall, regions below 4%" in lines and "mean IoU, regions 20% and more" in lines
    content = json.loads((case / "out.json").read_text())
    scores = evaluation.sizes.scores()
    assert content["sizes"]["size_mean_iou"] == pytest.approx(scores["size_mean_iou"].tolist())
    assert content["sizes"]["shares"] == list(PARTS) and set(content["sizes"]["iou"]) == set(CLASSES)
    assert len(content["intervals"]["size_recall"]) == len(content["comparison"]["size_recall"]["interval"]) == 3
    other = call_tool("evaluate.py", "--predictions", "other", "--compare", "out.json", *words[:-1], "x.json",
                      "--by-size", cwd=case)  # fmt: skip
    assert "sizes are not compared: name out.json's predictions" in other.stderr


@pytest.mark.parametrize("shares", [(0.2, 0.1), (0.1, 0.1), (0.0,), tuple(np.linspace(0.01, 0.9, 21))])
def test_bad_shares_are_one_line(case: Path, shares: tuple[float, ...]) -> None:
    with pytest.raises(renet.UserError, match="increasing shares"):
        evaluated(case, shares=shares)
    words = ("--labels", "labels", "--dataset", "data/dataset.json", "--by-size", *shares)
    assert "increasing shares" in only_line(
        call_tool("evaluate.py", "--predictions", "this", *words, cwd=case), "evaluate.py"
    )
