"""The converter of MS COCO."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from data_prep_helpers import complaint, convert, succeeded
from PIL import ExifTags, Image
from pycocotools import mask
from pycocotools.coco import COCO

from renet.common.errors import UserError
from renet.conversion.coco import CATEGORIES, draw_label, read_voc_annotations
from renet.conversion.coco_annotations import read_annotations
from renet.conversion.regions import unpack_counts
from renet.data.catalog import VOC2012
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader

SCRIPT = "coco.py"
HEIGHT, WIDTH = 60, 80
BUS, CAR, PERSON, TRUCK = 6, 3, 1, 8  # truck is no class of VOC


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    """A polygon around whole pixels: columns left .. right-1, rows top .. bottom-1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(covered: np.ndarray) -> dict[str, Any]:
    """H x W bool as COCO's crowds: lengths of runs down the columns, the first of zeros."""
    flat = covered.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]]))).tolist()
    return {"size": list(covered.shape), "counts": np.diff([0, *edges]).tolist()}


def instance(image: int, category: int, shape: object, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": shape, "iscrowd": crowd, "area": 1, "id": 1}


def content(annotations: list[dict[str, Any]], numbers: list[int]) -> dict[str, Any]:
    categories = [{"id": number, "name": name} for number, name in CATEGORIES] + [{"id": TRUCK, "name": "truck"}]
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": HEIGHT, "width": WIDTH} for n in numbers]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_images(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir()
    for n in numbers:
        image = np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(folder / f"{n:012d}.jpg"), image)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """annotations/{train,val}.json with their images in train/ and val/: train 1 .. 5, val 11 .. 12."""
    train = [
        instance(1, BUS, box(0, 0, 40, 30)),
        instance(2, BUS, box(0, 0, 30, 30)),  # 900 pixels: one too few
        instance(3, TRUCK, box(0, 0, 60, 60)),
        instance(4, PERSON, box(0, 0, 31, 30)),
        instance(4, TRUCK, box(0, 0, 60, 60)),
        instance(5, PERSON, box(0, 0, 31, 30)),
        instance(5, PERSON, runs(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) < 400), crowd=1),  # takes 155 of it
    ]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/train.json").write_text(json.dumps(content(train, [1, 2, 3, 4, 5])))
    val = content([instance(12, CAR, box(10, 10, 60, 40))], [11, 12])
    (tmp_path / "annotations/val.json").write_text(json.dumps(val))
    write_images(tmp_path / "train", [1, 2, 3, 4, 5])
    write_images(tmp_path / "val", [11, 12])
    return tmp_path


def prepared(source: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    files = (source / "annotations/train.json", source / "annotations/val.json")
    folders = (source / "train", source / "val")
    return convert(SCRIPT, "--annotations", *files, "--images", *folders, "--out", out, *more)


def read_labels(split: Path) -> dict[str, np.ndarray]:
    with SplitReader(split) as reader:
        return {one: reader.label(n) for n, one in enumerate(reader.ids())}  # type: ignore[misc]


def test_real_sample_is_drawn_as_pycocotools_draws_it(tmp_path: Path, shared_data: Path) -> None:
    archive = shared_data / "coco_tiny.tar"
    if not archive.is_file():
        pytest.skip(f"no COCO sample {archive}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path)
    annotations, images = tmp_path / "annotations/instances_train2017.json", tmp_path / "train2017"
    printed = succeeded(convert(SCRIPT, "--annotations", annotations, "--images", images, "--out", tmp_path / "out"))
    api = COCO(annotations)
    assert {category["id"]: category["name"] for category in api.loadCats(api.getCatIds())}.items() >= set(CATEGORIES)
    expected = {}
    for number in api.getImgIds():
        masks: dict[int, np.ndarray] = {}
        for one in api.loadAnns(api.getAnnIds(number)):
            label = next((n for n, (category, _) in enumerate(CATEGORIES, 1) if category == one["category_id"]), None)
            if label is not None:
                label = 255 if one["iscrowd"] else label
                masks[label] = masks.get(label, 0) | api.annToMask(one)
        if masks:
            several = sum(drawn.astype(int) for drawn in masks.values()) > 1
            values = np.max([label * drawn.astype(int) for label, drawn in masks.items()], axis=0)
            values[several] = 255
            if ((values > 0) & (values < 255)).sum() > 900:
                expected[Path(api.imgs[number]["file_name"]).stem] = values
    labels = read_labels(tmp_path / "out/train")
    assert labels.keys() == expected.keys()
    assert all(np.array_equal(labels[one], expected[one]) for one in expected)
    assert any(255 in label for label in labels.values())
    assert f"{len(expected)} images\n" in printed and f"{50 - len(expected) - 1} images left out: no object" in printed
    with SplitReader(tmp_path / "out/train") as reader:
        for n, one in enumerate(reader.ids()):
            stored, original = reader.image_bytes(n), (images / f"{one}.jpg").read_bytes()
            assert stored == original or cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 2


def test_several_files_become_one_split(source: Path, tmp_path: Path) -> None:
    printed = succeeded(prepared(source, tmp_path / "out"))
    assert "train.json: 5 images with 5 objects of the 20 classes" in printed
    assert "out/train: 3 images\n" in printed
    assert "out/train: 2 images left out: no object of the 20 classes\n" in printed
    assert "out/train: 2 images left out: 900 pixels of the 20 classes, or fewer (--min-pixels)\n" in printed
    dataset = Dataset.open(tmp_path / "out")
    assert (dataset.name, dataset.classes, dataset.skipped) == ("coco", VOC2012.classes, {})
    assert np.array_equal(dataset.palette, VOC2012.palette)
    labels = read_labels(tmp_path / "out/train")
    assert list(labels) == ["000000000001", "000000000004", "000000000012"]
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[:30, :31] = VOC2012.classes.index("person")
    assert np.array_equal(labels["000000000004"], expected)
    # All of the classes' pixels are asked for, not those of any object, and those of a crowd do not count.
    labels = (
        succeeded(prepared(source, tmp_path / "more", "--min-pixels", 775)),
        read_labels(tmp_path / "more/train"),
    )[1]
    assert "000000000002" in labels and "000000000005" not in labels
    succeeded(prepared(source, tmp_path / "most", "--min-pixels", 0))
    assert len(read_labels(tmp_path / "most/train")) == 5
    # A second call has nothing to do, says the same, and other wishes are another dataset.
    assert "2 images left out: no object" in succeeded(prepared(source, tmp_path / "out"))
    assert "was prepared from other files" in complaint(prepared(source, tmp_path / "out", "--min-pixels", 1))


def test_overlaps_and_crowds(tmp_path: Path) -> None:
    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, WIDTH // 2 :] = True
    annotations = [
        instance(1, BUS, box(0, 0, 20, 20)),
        instance(1, BUS, box(10, 0, 30, 20)),  # the same class: no conflict
        instance(1, CAR, box(0, 10, 30, 30)),
        instance(1, PERSON, box(0, 10, 5, 60)),  # over both
        instance(1, TRUCK, box(0, 0, 80, 60)),
        instance(1, CAR, runs(half), crowd=1),
        instance(1, CAR, box(70, 0, 80, 10)),  # in the crowd
        instance(1, TRUCK, runs(~half), crowd=1),  # another category's crowd is background
    ]
    (tmp_path / "a.json").write_text(json.dumps(content(annotations, [1])))
    (image,) = read_voc_annotations(tmp_path / "a.json")
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[:20, :30], expected[20:30, :30], expected[30:60, :5] = 6, 7, 15
    expected[10:20, :30] = 255
    expected[20:30, :5] = 255
    expected[half] = 255
    assert np.array_equal(draw_label(image, "x"), expected)


def test_runs_as_text() -> None:
    random = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 1.0):
        covered = np.asfortranarray(random.random((HEIGHT, WIDTH)) < density, np.uint8)
        packed = mask.encode(covered)["counts"].decode()
        assert unpack_counts(packed) == runs(covered != 0)["counts"]
        shape = {"size": [HEIGHT, WIDTH], "counts": packed}
        assert np.array_equal(label_of(shape), covered * 6)


def label_of(shape: object) -> np.ndarray:
    """The label of one bus of this shape."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.json"
        file.write_text(json.dumps(content([instance(1, BUS, shape)], [1])))
        (image,) = read_annotations(file).images
    return draw_label(image, "a.json: image 1")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([[1, 2, 3]], "a polygon that is no list"),
        ([[0, 0, 10, 0, 10]], "a polygon that is no list"),
        ([[[0, 0], [10, 0], [10, 10]]], "a polygon that is no list"),
        ([["a", "b"]], "neither polygons nor runs"),
        ([[0, 0, 1e9, 0, 5, 5]], "a polygon that is no list of x, y, x, y, ... within the image"),
        ([[0, 0, float("nan"), 0, 5, 5]], "a polygon that is no list"),
        ("polygon", "neither polygons nor runs"),
        (None, "neither polygons nor runs"),
        ({"counts": [HEIGHT * WIDTH]}, "runs of the image's size"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "runs of the image's size"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 1]}, "runs of pixels that do not fill the image"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}, "do not fill the image"),
        ({"size": [HEIGHT, WIDTH], "counts": "!!"}, "do not fill the image"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "do not fill the image"),
        ({"size": [HEIGHT, WIDTH]}, "do not fill the image"),
    ],
)
def test_bad_shapes_are_named(shape: object, words: str) -> None:
    with pytest.raises(UserError, match=r"^a\.json: image 1: ") as error:
        label_of(shape)
    assert words in str(error.value)


def test_shapes_without_area_are_nothing() -> None:
    assert not label_of([[5, 5, 6, 6]]).any() and not label_of([]).any()
    assert label_of([[1, 1, 1, 1], *box(0, 0, 10, 10)]).sum() == 6 * 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON, or a part of it"),
        ("", "not JSON"),
        ("[1]", 'has no list "images"'),
        ({"annotations": None}, 'has no list "annotations"'),
        ({"annotations": [{"image_id": 1, "caption": "a bus"}]}, "an annotation without image_id, category_id and"),
        ({"annotations": [instance(7, BUS, [])]}, "an annotation of the image 7, which the file does not list"),
        ({"images": [{"id": 1, "file_name": "1.jpg"}]}, "an image without id, file_name, height and width"),
        ({"images": [{"id": 1, "file_name": "1.jpg", "height": 5, "width": 5}] * 2}, "the image 1 comes twice"),
        ({"categories": [{"id": 1}]}, "a category without id and name"),
        ({"categories": [{"id": 1, "name": "aeroplane"}]}, "its category 1 is 'aeroplane', COCO's is 'person'"),
        ({"categories": [{"id": 200, "name": "street sign"}]}, "none of the categories of VOC's classes"),
        (None, "no such file"),
    ],
)
def test_bad_annotation_files_are_named(source: Path, tmp_path: Path, text: Any, words: str) -> None:
    file = source / "annotations/val.json"
    if isinstance(text, dict):
        file.write_text(json.dumps(json.loads(file.read_text()) | text))
    elif text is None:
        file.unlink()
    else:
        file.write_text(text)
    line = complaint(prepared(source, tmp_path / "out"))
    assert f"{file}: " in line
    assert words in line


def test_files_and_folders_must_pair(source: Path, tmp_path: Path) -> None:
    files, out = (source / "annotations/train.json", source / "annotations/val.json"), ("--out", tmp_path / "out")
    line = complaint(convert(SCRIPT, "--annotations", *files, "--images", source / "train", *out))
    assert "--annotations names 2 files and --images 1 folders" in line
    line = complaint(convert(SCRIPT, "--annotations", *files, "--images", source / "val", source / "train", *out))
    assert f"{source}/val: holds none of the 5 images of {files[0]}" in line
    line = complaint(convert(SCRIPT, "--annotations", files[0], "--images", source / "nowhere", *out))
    assert f"{source}/nowhere: no such folder" in line
    files[1].write_text(json.dumps(content([], [11, 3])))
    assert f"{files[1]}: the image 000000000003 is in {files[0]} already" in complaint(
        prepared(source, tmp_path / "out")
    )
    assert "required" in complaint(convert(SCRIPT, *out))
    assert "--min-pixels" in complaint(prepared(source, tmp_path / "out", "--min-pixels", "-1"))
    assert "instances_val2017.json" in succeeded(convert(SCRIPT, "--help"))


def test_bad_images_are_named_and_can_be_left_out(source: Path, tmp_path: Path) -> None:
    first, second = source / "train/000000000001.jpg", source / "val/000000000012.jpg"
    first.unlink()
    cv2.imwrite(str(second), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    refused = prepared(source, tmp_path / "out")
    assert f"{first}: no such file (2 of 7 samples are bad); mend it or leave it out with --skip-bad" in complaint(
        refused
    )
    assert f"{source}/annotations/val.json: image 000000000012: the label is 80 x 60" in refused.stderr
    printed = succeeded(prepared(source, tmp_path / "out", "--skip-bad"))
    assert "out/train: 1 images\n" in printed and f"train: skipped 000000000001: {first}: no such file" in printed
    assert len(Dataset.open(tmp_path / "out").skipped["train"]) == 2
    # What is left out by its labels is never looked at.
    assert "2 images left out: no object" in printed


@pytest.mark.parametrize("lies", ["upright", "stored"])
def test_stated_size_tells_how_the_annotations_of_a_rotated_image_lie(source: Path, tmp_path: Path, lies: str) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    file = source / "train/000000000001.jpg"
    with Image.open(file) as image:
        upright = np.asarray(image)
        turned = np.ascontiguousarray(np.rot90(upright)) if lies == "upright" else upright
    Image.fromarray(turned).save(file, exif=tags, quality=95, subsampling=0)
    succeeded(prepared(source, tmp_path / "out"))
    with SplitReader(tmp_path / "out/train") as reader:
        index = reader.ids().index("000000000001")
        image, label = reader.image(index), reader.label(index)
    assert label is not None and (label[:30, :40] == VOC2012.classes.index("bus")).all() and not label[30:].any()
    assert image.shape == upright.shape and np.abs(image[:, :, ::-1].astype(int) - upright).mean() < 10


def test_square_rotated_image_needs_the_users_word(source: Path, tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 3
    file = source / "train/000000000001.jpg"
    Image.open(file).save(file, exif=tags, quality=95)
    line = complaint(prepared(source, tmp_path / "out"))
    assert str(file) in line and "say --label-frame upright or stored" in line
    succeeded(prepared(source, tmp_path / "out", "--label-frame", "stored"))


def test_nothing_left_is_told(source: Path, tmp_path: Path) -> None:
    line = complaint(prepared(source, tmp_path / "out", "--min-pixels", 5000))
    assert "the split would hold no image (5 images: 5000 pixels of the 20 classes, or fewer" in line
    assert "2 images: no object" in line


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from data_prep import coco as command
    from renet.conversion import coco
    from renet.data import split_writer
    from renet.common.command_line import run

    draw = coco.draw_label
    def die_at_the_last(image, where):
        if image.number == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(image, where)
    coco.draw_label = die_at_the_last
    split_writer.SAMPLES_PER_BATCH = 2
    run(command.main, command.make_parser(), sys.argv[1:])
    """
)


def test_killed_conversion_goes_on(source: Path, tmp_path: Path) -> None:
    files = [str(source / "annotations" / name) for name in ("train.json", "val.json")]
    arguments = ["--annotations", *files, "--images", str(source / "train"), str(source / "val"), "--out"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments, tmp_path / "out"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert os.listdir(tmp_path / "out") == [".train.partial"]
    assert json.loads((tmp_path / "out/.train.partial/split.json").read_text())["done"] == 6
    printed = succeeded(prepared(source, tmp_path / "out"))
    assert "2 images left out: no object of the 20 classes\n" in printed  # also what the killed one had counted
    succeeded(prepared(source, tmp_path / "unbroken"))
    assert Dataset.open(tmp_path / "out").splits == Dataset.open(tmp_path / "unbroken").splits
