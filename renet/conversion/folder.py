"""A user's own images and labels."""

from __future__ import annotations

import argparse
from functools import partial

from renet.common.errors import UserError
from renet.conversion.folder_splits import Item, Source, named_split, random_splits, take_validation
from renet.conversion.label_mapping import LabelMap
from renet.conversion.prepare import file_fingerprint
from renet.data.bad_samples import SampleError
from renet.data.image_ids import bare_suffix
from renet.data.images import LabelFrame, normalise, read_index_png
from renet.data.split_writer import Pair, Sample

TEST_FRACTION = 0.2


def read_pair(item: Item, label_frame: LabelFrame, label_map: LabelMap) -> Pair:
    """One picture and its labels."""
    if not item.label.is_file():
        raise SampleError(item.label, "no such file", f"; it would be the label of {item.image}")
    values = label_map(read_index_png(item.label.read_bytes(), str(item.label)))
    return Pair(normalise(item.image.read_bytes(), str(item.image), values.shape, label_frame), values)


def make_samples(items: list[Item], label_frame: LabelFrame, label_map: LabelMap) -> list[Sample]:
    """The samples of these pictures, in their order."""
    settings = f"{label_frame}/{label_map}/" if label_map.pairs else f"{label_frame}/"
    return [
        Sample(
            id=item.id,
            fingerprint=f"{settings}{file_fingerprint(item.image, item.label)}",
            read=partial(read_pair, item, label_frame, label_map),
            label_where=str(item.label),
        )
        for item in items
    ]


def find_splits(arguments: argparse.Namespace) -> dict[str, list[Item]]:
    """The pictures of each split as the command line says.

    Raises:
        UserError: options that contradict each other, or pictures or labels that are not there.
    """
    if (arguments.images is None) != (arguments.labels is None):
        raise UserError("--images and --labels go together")
    source = Source(
        arguments.images, arguments.labels, bare_suffix(arguments.image_suffix), bare_suffix(arguments.label_suffix)
    )
    if arguments.split:
        if arguments.test_fraction is not None:
            raise UserError("--test-fraction draws a split at random; it does not go with --split")
        splits: dict[str, list[Item]] = {}
        for text in arguments.split:
            name, items = named_split(text, source, splits)
            splits[name] = items
    elif arguments.images is None:
        raise UserError("--images and --labels are missing (or --split NAME=IMAGES:LABELS)")
    else:
        fraction = TEST_FRACTION if arguments.test_fraction is None else arguments.test_fraction
        splits = random_splits(source.items(), fraction, arguments.seed)
    return take_validation(splits, arguments.val_fraction)


def training_splits(splits: dict[str, list[Item]]) -> list[str]:
    """The splits whose pixels give the mean: `train` or `.../train`, or else what begins with that.

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
