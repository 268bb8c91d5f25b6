"""Which image a file or a line of a list means."""

from __future__ import annotations

from pathlib import Path

import pytest

from renet.common.errors import UserError
from renet.data.image_ids import bare_suffix, file_id, find_images, find_labels, read_ids, read_list


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("p0", "", "p0"),
        ("p0.JPG", "", "p0"),
        ("photos/p0.Jpeg", "", "p0"),
        ("train\\p0.png", "", "p0"),
        ("frame.0001", "", "frame.0001"),
        ("frame.0001.png", "", "frame.0001"),
        (".png", "", ".png"),
        ("aachen/a_1_leftImg8bit.png", "_leftImg8bit", "a_1"),
        ("a_1_leftImg8bit", "_leftImg8bit", "a_1"),
    ],
)
def test_id_of_a_name(name: str, suffix: str, expected: str) -> None:
    assert file_id(name, suffix) == expected


def test_suffix_may_have_an_ending() -> None:
    assert bare_suffix("_gtFine_labelTrainIds.png") == bare_suffix("_gtFine_labelTrainIds") == "_gtFine_labelTrainIds"
    assert bare_suffix("") == ""
    assert bare_suffix(".png") == ""


LISTS = {
    "ids": "p0\np1\n",
    "mark and CRLF": "\ufeffp0\r\np1\r\n",
    "tabs, spaces, comments": "# ours\n\n  p0\t \n\tp1  ",
    "endings": "p0.jpg\np1.JPG\n",
    "endings of labels": "p0.png\np1.PNG\n",
    "paths": "photos/p0.jpg\n/data/photos/p1.jpg\n",
    "pairs": "/JPEGImages/p0.jpg /SegmentationClassAug/p0.png\n/JPEGImages/p1.jpg /SegmentationClassAug/p1.png\n",
    "pairs with tabs": "p0\tlabels/p0.PNG\np1 \t labels/p1.png\n",
    "pairs with commas": "p0.jpg,p0.png\np1.jpg, p1.png\n",
    "pairs of PNGs": "train/p0.png trainannot/p0.png\ntrain/p1.png trainannot/p1.png",
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_as_people_have_them(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(LISTS[kind].encode())
    assert read_ids(file) == ["p0", "p1"]
    assert all((entry.label is not None) == kind.startswith("pairs") for entry in read_list(file))


def test_names_may_have_spaces_and_dots(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("my photo 1\nmy photo 2.jpg\nmy photo 3.png\nv1.2 of 4\nmy photos/a b.jpg my labels/a b.png\n")
    assert read_ids(file) == ["my photo 1", "my photo 2", "my photo 3", "v1.2 of 4", "a b"]
    assert read_list(file)[-1].label == "my labels/a b.png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lists no image"),
        ("# nothing\r\n \r\n", "lists no image"),
        ("p0\np1.jpg\np0.jpg\n", "line 3: lists p0 twice"),
        ("2007_000027 -1\n", "line 1: '-1' is no label PNG; a list has one image a line"),
        ("p0\np1\t3\n", "line 2: '3' is no label PNG"),
    ],
)
def test_bad_lists_are_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(UserError) as told:
        read_ids(file)
    assert str(file) in str(told.value) and words in str(told.value)


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_files_with_endings_in_any_case_and_suffixes(tmp_path: Path) -> None:
    folder = made(tmp_path, "b.PNG", "a.png", "c.txt", ".hidden.png", "sub/d.png")
    assert find_labels(folder) == {"a": folder / "a.png", "b": folder / "b.PNG"}
    both = made(tmp_path / "both", "x.png", "x_gtFine_labelTrainIds.png", "x_gtFine_color.png", "y.jpg")
    assert list(find_labels(both, "_gtFine_labelTrainIds")) == ["x"]
    assert list(find_images(both, besides="_gtFine_labelTrainIds")) == ["x", "x_gtFine_color", "y"]
    left = made(tmp_path / "left", "aachen/a_leftImg8bit.png", "bochum/b_leftImg8bit.PNG", "bochum/b_other.png")
    assert list(find_images(left, "_leftImg8bit")) == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "suffix", "words"),
    [
        (["a.jpg"], "", "no label PNG in it; it has a.jpg"),
        (["a_L.png"], "_labels", "no label PNG in it whose name ends in _labels; it has a_L.png"),
        (["a.png", "a.PNG"], "", "has the same id as a.PNG"),
        (["1/a.png", "2/a.png"], "", "has the same id as 1/a.png"),
    ],
)
def test_folders_without_labels_or_with_two_of_an_image(
    tmp_path: Path, names: list[str], suffix: str, words: str
) -> None:
    with pytest.raises(UserError) as told:
        find_labels(made(tmp_path / "x", *names), suffix)
    assert str(tmp_path / "x") in str(told.value) and words in str(told.value)
    with pytest.raises(UserError, match="no such folder"):
        find_labels(tmp_path / "y")
