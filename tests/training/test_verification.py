"""tools/verify.py: what is sound is told, and what is not is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from segmentation_helpers import REPOSITORY, call_tool, only_line, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.training.verification import verify

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (90, 120, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    done = call_tool(
        "../data_prep/synthetic_scenes.py",
        *("--train", 3, "--test", 2, "--size", "48x64", "--out", folder / "scenes"),
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return folder / "scenes"


@pytest.fixture()
def copy(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "copy"))


def put(database: Path, value: bytes | None, key: bytes | None = None) -> None:
    with lmdb.open(str(database)) as environment, environment.begin(write=True) as transaction:
        last = transaction.cursor()
        last.last()
        key = last.key() if key is None else key
        transaction.delete(key) if value is None else transaction.put(key, value)


def test_a_whole_dataset_is_sound(scenes: Path) -> None:
    done = call_tool("verify.py", scenes, scenes / "test", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    train, test = (
        f"{scenes}/train: 3 images, as they were prepared\n",
        f"{scenes}/test: 2 images, as they were prepared\n",
    )
    assert done.stdout == train + test + test


def test_another_record_is_told(copy: Path) -> None:
    with lmdb.open(str(copy / "train/images.lmdb")) as environment, environment.begin() as transaction:
        first = transaction.cursor()
        first.first()
        other = bytes(first.value())
    put(copy / "train/images.lmdb", other)
    line = only_line(call_tool("verify.py", copy, cwd=REPOSITORY), "verify.py")
    stated = Dataset.open(copy).splits["train"].sha256
    assert f"{copy}/train: is not what was prepared: 3 images of SHA-256" in line and f"of 3 of {stated}" in line


def test_a_flipped_byte_is_told(copy: Path) -> None:
    data = copy / "test/images.lmdb/data.mdb"
    content = bytearray(data.read_bytes())
    content[len(content) - 5000] ^= 0xFF
    data.write_bytes(content)
    with pytest.raises(UserError, match=f"{copy}/test.*(is not what was prepared|not an image that can be decoded)"):
        list(verify(copy / "test"))


@pytest.mark.parametrize("seed", range(4))
def test_bytes_flipped_all_over_end_in_one_line(copy: Path, seed: int) -> None:
    data = copy / "train/images.lmdb/data.mdb"
    content = np.frombuffer(data.read_bytes(), np.uint8).copy()
    random = np.random.default_rng(seed)
    places = random.integers(8192, len(content), len(content) // 10)  # after the two pages that say what it is
    content[places] ^= random.integers(1, 256, len(places)).astype(np.uint8)
    data.write_bytes(content.tobytes())
    with pytest.raises(UserError, match=f"^{copy}/train") as told:
        list(verify(copy / "train"))
    assert "\n" not in str(told.value)


def test_a_label_beyond_the_classes_is_told(tmp_path: Path) -> None:
    label = np.zeros((90, 120), np.uint8)
    write_dataset_json(tmp_path)
    write_split(tmp_path / "test", {"one": (IMAGE, label), "two": (IMAGE, label + 3)})
    with pytest.raises(UserError, match=r"record 00000001_two: the label 3 is no class: 0 to 2, or 255 \(ignored\)"):
        list(verify(tmp_path))
    write_split(tmp_path / "sound", {"one": (IMAGE, label)})
    assert list(verify(tmp_path / "sound")) == [
        f"{tmp_path}/sound: 1 image, all readable; no dataset.json tells their SHA-256"
    ]


def test_what_is_none_of_these(tmp_path: Path) -> None:
    line = only_line(call_tool("verify.py", tmp_path, cwd=REPOSITORY), "verify.py")
    assert line.endswith("no prepared dataset or split, no run's folder and no model folder")
