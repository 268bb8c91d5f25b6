"""Choice of a prepared dataset's splits for a training, and how many images are tested meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import ROOT, product_path
from renet.data.dataset import FILE_NAME, Dataset
from renet.data.split_reader import IMAGES, SplitReader
from renet.networks.files import Data
from renet.networks.schedules import Schedule
from renet.networks.spec import Options

USUAL_TRAIN = ("trainaug", "train", "fold0/train")
USUAL_TEST = ("val", "test", "fold0/test")
# Of the training's time, for all its tests.
SHARE_OF_TESTS = 0.1
# A training step goes forward once, and backward for the gradients of what came in and of the weights.
PASSES_OF_A_STEP = 3
_MEASURED_IMAGES = 9


def chosen_data(dataset: Dataset, train: Sequence[str] | None, test: str | None) -> Data:
    """Choose a dataset's splits, by default `trainaug` or `train` and `val` or `test`, bare or of `fold0`. Names may
    also be folders of prepared splits of another dataset with the same labels.

    Raises:
        UserError: no such split, or a split of other labels.
    """

    def chosen(name: str | None, option: str, usual: tuple[str, ...]) -> tuple[str, int]:
        if name is not None and name not in dataset.splits and (Path(name) / IMAGES).is_dir():
            return product_path(Path(name)), _images_of_other(Path(name), dataset, option)
        wanted = usual if name is None else (name,)
        found = next((each for each in wanted if each in dataset.splits), None)
        if found is None:
            known = ", ".join(dataset.splits) or "none"
            raise UserError(
                f"{option}: {dataset.folder} has no split {' or '.join(wanted)} (it has {known}; the folder of a "
                "prepared split goes, too)"
            )
        return product_path(dataset.folder / found), dataset.splits[found].count

    tested, test_images = chosen(test, "--test-split", USUAL_TEST)
    return Data(
        dataset.folder.resolve().name,
        len(dataset.classes),
        dataset.ignore_label,
        tuple(chosen(name, "--train-split", USUAL_TRAIN)[0] for name in train or (None,)),
        tested,
        test_images,
    )


def _images_of_other(split: Path, dataset: Dataset, option: str) -> int:
    """How many images `split` has, a prepared split of a dataset with `dataset`'s labels.

    Raises:
        UserError: other labels, no dataset.json above it, or one that does not know it.
    """
    other = Dataset.of_split(split)
    if other is None:
        raise UserError(f"{option}: {split}: there is no {FILE_NAME} above it")
    if (other.classes, other.ignore_label) != (dataset.classes, dataset.ignore_label):
        raise UserError(f"{option}: {split} has other labels than {dataset.folder}")
    summary = other.summary_of(split)
    if summary is None:
        raise UserError(f"{option}: {split} is none of the splits that {other.folder / FILE_NAME} names")
    return summary.count


def affordable_test_images(data: Data, options: Options, schedule: Schedule, iter_size: int = 1) -> int:
    """Compute how many images of the test split a test may have for all tests of a training to take about
    `SHARE_OF_TESTS` of its time at the most: one at least, and all where they are that few.

    Args:
        data: says what is tested.
        options: crop and batch of the training.
        schedule: how long it trains and how often it tests.
        iter_size: passes to an iteration.
    """
    step = PASSES_OF_A_STEP * options.batch * iter_size * math.prod(options.crop)
    tests = math.ceil(schedule.iterations / schedule.interval)
    pixels = _mean_pixels(ROOT / data.test) or math.prod(options.crop)
    affordable = SHARE_OF_TESTS * schedule.iterations * step / (tests * pixels)
    return min(data.test_images, max(1, int(affordable)))


@cache
def _mean_pixels(split: Path) -> float | None:
    """Of an image of the split, from a few of them; None where it is not prepared yet."""
    if not (split / IMAGES).is_dir():
        return None
    with SplitReader(split) as reader:
        step = max(1, len(reader) // _MEASURED_IMAGES)
        sizes = [math.prod(reader.image(index).shape[:2]) for index in range(0, len(reader), step)]
    return sum(sizes) / len(sizes) if sizes else None
