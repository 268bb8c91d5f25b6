"""Datasets that were prepared in parts: joined, they are the whole, byte by byte; as sources, they train as it does."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from data_prep_helpers import convert, succeeded
from segmentation_helpers import call_tool, only_line

from renet.common.errors import UserError
from renet.common.parts import Part
from renet.conversion.prepare import OutputOptions, prepare
from renet.data import split_writer
from renet.data.dataset import Dataset
from renet.data.dataset_parts import join_dataset
from renet.data.held_out import hold_out
from renet.data.images import EncodedImage
from renet.data.split_reader import SplitReader
from renet.data.split_writer import LeftOut, Pair, Sample

CLASSES, PALETTE = ("brick", "leaf", "lake"), np.eye(3, dtype=np.uint8) * 200
COUNT, PARTS = 23, 7
BAD, UNWANTED = (4, 11, 12, 20), (0, 6, 7, 8, 22)  # the third part has nothing but such


def sample(number: int, *, labelled: bool = True) -> Sample:
    def read() -> Pair:
        if number in BAD:
            raise UserError(f"{number}.png: broken")
        if number in UNWANTED:
            raise LeftOut("too small" if number % 2 else "nothing in it")
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (6 + number % 3, 8, 3)).astype(np.uint8)
        label = np.full(image.shape[:2], number % 3, np.uint8)
        encoded = EncodedImage(cv2.imencode(".png", image)[1].tobytes(), *image.shape[:2])
        return Pair(encoded, label if labelled else None)

    return Sample(f"image {number}", f"version 1 of {number}", read, f"{number}.txt" if labelled else None)


def prepared(out: Path, part: Part, count: int = COUNT, test: int = 3, **options: object) -> Dataset:
    """A dataset with a split that has fewer images than there are parts, and one without labels."""
    return prepare(
        OutputOptions(out, skip_bad=True, part=part),
        **{
            "name": "things",
            "classes": CLASSES,
            "palette": PALETTE,
            "splits": {
                "fold/train": [sample(number) for number in range(count)],
                "test": [sample(number, labelled=False) for number in range(1, 1 + test)],
            },
            "training": ["fold/train"],
        }
        | options,
    )


def all_parts(out: Path, count: int = PARTS, **options: object) -> list[Path]:
    numbers = list(range(1, count + 1))
    random.Random(0).shuffle(numbers)
    for number in numbers:
        prepared(out, Part(number, count), **options)
    return [out / "parts" / Part(number, count).name for number in range(1, count + 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "whole"
    prepared(folder, Part())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts") / "made"
    all_parts(folder)
    return folder


@pytest.fixture
def joined(made: Path, tmp_path: Path) -> Path:
    """A copy of all seven parts, not joined yet."""
    return shutil.copytree(made, tmp_path / "x")


def content(folder: Path) -> dict[str, object]:
    """Everything of a dataset that is promised: its descriptions as bytes, its records one by one."""
    found: dict[str, object] = {"dataset.json": (folder / "dataset.json").read_bytes()}
    for split in Dataset.open(folder).splits:
        found[f"{split}/split.json"] = (folder / split / "split.json").read_bytes()
        with SplitReader(folder / split) as reader:
            found[split] = list(reader.records())
    return found


def test_seven_parts_of_an_uneven_split_are_the_whole(whole: Path, joined: Path) -> None:
    parts = [joined / "parts" / Part(number, PARTS).name for number in range(1, PARTS + 1)]
    assert [Dataset.open(part).splits["fold/train"].count for part in parts] == [2, 2, 0, 2, 3, 3, 2]
    assert [Dataset.open(part).splits["test"].count for part in parts].count(0) == 4
    dataset, written = join_dataset(joined)
    assert content(joined) == content(whole)
    assert dataset.splits["fold/train"].count == COUNT - len(BAD) - len(UNWANTED) == 14
    assert written["fold/train"].left_out == {"nothing in it": 4, "too small": 1}
    assert [line.partition(":")[0] for line in dataset.skipped["fold/train"]] == [f"image {number}" for number in BAD]
    # both take it over
    assert join_dataset(joined)[1] == written
    prepared(joined, Part())
    assert content(joined) == content(whole)


@pytest.mark.parametrize("count", [1, 2, 25])
def test_any_number_of_parts(tmp_path: Path, whole: Path, count: int) -> None:
    if count == 1:
        prepared(tmp_path / "joined", Part(1, 1))  # is the whole itself
    else:
        all_parts(tmp_path / "joined", count)
        join_dataset(tmp_path / "joined")
    assert content(tmp_path / "joined") == content(whole)


def test_a_part_that_was_made_again_is_the_same(tmp_path: Path) -> None:
    part = tmp_path / "x/parts/2_of_7"
    prepared(tmp_path / "x", Part(2, PARTS))
    before = content(part)
    prepared(tmp_path / "x", Part(2, PARTS))
    assert content(part) == before
    shutil.rmtree(part)
    prepared(tmp_path / "x", Part(2, PARTS))
    assert content(part) == before


@pytest.mark.parametrize(("stop", "batch"), [(1, 1), (3, 1), (2, 2), (1, 100), (5, 100)])
def test_a_joining_that_was_stopped_goes_on(
    whole: Path, joined: Path, monkeypatch: pytest.MonkeyPatch, stop: int, batch: int
) -> None:
    monkeypatch.setattr(split_writer, "RECORDS_PER_COPY", batch)
    put, calls = split_writer._Database.put, []

    def stopped(database: object, written: object) -> None:
        calls.append(written)
        if len(calls) > 2 * stop:  # images and labels; images alone are written once more
            put(database, written)
            raise KeyboardInterrupt
        put(database, written)

    monkeypatch.setattr(split_writer._Database, "put", stopped)
    with pytest.raises(KeyboardInterrupt):
        join_dataset(joined)
    monkeypatch.setattr(split_writer._Database, "put", put)
    assert (joined / "fold/.train.partial").is_dir() and not (joined / "fold/train").exists()
    join_dataset(joined)
    assert content(joined) == content(whole)


def other_sources(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7")
    changed = [sample(number) for number in range(COUNT)]
    changed[20] = Sample("image 20", "version 2", changed[20].read, changed[20].label_where)  # in another part
    splits = {"fold/train": changed, "test": [sample(n, labelled=False) for n in range(1, 4)]}
    prepared(folder, Part(3, PARTS), splits=splits)


def other_options(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7")
    prepared(folder, Part(3, PARTS), classes=("brick", "leaf", "pond"))


def other_splits(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7")
    prepared(folder, Part(3, PARTS), splits={"fold/train": [sample(number) for number in range(COUNT)]})


def damaged(folder: Path) -> None:
    with (
        lmdb.open(str(folder / "parts/2_of_7/fold/train/labels.lmdb")) as environment,
        environment.begin(write=True) as transaction,
    ):
        key = next(iter(transaction.cursor().iternext(values=False)))
        transaction.put(key, b"something else")


def unfinished(folder: Path) -> None:
    (folder / "parts/3_of_7/dataset.json").unlink()


def no_split(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7/test")


def missing(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7")


def renamed(folder: Path) -> None:
    shutil.rmtree(folder / "parts/3_of_7")
    shutil.copytree(folder / "parts/2_of_7", folder / "parts/3_of_7")


def occupied(folder: Path) -> None:
    prepared(folder, Part(), splits={"fold/train": [sample(1), sample(2)]})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_sources, r"3_of_7/fold/train: is a part of something else than .*1_of_7/fold/train"),
        (other_options, r"3_of_7/dataset.json: is of another dataset than .*1_of_7: classes differs"),
        (other_splits, r"3_of_7/dataset.json: is of another dataset than .*1_of_7: splits differs"),
        (damaged, r"2_of_7/fold/train: its records are not those that were written; copy or prepare it anew"),
        (unfinished, r"3_of_7: is not finished \(no dataset.json\); give its command again"),
        (no_split, r"3_of_7/test: no split of a part, or not finished"),
        (missing, r"3_of_7: missing; make it with --part 3/7"),
        (renamed, r"3_of_7/dataset.json: is not of part 3 of 7"),
        (occupied, r"x/fold/train: exists and is not what the parts give; move it away"),
    ],
)
def test_what_does_not_belong_together_is_named(joined: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(joined)
    with pytest.raises(UserError, match=words):
        join_dataset(joined)


def test_a_whole_without_images_is_an_error_and_a_part_is_not(tmp_path: Path) -> None:
    splits = {"train": [sample(number) for number in UNWANTED]}
    all_parts(tmp_path / "x", 2, splits=splits, training=["train"])
    with pytest.raises(UserError, match="x/train: the split would hold no image"):
        join_dataset(tmp_path / "x")


def test_held_out_images_in_parts(tmp_path: Path) -> None:
    dataset = prepared(tmp_path / "data", Part())
    hold_out([tmp_path / "data/fold/train"], dataset, tmp_path / "whole")
    for number in (2, 3, 1):
        hold_out([tmp_path / "data/fold/train"], dataset, tmp_path / "joined", Part(number, 3))
    assert join_dataset(tmp_path / "joined")[0].mean == dataset.mean
    assert content(tmp_path / "joined") == content(tmp_path / "whole")


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(9):
        pair = sample(number + 13).read() if number + 13 not in (20, 22) else sample(1).read()
        (tmp_path / f"images/{number}.jpg").write_bytes(pair.image.data)
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), pair.label)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    options = ["--images", tmp_path / "images", "--labels", tmp_path / "images", "--classes", tmp_path / "classes.txt"]
    options += ["--name", "mine"]
    succeeded(convert("folder.py", *options, "--out", tmp_path / "whole"))
    for number in range(1, 3):
        said = succeeded(convert("folder.py", *options, "--out", tmp_path / "x", "--part", f"{number}/3"))
        assert f"parts/{number}_of_3/train: " in said
    said = only_line(call_tool("merge.py", "dataset", "x", cwd=tmp_path), "merge.py")
    assert said == "merge.py: x/parts/3_of_3: missing; make it with --part 3/3"
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "3"}
    said = succeeded(convert("folder.py", *options, "--out", tmp_path / "x", "--part", "auto", env=task))
    assert said.startswith("part 3/3, by SLURM_ARRAY_TASK_ID=2 and SLURM_ARRAY_TASK_COUNT=3\n")
    done = call_tool("merge.py", "dataset", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "x/train: 7 images\nx/test: 2 images\n" in done.stdout
    assert content(tmp_path / "x") == content(tmp_path / "whole")


def test_parts_as_sources_train_bit_for_bit_as_the_whole(tmp_path: Path, whole: Path, joined: Path) -> None:
    caffe = pytest.importorskip("caffe", reason="pycaffe is not built")
    parts = [joined / "parts" / Part(number, PARTS).name / "fold/train" for number in (1, 2, 4, 5, 6, 7)]  # 3 is empty
    sources = {"whole": [whole / "fold/train"], "parts": parts}
    weights = {}
    for name, folders in sources.items():
        listed = " ".join(f"source: '{folder}'" for folder in folders)
        (tmp_path / f"{name}.prototxt").write_text(
            "random_seed: 3 base_lr: 0.01 lr_policy: 'fixed' momentum: 0.9 max_iter: 15 snapshot_after_train: false "
            "net_param { layer { name: 'data' type: 'SegmentationData' top: 'data' top: 'label' "
            f"segmentation_data_param {{ {listed} batch_size: 3 crop_height: 5 crop_width: 5 shuffle: true "
            "mirror: true seed: 1 scale: 0.01 } } "
            "layer { name: 'score' type: 'Convolution' bottom: 'data' top: 'score' convolution_param { num_output: 3 "
            "kernel_size: 3 pad: 1 weight_filler { type: 'xavier' } } } "
            "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'score' bottom: 'label' top: 'loss' "
            "loss_param { ignore_label: 255 } } }"
        )
        solver = caffe.get_solver(str(tmp_path / f"{name}.prototxt"))
        before = solver.net.params["score"][0].data.copy()
        solver.step(15)  # three epochs and more
        weights[name] = solver.net.params["score"][0].data.copy()
        assert not np.array_equal(weights[name], before)
    assert weights["parts"].tobytes() == weights["whole"].tobytes()
