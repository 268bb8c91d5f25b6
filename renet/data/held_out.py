"""Images held out of a prepared training split, to choose settings by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from renet.common.errors import UserError
from renet.common.parts import WHOLE, Part
from renet.data.dataset import Dataset, DatasetPart
from renet.data.dataset_parts import place_of
from renet.data.images import EncodedImage
from renet.data.split_reader import SplitReader
from renet.data.split_writer import Pair, Sample, Settings, exclusive, write_split

PART = 0.1
LEARN, HELD_OUT = "train", "held_out"


def held_out_count(count: int, part: float = PART) -> int:
    """Count the images held out of `count`: `part` of them, at least one."""
    return max(1, round(part * count))


def held_out_ids(ids: Sequence[str], part: float = PART) -> frozenset[str]:
    """Choose the ids that are held out: those whose SHA-256 are the lowest, so that neither order nor a seed
    matters."""
    ordered = sorted(ids, key=lambda image_id: hashlib.sha256(image_id.encode(errors="surrogateescape")).digest())
    return frozenset(ordered[: held_out_count(len(ids), part)])


def hold_out(splits: Sequence[Path], dataset: Dataset, out: Path, part: Part = WHOLE) -> Dataset:
    """Copy the images of prepared splits into two new ones, `train` and `held_out`, of a dataset in `out`.

    Each is there whole or not at all, and a second call takes it over.

    Args:
        splits: what is parted, read as one.
        dataset: their classes.
        out: the new dataset's folder.
        part: copy this share of both alone (see `dataset_parts.place_of`).

    Raises:
        UserError: a split is missing, damaged, without labels or too small, an id comes twice, or `out` holds something
            else.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(SplitReader(split)) for split in splits]
        samples = [sample for reader in readers for sample in _samples(reader)]
        if len(samples) < 2:
            raise UserError(f"{splits[0]}: {len(samples)} images are too few to hold some out")
        chosen = held_out_ids([sample.id for sample in samples])
        parts = {
            LEARN: [sample for sample in samples if sample.id not in chosen],
            HELD_OUT: [sample for sample in samples if sample.id in chosen],
        }
        settings = Settings(len(dataset.classes), dataset.ignore_label)
        place = place_of(out, part)
        stack.enter_context(exclusive(place))
        written = {name: write_split(place / name, of, settings, part=part).summary for name, of in parts.items()}
        result = replace(
            dataset,
            name=f"{dataset.name}_held_out",
            splits=written,
            folder=place,
            skipped={},
            part=None if part == WHOLE else DatasetPart(part, ()),
        )
        result.save()
    return result


def _samples(reader: SplitReader) -> Iterator[Sample]:
    if not reader.has_labels:
        raise UserError(f"{reader.folder}: has no labels")
    for index, (image_id, record) in enumerate(zip(reader.ids(), reader.records())):
        digest = hashlib.sha256(b"".join(record)).hexdigest()
        yield Sample(image_id, digest, partial(_pair, reader, index), f"{reader.folder}, {image_id}")


def _pair(reader: SplitReader, index: int) -> Pair:
    label = reader.label(index)
    assert label is not None, "the samples were made of a split with labels"
    return Pair(EncodedImage(reader.image_bytes(index), *label.shape), label)
