"""Intervals and comparisons: against resampled sets of images that are scored one by one, and through evaluate.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json

import renet
from renet.evaluation.bootstrap import draws
from renet.evaluation.image_counts import MEASURES
from renet.evaluation.scores import Evaluation, scores

COUNT = 9


def maps(seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Truths and predictions of small images; classes come and go, and one image is ignored altogether."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for number in range(COUNT):
        shape = tuple(rng.integers(1, 12, 2))
        truth = rng.choice([number % 3, (number + 1) % 3, 255], shape).astype(np.uint8)
        truths.append(np.full_like(truth, 255) if number == 4 else truth)
        right = rng.random(shape) < 0.7
        predictions.append(np.where(right & (truth != 255), truth, rng.integers(0, 3, shape)).astype(np.uint8))
    return truths, predictions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> renet.Dataset:
    return renet.Dataset.open(write_dataset_json(tmp_path_factory.mktemp("data")))


def confusion_of(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    matrix = np.zeros((3, 3), np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist()):
        if t != 255:
            matrix[t, p] += 1
    return matrix


def resampled(truths: list, predictions: list, resamples: int, seed: int) -> dict[str, list[float]]:
    """The scores of each resample's images, drawn as `draws` says."""
    matrices = [confusion_of(t, p) for t, p in zip(truths, predictions)]
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for weights in np.concatenate(list(draws(len(truths), resamples, seed))):
        drawn = [matrices[number] for number, count in enumerate(weights) for _ in range(int(count))]
        assert len(drawn) == len(truths)
        result = scores(sum(drawn))
        for name in MEASURES:
            found[name].append(getattr(result, name))
    return found


def test_intervals_are_those_of_resampled_sets(dataset: renet.Dataset) -> None:
    truths, predictions = maps(1)
    evaluation = renet.evaluate(predictions, truths, dataset)
    found = evaluation.intervals(resamples=230, seed=5)
    expected = resampled(truths, predictions, 230, 5)
    assert list(found) == list(MEASURES)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.quantile(values, [0.025, 0.975]))
        assert found[name][0] < getattr(evaluation, name) < found[name][1]
    again, others = evaluation.intervals(230, 5), evaluation.intervals(230, 6)
    assert all(np.array_equal(again[name], found[name]) for name in MEASURES)
    assert not np.array_equal(others["mean_iou"], found["mean_iou"])


def test_differences_are_paired(dataset: renet.Dataset) -> None:
    truths, predictions = maps(1)
    others = [np.where(p == 2, 0, p).astype(np.uint8) for p in predictions]
    this, other = (renet.evaluate(each, truths, dataset) for each in (predictions, others))
    found = this.compared_with(other, resamples=150, seed=3)
    a, b = (resampled(truths, each, 150, 3) for each in (predictions, others))
    for name, difference in found.items():
        values = np.array(a[name]) - np.array(b[name])
        assert difference.value == pytest.approx(getattr(this, name) - getattr(other, name))
        np.testing.assert_allclose(difference.interval, np.quantile(values, [0.025, 0.975]))
        assert (difference.better, difference.worse) == (np.mean(values > 0), np.mean(values < 0))
    back = other.compared_with(this, resamples=150, seed=3)["mean_iou"]
    assert back.value == -found["mean_iou"].value and back.better == found["mean_iou"].worse
    same = this.compared_with(this)["mean_iou"]
    assert (same.value, same.better, same.worse) == (0, 0, 0) and same.interval.tolist() == [0, 0]


def test_resamples_without_a_labelled_pixel_are_left_out(dataset: renet.Dataset) -> None:
    ignored, seen = np.full((2, 2), 255, np.uint8), np.array([[0, 1], [1, 1]], np.uint8)
    evaluation = renet.evaluate([seen * 0, seen * 0], [ignored, seen], dataset)
    assert evaluation.intervals()["pixel_accuracy"].tolist() == [0.25, 0.25]
    assert evaluation.compared_with(evaluation)["mean_iou"].better == 0


def test_one_image_says_nothing_of_others(dataset: renet.Dataset) -> None:
    truth = np.array([[0, 1]], np.uint8)
    evaluation, other = (renet.evaluate([each], [truth], dataset) for each in (truth, truth * 0))
    assert evaluation.intervals() == {}
    found = evaluation.compared_with(other)["pixel_accuracy"]
    assert (found.value, found.interval, found.better, found.worse) == (0.5, None, None, None)


def test_what_cannot_be_paired(dataset: renet.Dataset) -> None:
    truths, predictions = maps(1)
    evaluation = renet.evaluate(predictions, truths, dataset)
    fewer = renet.evaluate(predictions[:-2], truths[:-2], dataset)
    with pytest.raises(renet.UserError, match=r"has no scores of 'image 7' \(and of 1 more\)"):
        evaluation.compared_with(fewer)
    # more images than needed are no fault
    assert fewer.compared_with(evaluation)["mean_iou"].value == 0
    changed = [truths[0] * 0, *truths[1:]]
    with pytest.raises(renet.UserError, match="has another truth of 'image 0'"):
        evaluation.compared_with(renet.evaluate(predictions, changed, dataset))
    bare = Evaluation.from_json(evaluation.as_json())
    assert bare.intervals() == {}
    with pytest.raises(renet.UserError, match="without its single images' counts"):
        evaluation.compared_with(bare)


def test_counts_survive_json(dataset: renet.Dataset) -> None:
    truths, predictions = maps(2)
    evaluation = renet.evaluate(predictions, truths, dataset)
    content = json.loads(json.dumps(evaluation.as_json(with_images=True)))
    assert content["per_image"]["image 4"] == {} and "per_image" not in evaluation.as_json()
    t, p = truths[0], predictions[0]
    first = (t == 0) & (p == 0)
    assert content["per_image"]["image 0"]["brick"] == [first.sum(), (t == 0).sum(), ((p == 0) & (t != 255)).sum()]
    read = Evaluation.from_json(content)
    assert read.image_counts.image_ids == evaluation.image_counts.image_ids
    for name, bounds in evaluation.intervals(50).items():
        np.testing.assert_array_equal(read.intervals(50)[name], bounds)
    for spoilt in ([], {"a": {"brick": [1, 2]}}, {"a": {"fog": [1, 2, 3]}}, {"a": {"leaf": [3, 2, 3]}}, {"a": [1]}):
        with pytest.raises(ValueError, match="not an evaluation"):
            Evaluation.from_json({**content, "per_image": spoilt})


@pytest.fixture
def case(tmp_path: Path) -> Path:
    truths, predictions = maps(3)
    for number, (truth, prediction) in enumerate(zip(truths, predictions)):
        save_labels(tmp_path / f"labels/{number}.png", truth)
        save_labels(tmp_path / f"this/{number}.png", prediction)
        save_labels(tmp_path / f"other/{number}.png", np.where(prediction == 1, 2, prediction))
    write_dataset_json(tmp_path / "data")
    return tmp_path


def evaluate(case: Path, *more: object, predictions: str = "this"):
    words = ("--predictions", predictions, "--labels", "labels", "--dataset", "data/dataset.json", *more)
    return call_tool("evaluate.py", *words, cwd=case)


def test_a_folder_and_its_evaluation_compare_alike(case: Path) -> None:
    assert evaluate(case, "--json", "other.json", predictions="other").returncode == 0
    tables, contents = [], []
    for other in ("other", "other.json"):
        result = evaluate(case, "--compare", other, "--json", "this.json", "--resamples", 200, "--seed", 4)
        assert result.returncode == 0, result.stderr
        tables.append(result.stdout.replace("other.json", "other"))
        contents.append(json.loads((case / "this.json").read_text()))
    assert contents[0].pop("comparison") | {"other": "other.json"} == contents[1]["comparison"]
    assert contents[0] == {name: value for name, value in contents[1].items() if name != "comparison"}
    assert tables[0] == tables[1]
    truths, predictions = maps(3)
    values = resampled(truths, predictions, 200, 4)
    bounds = np.quantile(values["mean_iou"], [0.025, 0.975])
    assert contents[0]["intervals"]["mean_iou"] == pytest.approx(bounds)
    assert contents[0]["intervals"]["resamples"] == 200
    compared = contents[1]["comparison"]["mean_iou"]
    assert compared["difference"] == pytest.approx(compared["this"] - compared["other"]) and compared["better"] > 0.9
    lines = tables[0].splitlines()
    (line,) = [line for line in lines if line.startswith("95% interval")]
    assert f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" in line
    assert "other: other; paired by image, 200 resamples of the images" in lines
    assert lines[-1].split()[:3] == ["freq.", "weighted", "IoU"] and len(CLASSES) == 3


def test_no_resamples_no_intervals(case: Path) -> None:
    result = evaluate(case, "--resamples", 0, "--json", "this.json", "--compare", "other")
    assert result.returncode == 0 and "95% interval   " not in result.stdout and "no resamples" in result.stdout
    content = json.loads((case / "this.json").read_text())
    assert content["intervals"] == {"resamples": 0, "seed": 0}
    assert content["comparison"]["mean_iou"]["better"] is None


def test_bad_comparisons_are_one_line(case: Path) -> None:
    (case / "other/5.png").unlink()
    line = only_line(evaluate(case, "--compare", "other"), "evaluate.py")
    assert "other/5.png: missing; 1 of 9 images have no prediction" in line
    assert "lost: no such folder of" in only_line(evaluate(case, "--compare", "lost"), "evaluate.py")
    (case / "list.txt").write_text("0\n1\n2\n")
    assert evaluate(case, "--list", "list.txt", "--json", "few.json").returncode == 0
    line = only_line(evaluate(case, "--compare", "few.json"), "evaluate.py")
    assert "few.json: the other evaluation has no scores of '3' (and of 5 more)" in line
    assert evaluate(case, "--list", "list.txt", "--compare", "few.json").returncode == 0
    content = json.loads((case / "few.json").read_text())
    del content["per_image"]
    (case / "old.json").write_text(json.dumps(content))
    line = only_line(evaluate(case, "--compare", "old.json"), "evaluate.py")
    assert "old.json: an evaluation without its single images' counts" in line
    (case / "old.json").write_text("{}")
    assert "old.json: not an evaluation" in only_line(evaluate(case, "--compare", "old.json"), "evaluate.py")
    for option in (("--resamples", "-1"), ("--seed", "x"), ("--resamples", "nan")):
        assert "is not a whole number of at least 0" in only_line(evaluate(case, *option), "evaluate.py")
    result = call_tool("evaluate.py", "--predictions", "this", "--dataset", "voc2012", "--comp6", "out",
                       "--compare", "other", cwd=case)  # fmt: skip
    assert "--compare needs --labels" in only_line(result, "evaluate.py")
