"""Conversion of a user's own images and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.conversion.annotated_image import ClassNames
from renet.conversion.class_file import ClassFile, read_classes
from renet.conversion.folder_splits import Item, Source, named_split, random_splits, take_validation
from renet.conversion.label_formats import LabelFormat, LabelOptions, colour_labels, read_coloured_png
from renet.conversion.label_remap import LabelRemap, advise_on_labels
from renet.conversion.labelme import read_labelme
from renet.conversion.prepare import OutputOptions, file_fingerprint, prepare
from renet.data.bad_samples import SampleError
from renet.data.dataset import Dataset
from renet.data.image_formats import read_image_bytes
from renet.data.images import ColouredLabelError, LabelFrame, normalise, read_index_png
from renet.data.split_writer import Pair, Sample

TEST_FRACTION = 0.2
AS_NUMBERS = LabelOptions()


@dataclass(frozen=True)
class LabelReader:
    """Reading of a user's labels.

    Attributes:
        format: of the files.
        classes: by name.
        colours: labels by colour (0xRRGGBB), where the format is of colours.
        remap: the labels' new numbers.
    """

    format: LabelFormat
    classes: ClassNames
    colours: Mapping[int, int]
    remap: LabelRemap

    @classmethod
    def make(cls, file: Path, classes: ClassFile, options: LabelOptions, remap: LabelRemap) -> LabelReader:
        """Prepare to read labels of the classes of a class file.

        Raises:
            UserError: the options do not go with the format or the classes.
        """
        form = options.format
        if not form.has_names and (options.ignored_names or options.unlabelled is not None):
            raise UserError(f"--ignore-name and --unlabelled are of labels with names, not of --labels-as {form.value}")
        names = ClassNames.of(classes.names, options.ignored_names, options.unlabelled)
        return cls(form, names, colour_labels(file, classes) if form is LabelFormat.COLOURS else {}, remap)

    def read(self, item: Item) -> np.ndarray:
        """Read the labels of an image: H x W class numbers.

        Raises:
            UserError: there are none, or bad ones; names the file.
        """
        file, where = item.label, str(item.label)
        if not file.is_file():
            raise SampleError(file, "no such file", f"; it would be the label of {item.image}")
        if self.format.has_one_file:
            if item.annotation is None:
                raise SampleError(file, "lacks an image", f": {item.image}")
            return self.remap(item.annotation.label(self.classes, f"{file}: image {item.id}"))
        if self.format is LabelFormat.LABELME:
            return self.remap(read_labelme(file, self.classes))
        if self.format is LabelFormat.COLOURS:
            return self.remap(read_coloured_png(read_image_bytes(file), where, self.colours))
        try:
            return self.remap(read_index_png(read_image_bytes(file), where))
        except ColouredLabelError as error:
            raise ColouredLabelError(f"{error}; --labels-as colours reads the class file's colours") from None

    def check_names(self, items: Iterable[Item]) -> None:
        """Make sure that the files of many images name classes alone.

        Raises:
            UserError: one does not; names file, names and classes.
        """
        names: dict[Path, dict[str, None]] = {}
        for item in items:
            if item.annotation is not None:
                names.setdefault(item.label, {}).update((one.name, None) for one in item.annotation.regions)
        for file, found in names.items():
            unknown = self.classes.unknown(found)
            if unknown is not None:
                raise UserError(f"{file}: {unknown}")

    def __str__(self) -> str:
        """What decides the labels beside the files."""
        remap = f"/{self.remap}" if self.remap.pairs else ""
        if self.format is LabelFormat.NUMBERS:
            return remap
        classes = self.classes
        deciding = (classes.names, sorted(classes.ignored), classes.unlabelled, sorted(self.colours.items()))
        return f"/{self.format.value} {hashlib.sha256(repr(deciding).encode()).hexdigest()}{remap}"


def read_pair(item: Item, label_frame: LabelFrame, reader: LabelReader) -> Pair:
    """Read one image and its labels."""
    values = reader.read(item)
    return Pair(normalise(read_image_bytes(item.image), str(item.image), values.shape, label_frame), values)


def make_samples(items: list[Item], label_frame: LabelFrame, reader: LabelReader) -> list[Sample]:
    """List the samples of these images, in their order."""
    return [
        Sample(
            id=item.id,
            fingerprint=f"{label_frame.value}{reader}/{file_fingerprint(item.image, item.label)}",
            read=partial(read_pair, item, label_frame, reader),
            label_where=f"{item.label}: image {item.id}" if item.annotation else str(item.label),
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
    labels: LabelOptions = AS_NUMBERS,
) -> Dataset:
    """Prepare a user's splits.

    Args:
        class_file: the classes, see `read_classes`.
        splits: see `find_splits`.
        remap: the labels' new numbers.
        output: where to and how.
        name: the dataset's name; None: that of its folder.
        labels: what the labels are.

    Raises:
        UserError: a bad class file, no split to train on, a label that is to become no class; see `prepare`.
    """
    classes = read_classes(class_file)
    names = classes.names
    remap.check(len(names))
    reader = LabelReader.make(class_file, classes, labels, remap)
    reader.check_names(item for items in splits.values() for item in items)
    training = training_splits(splits)
    for label in remap.emptied(len(names)):
        print(f"{class_file}: {names[label]!r} is label {label}, which --map or --ignore-label takes away")
    return prepare(
        output,
        name=name or output.folder.resolve().name,
        classes=names,
        palette=classes.palette,
        splits={split: make_samples(items, output.label_frame, reader) for split, items in splits.items()},
        training=training,
        label_advice=advise_on_labels,
    )
