"""renet.Dataset and renet.evaluate as a program uses them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from segmentation_helpers import CLASSES, save_labels, write_dataset_json, write_split

import renet

TRUTH = [np.array([[0, 1, 2], [1, 255, 0]], np.uint8), np.array([[2, 2], [0, 1]], np.uint8)]
PREDICTED = [np.array([[0, 1, 1], [1, 2, 0]], np.uint8), np.array([[2, 0], [0, 1]], np.uint8)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = [np.full((*label.shape, 3), (10, 20, 200), np.uint8) for label in TRUTH]  # BGR
    samples = {f"p{number}": pair for number, pair in enumerate(zip(images, TRUTH))}
    splits = {name: {"count": 2, "sha256": ""} for name in ("fold0/test", "bare")}
    write_dataset_json(tmp_path / "data", splits=splits)
    write_split(tmp_path / "data/fold0/test", samples)
    write_split(tmp_path / "data/bare", {name: (image, None) for name, (image, _) in samples.items()})
    for number, (truth, predicted) in enumerate(zip(TRUTH, PREDICTED)):
        save_labels(tmp_path / f"labels/p{number}.png", truth)
        save_labels(tmp_path / f"predictions/p{number}.png", predicted)
    return tmp_path


def test_a_split_is_a_sequence_of_arrays(folder: Path) -> None:
    dataset = renet.Dataset.open(folder / "data")
    assert dataset.classes == tuple(CLASSES) and dataset.palette.shape == (3, 3) and "bare" in dataset.splits
    split, again = dataset.split("fold0/test"), dataset.split("fold0/test")
    assert len(split) == 2 and split.ids == ("p0", "p1") and split.has_labels
    image, label, image_id = split[-1]
    assert image_id == "p1" and image.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(image, np.full((2, 2, 3), (200, 20, 10)))  # RGB
    np.testing.assert_array_equal(label, TRUTH[1])
    assert [sample.id for sample in split] == [sample.id for sample in again[:]] == ["p0", "p1"]
    assert [sample.id for sample in split[:1]] == ["p0"]
    bare = dataset.split("bare")
    assert bare[0].label is None and not bare.has_labels
    with pytest.raises(IndexError):
        split[2]
    with pytest.raises(renet.UserError, match="has no split 'test' \\(it has fold0/test, bare\\)"):
        dataset.split("test")
    del split
    assert again[0].id == "p0", "readers of one database do not close each other's"


def test_a_database_that_is_read_anew_after_its_readers(folder: Path) -> None:
    dataset = renet.Dataset.open(folder / "data")
    assert dataset.split("bare")[0].id == "p0"
    for file in (folder / "data/bare/images.lmdb").iterdir():
        file.unlink()
    (folder / "data/bare/images.lmdb").rmdir()
    write_split(folder / "other", {"new": (np.zeros((3, 3, 3), np.uint8), None)})
    (folder / "other/images.lmdb").rename(folder / "data/bare/images.lmdb")
    assert dataset.split("bare").ids == ("new",)


@pytest.mark.parametrize("truth", ["folder", "split's folder", "view", "arrays", "generator"])
@pytest.mark.parametrize("predicted", ["folder", "arrays", "generator"])
def test_scores_are_the_same_wherever_the_maps_are(folder: Path, truth: str, predicted: str) -> None:
    dataset = renet.Dataset.open(folder / "data")
    labels = {
        "folder": folder / "labels",
        "split's folder": str(folder / "data/fold0/test"),
        "view": dataset.split("fold0/test"),
        "arrays": [label.astype(np.int64) for label in TRUTH],
        "generator": (sample.label for sample in dataset.split("fold0/test")),
    }[truth]
    predictions = {"folder": folder / "predictions", "arrays": PREDICTED, "generator": iter(PREDICTED)}[predicted]
    if predicted == "folder" and truth in ("arrays", "generator"):
        with pytest.raises(renet.UserError, match="predictions: names its images by their files"):
            renet.evaluate(predictions, labels, dataset)
        return
    found = renet.evaluate(predictions, labels, dataset)
    assert found.confusion.tolist() == [[3, 0, 0], [0, 3, 0], [1, 1, 1]]
    assert found.pixel_accuracy == pytest.approx(7 / 9)
    assert found.class_accuracy == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert found.class_iou == pytest.approx({"brick": 3 / 4, "leaf": 3 / 4, "lake": 1 / 3})
    assert found.mean_iou == pytest.approx((3 / 4 + 3 / 4 + 1 / 3) / 3)
    assert found.frequency_weighted_iou == pytest.approx(found.mean_iou)
    assert (found.images, found.ignored_pixels) == (2, 1)


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (PREDICTED[:1], TRUTH, "image 1: there are more labels than predictions"),
        (PREDICTED, TRUTH[:1], "image 1: there are more predictions than labels"),
        ([PREDICTED[0], PREDICTED[0]], TRUTH, "image 1: the prediction is 3 x 2, the truth 2 x 2"),
        ([PREDICTED[0] * 1.0], TRUTH, "image 0: is 2 x 3 float64; a label map is H x W whole numbers"),
        ([PREDICTED[0] - np.int64(1)], TRUTH, "image 0: holds -1 to 1; class indices are 8 bits"),
        ([PREDICTED[0] + 3], TRUTH, "image 0: the prediction has the value 3"),
        ([], [], "the labels: no labelled pixel in the truth"),
        (PREDICTED, "nowhere", "nowhere: no such folder of labels"),
        ("nowhere", "labels", "nowhere: no such folder of predictions"),
    ],
)
def test_maps_that_do_not_belong_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, predictions: object, labels: object, message: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(renet.UserError, match=message):
        renet.evaluate(predictions, labels, "data")


def test_a_damaged_record_is_named(folder: Path) -> None:
    import lmdb

    with (
        lmdb.open(str(folder / "data/bare/images.lmdb"), map_size=1 << 26) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"00000001_p1", b"nothing")
    split = renet.Dataset.open(folder / "data").split("bare")
    assert split[0].id == "p0"
    with pytest.raises(renet.UserError, match="00000001_p1"):
        split[1]


def test_what_is_no_dataset_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(renet.UserError, match="no such file; a prepared dataset has one"):
        renet.Dataset.open(tmp_path)
