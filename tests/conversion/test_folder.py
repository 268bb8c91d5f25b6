"""The converter of a user's own images."""

from __future__ import annotations

import io
import os
import resource
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from data_prep_helpers import complaint, convert, stock_decodings, succeeded
from PIL import ExifTags, Image

from renet.common.errors import UserError
from renet.conversion.folder_splits import Item, random_splits, take_validation
from renet.data.dataset import Dataset
from renet.data.images import LabelFrame, normalise, read_index_png
from renet.data.split_reader import SplitReader, decode_image

SCRIPT = "folder.py"
HEIGHT, WIDTH = 24, 32


def photo(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth RGB image, so that JPEG hardly changes it, no two corners alike."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (width + height)], axis=2).astype(
        np.uint8
    )


def label(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    values = np.zeros((height, width), np.uint8)
    values[: height // 2, width // 2 :] = 1
    values[-3:, :5] = 255
    return values


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Five photographs with labels, as a user has them."""
    folder = tmp_path / "mine"
    for part in ("photos", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        Image.fromarray(photo()).save(folder / "photos" / f"p{number}.JPG", quality=90 + number)
        Image.fromarray(label()).save(folder / "labels" / f"p{number}.png")
    (folder / "photos" / "notes.txt").write_text("no image")
    (folder / "classes.txt").write_text("ground #102030\ngarden gate 170 60 45\n")
    return folder


def prepared(mine: Path, out: Path, *more: object, **options: Any) -> subprocess.CompletedProcess[str]:
    sources = ("--images", mine / "photos", "--labels", mine / "labels", "--classes", mine / "classes.txt")
    return convert(SCRIPT, *sources, "--out", out, *more, **options)


def read_all(split: Path) -> dict[str, tuple[np.ndarray, np.ndarray, bytes]]:
    with SplitReader(split) as reader:
        return {one: (reader.image(n), reader.label(n), reader.image_bytes(n)) for n, one in enumerate(reader.ids())}  # type: ignore[misc]


def test_plain_photographs_keep_their_bytes(mine: Path, tmp_path: Path) -> None:
    succeeded(prepared(mine, tmp_path / "out"))
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.name == "out"
    assert dataset.classes == ("ground", "garden gate")
    assert dataset.palette.tolist() == [[16, 32, 48], [170, 60, 45]]
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 4, "test": 1}
    everything = read_all(tmp_path / "out/train") | read_all(tmp_path / "out/test")
    assert sorted(everything) == [f"p{n}" for n in range(5)]
    for one, (image, values, data) in everything.items():
        assert data == (mine / "photos" / f"{one}.JPG").read_bytes()
        assert np.array_equal(values, label())
        assert np.abs(image[:, :, ::-1].astype(int) - photo()).max() < 20


ODD_KINDS = {
    "grey.jpg": (encoded(Image.fromarray(photo()).convert("L"), "JPEG", quality=95), "grey"),
    "cmyk.jpg": (encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG", quality=95), "colour"),
    "bitmap.bmp": (encoded(Image.fromarray(photo()), "BMP"), "colour"),
    "palette.png": (encoded(Image.fromarray(photo()).quantize(64), "PNG"), "palette"),
    "deep.png": (cv2.imencode(".png", photo()[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(), "colour"),
    "deep_grey.png": (
        cv2.imencode(".png", np.asarray(Image.fromarray(photo()).convert("L")).astype(np.uint16) * 257)[1].tobytes(),
        "grey",
    ),
}


@pytest.mark.parametrize("name", ODD_KINDS)
def test_odd_kinds_read_the_same_in_every_reader(mine: Path, tmp_path: Path, name: str) -> None:
    data, kind = ODD_KINDS[name]
    (mine / "photos" / name).write_bytes(data)
    Image.fromarray(label()).save(mine / "labels" / f"{Path(name).stem}.png")
    succeeded(prepared(mine, tmp_path / "out", "--test-fraction", 0))
    image, values, stored = read_all(tmp_path / "out/train")[Path(name).stem]
    for decoded in stock_decodings(stored):
        assert np.array_equal(decoded, image)
    if kind == "grey":
        expected = np.repeat(np.asarray(Image.fromarray(photo()).convert("L"))[:, :, None], 3, axis=2)
    else:
        expected = photo()
    difference = np.abs(image[:, :, ::-1].astype(int) - expected)
    assert difference.max() <= {"palette": 40}.get(kind, 20)
    assert difference.mean() < {"palette": 12}.get(kind, 3)
    if name.startswith("deep") or name.endswith("bmp"):
        assert difference.max() == 0
    assert np.array_equal(values, label())


def test_16_bits_are_rounded() -> None:
    deep = np.array([[0, 128, 129, 256, 385, 386, 65535]], np.uint16)
    image = decode_image(normalise(cv2.imencode(".png", deep)[1].tobytes(), "x").data)
    assert image is not None
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 1, 2, 255]


@pytest.mark.parametrize("deep", [False, True])
def test_transparency_is_laid_on_white(deep: bool) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)  # B, G, R, A
    content = pixels.astype(np.uint16) * 257 if deep else pixels
    image = decode_image(normalise(cv2.imencode(".png", content)[1].tobytes(), "x").data)
    assert image is not None
    assert image[0, 0].tolist() == [10, 20, 30]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert image[0, 2].tolist() == [127, 127, 127]


def test_transparent_palette_colour_is_laid_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0])
    data = encoded(image, "PNG", transparency=1)
    image = decode_image(normalise(data, "x").data)
    assert image is not None
    assert image.tolist() == [[[0, 0, 200], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_phone_images_are_turned_where_the_label_is_upright(kind: str, orientation: int) -> None:
    upright = photo()
    # What a camera stores, for each value of the tag: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif(orientation), quality=95)

    def close(image: np.ndarray | None, to: np.ndarray) -> bool:
        return image is not None and image.shape == to.shape and np.abs(image[:, :, ::-1].astype(int) - to).max() < 20

    if orientation == 1:
        assert normalise(data, "x", (HEIGHT, WIDTH)).data == data
    elif orientation >= 5:
        turned = normalise(data, "x", (HEIGHT, WIDTH))
        assert all(close(decoded, upright) for decoded in stock_decodings(turned.data))
        assert (turned.height, turned.width) == (HEIGHT, WIDTH)
        with pytest.raises(UserError, match="not upright"):
            normalise(data, "x", (WIDTH, HEIGHT))
    else:
        with pytest.raises(UserError, match="does not tell"):
            normalise(data, "x", (HEIGHT, WIDTH))
    shown = normalise(data, "x", (HEIGHT, WIDTH), LabelFrame.UPRIGHT)
    assert close(decode_image(shown.data), upright)
    raw = normalise(data, "x", stored.shape[:2], LabelFrame.STORED)
    assert all(close(decoded, stored) for decoded in stock_decodings(raw.data))


def test_square_phone_image_is_an_error_until_the_user_says(mine: Path, tmp_path: Path) -> None:
    square = photo(20, 20)
    Image.fromarray(np.ascontiguousarray(np.rot90(square, 1))).save(
        mine / "photos/square.jpg", exif=exif(6), quality=95
    )
    Image.fromarray(label(20, 20)).save(mine / "labels/square.png")
    line = complaint(prepared(mine, tmp_path / "out"))
    assert str(mine / "photos/square.jpg") in line
    assert "--label-frame" in line
    succeeded(prepared(mine, tmp_path / "out", "--label-frame", "upright", "--test-fraction", 0))
    image, _, _ = read_all(tmp_path / "out/train")["square"]
    assert np.abs(image[:, :, ::-1].astype(int) - square).max() < 20


def labelled(values: np.ndarray, mode: str) -> bytes:
    image = Image.fromarray(values)
    if mode == "P":
        image = image.convert("P")
        image.putpalette([200, 30, 40] * 256)
    return encoded(image, "PNG")


def test_labels_of_every_bit_depth_hold_numbers() -> None:
    values = label()
    assert np.array_equal(read_index_png(labelled(values, "L"), "x"), values)
    assert np.array_equal(read_index_png(labelled(values, "P"), "x"), values)
    few = np.minimum(values, 3)
    palette = Image.fromarray(few).convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    for bits in (2, 4):
        assert np.array_equal(read_index_png(encoded(palette, "PNG", bits=bits), "x"), few)
    for bits in (2, 4):  # grey of few bits: written by hand, since Pillow writes 1, 8 and 16 only
        assert np.array_equal(read_index_png(grey_png(few, bits), "x"), few)
    assert np.array_equal(read_index_png(encoded(Image.fromarray(few > 0), "PNG"), "x"), few > 0)
    deep = values.astype(np.uint16)
    assert np.array_equal(read_index_png(encoded(Image.fromarray(deep), "PNG"), "x"), values)
    assert read_index_png(encoded(Image.fromarray(deep + 300), "PNG"), "x").min() == 300


def grey_png(values: np.ndarray, bits: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape
    planes = (values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(planes.reshape(height, width * bits), axis=1)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(Image.fromarray(photo()), "PNG"), "not class numbers"),
        (encoded(Image.fromarray(photo()).convert("RGBA"), "PNG"), "not class numbers"),
        (encoded(Image.fromarray(label()), "JPEG"), "must be a PNG"),
        (labelled(label(), "L")[:60], "not a PNG that can be read"),
        (b"", "must be a PNG"),
        (labelled(label() + 1, "P"), "label value 2 is out of range: 0..1, or 255"),
        (encoded(Image.fromarray(label().astype(np.uint16) + 300), "PNG"), "label value 300 is out of range"),
        (labelled(label(HEIGHT, WIDTH + 1), "L"), "the label is 33 x 24 (width x height), its image 32 x 24"),
        (None, "no such file"),
    ],
)
def test_bad_labels_are_named(mine: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    file = mine / "labels/p2.png"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    line = complaint(prepared(mine, tmp_path / "out", "--test-fraction", 0))
    assert str(file) in line
    assert words in line
    assert not (tmp_path / "out/train").exists()
    succeeded(prepared(mine, tmp_path / "out", "--test-fraction", 0, "--skip-bad"))
    assert Dataset.open(tmp_path / "out").splits["train"].count == 4
    assert str(file) in Dataset.open(tmp_path / "out").skipped["train"][0]


JPEG = encoded(Image.fromarray(photo()), "JPEG")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p2.JPG", JPEG[: len(JPEG) * 2 // 3], "not an image that can be read"),
        ("p2.JPG", b"", "not an image that can be read"),
        ("p2.JPG", b"<html>not found</html>", "not an image that can be read"),
        ("p2.tif", encoded(Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)), "TIFF"), "real numbers"),
    ],
)
def test_bad_images_are_named(mine: Path, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (mine / "photos/p2.JPG").unlink()
    (mine / "photos" / name).write_bytes(content)
    line = complaint(prepared(mine, tmp_path / "out"))
    assert str(mine / "photos" / name) in line
    assert words in line


def test_lists(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfp3\r\np1.JPG \t\r\n")
    (tmp_path / "test.txt").write_text("# held out\nlabels/p0.png\n")
    (mine / "labels/p0.png").rename(mine / "labels/p0.PNG")
    lists = ("--split", f"train={tmp_path / 'train.txt'}", "--split", f"test={tmp_path / 'test.txt'}")
    succeeded(prepared(mine, tmp_path / "out", *lists))
    assert list(read_all(tmp_path / "out/train")) == ["p3", "p1"]
    assert list(read_all(tmp_path / "out/test")) == ["p0"]
    (tmp_path / "test.txt").write_text("p3\n")
    assert "p3.JPG is in train already" in complaint(prepared(mine, tmp_path / "other", *lists))
    (tmp_path / "test.txt").write_text("p0\np9\np10.jpg\n")
    line = complaint(prepared(mine, tmp_path / "other", *lists))
    assert "test.txt, line 2: lists p9, but" in line and "(nor of 1 more)" in line
    line = complaint(prepared(mine, tmp_path / "other", "--split", f"mine={tmp_path / 'train.txt'}"))
    assert "none of mine is called train" in line


def items(count: int) -> list[Item]:
    return [Item(f"{n}", Path(f"{n}.jpg"), Path(f"{n}.png")) for n in range(count)]


def test_drawn_splits() -> None:
    assert random_splits(items(10), 0.3, 1) == random_splits(items(10), 0.3, 1) != random_splits(items(10), 0.3, 2)
    assert [len(part) for part in random_splits(items(10), 0.3, 1).values()] == [7, 3]
    assert [len(part) for part in random_splits(items(2), 0.01, 1).values()] == [1, 1]
    with pytest.raises(UserError, match="--test-fraction 0"):
        random_splits(items(1), 0.2, 0)


def test_validation_is_taken_out_of_train(mine: Path, tmp_path: Path) -> None:
    splits = random_splits(items(100), 0.2, 0)
    parted = take_validation(splits, 0.1)
    assert {name: len(part) for name, part in parted.items()} == {"train": 72, "val": 8, "test": 20}
    assert parted["test"] == splits["test"]
    assert sorted(parted["train"] + parted["val"], key=str) == sorted(splits["train"], key=str)
    # Neither the order nor the seed has a say in what becomes val.
    assert set(take_validation({"train": items(100)}, 0.1)["val"]) == set(
        take_validation({"train": items(100)[::-1]}, 0.1)["val"]
    )
    assert [len(part) for part in take_validation({"train": items(2)}, 0.99).values()] == [1, 1]
    assert take_validation(splits, 0) == splits
    succeeded(prepared(mine, tmp_path / "out", "--val-fraction", 0.25))
    counts = {name: split.count for name, split in Dataset.open(tmp_path / "out").splits.items()}
    assert counts == {"train": 3, "val": 1, "test": 1}
    folders = f"{mine / 'photos'}:{mine / 'labels'}"
    command = ("--classes", mine / "classes.txt", "--out", tmp_path / "x", "--val-fraction", 0.1)
    line = complaint(convert(SCRIPT, *command, "--split", f"val={folders}"))
    assert "--val-fraction takes val out of train, but the splits are val" in line


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """CamVid as it is delivered, in small: a folder for each split and one for its labels, 11 is void, and lists of
    pairs of paths on another machine."""
    folder = tmp_path / "CamVid"
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        lines = []
        for number in range(count):
            name = f"{split}_{number}.png"
            values = np.full((HEIGHT, WIDTH), number, np.uint8)
            values[0] = 11
            Image.fromarray(photo()).save(folder / split / name)
            Image.fromarray(values).save(folder / f"{split}annot" / name)
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("\n".join(f"class {chr(97 + n)}" for n in range(11)))
    return folder


def camvid_command(camvid: Path, out: Path, *more: object, lists: bool = False) -> subprocess.CompletedProcess[str]:
    splits = []
    for name in ("train", "val", "test"):
        place = camvid / f"{name}.txt" if lists else f"{camvid / name}:{camvid / name}annot"
        splits += ["--split", f"{name}={place}"]
    return convert(SCRIPT, *splits, "--classes", camvid / "classes.txt", "--out", out, *more)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("void", [("--ignore-label", 11), ("--map", "11=255")])
def test_camvid_as_delivered(camvid: Path, tmp_path: Path, lists: bool, void: tuple[object, ...]) -> None:
    succeeded(camvid_command(camvid, tmp_path / "out", *void, lists=lists))
    dataset = Dataset.open(tmp_path / "out")
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 4, "val": 2, "test": 3}
    assert len(dataset.classes) == 11 and dataset.ignore_label == 255
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        content = read_all(tmp_path / "out" / split)
        assert list(content) == [f"{split}_{number}" for number in range(count)]
        for number, (_, values, _) in enumerate(content.values()):
            assert set(values[0]) == {255} and set(values[1:].ravel()) == {number}


def test_one_complaint_of_many_labels_is_told_once(camvid: Path, tmp_path: Path) -> None:
    result = camvid_command(camvid, tmp_path / "out")
    line = complaint(result)
    assert result.stderr.count("out of range") == 1
    assert "train_0.png: label value 11 is out of range: 0..10, or 255" in line
    assert "the same in train_1, train_2, train_3 (4 of 4 samples are bad)" in line
    assert "--map 11=255 lets such pixels count nowhere" in line
    assert "--skip-bad" not in line  # it would drop every image
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(camvid / "trainannot/train_2.png")
    line = complaint(camvid_command(camvid, tmp_path / "out"))
    assert "(3 of 4 samples are bad)" in line and "--map 11=255" in line and "--skip-bad" in line


def test_labels_that_begin_with_1(camvid: Path, tmp_path: Path) -> None:
    for file in (camvid / "trainannot").iterdir():
        Image.fromarray(np.full((HEIGHT, WIDTH), 11, np.uint8)).save(file)
    command = ("--split", f"train={camvid / 'train'}:{camvid / 'trainannot'}", "--classes", camvid / "classes.txt")
    line = complaint(convert(SCRIPT, *command, "--out", tmp_path / "out"))
    assert "do the labels begin with 1? --map 1-11=0-10 makes them begin with 0" in line
    succeeded(convert(SCRIPT, *command, "--out", tmp_path / "out", "--map", "0=255", "1-11=0-10"))
    assert all((values == 10).all() for _, values, _ in read_all(tmp_path / "out/train").values())


def test_ignored_class_is_told_and_other_maps_are_other_data(mine: Path, tmp_path: Path) -> None:
    printed = succeeded(prepared(mine, tmp_path / "out", "--ignore-label", 1, "--test-fraction", 0))
    assert "'garden gate' is label 1, which --map or --ignore-label takes away" in printed
    for _, values, _ in read_all(tmp_path / "out/train").values():
        assert np.array_equal(values, np.where(label() == 0, 0, 255))
    assert "with other settings" in complaint(prepared(mine, tmp_path / "out", "--test-fraction", 0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--map", "11"), "'11' is not OLD=NEW"),
        (("--map", "5-3=1"), "is not OLD=NEW"),
        (("--map", "1-3=0-5"), "is not OLD=NEW"),
        (("--map", "1=256"), "is not OLD=NEW"),
        (("--map", "1=7"), "no class 7 (0..1, or 255 to ignore)"),
        (("--map", "1=0", "--ignore-label", "1"), "the label 1 would become 0 and 255"),
        (("--ignore-label", "-1"), "not a whole number"),
        (("--split", "train"), "is not NAME=IMAGES:LABELS or NAME=LIST"),
        (("--split", "../x=y"), "is not NAME=IMAGES:LABELS or NAME=LIST"),
        (("--split", "train=nowhere.txt"), "nowhere.txt: no such file"),
        (("--split", "train=here:there"), "here: no such folder"),
        (("--split", "train=x", "--test-fraction", "0.1"), "does not go with --split"),
        (("--val-fraction", "nan"), "[0, 1)"),
        (("--image-scale", "nan"), "no factor over 0"),
        (("--label-suffix", "_mask"), "no label PNG in it whose name ends in _mask; it has p0.png"),
    ],
)
def test_bad_options_are_told(mine: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    assert words in complaint(prepared(mine, tmp_path / "out", *options))


def test_names_with_suffixes(tmp_path: Path) -> None:
    """As Cityscapes is delivered: suffixes on both names, in folders of cities; and labels beside the images."""
    for city, number in (("aachen", 0), ("bochum", 1)):
        for kind in ("leftImg8bit", "gtFine", "beside"):
            (tmp_path / kind / city).mkdir(parents=True)
        stem = f"{city}_{number:06d}"
        Image.fromarray(photo()).save(tmp_path / "leftImg8bit" / city / f"{stem}_leftImg8bit.png")
        Image.fromarray(photo()).save(tmp_path / "gtFine" / city / f"{stem}_gtFine_color.png")
        Image.fromarray(label()).save(tmp_path / "gtFine" / city / f"{stem}_gtFine_labelTrainIds.png")
        Image.fromarray(photo()).save(tmp_path / "beside" / f"{stem}.png")
        Image.fromarray(label()).save(tmp_path / "beside" / f"{stem}_gtFine_labelTrainIds.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "list.txt").write_text("leftImg8bit/bochum/bochum_000001_leftImg8bit.png\n")
    common = ("--classes", tmp_path / "classes.txt", "--label-suffix", "_gtFine_labelTrainIds.png")
    folders = ("--images", tmp_path / "leftImg8bit", "--labels", tmp_path / "gtFine")
    suffix = ("--image-suffix", "_leftImg8bit")
    for out, options, ids in (
        ("both", (*folders, *suffix, "--test-fraction", 0), {"aachen_000000", "bochum_000001"}),
        ("list", (*folders, *suffix, "--split", f"train={tmp_path / 'list.txt'}"), {"bochum_000001"}),
        (
            "beside",
            ("--split", f"train={tmp_path / 'beside'}:{tmp_path / 'beside'}"),
            {"aachen_000000", "bochum_000001"},
        ),
    ):
        succeeded(convert(SCRIPT, *common, *options, "--out", tmp_path / "out" / out))
        content = read_all(tmp_path / "out" / out / "train")
        assert content.keys() == ids
        assert all(np.array_equal(values, label()) for _, values, _ in content.values())
    line = complaint(convert(SCRIPT, *common, *folders, "--out", tmp_path / "out/none"))
    assert "would be aachen_000000_leftImg8bit_gtFine_labelTrainIds.png" in line
    assert "--image-suffix and --label-suffix say what follows" in line


def test_labelme_as_its_converter_writes_it(tmp_path: Path) -> None:
    """labelme2voc gives `__ignore__` -1, which is 255 in the PNG, and `_background_` 0."""
    for name in ("JPEGImages", "SegmentationClassPNG"):
        (tmp_path / name).mkdir()
    Image.fromarray(photo()).save(tmp_path / "JPEGImages/one.jpg")
    (tmp_path / "SegmentationClassPNG/one.png").write_bytes(labelled(label(), "P"))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\n")
    folders = ("--images", tmp_path / "JPEGImages", "--labels", tmp_path / "SegmentationClassPNG")
    command = (*folders, "--classes", tmp_path / "labels.txt", "--test-fraction", 0, "--out", tmp_path / "out")
    succeeded(convert(SCRIPT, *command))
    assert Dataset.open(tmp_path / "out").classes == ("_background_", "cat")
    assert np.array_equal(read_all(tmp_path / "out/train")["one"][1], label())


def test_labels_beside_their_images(mine: Path, tmp_path: Path) -> None:
    for file in (mine / "labels").iterdir():
        file.rename(mine / "photos" / file.name)
    folder = f"{mine / 'photos'}:{mine / 'photos'}"
    succeeded(
        convert(SCRIPT, "--split", f"train={folder}", "--classes", mine / "classes.txt", "--out", tmp_path / "out")
    )
    content = read_all(tmp_path / "out/train")
    assert list(content) == [f"p{n}" for n in range(5)]
    assert all(np.array_equal(values, label()) for _, values, _ in content.values())


def test_pairs_that_are_not_here(mine: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    command = ("--split", f"train={file}", "--classes", mine / "classes.txt", "--out", tmp_path / "out")
    for text, words in (
        ("/a/b/p1.jpg /a/c/p1.png\n", "/a/b/p1.jpg and /a/c/p1.png: no such files"),
        ("p1\n", "line 1: p1: no label beside it; give --images and --labels"),
    ):
        file.write_text(text)
        line = complaint(convert(SCRIPT, *command))
        assert f"{file}, line 1" in line and words in line
    # Relative to the list's folder, and labels of other names than the images'.
    (mine / "labels/p1.png").rename(mine / "labels/one.png")
    file.write_text("mine/photos/p1.JPG mine/labels/one.png\n")
    succeeded(convert(SCRIPT, *command))
    assert list(read_all(tmp_path / "out/train")) == ["p1"]


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        (resource.RLIMIT_FSIZE, 0, "split.json: File too large"),
        (resource.RLIMIT_FSIZE, 9_000, "no file may be larger than 9000 bytes here (ulimit -f)"),
        (resource.RLIMIT_NOFILE, 8, "labels.lmdb: Too many open files"),
        (resource.RLIMIT_NOFILE, 10, ": Too many open files"),
    ],
)
def test_limits_of_the_machine_are_told_in_one_line(
    mine: Path, tmp_path: Path, limit: int, value: int, words: str
) -> None:
    def set_limit() -> None:
        resource.setrlimit(limit, (value, value))

    # Without byte code: what Python writes of it beyond the limit would be cut off, for later runs to stumble on.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    result = prepared(mine, tmp_path / "out", "--skip-bad", preexec_fn=set_limit, env=environment)
    assert words in complaint(result)
    assert "skipped" not in result.stdout + result.stderr  # no image is to blame
    succeeded(prepared(mine, tmp_path / "out", "--skip-bad"))
    assert Dataset.open(tmp_path / "out").skipped == {}


def test_bad_arguments(mine: Path, tmp_path: Path) -> None:
    shutil.copy(mine / "photos/p1.JPG", mine / "photos/p1.png")
    assert "same id" in complaint(prepared(mine, tmp_path / "out"))
    shutil.rmtree(mine / "photos")
    assert "photos: no such folder" in complaint(prepared(mine, tmp_path / "out"))
    (mine / "photos").mkdir()
    assert "no image in it" in complaint(prepared(mine, tmp_path / "out"))
    assert "required" in complaint(convert(SCRIPT, "--images", mine))
    assert "[0, 1)" in complaint(prepared(mine, tmp_path / "out", "--test-fraction", "1"))
