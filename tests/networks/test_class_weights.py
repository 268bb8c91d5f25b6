"""Class weights: counted by hand and as files say them, and what of them reaches the written network and its loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from segmentation_helpers import CLASSES, write_dataset_json, write_split

from prototxt.generate import main, make_parser
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.networks import write
from renet.networks.class_weights import chosen_class_weights, count_labels

FIRST = np.array([[0, 0, 0, 255], [1, 0, 0, 255]], np.uint8)
SECOND = np.array([[2, 2, 255, 255], [0, 2, 0, 0]], np.uint8)


def prepared(folder: Path, *labels: np.ndarray, classes: list[str] = CLASSES) -> Dataset:
    image = np.zeros((2, 4, 3), np.uint8)
    write_split(folder / "train", {f"p{number}": (image, label) for number, label in enumerate(labels)})
    splits = {split: {"count": len(labels), "sha256": ""} for split in ("train", "test")}
    return Dataset.open(
        write_dataset_json(folder, classes=classes, palette=[[i] * 3 for i in range(len(classes))], splits=splits)
    )


def weights_of(tmp_path: Path, wanted: object, *labels: np.ndarray) -> tuple[float, ...]:
    dataset = prepared(tmp_path / "data", *labels)
    return chosen_class_weights(wanted, dataset, [dataset.folder / "train"]).values


def test_counts_leave_ignored_pixels_out(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "data", FIRST, SECOND)
    counts = count_labels([dataset.folder / "train"] * 2, dataset)
    assert counts.pixels.tolist() == [16, 2, 6]
    assert counts.beside.tolist() == [24, 12, 12], "of the labelled pixels of the images that have the class"


def test_median_frequency(tmp_path: Path) -> None:
    """f = 8/12, 1/6, 3/6, and their median 1/2."""
    assert weights_of(tmp_path, "median_frequency", FIRST, SECOND) == pytest.approx((0.75, 3, 1))


def test_inverse(tmp_path: Path) -> None:
    found = weights_of(tmp_path, "inverse", FIRST, SECOND)
    assert found == pytest.approx((0.5, 4, 4 / 3), rel=1e-5)
    assert np.dot(found, [8, 1, 3]) == pytest.approx(12, rel=1e-5), "the mean over the pixels is 1"


@pytest.mark.parametrize("method", ["median_frequency", "inverse"])
def test_an_absent_class_has_weight_1_and_is_told(tmp_path: Path, method: str) -> None:
    dataset = prepared(tmp_path / "data", FIRST)
    found = chosen_class_weights(method, dataset, [dataset.folder / "train"])
    assert found.values[2] == 1 and found.note.endswith("of weight 1: lake")
    # the others as if there were no such class: f = 5/6 and 1/6, median 1/2; 6 pixels over 2 classes
    assert found.values[:2] == pytest.approx((0.6, 3))


@pytest.mark.parametrize(
    ("text", "expected"), [("1\n2.5\n0\n", (1, 2.5, 0)), ("0.5 brick\n2  leaf\n\n1e-2 lake\n", (0.5, 2, 0.01))]
)
def test_files(tmp_path: Path, text: str, expected: tuple[float, ...]) -> None:
    file = tmp_path / "weights.txt"
    file.write_text(text)
    dataset = prepared(tmp_path / "data", FIRST)
    assert chosen_class_weights(str(file), dataset, []).values == expected
    assert chosen_class_weights(expected, dataset, []).values == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "2 weights for 3 classes"),
        ("1\n2\n3\n4\n", "4 weights for 3 classes"),
        ("1\ntwo\n3\n", "line 2: 'two' is no number"),
        ("1 brick\n2 lake\n3 leaf\n", "line 2: is of 'lake', and the dataset's class there is 'leaf'"),
        ("1\n-2\n3\n", "the weight of leaf is -2.0, expected a number of 0 or more"),
        ("1\n2\nnan\n", "the weight of lake is nan"),
        ("inf\n2\n3\n", "the weight of brick is inf"),
        ("0\n0\n0\n", "every weight is 0"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "weights.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        chosen_class_weights(file, prepared(tmp_path / "data", FIRST), [])
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "label", "message"),
    [
        ("median", FIRST, "class weights: median is neither median_frequency nor inverse nor a file"),
        ("inverse", np.full((2, 4), 255, np.uint8), "without a labelled pixel"),
        ("inverse", np.full((2, 4), 7, np.uint8), r"p0 has the label 7; expected 0 to 2, or 255 \(ignored\)"),
        ("inverse", None, "has no labels to count"),
    ],
)
def test_splits_that_cannot_be_weighed_by(tmp_path: Path, wanted: str, label: np.ndarray | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        weights_of(tmp_path, wanted, label)


def loss_of(file: Path) -> caffe_pb2.LayerParameter:
    network = text_format.Parse(file.read_text(), caffe_pb2.NetParameter())
    return next(layer for layer in network.layer if layer.name == "loss")


def test_the_written_loss_is_the_weighted_mean(tmp_path: Path) -> None:
    """Of the pixels' losses, by NumPy in double precision."""
    dataset = prepared(tmp_path / "data", FIRST, SECOND)
    command = ("--model", "conv_small", "--dataset", str(dataset.folder), "--out", str(tmp_path / "net"))
    assert run(main, make_parser(), (*command, "--class-weights", "median_frequency", "--hard-examples", "0.5")) == 0
    layer = loss_of(tmp_path / "net/train_val.prototxt")
    assert list(layer.loss_param.class_weight) == [0.75, 3, 1]
    assert layer.loss_param.hard_example_fraction == 0.5
    text = (tmp_path / "net/train_val.prototxt").read_text()
    assert "median frequency of the training's labelled pixels" in text and "largest losses count: 50%" in text

    labels = np.stack([FIRST, SECOND])
    scores = np.random.default_rng(0).normal(size=(2, 3, 2, 4))
    shapes = "".join(
        f"layer {{ name: '{name}' type: 'Input' top: '{name}' input_param {{ shape {{ {dims} }} }} }}\n"
        for name, dims in ((layer.bottom[0], "dim: 2 dim: 3 dim: 2 dim: 4"), ("label", "dim: 2 dim: 1 dim: 2 dim: 4"))
    )
    (tmp_path / "loss.prototxt").write_text(f"{shapes}layer {{ {text_format.MessageToString(layer)} }}")
    network = caffe.Net(str(tmp_path / "loss.prototxt"), caffe.TEST)
    network.blobs[layer.bottom[0]].data[...] = scores
    network.blobs["label"].data[...] = labels[:, None]
    found = float(network.forward()["loss"])

    picked = np.take_along_axis(scores, np.where(labels == 255, 0, labels)[:, None].astype(int), 1)[:, 0]
    losses = np.log(np.exp(scores).sum(axis=1)) - picked
    weights = np.where(labels == 255, 0, np.array([0.75, 3, 1])[np.where(labels == 255, 0, labels)])
    worst = np.argsort(-(weights * losses).ravel())[:6]  # half of 12
    expected = (weights * losses).ravel()[worst].sum() / weights.ravel()[worst].sum()
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_them_nothing_is_written(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "data", FIRST)
    written = write("conv_small", dataset, tmp_path / "net", hard_examples=1)
    assert (
        text_format.MessageToString(loss_of(written.solver.with_name("train_val.prototxt")).loss_param)
        == "ignore_label: 255\n"
    )
    assert written.notes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": [1, 2]}, "2 weights for 3 classes"),
        ({"class_weights": [1, -1, 2]}, "weight of leaf is -1"),
        ({"hard_examples": 0}, "hard_examples is a number over 0 and up to 1, not 0"),
        ({"hard_examples": float("nan")}, "hard_examples is a number over 0"),
        ({"dropout": 0.5}, "dropout stands between recurrent groups, of which conv_small has no two; n_renet,"),
        ({"precision": "BF16"}, "precision is of ReNet layers, of which conv_small has none"),
        ({"precision": "bf16"}, "precision is one of FLOAT32, TF32, BF16, not 'bf16'"),
        ({"dropout": 1}, "dropout is a number of at least 0 and below 1, not 1"),
        ({"average": -1}, "average is a number of at least 0 and below 1"),
        ({"warmup": 0}, "warmup is a whole number of at least 1, not 0"),
        ({"warmup": 600, "iterations": 600}, "warmup of 600 iterations in a training of 600"),
        ({"solver": "lion"}, "solver is one of sgd, adam, adamw, not 'lion'"),
        ({"schedule": "sine"}, "schedule is one of fixed, step, poly, cosine, not 'sine'"),
    ],
)
def test_wrong_choices_are_told(tmp_path: Path, options: dict, message: str) -> None:
    dataset = prepared(tmp_path / "data", FIRST)
    with pytest.raises(UserError, match=message):
        write("conv_small", dataset, tmp_path / "net", **options)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-weights", "nowhere.txt"], "nowhere.txt is neither median_frequency nor inverse nor a file"),
        (["--hard-examples", "1.5"], "'1.5' is no factor over 0 and up to 1"),
        (["--average", "1"], "'1' is not a number in [0, 1)"),
        (["--dropout", "nan"], "'nan' is not a number in [0, 1)"),
        (["--warmup", "-1"], "'-1' is not a whole number of at least 1"),
        (["--schedule", "sine"], "invalid choice: 'sine'"),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    prepared(tmp_path / "data", FIRST)
    script = Path(__file__).resolve().parents[2] / "prototxt/generate.py"
    command = [sys.executable, script, "--model", "n_renet", "--dataset", "data", "--out", "net", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
