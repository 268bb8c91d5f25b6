"""The converter of PASCAL VOC 2012 and SBD."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_prep_helpers import complaint, convert, succeeded
from PIL import ExifTags, Image
from scipy.io import savemat

from renet.common.errors import UserError
from renet.conversion.voc2012 import SBD_IMAGE_COUNT, augment, check_counts, read_sbd_label
from renet.data.catalog import VOC2012, bit_interleaved_palette
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader

SCRIPT = "voc2012.py"
TRAIN, VAL, TEST = ["2007_01", "2007_02", "2007_03"], ["2007_11", "2007_12"], ["2008_21", "2008_22"]
# One of SBD's images is in VOC's train and one in VOC's val; the others are SBD's alone.
SBD_TRAIN, SBD_VAL = ["2007_02", "2010_31", "2010_32"], ["2007_11", "2010_33"]
HEIGHT, WIDTH = 10, 14


def write_image(file: Path, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def voc_values(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 21, (HEIGHT, WIDTH)).astype(np.uint8)
    values[:, 5] = 255
    return values


def sbd_values(seed: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).integers(0, 21, (HEIGHT, WIDTH)).astype(np.uint8)


def save_label(file: Path, values: np.ndarray) -> None:
    image = Image.fromarray(values)
    image.putpalette(bit_interleaved_palette(256).reshape(-1).tolist())
    image.save(file)


def save_sbd(file: Path, values: np.ndarray) -> None:
    """A Matlab file as SBD's: the struct GTcls with boundaries and the list of classes beside the labels."""
    boundaries = np.empty((20, 1), object)
    for n in range(20):
        boundaries[n, 0] = (values == n + 1).astype(np.uint8)
    present = np.unique(values[values > 0]).astype(np.uint8)[:, None]
    content = {"Boundaries": boundaries, "Segmentation": values, "CategoriesPresent": present}
    savemat(file, {"GTcls": content}, do_compression=True)


def write_list(file: Path, ids: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{one}\n" for one in ids))


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """A small VOCdevkit."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    (voc / "SegmentationClass").mkdir(parents=True)
    for seed, one in enumerate(TRAIN + VAL):
        write_image(voc / "JPEGImages" / f"{one}.jpg", seed)
        save_label(voc / "SegmentationClass" / f"{one}.png", voc_values(seed))
    for seed, one in enumerate(TEST):
        write_image(voc / "JPEGImages" / f"{one}.jpg", 50 + seed)
    write_image(voc / "JPEGImages" / "2010_31.jpg", 60)
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", sorted(TRAIN + VAL)), ("test", TEST)):
        write_list(voc / "ImageSets/Segmentation" / f"{name}.txt", ids)
    return voc.parent


@pytest.fixture
def sbd(tmp_path: Path, devkit: Path) -> Path:
    """A small benchmark_RELEASE."""
    dataset = tmp_path / "benchmark_RELEASE" / "dataset"
    (dataset / "cls").mkdir(parents=True)
    for seed, one in enumerate(SBD_TRAIN + SBD_VAL):
        write_image(dataset / "img" / f"{one}.jpg", 70 + seed)
        save_sbd(dataset / "cls" / f"{one}.mat", sbd_values(seed))
    write_list(dataset / "train.txt", SBD_TRAIN)
    write_list(dataset / "val.txt", SBD_VAL)
    return dataset.parent


def read_all(split: Path) -> dict[str, tuple[bytes, np.ndarray | None]]:
    with SplitReader(split) as reader:
        return {one: (reader.image_bytes(n), reader.label(n)) for n, one in enumerate(reader.ids())}


def test_real_samples(tmp_path: Path, shared_data: Path) -> None:
    samples = shared_data / "voc_samples"
    if not samples.is_dir():
        pytest.skip(f"no VOC samples in {samples}")
    printed = succeeded(convert(SCRIPT, "--voc", samples, "--out", tmp_path))
    assert "train: 2 images instead of 1464" in printed
    assert "there is no" in printed and "test.txt" in printed
    dataset = Dataset.open(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"train": 2, "val": 2, "trainval": 4}
    colours = bit_interleaved_palette(256)
    for one, (image, label) in read_all(tmp_path / "trainval").items():
        assert image == (samples / f"VOC2012/JPEGImages/{one}.jpg").read_bytes()
        with Image.open(samples / f"VOC2012/SegmentationClass/{one}.png") as source:
            assert source.mode == "P"
            assert np.array_equal(label, np.asarray(source))
            # The same by another way: each index's colour is that of the image as it is seen.
            assert np.array_equal(colours[label], np.asarray(source.convert("RGB")))
        assert label is not None and 255 in label and 0 < np.unique(label)[-2] <= 20


def test_some_classes_of_real_samples(tmp_path: Path, shared_data: Path) -> None:
    """In the order asked for; the others, which the samples hold, are ignored."""
    samples = shared_data / "voc_samples"
    if not samples.is_dir():
        pytest.skip(f"no VOC samples in {samples}")
    out, kept = tmp_path / "planes", ("aeroplane", "background")
    printed = succeeded(convert(SCRIPT, "--voc", samples, "--keep-classes", *kept, "--out", out))
    assert "dataset.json: 2 classes" in printed
    dataset = Dataset.open(out)
    assert (dataset.name, dataset.classes) == ("planes", kept)
    assert dataset.palette.tolist() == VOC2012.palette[[1, 0]].tolist()
    others = 0
    for one, (_, label) in read_all(out / "trainval").items():
        source = np.asarray(Image.open(samples / f"VOC2012/SegmentationClass/{one}.png"))
        expected = np.full_like(source, 255)
        expected[source == 1], expected[source == 0] = 0, 1
        np.testing.assert_array_equal(label, expected)
        others += np.count_nonzero((source > 1) & (source < 255))
    assert others


def test_kept_classes(devkit: Path, tmp_path: Path) -> None:
    """Images without any of them are left out; test images, which have no labels, stay."""
    voc, out = devkit / "VOC2012", tmp_path / "out"
    values = np.full((HEIGHT, WIDTH), 7, np.uint8)
    save_label(voc / "SegmentationClass" / f"{TRAIN[0]}.png", values)
    words = ("--voc", devkit, "--out", out, "--keep-classes")
    printed = succeeded(convert(SCRIPT, *words, "person", "cat"))
    assert "train: 1 images left out: no pixel of the classes that are kept" in printed
    dataset = Dataset.open(out)
    assert {name: split.count for name, split in dataset.splits.items()} == {
        "train": 2, "val": 2, "trainval": 4, "test": 2
    }  # fmt: skip
    found = read_all(out / "train")
    assert list(found) == TRAIN[1:]
    for seed, one in enumerate(TRAIN[1:], 1):
        source = voc_values(seed)
        np.testing.assert_array_equal(found[one][1], np.select([source == 15, source == 8], [0, 1], 255))
    again = convert(SCRIPT, *words, "cat", "person")
    assert "was prepared from other files or with other settings" in complaint(again)
    values[0, 0] = 21
    save_label(voc / "SegmentationClass" / f"{TRAIN[0]}.png", values)
    wrong = convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "wrong", "--keep-classes", "cat")
    assert "label value 21 is out of range" in complaint(wrong)


@pytest.mark.parametrize(
    ("out", "kept", "message"),
    [
        ("out", ("cat", "tiger"), "--keep-classes: 'tiger' is no class; they are background, aeroplane"),
        ("out", ("cat", "cat"), "--keep-classes: 'cat' comes twice"),
        ("voc2012", ("cat", "dog"), "some of the classes are no voc2012; give --out another name"),
    ],
)
def test_wrong_classes_to_keep(devkit: Path, tmp_path: Path, out: str, kept: tuple[str, ...], message: str) -> None:
    assert message in complaint(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / out, "--keep-classes", *kept))


def test_vocs_own_splits(devkit: Path, tmp_path: Path) -> None:
    printed = succeeded(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out"))
    assert "this is a part of the dataset" in printed
    assert "trainval: 5 images instead of 2913" in printed and "test: 2 images instead of 1456" in printed
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.name == "voc2012" and dataset.classes == VOC2012.classes and dataset.ignore_label == 255
    assert list(dataset.splits) == ["train", "val", "trainval", "test"]
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", sorted(TRAIN + VAL))):
        content = read_all(tmp_path / "out" / name)
        assert list(content) == ids
        for one, (image, label) in content.items():
            assert image == (devkit / f"VOC2012/JPEGImages/{one}.jpg").read_bytes()
            assert np.array_equal(label, voc_values((TRAIN + VAL).index(one)))
    assert all(label is None for _, label in read_all(tmp_path / "out/test").values())
    assert list(read_all(tmp_path / "out/test")) == TEST
    with SplitReader(tmp_path / "out/train") as reader:
        pixels = np.concatenate([reader.image(n).reshape(-1, 3) for n in range(3)])
    assert dataset.mean == pytest.approx(pixels.mean(axis=0), abs=1e-3)
    # The folder VOC2012 itself, and the one that the archives are unpacked in, serve as well; a second call is quick.
    stamp = (tmp_path / "out/test/images.lmdb/data.mdb").stat().st_mtime_ns
    for folder in (devkit / "VOC2012", devkit.parent):
        succeeded(convert(SCRIPT, "--voc", folder, "--out", tmp_path / "out"))
    assert (tmp_path / "out/test/images.lmdb/data.mdb").stat().st_mtime_ns == stamp
    assert not (tmp_path / "out/test/labels.lmdb").exists()


def test_sbd_adds_images_and_vocs_labels_win(devkit: Path, sbd: Path, tmp_path: Path) -> None:
    printed = succeeded(convert(SCRIPT, "--voc", devkit, "--sbd", sbd, "--out", tmp_path / "out"))
    assert "trainaug: 6 images instead of 10582" in printed
    assert "val is not whole" in printed
    trainaug, trainvalaug = (read_all(tmp_path / "out" / name) for name in ("trainaug", "trainvalaug"))
    assert list(trainaug) == [*TRAIN, "2010_31", "2010_32", "2010_33"]
    assert list(trainvalaug) == [*trainaug, *VAL]
    for one in TRAIN + VAL:
        assert np.array_equal(trainvalaug[one][1], voc_values((TRAIN + VAL).index(one)))
    for one in ("2010_31", "2010_32", "2010_33"):
        assert np.array_equal(trainaug[one][1], sbd_values((SBD_TRAIN + SBD_VAL).index(one)))
    assert trainaug["2010_31"][0] == (devkit / "VOC2012/JPEGImages/2010_31.jpg").read_bytes()
    assert trainaug["2010_32"][0] == (sbd / "dataset/img/2010_32.jpg").read_bytes()
    succeeded(convert(SCRIPT, "--voc", devkit, "--sbd", sbd / "dataset", "--out", tmp_path / "out"))
    assert Dataset.open(tmp_path / "out").splits["trainaug"].count == 6


def full_lists() -> tuple[dict[str, list[str]], list[str]]:
    """Made-up ids in the numbers of the whole dataset: of SBD's 11,355 images 9,118 are in neither train nor val."""
    train, val = [f"t{n}" for n in range(1464)], [f"v{n}" for n in range(1449)]
    sbd = [*train[:1100], *val[:1137], *(f"s{n}" for n in range(9118))]
    splits = {"train": train, "val": val, "trainval": [*train, *val], "test": [f"x{n}" for n in range(1456)]}
    return splits, sbd


def test_counts_of_the_whole_dataset() -> None:
    splits, sbd = full_lists()
    assert len(sbd) == SBD_IMAGE_COUNT
    everything = splits | augment(splits, sbd)
    assert {split: len(ids) for split, ids in everything.items()} == VOC2012.images
    assert check_counts(everything, sbd) == check_counts(splits, None) == []
    assert not set(everything["trainaug"]) & set(splits["val"])
    # Lists that are whole and give something else are not those of VOC and SBD.
    other = [*sbd[:-1], "v1448"]
    with pytest.raises(UserError, match="the split trainaug would have 10581 images; it has 10582 by right"):
        check_counts(splits | augment(splits, other), other)
    assert check_counts(splits | augment(splits, sbd[:-1]), sbd[:-1]) == [
        "trainaug: 10581 images instead of 10582",
        "trainvalaug: 12030 images instead of 12031",
    ]
    assert check_counts(splits | {"test": ["x0"]}, None) == ["test: 1 images instead of 1456"]
    # Somebody's list of more images under VOC's name would let test images into the training.
    with pytest.raises(UserError, match="the split train would have 1465 images"):
        check_counts(splits | {"train": [*splits["train"], "more"]}, None)
    with pytest.raises(UserError, match="SBD has 11355"):
        check_counts(splits, [*sbd, "more"])


def test_sbd_labels(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"

    def refusal(content: dict[str, object]) -> str:
        savemat(file, content)
        with pytest.raises(UserError, match=r"^a\.mat: ") as error:
            read_sbd_label(file.read_bytes(), "a.mat")
        return str(error.value)

    save_sbd(file, sbd_values(0))
    whole = file.read_bytes()
    assert np.array_equal(read_sbd_label(whole, "x"), sbd_values(0))
    for data in (b"", b"no Matlab", whole[:200], whole[: len(whole) // 2], whole[:150] + b"\xff" * 60 + whole[210:]):
        with pytest.raises(UserError, match=r"^a\.mat: not a Matlab file that can be read"):
            read_sbd_label(data, "a.mat")
    assert "holds no GTcls" in refusal({"GTinst": {"Segmentation": sbd_values(0)}})
    assert "holds no GTcls" in refusal({"GTcls": {"Boundaries": sbd_values(0)}})
    assert "holds no GTcls" in refusal({"GTcls": sbd_values(0)})
    assert "no matrix of whole numbers" in refusal({"GTcls": {"Segmentation": "text"}})
    assert "no matrix of whole numbers" in refusal({"GTcls": {"Segmentation": sbd_values(0) / 3}})
    for value in (21, 255):
        values = sbd_values(0)
        values[2, 3] = value
        assert f"label value {value} is out of range: 0..20" in refusal({"GTcls": {"Segmentation": values}})


def test_bad_files_are_named_and_can_be_left_out(devkit: Path, sbd: Path, tmp_path: Path) -> None:
    voc, dataset = devkit / "VOC2012", sbd / "dataset"
    Image.fromarray(bit_interleaved_palette(256)[voc_values(0)]).save(voc / "SegmentationClass/2007_01.png")
    save_label(voc / "SegmentationClass/2007_02.png", np.full((HEIGHT, WIDTH), 21, np.uint8))
    (voc / "JPEGImages/2007_03.jpg").unlink()
    save_sbd(dataset / "cls/2010_31.mat", np.zeros((WIDTH, HEIGHT), np.uint8))
    (dataset / "cls/2010_32.mat").unlink()
    command = (SCRIPT, "--voc", devkit, "--sbd", sbd, "--out", tmp_path / "out")
    refused = convert(*command)
    line = complaint(refused)
    assert f"{voc}/SegmentationClass/2007_01.png: has colours (RGB), not class numbers" in line
    assert "(3 of 3 samples are bad)" in line
    assert f"{voc}/SegmentationClass/2007_02.png: label value 21 is out of range: 0..20, or 255" in refused.stderr
    assert f"{voc}/JPEGImages/2007_03.jpg: no such file" in refused.stderr
    assert not (tmp_path / "out/train").exists()
    # Mended in VOC, SBD's are still bad.
    for seed, one in enumerate(TRAIN):
        save_label(voc / "SegmentationClass" / f"{one}.png", voc_values(seed))
    write_image(voc / "JPEGImages/2007_03.jpg", 2)
    refused = convert(*command)
    line = complaint(refused)
    assert f"{dataset}/cls/2010_31.mat: the label is 10 x 14 (width x height), its image 14 x 10" in line
    assert f"{dataset}/cls/2010_32.mat: no such file" in refused.stderr
    printed = succeeded(convert(*command, "--skip-bad"))
    assert Dataset.open(tmp_path / "out").splits["trainaug"].count == 4
    assert f"trainaug: skipped 2010_32: {dataset}/cls/2010_32.mat: no such file" in printed


def test_lists_that_are_missing_or_wrong(devkit: Path, sbd: Path, tmp_path: Path) -> None:
    lists, dataset = devkit / "VOC2012/ImageSets/Segmentation", sbd / "dataset"

    def refusal(*more: object) -> str:
        return complaint(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out", *more))

    write_list(dataset / "val.txt", SBD_VAL + SBD_TRAIN[:1])
    assert "2007_02 is in both train.txt and val.txt" in refusal("--sbd", sbd)
    (dataset / "val.txt").unlink()
    assert f"{dataset}/val.txt: no such file" in refusal("--sbd", sbd)
    assert f"{tmp_path}/nothing/cls: no such folder; --sbd is" in refusal("--sbd", tmp_path / "nothing")
    write_list(lists / "trainval.txt", TRAIN + VAL[:1])
    assert "trainval.txt: is not train.txt and val.txt together: they differ in 2007_12" in refusal()
    write_list(lists / "val.txt", VAL + TRAIN[:1])
    assert "2007_01 is in both train.txt and val.txt" in refusal()
    (lists / "val.txt").unlink()
    write_list(dataset / "val.txt", SBD_VAL)
    assert "a list of these is missing" in refusal("--sbd", sbd)
    (lists / "train.txt").unlink()
    (lists / "trainval.txt").unlink()
    assert f"{lists}/train.txt: no such file, nor another list of training images" in refusal()
    shutil.rmtree(lists)
    assert "no such folder; --voc is the folder VOC2012" in refusal()
    assert "required: --voc" in complaint(convert(SCRIPT, "--out", tmp_path / "out"))
    assert "--sbd benchmark_RELEASE" in succeeded(convert(SCRIPT, "--help"))


AUG = ["2010_31", "2010_32"]


@pytest.fixture
def augmented(devkit: Path) -> Path:
    """A VOCdevkit with the folder SegmentationClassAug, as it is passed on: labels of VOC's images are in it, too."""
    voc = devkit / "VOC2012"
    (voc / "SegmentationClassAug").mkdir()
    for seed, one in enumerate(AUG):
        write_image(voc / "JPEGImages" / f"{one}.jpg", 60 + seed)
        Image.fromarray(sbd_values(seed)).save(voc / "SegmentationClassAug" / f"{one}.png")
    for one in TRAIN:
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(voc / "SegmentationClassAug" / f"{one}.png")
    return devkit


@pytest.mark.parametrize("form", ["{0}", "{0}.jpg", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
@pytest.mark.parametrize("place", ["among VOC's lists", "elsewhere"])
def test_augmented_labels_as_pngs(augmented: Path, tmp_path: Path, form: str, place: str) -> None:
    file = tmp_path / "train_aug.txt"
    options: list[object] = ["--split", f"trainaug={file}", "--split", f"val={tmp_path / 'val.txt'}"]
    write_list(tmp_path / "val.txt", VAL)
    if place == "among VOC's lists":
        file, options = augmented / "VOC2012/ImageSets/Segmentation/train_aug.txt", []
    write_list(file, [form.format(one) for one in TRAIN + AUG])
    printed = succeeded(convert(SCRIPT, "--voc", augmented, "--out", tmp_path / "out", *options))
    assert "trainaug: 5 images" in printed and "10582" in printed
    dataset = Dataset.open(tmp_path / "out")
    assert ("trainvalaug" in dataset.splits) == ("train" in dataset.splits) == (not options)
    content = read_all(tmp_path / "out/trainaug")
    assert list(content) == TRAIN + AUG
    for seed, one in enumerate(TRAIN):  # where both have labels, VOC's are taken
        assert np.array_equal(content[one][1], voc_values(seed))
    for seed, one in enumerate(AUG):
        assert np.array_equal(content[one][1], sbd_values(seed))
    with SplitReader(tmp_path / "out/trainaug") as reader:
        pixels = np.concatenate([reader.image(n).reshape(-1, 3) for n in range(5)])
    assert dataset.mean == pytest.approx(pixels.mean(axis=0), abs=1e-3)


def test_augmented_lists_that_are_missing_or_wrong(augmented: Path, tmp_path: Path) -> None:
    def converted(*more: object) -> subprocess.CompletedProcess[str]:
        return convert(SCRIPT, "--voc", augmented, "--out", tmp_path / "out", *more)

    file = tmp_path / "mine.txt"
    write_list(file, AUG + VAL[:1])
    write_list(tmp_path / "val.txt", VAL)
    both = ("--split", f"trainaug={file}", "--split", f"val={tmp_path / 'val.txt'}")
    assert "2007_11 is in both trainaug.txt and val.txt (1 such ids)" in complaint(converted(*both))
    assert "is not NAME=LIST" in complaint(converted("--split", f"mine={file}"))
    assert "one of train, trainval" in complaint(converted("--split", f"val={file}"))
    assert "no such folder; --aug" in complaint(converted("--aug", tmp_path / "nothing"))
    write_list(file, [*AUG, "2010_99"])
    assert "2010_99.png: no such file" in complaint(converted(*both)) or "2010_99.jpg" in complaint(converted(*both))
    assert "no list of images with these labels, such as train_aug.txt" in succeeded(converted())


def test_subset_with_lists_of_its_own(tmp_path: Path, shared_data: Path) -> None:
    """The real subset that has trainaug and val alone, all labels in SegmentationClass."""
    archive = shared_data / "voc2012_animals.tar"
    if not archive.is_file():
        pytest.skip(f"no subset of VOC in {archive}")
    chosen = []
    with tarfile.open(archive) as tar:
        lists = {name: tar.extractfile(f"VOC2012/ImageSets/Segmentation/{name}.txt") for name in ("trainaug", "val")}
        for name, stream in lists.items():
            assert stream is not None
            ids = stream.read().decode().split()[:: 1000 if name == "trainaug" else 200]
            write_list(tmp_path / f"VOC2012/ImageSets/Segmentation/{name}.txt", ids)
            chosen += ids
        for one in chosen:
            for file in (f"VOC2012/JPEGImages/{one}.jpg", f"VOC2012/SegmentationClass/{one}.png"):
                stream = tar.extractfile(file)
                assert stream is not None
                (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / file).write_bytes(stream.read())
    printed = succeeded(convert(SCRIPT, "--voc", tmp_path, "--out", tmp_path / "out"))
    assert "trainaug: 4 images instead of 10582" in printed and "val: 3 images instead of 1449" in printed
    assert "no split train: there is no" in printed
    counts = {name: split.count for name, split in Dataset.open(tmp_path / "out").splits.items()}
    assert counts == {"val": 3, "trainaug": 4, "trainvalaug": 7}
    for one, (_, label) in read_all(tmp_path / "out/trainvalaug").items():
        with Image.open(tmp_path / f"VOC2012/SegmentationClass/{one}.png") as source:
            assert np.array_equal(label, np.asarray(source))


def test_rotated_images_are_taken_where_the_user_says(devkit: Path, tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    file = devkit / "VOC2012/JPEGImages/2007_01.jpg"
    Image.open(file).save(file, exif=tags)
    line = complaint(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out"))
    assert str(file) in line and "say --label-frame stored" in line
    succeeded(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out", "--label-frame", "stored"))
    assert np.array_equal(read_all(tmp_path / "out/train")["2007_01"][1], voc_values(0))


def test_test_split_needs_list_and_images(devkit: Path, tmp_path: Path) -> None:
    for one in TEST:
        (devkit / f"VOC2012/JPEGImages/{one}.jpg").unlink()
    printed = succeeded(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out"))
    assert "has none of the 2 images that test.txt lists" in printed
    assert "test" not in Dataset.open(tmp_path / "out").splits
    # One of two is no longer "not there": the other is missing.
    write_image(devkit / f"VOC2012/JPEGImages/{TEST[0]}.jpg", 50)
    assert f"{TEST[1]}.jpg: no such file" in complaint(convert(SCRIPT, "--voc", devkit, "--out", tmp_path / "out"))


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from data_prep import voc2012 as command
    from renet.conversion import voc2012
    from renet.data import split_writer
    from renet.common.command_line import run

    read = voc2012.read_test_image
    def die_at_the_last(image):
        if image.stem == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(image)
    voc2012.read_test_image = die_at_the_last
    split_writer.SAMPLES_PER_BATCH = 1
    run(command.main, command.make_parser(), sys.argv[2:])
    """
)


def test_killed_conversion_goes_on(devkit: Path, sbd: Path, tmp_path: Path) -> None:
    arguments = ["--voc", str(devkit), "--sbd", str(sbd), "--out"]
    killed = subprocess.run([sys.executable, "-c", KILLED, TEST[-1], *arguments, tmp_path / "out"], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert ".test.partial" in os.listdir(tmp_path / "out") and not (tmp_path / "out/dataset.json").exists()
    stamp = (tmp_path / "out/trainval/images.lmdb/data.mdb").stat().st_mtime_ns
    succeeded(convert(SCRIPT, *arguments, tmp_path / "out"))
    succeeded(convert(SCRIPT, *arguments, tmp_path / "unbroken"))
    assert Dataset.open(tmp_path / "out").splits == Dataset.open(tmp_path / "unbroken").splits
    assert (tmp_path / "out/trainval/images.lmdb/data.mdb").stat().st_mtime_ns == stamp
