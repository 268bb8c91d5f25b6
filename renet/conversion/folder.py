"""Conversion of a user's own images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from renet.common.errors import UserError
from renet.conversion.class_file import read_classes
from renet.conversion.folder_splits import Item, Source, named_split, random_splits, take_validation
from renet.conversion.label_remap import LabelRemap, advise_on_labels
from renet.conversion.prepare import OutputOptions, file_fingerprint, prepare
from renet.data.bad_samples import SampleError
from renet.data.dataset import Dataset
from renet.data.images import LabelFrame, normalise, read_index_png
from renet.data.split_writer import Pair, Sample

TEST_FRACTION = 0.2


def read_pair(item: Item, label_frame: LabelFrame, remap: LabelRemap) -> Pair:
    """Read one image and its labels."""
    if not item.label.is_file():
        raise SampleError(item.label, "no such file", f"; it would be the label of {item.image}")
    values = remap(read_index_png(item.label.read_bytes(), str(item.label)))
    return Pair(normalise(item.image.read_bytes(), str(item.image), values.shape, label_frame), values)


def make_samples(items: list[Item], label_frame: LabelFrame, remap: LabelRemap) -> list[Sample]:
    """List the samples of these images, in their order."""
    settings = f"{label_frame.value}/{remap}/" if remap.pairs else f"{label_frame.value}/"
    return [
        Sample(
            id=item.id,
            fingerprint=f"{settings}{file_fingerprint(item.image, item.label)}",
            read=partial(read_pair, item, label_frame, remap),
            label_where=str(item.label),
        )
        for item in items
    ]


def find_splits(
    source: Source, named: Sequence[str], test_fraction: float | None, val_fraction: float, seed: int
) -> dict[str, list[Item]]:
    """Part a user's images into splits: as `named` says, or at random where that is empty.

    Args:
        source: folders and suffixes.
        named: the texts of --split, see `named_split`.
        test_fraction: share of the test split that is drawn; None: `TEST_FRACTION`, or nothing where splits are named.
        val_fraction: see `take_validation`.
        seed: of the drawn split.

    Raises:
        UserError: options that contradict each other, or images or labels that are not there.
    """
    if (source.images is None) != (source.labels is None):
        raise UserError("--images and --labels go together")
    if named:
        if test_fraction is not None:
            raise UserError("--test-fraction draws a split at random; it does not go with --split")
        splits: dict[str, list[Item]] = {}
        for text in named:
            name, items = named_split(text, source, splits)
            splits[name] = items
    elif source.images is None:
        raise UserError("--images and --labels are missing (or --split NAME=IMAGES:LABELS)")
    else:
        splits = random_splits(source.items(), TEST_FRACTION if test_fraction is None else test_fraction, seed)
    return take_validation(splits, val_fraction)


def training_splits(splits: Mapping[str, list[Item]]) -> list[str]:
    """Name the splits whose pixels give the mean: `train` or `.../train`, or else what begins with that.

    Raises:
        UserError: there is none.
    """
    last = {name: name.rpartition("/")[2] for name in splits}
    found = [name for name in splits if last[name] == "train"] or [
        name for name in splits if last[name].startswith("train")
    ]
    if not found:
        raise UserError(f"--split: none of {', '.join(splits)} is called train")
    return found


def convert(
    class_file: Path,
    splits: Mapping[str, list[Item]],
    remap: LabelRemap,
    output: OutputOptions,
    name: str | None = None,
) -> Dataset:
    """Prepare a user's splits.

    Args:
        class_file: the classes, see `read_classes`.
        splits: see `find_splits`.
        remap: the labels' new numbers.
        output: where to and how.
        name: the dataset's name; None: that of its folder.

    Raises:
        UserError: a bad class file, no split to train on, a label that is to become no class; see `prepare`.
    """
    names, palette = read_classes(class_file)
    remap.check(len(names))
    training = training_splits(splits)
    for label in remap.emptied(len(names)):
        print(f"{class_file}: {names[label]!r} is label {label}, which --map or --ignore-label takes away")
    return prepare(
        output,
        name=name or output.folder.resolve().name,
        classes=names,
        palette=palette,
        splits={split: make_samples(items, output.label_frame, remap) for split, items in splits.items()},
        training=training,
        label_advice=advise_on_labels,
    )
