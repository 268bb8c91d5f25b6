"""tools/picture_sheet.py, run as a user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import PALETTE, call_tool, only_line, save_labels, write_dataset_json, write_split

from renet.visualization.sheet import LINE, MARGIN

WIDTH = 40


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Two grey images of 20 x 40, truth leaf and brick, both predicted to be lake."""
    write_dataset_json(tmp_path)
    grey = np.full((20, 40, 3), 128, np.uint8)
    labels = {"one": np.full((20, 40), 1, np.uint8), "two": np.zeros((20, 40), np.uint8)}
    write_split(tmp_path / "test", {image_id: (grey, truth) for image_id, truth in labels.items()})
    for image_id in labels:
        save_labels(tmp_path / "run" / "predictions" / f"{image_id}.png", np.full((20, 40), 2, np.uint8))
    return tmp_path


def draw(folder: Path, *more: object):
    """Call the tool on the prepared folder."""
    common = ("--split", folder / "test", "--dataset", folder, "--width", WIDTH, "--out", folder / "sheet.png")
    return call_tool("picture_sheet.py", *common, *more, cwd=folder)


def middle(column: int, row: int) -> tuple[int, int]:
    """The middle of a picture on the sheet, x and y."""
    return MARGIN + column * (WIDTH + MARGIN) + WIDTH // 2, LINE + row * (20 + MARGIN) + 10


def test_image_truth_and_prediction_stand_side_by_side(prepared: Path) -> None:
    result = draw(prepared, "--predictions", "run/predictions", "--ids", "two", "one")
    assert result.returncode == 0, result.stderr
    sheet = Image.open(prepared / "sheet.png").convert("RGB")
    for row, truth in enumerate((0, 1)):
        assert sheet.getpixel(middle(0, row)) == (128, 128, 128)
        assert sheet.getpixel(middle(1, row)) == tuple(PALETTE[truth])
        assert sheet.getpixel(middle(2, row)) == tuple(PALETTE[2])


def test_first_images_without_predictions(prepared: Path) -> None:
    assert draw(prepared, "--count", 1).returncode == 0
    assert Image.open(prepared / "sheet.png").width == 2 * (WIDTH + MARGIN) + MARGIN


def test_unknown_image_is_named(prepared: Path) -> None:
    assert "no image three" in only_line(draw(prepared, "--ids", "three"), "picture_sheet.py")
    assert not (prepared / "sheet.png").exists()


def test_missing_prediction_is_named(prepared: Path) -> None:
    (prepared / "run" / "predictions" / "two.png").unlink()
    assert "two.png" in only_line(draw(prepared, "--predictions", "run/predictions"), "picture_sheet.py")


def test_prediction_of_another_size_is_named(prepared: Path) -> None:
    save_labels(prepared / "run" / "predictions" / "two.png", np.zeros((20, 41), np.uint8))
    assert "two.png" in only_line(draw(prepared, "--predictions", "run/predictions"), "picture_sheet.py")


def test_names_must_match_folders(prepared: Path) -> None:
    line = only_line(draw(prepared, "--predictions", "run/predictions", "--names", "a", "b"), "picture_sheet.py")
    assert "2 names for 1" in line


def test_truth_may_stand_last(prepared: Path) -> None:
    result = draw(prepared, "--predictions", "run/predictions", "--ids", "two", "--truth-last")
    assert result.returncode == 0, result.stderr
    sheet = Image.open(prepared / "sheet.png").convert("RGB")
    assert sheet.getpixel(middle(1, 0)) == tuple(PALETTE[2])
    assert sheet.getpixel(middle(2, 0)) == tuple(PALETTE[0])
