"""tools/visualize.py samples: a training's first samples, as its data layer gives them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import PALETTE, call_tool, only_line, write_dataset_json, write_split

from renet.data.dataset import Dataset
from renet.data.overlay import blend
from renet.visualization.training_samples import data_layer, read_samples

NETWORK = """
layer {{ name: "data" type: "SegmentationData" top: "data" top: "label" include {{ phase: TRAIN }}
  segmentation_data_param {{ source: "{source}" batch_size: 2 mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.5
    {more} }} }}
layer {{ name: "data" type: "SegmentationData" top: "data" top: "label" include {{ phase: TEST }}
  segmentation_data_param {{ source: "elsewhere" }} }}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of three pictures, each of one class and a row without, and a network that reads it."""
    folder = tmp_path_factory.mktemp("samples")
    write_dataset_json(folder / "data")
    random = np.random.default_rng(0)
    pictures = {}
    for number in range(3):
        label = np.full((24, 32), number, np.uint8)
        label[0] = 255
        pictures[f"p{number}"] = (random.integers(0, 256, (24, 32, 3)).astype(np.uint8), label)
    write_split(folder / "data" / "train", pictures)
    write_network(folder, "crop_height: 24 crop_width: 32 shuffle: true seed: 3")
    return folder


def write_network(folder: Path, more: str, name: str = "train_val.prototxt") -> Path:
    (folder / name).write_text(NETWORK.format(source="data/train", more=more))
    return folder / name


def draw(folder: Path, *arguments: object):
    return call_tool("visualize.py", "samples", *arguments, "--width", 32, "--out", "out.png", cwd=folder)


def test_the_sheet_shows_images_and_labels_in_the_order_of_the_training(folder: Path) -> None:
    result = draw(folder, "--model", "train_val.prototxt", "--count", 3)
    assert result.returncode == 0, result.stderr
    shown = np.array(Image.open(folder / "out.png").convert("RGB"))
    dataset = Dataset.open(folder / "data")
    samples = list(read_samples(data_layer(None, folder / "train_val.prototxt"), 3))
    assert sorted(int(label.max(where=label < 255, initial=0)) for _, label in samples) == [0, 1, 2]
    for number, (image, label) in enumerate(samples):
        top, left = 22 + number // 2 * 32, 8 + number % 2 * 80
        assert np.array_equal(shown[top : top + 24, left : left + 32], image[:, :, ::-1])
        beside = shown[top : top + 24, left + 40 : left + 72]
        assert np.array_equal(beside, blend(image, label.astype(np.uint8), dataset))
        assert np.array_equal(beside[0], image[0, :, ::-1])
    for colour in PALETTE:  # the legend
        assert (shown[22 + 2 * 32 :] == colour).all(axis=2).any()


def test_samples_are_the_images_with_the_mean_added_back(folder: Path) -> None:
    # no shuffle: the first picture first
    layer = data_layer(None, write_network(folder, "ignore_label: 9", "whole.prototxt"))
    (image, label), *_ = read_samples(layer, 1)
    random = np.random.default_rng(0)
    assert np.array_equal(image, random.integers(0, 256, (24, 32, 3)))
    assert (label[0] == 9).all() and (label[1:] == 0).all()


def test_augmentation_shows(folder: Path) -> None:
    write_network(folder, "crop_height: 24 crop_width: 32 cutout: 1 cutout_size: 1 hue: 90", "augmented.prototxt")
    plain = [image for image, _ in read_samples(data_layer(None, folder / "train_val.prototxt"), 2)]
    layer = data_layer(None, folder / "augmented.prototxt")
    (image, label), _ = read_samples(layer, 2)
    assert not any(np.array_equal(image, one) for one in plain)
    assert (image[label == 255][-1] == (10, 20, 30)).all()


def test_a_solver_leads_to_its_network(folder: Path) -> None:
    (folder / "solver.prototxt").write_text('net: "train_val.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 5\n')
    assert draw(folder, "--model", "train_val.prototxt").returncode == 0
    expected = (folder / "out.png").read_bytes()
    result = draw(folder, "--solver", "solver.prototxt")
    assert result.returncode == 0, result.stderr
    assert (folder / "out.png").read_bytes() == expected


def test_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "none.prototxt").write_text('layer { name: "data" type: "Input" top: "data" }')
    write_network(folder, "rotation: 400", "odd.prototxt")
    write_network(folder, "roation: 4", "misspelt.prototxt")
    (folder / "lost.prototxt").write_text(NETWORK.format(source="data/lost", more=""))
    write_split(tmp_path / "split", {"one": (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))})
    (folder / "alone.prototxt").write_text(NETWORK.format(source=tmp_path / "split", more=""))
    for arguments, message in (
        (("--model", "nowhere.prototxt"), "nowhere.prototxt: no such file"),
        (("--model", "none.prototxt"), "none.prototxt: has no SegmentationData layer in phase TRAIN"),
        (("--model", "odd.prototxt"), "rotation 400 given; expected 0 to 180"),
        (("--model", "misspelt.prototxt"), "has no field 'roation'; did you mean rotation"),
        (("--model", "lost.prototxt"), "no prepared split 'data/lost'"),
        (("--model", "alone.prototxt"), "no dataset.json in the folders above it; name one with --dataset"),
        (("--model", "train_val.prototxt", "--count", 0), "is not a whole number of at least 1"),
        ((), "one of the arguments --solver --model is required"),
    ):
        assert message in only_line(draw(folder, *arguments), "visualize.py")
    assert draw(folder, "--model", "alone.prototxt", "--dataset", folder / "data", "--count", 1).returncode == 0
    assert cv2.imread(str(folder / "out.png")).shape[1] == 2 * 40 + 8
