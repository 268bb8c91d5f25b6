"""Labels as people's tools write them: labelme, CVAT, COCO, and colours; each file is written by hand here."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_prep_helpers import complaint, convert, succeeded
from PIL import ExifTags, Image
from pycocotools import mask

from renet.conversion.regions import covered, ellipse, rectangle
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader

HEIGHT, WIDTH = 20, 30
VOID = 255


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two photographs, and a class file with a background."""
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        photograph = np.random.default_rng(ord(name)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(photograph).save(tmp_path / f"photos/{name}.png")
    (tmp_path / "classes.txt").write_text("background #000000\ntree 0 128 0\ngarden wall #c80000\n")
    return tmp_path


def prepared(place: Path, form: str, labels: str, *more: object) -> subprocess.CompletedProcess[str]:
    sources = ("--images", place / "photos", "--labels", place / labels, "--classes", place / "classes.txt")
    return convert("folder.py", *sources, "--labels-as", form, "--test-fraction", 0, "--out", place / "out", *more)


def labels_of(place: Path) -> dict[str, np.ndarray]:
    with SplitReader(place / "out/train") as reader:
        return {one: reader.label(n) for n, one in enumerate(reader.ids())}  # type: ignore[misc]


def blank(value: int = 0) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value)


# -------------------------------------------------------------------------------------------------------- labelme


def labelme(place: Path, name: str, *shapes: dict[str, Any], **more: Any) -> None:
    """A file beside the photograph, as labelme writes it."""
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None}
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH, **more}
    (place / f"photos/{name}.json").write_text(json.dumps(content))


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def test_labelme(place: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[True, False], [True, True]])).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    labelme(
        place,
        "a",
        shape("tree", [[2, 3], [9, 3], [9, 12], [2, 12]]),
        shape("garden  wall", [[20, 15], [8, 10]], "rectangle"),  # corners in any order, over what came before
        shape("background", [[3.2, 4.1], [4.4, 5.4]], "rectangle"),  # a hole
        shape("tree", [[25, 5], [25, 8]], "circle"),
        shape("__ignore__", [[0, 18], [29, 18], [29, 19], [0, 19]]),
        shape("garden wall", [[0, 0], [1, 1]], "mask", mask=text),
    )
    labelme(place, "b", shape("tree", [[1, 10], [28, 10]], "line"), shape("tree", [[15, 3]], "point"))
    succeeded(prepared(place, "labelme", "photos"))
    expected = blank()
    expected[3:13, 2:10] = 1  # the outline belongs to the shape
    expected[10:16, 8:21] = 2
    expected[4:6, 3:5] = 0
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(x - 25, y - 5)
    found = labels_of(place)["a"]
    assert (found[far <= 2.5] == 1).all()
    expected[(far < 3.6) & (found == 1)] = 1
    expected[18:] = VOID
    expected[:2, :2] = [[2, 0], [2, 2]]
    assert np.array_equal(found, expected)
    line = labels_of(place)["b"]
    assert (line[6:14, 5:25] == 1).all() and not line[16:].any() and line[3, 15] == 1  # ten wide, as labelme draws
    assert Dataset.open(place / "out").classes == ("background", "tree", "garden wall")


def test_labelme_without_background_ignores_what_nobody_labelled(place: Path) -> None:
    (place / "classes.txt").write_text("__ignore__\ntree\nwall\n")
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    for name in ("a", "b"):
        labelme(place, name, shape("tree", square), shape("person", [[2, 2], [29, 19]], "rectangle"))
    succeeded(prepared(place, "labelme", "photos", "--ignore-name", "person"))
    expected = blank(VOID)
    expected[:5, :5] = 0
    expected[2:5, 2:5] = VOID
    assert np.array_equal(labels_of(place)["a"], expected)
    assert "with other settings" in complaint(prepared(place, "labelme", "photos", "--ignore-name", "bird"))
    words = ("--ignore-name", "person", "--unlabelled", "wall", "--out", place / "walled")
    succeeded(prepared(place, "labelme", "photos", *words))
    with SplitReader(place / "walled/train") as reader:
        assert (reader.label(0)[8:, :2] == 1).all()


@pytest.mark.parametrize(
    ("shapes", "more", "words"),
    [
        ([shape("tre", [[0, 0], [5, 0], [5, 5]]), shape("bush", [[1, 1]], "point")], {},
         "b.json: 'tre', 'bush': no name of the class file, which has background, tree, garden wall; --ignore-name"),
        ([shape("tree", [[0, 0], [5, 0]], "circle"), shape("tree", [[0, 0]], "circle")], {},
         "b.json: shape 2 (tree): its points are not those of a circle"),
        ([shape("tree", [[0, float("nan")], [5, 0], [5, 5]])], {}, "its points are not those of a polygon"),
        ([shape("tree", [["x", 0], [5, 0], [5, 5]])], {}, "its points are not those of a polygon"),
        ([shape("tree", [[0, 0], [5, 0]], "heart")], {}, "is a heart, which is none of labelme's shapes"),
        ([shape("tree", [[0, 0], [5, 5]], "mask", mask="%%")], {}, "shape 1 (tree): its mask cannot be read"),
        ([{"points": []}], {}, "b.json: has a shape without a label"),
        ([], {"imageHeight": None}, "b.json: has no imageHeight and imageWidth"),
        ([], {"imageWidth": WIDTH + 1}, "b.json: the label is 31 x 20 (width x height), its image 30 x 20"),
        (None, {}, 'b.json: has no list "shapes"; labelme\'s JSON is expected'),
    ],
)  # fmt: skip
def test_bad_labelme_files_are_named(place: Path, shapes: Any, more: dict[str, Any], words: str) -> None:
    labelme(place, "a", shape("tree", [[0, 0], [5, 0], [5, 5]]))
    labelme(place, "b", *(shapes or []), **more)
    if shapes is None:
        (place / "photos/b.json").write_text("[]")
    line = complaint(prepared(place, "labelme", "photos"))
    assert words in line, line
    succeeded(prepared(place, "labelme", "photos", "--skip-bad"))
    assert list(labels_of(place)) == ["a"]


def test_an_image_without_labelme_file(place: Path) -> None:
    labelme(place, "a", shape("tree", [[0, 0], [5, 0], [5, 5]]))
    assert f"b.json: no such file; it would be the label of {place}/photos/b.png" in complaint(
        prepared(place, "labelme", "photos")
    )
    (place / "photos/a.json").unlink()
    assert f"{place}/photos: no label JSON in it; it has a.png, b.png" in complaint(
        prepared(place, "labelme", "photos")
    )


def test_labelme_of_a_photograph_that_lies_on_its_side(place: Path) -> None:
    """labelme shows photographs upright, and states the size that it shows."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    upright = np.random.default_rng(3).integers(0, 255, (WIDTH, HEIGHT, 3), np.uint8)
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(place / "photos/a.png", exif=tags)
    (place / "photos/b.png").unlink()
    labelme(place, "a", shape("tree", [[0, 0], [4, 0], [4, 9], [0, 9]]), imageHeight=WIDTH, imageWidth=HEIGHT)
    succeeded(prepared(place, "labelme", "photos"))
    with SplitReader(place / "out/train") as reader:
        assert np.array_equal(reader.image(0)[:, :, ::-1], upright)
        label = reader.label(0)
    assert label is not None and (label[:10, :5] == 1).all() and label.sum() == 50


# ----------------------------------------------------------------------------------------------------------- CVAT


def cvat(place: Path, images: str) -> None:
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta/>{images}</annotations>'
    (place / "annotations.xml").write_text(text)


def cvat_image(name: str, shapes: str = "", size: str = f'width="{WIDTH}" height="{HEIGHT}"') -> str:
    return f'<image id="0" name="{name}" {size}>{shapes}</image>'


def test_cvat(place: Path) -> None:
    shapes = """
        <polygon label="tree" z_order="1" points="2.00,3.00;10.00,3.00;10.00,13.00;2.00,13.00"></polygon>
        <box label="garden wall" z_order="0" xtl="0.0" ytl="0.0" xbr="20.0" ybr="6.0"></box>
        <mask label="garden wall" z_order="1" rle="1, 2, 1, 2" left="4" top="5" width="3" height="2"></mask>
        <box label="tree" xtl="20" ytl="8" xbr="24" ybr="16" rotation="90.0" z_order="0"></box>
        <polygon label="background" z_order="2" points="0,0;2,0;2,2;0,2"/>
        <ellipse label="tree" cx="25" cy="4" rx="4" ry="2" z_order="0"/>
        <polyline label="tree" points="0,0;5,5"/> <points label="tree" points="1,1"/> <tag label="good"/>
    """
    cvat(place, cvat_image("day1/a.png", shapes) + cvat_image("b.png"))
    printed = succeeded(prepared(place, "cvat", "annotations.xml"))
    assert "annotations.xml: left out, since they have no area: 1 polyline, 1 points\n" in printed
    expected = blank()
    expected[:6, :20] = 2
    expected[3:13, 2:10] = 1
    expected[5:7, 4:7] = [[1, 2, 2], [1, 2, 2]]
    expected[10:14, 18:26] = 1  # 4 x 8, turned by a right angle about its middle
    expected[:2, :2] = 0
    found = labels_of(place)["a"]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    oval = ((x - 25) / 4) ** 2 + ((y - 4) / 2) ** 2
    assert (found[oval < 0.8] == 1).all()
    expected[(oval < 1.3) & (found == 1)] = 1
    assert np.array_equal(found, expected)
    assert not labels_of(place)["b"].any()  # looked at, and nothing there


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (cvat_image("a.png", '<box label="tre" xtl="0" ytl="0" xbr="5" ybr="5"/><box label="bush" xtl="0" ytl="0" '
                    'xbr="5" ybr="5"/>'),
         "annotations.xml: 'tre', 'bush': no name of the class file, which has background, tree, garden wall"),
        (cvat_image("a.png", '<polygon label="tree" points="1,2;3"/>'), "image a.png: a <polygon> whose points are no"),
        (cvat_image("a.png", '<polygon label="tree" points="0,0;900,0;5,5"/>'), "image a: a polygon that is no list"),
        (cvat_image("a.png", '<box label="tree" xtl="0" ytl="0" xbr="five" ybr="5"/>'), "a <box> without numbers as"),
        (cvat_image("a.png", '<mask label="tree" rle="4" left="29" top="0" width="2" height="2"/>'),
         "image a: a mask that does not lie in the image"),
        (cvat_image("a.png", '<mask label="tree" rle="1, 2" left="0" top="0" width="2" height="2"/>'),
         "image a: a mask whose runs do not fill its box"),
        (cvat_image("a.png", '<mask label="tree" rle="1; 2" left="0" top="0" width="2" height="2"/>'),
         "a <mask> whose rle is no list of numbers"),
        (cvat_image("a.png", '<blob label="tree"/>'), "image a.png: has a <blob>, which is none of polygon, box"),
        (cvat_image("a.png", size=""), "image a.png: a <image> without numbers as its height"),
        (cvat_image("a.png", size='width="31" height="20"'), "the label is 31 x 20 (width x height), its image 30"),
        (cvat_image("a.png") + cvat_image("day2/a.jpg"), "day2/a.jpg has the same id as a.png"),
        (cvat_image("c.png"), "annotates no image in"),
        ('<track id="0" label="tree"/>', "has tracks of a film, not images; export it"),
        ("", "has no <annotations> with <image>s"),
        ("<image", "not XML, or a part of it"),
    ],
)  # fmt: skip
def test_bad_cvat_files_are_named(place: Path, content: str, words: str) -> None:
    (place / "photos/b.png").unlink()
    cvat(place, content)
    line = complaint(prepared(place, "cvat", "annotations.xml"))
    assert str(place / "annotations.xml") in line and words in line, line


def test_images_and_annotations_that_are_not_of_each_other(place: Path) -> None:
    cvat(place, cvat_image("a.png") + cvat_image("z.png"))
    refused = prepared(place, "cvat", "annotations.xml")
    line = complaint(refused)
    assert f"annotations.xml: lacks an image: {place}/photos/b.png" in line
    assert f"annotations.xml: 1 of its 2 images are not in {place}/photos: z.png" in refused.stdout
    succeeded(prepared(place, "cvat", "annotations.xml", "--skip-bad"))
    assert "is a folder, not a file" in complaint(prepared(place, "cvat", "photos"))
    assert "nowhere.xml: no such file" in complaint(prepared(place, "cvat", "nowhere.xml"))


# ----------------------------------------------------------------------------------------------------------- COCO


def coco(place: Path, annotations: list[dict[str, Any]], name: str = "instances.json", **more: Any) -> None:
    images = [{"id": n, "file_name": f"{one}.png", "height": HEIGHT, "width": WIDTH} for n, one in ((7, "a"), (9, "b"))]
    categories = [{"id": 1, "name": "garden wall"}, {"id": 4, "name": "tree"}, {"id": 5, "name": "bush"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **more}
    (place / name).write_text(json.dumps(content))


def instance(category: int, segmentation: Any, image: int = 7, crowd: int = 0) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def around(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def test_coco(place: Path) -> None:
    ring = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    ring[8:16, 10:20] = 1
    ring[10:12, 12:14] = 0
    packed = mask.encode(ring)
    corner = [0, 2, HEIGHT - 2, 2, HEIGHT * (WIDTH - 1) - 2]  # down the columns: 2 x 2 pixels
    coco(
        place,
        [
            instance(4, [around(0, 0, 12, 12), around(20, 0, 25, 4)]),  # two parts of one tree
            instance(1, {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}, crowd=1),
            instance(1, {"size": [HEIGHT, WIDTH], "counts": corner}),
        ],
    )
    succeeded(prepared(place, "coco", "instances.json"))
    expected = blank()
    expected[:12, :12], expected[:4, 20:25] = 1, 1
    expected[ring != 0] = 2  # over the tree; through its hole shows what is below
    expected[:2, :2] = 2
    assert np.array_equal(labels_of(place)["a"], expected)
    assert not labels_of(place)["b"].any()


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (instance(5, [around(0, 0, 5, 5)]), "instances.json: 'bush': no name of the class file, which has background,"),
        (instance(6, [around(0, 0, 5, 5)]), "an annotation of the category 6, which the file does not list"),
        (instance(4, [around(0, 0, 5, 5)], image=8), "an annotation of the image 8, which the file does not list"),
        (instance(4, [[0, 0, 5]]), "image a: a polygon that is no list of x, y"),
        (instance(4, {"size": [WIDTH, HEIGHT], "counts": [600]}), "neither polygons nor runs of the image's size"),
        (instance(4, {"size": [HEIGHT, WIDTH], "counts": [1, 2]}), "runs of pixels that do not fill the image"),
    ],
)
def test_bad_coco_annotations_are_named(place: Path, annotation: dict[str, Any], words: str) -> None:
    coco(place, [annotation])
    line = complaint(prepared(place, "coco", "instances.json"))
    assert str(place / "instances.json") in line and words in line, line


def test_splits_with_a_file_each(place: Path) -> None:
    coco(place, [instance(4, [around(0, 0, 5, 5)])], "train.json", images=[coco_image(7, "a")])
    coco(place, [instance(1, [around(0, 0, 5, 5)], image=9)], "val.json", images=[coco_image(9, "b")])
    (place / "others").mkdir()
    (place / "photos/b.png").rename(place / "others/b.png")
    splits = ("--split", f"train={place}/photos:{place}/train.json", "--split", f"val={place}/others:{place}/val.json")
    words = (*splits, "--classes", place / "classes.txt", "--labels-as", "coco", "--out", place / "out")
    succeeded(convert("folder.py", *words))
    with SplitReader(place / "out/val") as reader:
        assert reader.ids() == ["b"] and (reader.label(0)[:5, :5] == 2).all()


def coco_image(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}


# -------------------------------------------------------------------------------------------------------- colours


def test_colours(place: Path) -> None:
    (place / "classes.txt").write_text("0 sky #0000ff\n1 tree 0 128 0\n255 void 0 0 0\n")
    (place / "labels").mkdir()
    values = blank()
    values[5:] = 1
    values[:, 0] = 2
    rgb = np.array([[0, 0, 255], [0, 128, 0], [0, 0, 0]], np.uint8)[values]
    Image.fromarray(rgb).save(place / "labels/a.png")
    Image.fromarray(rgb).quantize(3).save(place / "labels/b.png")  # a palette's colours count, not its numbers
    succeeded(prepared(place, "colours", "labels"))
    expected = np.where(values == 2, VOID, values)
    assert all(np.array_equal(label, expected) for label in labels_of(place).values())
    assert Dataset.open(place / "out").classes == ("sky", "tree")
    # labelme's way to name what is ignored
    (place / "classes.txt").write_text("__ignore__ #000000\nsky #0000ff\ntree 0 128 0\n")
    succeeded(prepared(place, "colours", "labels", "--out", place / "second"))


def test_unknown_colours_are_counted(place: Path) -> None:
    (place / "labels").mkdir()
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(rgb).save(place / "labels/a.png")
    rgb[0, :2], rgb[1, 0] = (1, 2, 3), (0, 128, 1)
    Image.fromarray(rgb).save(place / "labels/b.png")
    line = complaint(prepared(place, "colours", "labels"))
    assert "b.png: has colours of no class in the class file on 3 of 600 pixels: #010203 (2), #008001 (1)" in line
    rgb[2, :20] = np.arange(60).reshape(20, 3)
    for name in ("a", "b"):
        Image.fromarray(rgb).save(place / f"labels/{name}.png")
    refused = prepared(place, "colours", "labels")
    assert refused.stderr.count("has colours of no class") == 1
    assert re.search(r" and 17 more; the same in [ab] \(2 of 2 samples are bad\)", complaint(refused))


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("sky #0000ff\ntree\n", "classes.txt: 'tree' has no colour; --labels-as colours needs one of every class"),
        ("sky #0000ff\ntree 0 0 255\n", "classes.txt: 'tree' has the colour of 'sky'"),
        ("__ignore__ #00f\nsky #0000ff\n", "classes.txt: 'sky' has the colour of pixels to ignore"),
    ],
)
def test_class_files_without_a_colour_of_each_class(place: Path, classes: str, words: str) -> None:
    (place / "classes.txt").write_text(classes)
    (place / "labels").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(place / f"labels/{name}.png")
    assert words in complaint(prepared(place, "colours", "labels"))


def test_coloured_labels_as_numbers_are_told_of_the_option(place: Path) -> None:
    (place / "labels").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(place / f"labels/{name}.png")
    line = complaint(prepared(place, "numbers", "labels"))
    assert "has colours (RGB), not class numbers" in line and "--labels-as colours reads the class file's" in line
    line = complaint(prepared(place, "colours", "labels", "--unlabelled", "tree"))
    assert "--ignore-name and --unlabelled are of labels with names, not of --labels-as colours" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--unlabelled", "lawn"), "--unlabelled lawn: is no class; there are background, tree, garden wall"),
        (("--ignore-name", "tree"), "--ignore-name tree: is a class; --ignore-label 1 ignores it"),
    ],
)
def test_names_that_the_options_cannot_have(place: Path, options: tuple[str, str], words: str) -> None:
    cvat(place, cvat_image("a.png") + cvat_image("b.png"))
    assert words in complaint(prepared(place, "cvat", "annotations.xml", *options))


def test_turned_shapes() -> None:
    size = (40, 40)
    upright = covered(rectangle(10, 10, 30, 14, 0), size, "x")
    assert upright.sum() == 80 and upright[10:14, 10:30].all()
    assert np.array_equal(covered(rectangle(18, 2, 22, 22, 90), size, "x"), upright)
    tilted = covered(rectangle(10, 18, 30, 22, 45), size, "x")  # clockwise: from top left to bottom right
    assert tilted[14, 14] and tilted[26, 26] and not tilted[14, 26] and not tilted[26, 14]
    disc = covered(ellipse((20, 20), (10, 10), 0), size, "x")
    assert abs(disc.sum() - 100 * np.pi) < 6
    assert np.array_equal(
        covered(ellipse((20, 20), (4, 12), 90), size, "x"), covered(ellipse((20, 20), (12, 4), 0), size, "x")
    )
