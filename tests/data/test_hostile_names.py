"""Names from elsewhere, in databases' keys, lists, annotations and folders, lead nowhere and are told in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from segmentation_helpers import call_tool, only_line, write_dataset_json

from renet.common.errors import UserError
from renet.conversion.coco import CATEGORIES, make_samples
from renet.data.datum import pack_encoded
from renet.data.image_ids import check_name, find_images, find_labels, named_file, read_ids
from renet.data.images import LabelFrame
from renet.data.split_reader import SplitReader
from renet.data.split_writer import Sample, Settings, write_split
from renet.prediction.image_job import items_of_files

LEADING = ["../x", "../../../tmp/x", "/etc/passwd", "a/../../x", "..", ".", "a//b", "a/", "/", "a/./b"]
NO_TEXT = ["a\0b", "a\nb", "\x1b[31mred", "a\x7f", "a\x85b", "a\u2028b", "a\rb", "a\tb"]
NO_UTF8 = ["a\udcffb"]
HARMLESS = [
    "2007_000032",
    "a b",
    "..a",
    "a..b",
    "...",
    "Straße_ß",
    "画像",
    "a\\b",
    "-rf",
    "$(reboot)",
    "<b>",
    "%2e%2e",
    "~",
]


def told(name: str) -> str:
    return "may lead out of its folder; rename it" if name in LEADING else "has characters that are no text; rename it"


@pytest.mark.parametrize("name", [*LEADING, *NO_TEXT, *NO_UTF8])
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told(name)):
        check_name(name, "somewhere")
    with pytest.raises(UserError, match=told(name)):
        named_file(tmp_path, name, ".png")
    sample = Sample(name, "1", lambda: pytest.fail("the sample was read"), "label")
    with pytest.raises(UserError, match=told(name)):
        write_split(tmp_path / "split", [sample], Settings(3, 255))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_stay(name: str, tmp_path: Path) -> None:
    assert named_file(tmp_path, name, ".png") == tmp_path / f"{name}.png"
    assert named_file(tmp_path, name, ".png").parent == tmp_path


def test_no_file_is_named_by_an_id_with_a_folder(tmp_path: Path) -> None:
    check_name("val2014/x.jpg", "a file of annotations")
    with pytest.raises(UserError, match="has a folder in it, so no file can be named by it"):
        named_file(tmp_path, "val2014/x", ".png")


def foreign_split(folder: Path, image_id: str) -> Path:
    """A split that another program wrote."""
    image, label = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)
    for name, pixels in (("images.lmdb", image), ("labels.lmdb", label)):
        (folder / name).mkdir(parents=True)
        datum = pack_encoded(cv2.imencode(".png", pixels)[1].tobytes(), 3 if pixels.ndim == 3 else 1, 4, 5)
        with lmdb.open(str(folder / name)) as environment, environment.begin(write=True) as transaction:
            transaction.put(f"00000000_{image_id}".encode(), datum)
    return folder


@pytest.mark.parametrize("name", [*LEADING, *NO_TEXT])
def test_a_split_with_such_keys_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"images.lmdb: .*{told(name)}"):
        SplitReader(foreign_split(tmp_path / "split", name))


def test_a_split_whose_keys_are_no_utf8_is_refused(tmp_path: Path) -> None:
    split = foreign_split(tmp_path / "split", "x")
    with lmdb.open(str(split / "images.lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000001_\xff", b"")
    with pytest.raises(UserError, match=r"damaged .*utf-8"):
        SplitReader(split)


def test_tools_write_nothing_outside(tmp_path: Path) -> None:
    data = tmp_path / "deep/data"
    foreign_split(data / "test", "../../escaped")
    write_dataset_json(data)
    (tmp_path / "deep/out").mkdir()
    (tmp_path / "deep/out/prediction.json").write_text(json.dumps({"settings": {}}))
    (tmp_path / "deploy.prototxt").write_text("name: 'x'")
    (tmp_path / "x.caffemodel").touch()
    before = sorted(tmp_path.rglob("*"))
    calls = {
        "predict.py": ["--model", "deploy.prototxt", "--weights", "x.caffemodel", "--split", data / "test"]
        + ["--dataset", data, "--out", "deep/out", "--overwrite"],
        "crf.py": ["run", "--predictions", "deep/out", "--split", data / "test", "--out", "deep/crf"],
        "evaluate.py": ["--predictions", "deep/out", "--labels", data / "test", "--dataset", data],
        "report.py": ["--predictions", "x=deep/out", "--labels", data / "test", "--out", "deep/page.html"],
    }
    for tool, words in calls.items():
        said = only_line(call_tool(tool, *words, cwd=tmp_path), tool)
        assert "'../../escaped' may lead out of its folder; rename it" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("line", ["..", "images/..", "a\x1b[2Jb", "a\x7f.jpg"])
def test_lists(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"x\n{line}\n")
    with pytest.raises(UserError, match=r"list.txt, line 2: the name .* rename it"):
        read_ids(tmp_path / "list.txt")


def test_files_of_folders(tmp_path: Path) -> None:
    for number, name in enumerate((b"a\xffb.png", b"a\nb.png", b"\x1b[31m.png")):
        folder = tmp_path / str(number)
        folder.mkdir()
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).touch()
        for find in (find_images, find_labels, lambda place: items_of_files([place])):
            with pytest.raises(UserError, match=f"{number}: the name .* has characters that are no text; rename it"):
                find(folder)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "x\0.jpg", "x\n.jpg"])
def test_annotations_read_no_file_outside_of_their_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").touch()
    content = {
        "images": [{"id": 1, "file_name": name, "height": 4, "width": 5}],
        "annotations": [],
        "categories": [{"id": number, "name": category} for number, category in CATEGORIES],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances.json: the name .* rename it"):
        make_samples(tmp_path / "instances.json", tmp_path / "images", 0, LabelFrame.BY_SIZE, {})
