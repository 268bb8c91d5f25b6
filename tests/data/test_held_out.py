"""renet/data/held_out.py: a tenth of a prepared training split, set aside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_prep_helpers import complaint, convert, succeeded
from segmentation_helpers import write_dataset_json, write_split

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.data.held_out import held_out_count, held_out_ids, hold_out
from renet.data.split_reader import SplitReader


def samples(names: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    shapes = [(6 + number, 9) for number in range(len(names))]
    return {
        name: (np.full((*shape, 3), number, np.uint8), np.full(shape, number % 3, np.uint8))
        for number, (name, shape) in enumerate(zip(names, shapes))
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_split(tmp_path / "data/train", samples([f"a{number}" for number in range(15)]))
    write_split(tmp_path / "data/more", samples([f"b{number}" for number in range(6)]))
    splits = {"train": {"count": 15, "sha256": ""}, "more": {"count": 6, "sha256": ""}}
    return Dataset.open(write_dataset_json(tmp_path / "data", splits=splits))


def test_parts_are_whole_and_disjoint(dataset: Dataset, tmp_path: Path) -> None:
    sources = [dataset.folder / "train", dataset.folder / "more"]
    made = hold_out(sources, dataset, tmp_path / "out")
    assert {name: split.count for name, split in made.splits.items()} == {"train": 19, "held_out": 2}
    assert Dataset.open(tmp_path / "out").classes == dataset.classes
    originals = {}
    for source in sources:
        with SplitReader(source) as reader:
            originals |= {image_id: (reader.image(i), reader.label(i)) for i, image_id in enumerate(reader.ids())}
    found = []
    for name in made.splits:
        with SplitReader(tmp_path / "out" / name) as reader:
            found += reader.ids()
            for index, image_id in enumerate(reader.ids()):
                assert np.array_equal(reader.image(index), originals[image_id][0])
                assert np.array_equal(reader.label(index), originals[image_id][1])
    assert sorted(found) == sorted(originals)


def test_second_call_takes_over_and_other_sources_are_an_error(dataset: Dataset, tmp_path: Path) -> None:
    first = hold_out([dataset.folder / "train"], dataset, tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("data.mdb")}
    assert hold_out([dataset.folder / "train"], dataset, tmp_path / "out").splits == first.splits
    assert {file: file.stat().st_mtime_ns for file in times} == times
    with pytest.raises(UserError, match="other files"):
        hold_out([dataset.folder / "more"], dataset, tmp_path / "out")


def test_the_command(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--split", dataset.folder / "train", dataset.folder / "more", "--out", out)
    assert succeeded(convert("hold_out.py", *words)).splitlines() == [
        f"{out / 'train'}: 19 images",
        f"{out / 'held_out'}: 2 images",
    ]
    assert Dataset.open(out).splits["held_out"].count == 2
    write_split(tmp_path / "alone", samples(["x", "y"]))
    for split, message in ((tmp_path / "alone", "no prepared split with a dataset.json"), (tmp_path, "no prepared")):
        assert message in complaint(convert("hold_out.py", "--split", split, "--out", tmp_path / "other"))


def test_choice_does_not_depend_on_order() -> None:
    ids = [f"image_{number}" for number in range(200)]
    assert len(held_out_ids(ids)) == held_out_count(200) == 20
    assert held_out_ids(ids) == held_out_ids(ids[::-1])
    assert held_out_count(3) == 1


def test_split_without_labels_or_with_too_few_images(dataset: Dataset, tmp_path: Path) -> None:
    write_split(dataset.folder / "test", {name: (image, None) for name, (image, _) in samples(["x", "y"]).items()})
    write_split(dataset.folder / "one", samples(["x"]))
    for name, message in (("test", "has no labels"), ("one", "too few")):
        with pytest.raises(UserError, match=message):
            hold_out([dataset.folder / name], dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
