"""Preparing a dataset: splits written, dataset.json beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.common.parts import WHOLE, Part
from renet.conversion.kept_classes import kept_numbers, with_kept
from renet.data.bad_samples import LabelAdvice
from renet.data.catalog import KNOWN
from renet.data.dataset import IGNORE_LABEL, Dataset, DatasetPart, check_unedited
from renet.data.dataset_parts import place_of
from renet.data.images import LabelFrame
from renet.data.split_writer import Sample, Settings, WrittenSplit, exclusive, mean_of, write_split


@dataclass(frozen=True)
class OutputOptions:
    """Output of a conversion: where the prepared dataset goes, and what is done to its samples.

    Attributes:
        folder: the dataset's folder.
        image_scale: see `Settings`.
        skip_bad: leave bad samples out; otherwise they are errors.
        label_frame: which way up the labels of images with an EXIF rotation are.
        keep_classes: the classes to keep, in this order; empty: all.
        part: the share of each split that is prepared, into a folder of its own (see `dataset_parts.place_of`).
    """

    folder: Path
    image_scale: float = 1.0
    skip_bad: bool = False
    label_frame: LabelFrame = LabelFrame.BY_SIZE
    keep_classes: tuple[str, ...] = ()
    part: Part = WHOLE


def prepare(
    output: OutputOptions,
    *,
    name: str,
    classes: Sequence[str],
    palette: np.ndarray,
    splits: Mapping[str, Sequence[Sample]],
    training: Iterable[str],
    label_advice: LabelAdvice | None = None,
    distant_context_classes: Sequence[str] = (),
) -> Dataset:
    """Write every split that is not there yet, then dataset.json.

    Args:
        output: where to, and how.
        name: the dataset's name; of a part of a known dataset's classes it is that of the folder instead.
        classes: names of the labels 0 .. C-1.
        palette: C x 3, RGB.
        splits: samples by split name.
        training: the splits whose pixels give the mean.
        label_advice: see `write_split`.
        distant_context_classes: see `Dataset`.

    Raises:
        UserError: bad samples, or the folder holds something else, or a dataset.json that a person has edited; a class
            to keep is none.
    """
    out = output.folder
    if output.keep_classes:
        numbers = kept_numbers(output.keep_classes, classes)
        splits = {split: with_kept(samples, numbers, len(classes)) for split, samples in splits.items()}
        distant_context_classes = [one for one in distant_context_classes if one in output.keep_classes]
        classes, palette = output.keep_classes, np.asarray(palette)[numbers]
        name = _name_of_part(name, out)
    place = place_of(out, output.part)
    with exclusive(place):
        check_unedited(place)  # before the work
        settings = Settings(classes=len(classes), ignore_label=IGNORE_LABEL, image_scale=output.image_scale)
        written = {
            split: write_split(place / split, samples, settings, output.skip_bad, label_advice, output.part)
            for split, samples in splits.items()
        }
        training = tuple(training)
        dataset = Dataset(
            name=name,
            classes=tuple(classes),
            palette=np.asarray(palette, np.uint8),
            mean=mean_of([written[split] for split in training]),
            ignore_label=IGNORE_LABEL,
            splits={split: result.summary for split, result in written.items()},
            folder=place,
            image_scale=output.image_scale,
            distant_context_classes=tuple(distant_context_classes),
            skipped={split: result.skipped for split, result in written.items()},
            part=None if output.part == WHOLE else DatasetPart(output.part, training),
        )
        dataset.save()
    report(dataset, written)
    return dataset


def _name_of_part(name: str, out: Path) -> str:
    """The name where classes are missing: a known dataset's would promise all of them, and its published scores."""
    if name not in KNOWN:
        return name
    if out.resolve().name == name:
        raise UserError(f"{out}: some of the classes are no {name}; give --out another name")
    return out.resolve().name


def report(dataset: Dataset, written: Mapping[str, WrittenSplit]) -> None:
    """Print what was prepared, and what was left out."""
    for split, result in written.items():
        print(f"{dataset.folder / split}: {result.summary.count} images")
        for reason, count in result.left_out.items():
            print(f"{dataset.folder / split}: {count} images left out: {reason}")
        absent = [name for name, pixels in zip(dataset.classes, result.label_pixels) if not pixels]
        if absent and dataset.part is None:
            print(f"{dataset.folder / split}: no pixel is labelled {', '.join(absent)}")
    for split, lines in dataset.skipped.items():
        for line in lines:
            print(f"{split}: skipped {line}")
    print(f"{dataset.folder / 'dataset.json'}: {len(dataset.classes)} classes, mean BGR {dataset.mean}")


def shuffled(ids: Iterable[str], seed: int) -> list[str]:
    """Shuffle ids into an order that depends on the seed and the ids alone, whatever the machine and the libraries."""
    return sorted(ids, key=lambda one: hashlib.sha256(f"{seed}/{one}".encode(errors="surrogateescape")).digest())


def file_fingerprint(*files: Path) -> str:
    """Join size and time of each file (or that it is missing): changes when a file is mended."""
    parts = []
    for file in files:
        try:
            status = file.stat()
            parts.append(f"{status.st_size},{status.st_mtime_ns}")
        except OSError:
            parts.append("missing")
    return ";".join(parts)


def framed(fingerprint: str, label_frame: LabelFrame) -> str:
    """Make a sample's fingerprint change with --label-frame, but not where that is left at its default."""
    return fingerprint if label_frame is LabelFrame.BY_SIZE else f"{label_frame.value}/{fingerprint}"
