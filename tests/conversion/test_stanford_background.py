"""The converter of the Stanford Background dataset."""

from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_prep_helpers import complaint, convert, stock_decodings, succeeded

from renet.common.errors import UserError
from renet.common.fetch import fetch
from renet.conversion.stanford_background import random_folds, read_regions
from renet.data.catalog import STANFORD_BACKGROUND
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader

SCRIPT = "stanford_background.py"
IDS = [f"{n:07d}" for n in range(715)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the unpacked distribution: 715 tiny images, each of one of six sizes."""
    root = tmp_path_factory.mktemp("small") / "iccv09Data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for n, one in enumerate(IDS):
        height, width = 5 + n % 2, 7 + n % 3
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(root / "images" / f"{one}.jpg"), image)
        rows = random.integers(-1, 8, (height, width))
        (root / "labels" / f"{one}.regions.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    (root / "horizons.txt").write_text("")
    return root


@pytest.fixture(scope="module")
def archive(small: Path) -> Path:
    file = small.parent / "iccv09Data.tar.gz"
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        tar.add(small, "iccv09Data")
    return file


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "train.txt").write_text("\n".join(IDS[100:40:-1]) + "\n")
    (folder / "test.txt").write_text("\n".join(IDS[:20]))
    return folder


def test_real_archive_keeps_every_image_and_label(tmp_path: Path, shared_data: Path) -> None:
    archive = shared_data / "stanford_background.tar.xz"
    released = shared_data / "stanford_background_released_fold0"
    succeeded(convert(SCRIPT, "--archive", archive, "--fold-lists", released, "--out", tmp_path))
    dataset = Dataset.open(tmp_path)
    assert {name: split.count for name, split in dataset.splits.items()} == {"fold0/train": 572, "fold0/test": 143}
    assert dataset.classes == STANFORD_BACKGROUND.classes
    with tarfile.open(archive) as tar:
        source = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    sizes: Counter[tuple[int, ...]] = Counter()
    sums, pixels = np.zeros(3), 0
    for split in ("train", "test"):
        with SplitReader(tmp_path / "fold0" / split) as reader:
            assert reader.ids() == (released / f"{split}.txt").read_text().split()
            for n, one in enumerate(reader.ids()):
                assert reader.image_bytes(n) == source[f"iccv09Data/images/{one}.jpg"]
                image, label = reader.image(n), reader.label(n)
                assert label is not None
                sizes[label.shape] += 1
                text = source[f"iccv09Data/labels/{one}.regions.txt"].decode()
                regions = np.fromstring(text, np.int64, sep=" ").reshape(label.shape)
                assert np.array_equal(label, np.where(regions < 0, 255, regions))
                if split == "train":
                    sums += image.sum(axis=(0, 1), dtype=np.int64)
                    pixels += label.size
    assert len(sizes) == 51
    assert sizes[240, 320] == 531
    assert dataset.mean == pytest.approx(sums / pixels, abs=1e-3)


def test_archive_and_folder_give_the_same(tmp_path: Path, small: Path, archive: Path, lists: Path) -> None:
    succeeded(convert(SCRIPT, "--archive", archive, "--fold-lists", lists, "--out", tmp_path / "a"))
    succeeded(convert(SCRIPT, "--root", small.parent, "--fold-lists", lists, "--out", tmp_path / "b"))
    succeeded(convert(SCRIPT, "--root", small, "--fold-lists", lists, "--out", tmp_path / "c"))
    splits = [Dataset.open(tmp_path / name).splits for name in "abc"]
    assert splits[0] == splits[1] == splits[2]


def test_five_even_random_folds(tmp_path: Path, archive: Path) -> None:
    printed = succeeded(convert(SCRIPT, "--archive", archive, "--out", tmp_path))
    assert "fold4/test: 143 images" in printed
    dataset = Dataset.open(tmp_path)
    tested: list[str] = []
    for n in range(5):
        with SplitReader(tmp_path / f"fold{n}/train") as train, SplitReader(tmp_path / f"fold{n}/test") as test:
            assert (len(train), len(test)) == (572, 143)
            assert set(train.ids()) | set(test.ids()) == set(IDS)
            tested += test.ids()
    assert sorted(tested) == IDS
    assert len(dataset.splits) == 10
    # A second call has nothing to do, and another seed is another dataset.
    stamp = (tmp_path / "fold4/test/images.lmdb/data.mdb").stat().st_mtime_ns
    succeeded(convert(SCRIPT, "--archive", archive, "--out", tmp_path))
    assert (tmp_path / "fold4/test/images.lmdb/data.mdb").stat().st_mtime_ns == stamp
    assert "was prepared from other files" in complaint(
        convert(SCRIPT, "--archive", archive, "--seed", 1, "--out", tmp_path)
    )


def test_folds_depend_on_the_seed() -> None:
    assert random_folds(IDS, 5, 0) == random_folds(IDS, 5, 0) != random_folds(IDS, 5, 1)
    assert [len(ids) for name, ids in random_folds(IDS, 4, 0).items() if name.endswith("test")] == [178, 179, 179, 179]


def test_half_size(tmp_path: Path, shared_data: Path, lists: Path) -> None:
    archive = shared_data / "stanford_background.tar.xz"
    (lists / "train.txt").write_text("6000249\n9000003\n")
    (lists / "test.txt").write_text("1000063\n")
    succeeded(convert(SCRIPT, "--archive", archive, "--fold-lists", lists, "--out", tmp_path / "full"))
    succeeded(
        convert(SCRIPT, "--archive", archive, "--fold-lists", lists, "--out", tmp_path / "half", "--image-scale", 0.5)
    )
    assert Dataset.open(tmp_path / "half").image_scale == 0.5
    with SplitReader(tmp_path / "full/fold0/train") as full, SplitReader(tmp_path / "half/fold0/train") as half:
        assert full.label(0).shape == (240, 320)  # type: ignore[union-attr]
        for n in range(2):
            image, label, small, small_label = full.image(n), full.label(n), half.image(n), half.label(n)
            assert label is not None
            assert small_label is not None
            assert small.shape[:2] == small_label.shape == (round(label.shape[0] / 2), round(label.shape[1] / 2))
            if label.shape == (240, 320):
                means = image.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
                assert np.abs(means - small).max() <= 0.51
                assert np.array_equal(small_label, label[1::2, 1::2])
            for decoded in stock_decodings(half.image_bytes(n)):
                assert np.array_equal(decoded, small)


def test_regions() -> None:
    assert read_regions(b"0 7 -1\n1 2 -9\n", "x").tolist() == [[0, 7, 255], [1, 2, 255]]
    assert read_regions(b"\xef\xbb\xbf0 7\t-1 \r\n1 2 -9\r\n", "x").tolist() == [[0, 7, 255], [1, 2, 255]]
    with pytest.raises(UserError, match=r"^x: is UTF-16 text"):
        read_regions("0 7\n".encode("utf-16"), "x")
    for text in (b"0 1\n2\n", b"0 x\n", b"1.5 2\n", b"", b"0 255\n", b"0 8\n"):
        with pytest.raises(UserError, match=r"^x.regions.txt: "):
            read_regions(text, "x.regions.txt")


def bad_copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def test_bad_files_are_all_named_and_can_be_left_out_or_mended(tmp_path: Path, small: Path, lists: Path) -> None:
    root = bad_copy(small, tmp_path)
    labels, images = root / "labels", root / "images"
    (labels / f"{IDS[3]}.regions.txt").unlink()
    (labels / f"{IDS[5]}.regions.txt").write_text("0 1\n2 3\n")
    content = (images / f"{IDS[7]}.jpg").read_bytes()
    (images / f"{IDS[7]}.jpg").write_bytes(content[: len(content) // 2])
    command = (SCRIPT, "--root", root, "--fold-lists", lists, "--out", tmp_path / "out")
    refused = convert(*command)
    assert "(3 of 20 samples are bad)" in complaint(refused)
    for file in (f"labels/{IDS[3]}.regions.txt", f"labels/{IDS[5]}.regions.txt", f"images/{IDS[7]}.jpg"):
        assert str(root / file) in refused.stderr
    assert sorted(os.listdir(tmp_path / "out/fold0")) == [".test.partial", "train"]
    assert not (tmp_path / "out/dataset.json").exists()

    printed = succeeded(convert(*command, "--skip-bad"))
    skipped = Dataset.open(tmp_path / "out").skipped["fold0/test"]
    assert [line.split(":")[0] for line in skipped] == [IDS[3], IDS[5], IDS[7]]
    assert all(line in printed for line in skipped)
    assert Dataset.open(tmp_path / "out").splits["fold0/test"].count == 17

    shutil.rmtree(tmp_path / "out/fold0/test")
    for one in (IDS[3], IDS[5]):
        shutil.copy2(small / f"labels/{one}.regions.txt", labels)
    shutil.copy2(small / f"images/{IDS[7]}.jpg", images)
    succeeded(convert(*command))
    assert Dataset.open(tmp_path / "out").splits["fold0/test"].count == 20


def test_count_is_asserted(tmp_path: Path, small: Path, lists: Path) -> None:
    root = bad_copy(small, tmp_path)
    (root / f"images/{IDS[600]}.jpg").unlink()
    line = complaint(convert(SCRIPT, "--root", root, "--fold-lists", lists, "--out", tmp_path / "out"))
    assert "714 JPEG images" in line
    assert "715" in line


def test_bad_arguments(tmp_path: Path, small: Path, archive: Path, lists: Path) -> None:
    out = ("--out", tmp_path / "out")

    def refusal(*arguments: object) -> str:
        return complaint(convert(SCRIPT, *arguments, *out))

    assert "nowhere.tar: no such file" in refusal("--archive", "nowhere.tar")
    assert "pass" in refusal("--archive", small)  # a folder is passed with --root
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:50000])
    assert f"{cut}: not a whole tar archive" in refusal("--archive", cut)
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        tar.addfile(tarfile.TarInfo("other"), io.BytesIO())
    assert "0 JPEG images" in refusal("--archive", empty)
    assert "images: no such folder" in refusal("--root", tmp_path)
    assert "not allowed with" in refusal("--root", small, "--archive", archive)
    assert "no factor over 0 and up to 1" in refusal("--root", small, "--image-scale", "2")
    assert "at least 2" in refusal("--root", small, "--folds", "1")
    assert "no such folder" in refusal("--root", small, "--fold-lists", tmp_path / "nowhere")
    (lists / "test.txt").write_text(f"{IDS[0]}\nnobody\n")
    assert "test.txt: lists nobody" in refusal("--root", small, "--fold-lists", lists)
    (lists / "test.txt").write_text(f"{IDS[0]}\n{IDS[50]}\n")
    assert f"{IDS[50]} is in both" in refusal("--root", small, "--fold-lists", lists)
    (lists / "test.txt").unlink()
    assert "test.txt: no such file" in refusal("--root", small, "--fold-lists", lists)


def test_fetching(tmp_path: Path, archive: Path) -> None:
    fetched = fetch([(tmp_path / "gone").as_uri(), archive.as_uri()], tmp_path / "new" / "a.tar.gz", "by hand")
    assert fetched.read_bytes() == archive.read_bytes()
    assert os.listdir(tmp_path / "new") == ["a.tar.gz"]
    missing = (tmp_path / "nothing.tar.gz").as_uri()
    with pytest.raises(UserError, match=f"^{re.escape(missing)}: the download failed .*; by hand$"):
        fetch([missing], tmp_path / "b.tar.gz", "by hand")
    assert not (tmp_path / "b.tar.gz").exists()


def test_two_fetches_at_once_do_not_meet(tmp_path: Path, archive: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        at_once = [pool.submit(fetch, [archive.as_uri()], tmp_path / "new" / "a.tar.gz", "by hand") for _ in range(8)]
        assert all(each.result().read_bytes() == archive.read_bytes() for each in at_once)
    assert os.listdir(tmp_path / "new") == ["a.tar.gz"]


def test_failed_fetch_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy at which nobody listens stands for a machine without a network.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    line = complaint(convert(SCRIPT, "--out", tmp_path / "out"))
    assert "the download failed" in line
    assert "--archive FILE" in line
    assert "http://dags.stanford.edu" in line


def test_help_shows_an_example() -> None:
    assert "--fold-lists lists/" in succeeded(convert(SCRIPT, "--help"))
