"""Splits of a user's images: from folders, from lists, or at random."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from renet.common.errors import UserError
from renet.common.text_layout import listed
from renet.conversion.annotated_image import AnnotatedImage
from renet.conversion.label_formats import LabelFormat, read_annotation_file
from renet.conversion.prepare import shuffled
from renet.data.held_out import held_out_ids
from renet.data.image_ids import IMAGE_ENDINGS, LABEL_ENDING, Entry, file_id, find_images, find_labels, read_list

TRAIN, VAL, TEST = "train", "val", "test"
UNION = "trainval"  # may share images with train and val
_SPLIT_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*")
_FOLDERS_ABOVE = 3  # a list's paths may begin this many folders above it


@dataclass(frozen=True)
class Item:
    """Image of a user's.

    Attributes:
        id: its id.
        image: its file.
        label: where its label is or ought to be.
        annotation: its entry in `label`, where that file has the labels of many images.
    """

    id: str
    image: Path
    label: Path
    annotation: AnnotatedImage | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Source:
    """Folders of images and labels.

    Attributes:
        images: folder of the images; None where each split has its own.
        labels: folder of the labels, or the file of all.
        image_suffix: what follows the id in images' names.
        label_suffix: what follows the id in labels' names.
        format: of the labels.
    """

    images: Path | None
    labels: Path | None
    image_suffix: str = ""
    label_suffix: str = ""
    format: LabelFormat = LabelFormat.NUMBERS

    @cached_property
    def found(self) -> dict[str, Item]:
        """Find all images of the folders by id.

        Raises:
            UserError: a folder is missing, or holds no image or no label of any image.
        """
        assert self.images is not None and self.labels is not None, "the caller has folders"
        if self.format.has_one_file:
            return self._annotated(self.labels, find_images(self.images, self.image_suffix))
        ending = self.format.ending
        labels = find_labels(self.labels, self.label_suffix, ending)
        if self.label_suffix != self.image_suffix:
            images = find_images(self.images, self.image_suffix, besides=self.label_suffix)
        elif ending == LABEL_ENDING and self.images.is_dir() and self.images.samefile(self.labels):
            # x.jpg and its label x.png in one folder
            images = find_images(self.images, self.image_suffix, endings=IMAGE_ENDINGS - {LABEL_ENDING})
        else:
            images = find_images(self.images, self.image_suffix)
        if not images.keys() & labels.keys():
            first_id, first = next(iter(images.items()))
            raise UserError(
                f"{self.labels}: no label of any image in {self.images}: that of {first.name} would be "
                f"{first_id}{self.label_suffix}{ending}, but there is {next(iter(labels.values())).name}; "
                "--image-suffix and --label-suffix say what follows the part that both names share"
            )
        return {
            one: Item(one, image, labels.get(one, self.labels / f"{one}{self.label_suffix}{ending}"))
            for one, image in images.items()
        }

    def _annotated(self, file: Path, images: Mapping[str, Path]) -> dict[str, Item]:
        """The images, with their entries in the file of all labels."""
        entries: dict[str, AnnotatedImage] = {}
        for entry in read_annotation_file(file, self.format):
            other = entries.setdefault(file_id(entry.name, self.image_suffix), entry)
            if other is not entry:
                raise UserError(f"{file}: {entry.name} has the same id as {other.name}; ids are names without folders")
        absent = [entry.name for one, entry in entries.items() if one not in images]
        if len(absent) == len(entries):
            raise UserError(f"{file}: annotates no image in {self.images}{': that of ' + absent[0] if absent else ''}")
        if absent:
            print(f"{file}: {len(absent)} of its {len(entries)} images are not in {self.images}: {listed(absent)}")
        return {one: Item(one, image, file, entries.get(one)) for one, image in images.items()}

    def items(self) -> list[Item]:
        """List all images of the folders, in order; see `found`."""
        return list(self.found.values())


def named_split(text: str, source: Source, earlier: Mapping[str, list[Item]]) -> tuple[str, list[Item]]:
    """Read one --split: its name and its images.

    Args:
        text: NAME=IMAGES:LABELS or NAME=LIST.
        source: the folders that lists speak of, and the suffixes.
        earlier: the splits before it, with which it must not share an image.

    Raises:
        UserError: another form, a name twice, nothing there, or an image in two splits.
    """
    name, equals, place = text.partition("=")
    if not equals or not place or not _SPLIT_NAME.fullmatch(name):
        raise UserError(f"--split {text}: is not NAME=IMAGES:LABELS or NAME=LIST, such as val=photos/val:labels/val")
    if name in earlier:
        raise UserError(f"--split {name}: comes twice")
    items = _from_folders(place, source) if ":" in place and not Path(place).is_file() else _listed(Path(place), source)
    taken = {item.image: split for split, others in earlier.items() if split != UNION for item in others}
    for item in items if name != UNION else ():
        if item.image in taken:
            raise UserError(f"--split {name}: {item.image} is in {taken[item.image]} already")
    return name, items


def random_splits(items: list[Item], test_fraction: float, seed: int) -> dict[str, list[Item]]:
    """Draw train and test; both get at least one image, if the fraction is not 0.

    Raises:
        UserError: there are too few for two splits.
    """
    by_id = {item.id: item for item in items}
    order = [by_id[one] for one in shuffled(by_id, seed)]
    if test_fraction == 0:
        return {TRAIN: order}
    if len(order) < 2:
        raise UserError(f"{len(order)} image cannot be split into train and test; say --test-fraction 0")
    count = min(len(order) - 1, max(1, round(test_fraction * len(order))))
    return {TRAIN: order[count:], TEST: order[:count]}


def take_validation(splits: dict[str, list[Item]], fraction: float) -> dict[str, list[Item]]:
    """Take `val` out of `train`: a choice that neither order nor seed changes.

    Raises:
        UserError: there is a val already, no train, or too few images in it.
    """
    if fraction == 0:
        return splits
    if VAL in splits or UNION in splits or TRAIN not in splits:
        raise UserError(f"--val-fraction takes {VAL} out of {TRAIN}, but the splits are {', '.join(splits)}")
    if len(splits[TRAIN]) < 2:
        raise UserError(f"--val-fraction: {len(splits[TRAIN])} image in {TRAIN} cannot be split into {TRAIN} and {VAL}")
    ids = [item.id for item in splits[TRAIN]]
    chosen = held_out_ids(ids, min(fraction, (len(ids) - 1) / len(ids)))
    parts = {
        TRAIN: [item for item in splits[TRAIN] if item.id not in chosen],
        VAL: [item for item in splits[TRAIN] if item.id in chosen],
    }
    return parts | {name: items for name, items in splits.items() if name != TRAIN}


def _from_folders(place: str, source: Source) -> list[Item]:
    """The images of IMAGES:LABELS; where a path has colons in it, the parting at which both are folders."""
    parts = place.split(":")
    pairs = [(Path(":".join(parts[:n])), Path(":".join(parts[n:]))) for n in range(1, len(parts))]
    images, labels = next((pair for pair in pairs if pair[0].is_dir() and pair[1].exists()), pairs[0])
    return replace(source, images=images, labels=labels).items()


def _listed(file: Path, source: Source) -> list[Item]:
    """The images of a list.

    Raises:
        UserError: as `read_list`; it names an image or label that there is not, or has no pairs and there is no
            --images.
    """
    if file.is_dir():
        raise UserError(f"{file}: a folder; its labels are to follow, as in NAME={file}:LABELS")
    entries = read_list(file, source.image_suffix)
    if source.images is None:
        return _paired(file, entries)
    items = []
    missing = [entry for entry in entries if entry.id not in source.found]
    if missing:
        more = f" (nor of {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{file}, line {missing[0].line}: lists {missing[0].image}, but {source.images} has no image of that "
            f"name{more}"
        )
    by_label = {file_id(item.label.name, source.label_suffix): item.label for item in source.items()}
    for entry in entries:
        item = source.found[entry.id]
        own = entry.label and by_label.get(file_id(entry.label, source.label_suffix))
        items.append(replace(item, label=own or item.label))
    return items


def _paired(file: Path, entries: list[Entry]) -> list[Item]:
    """The images of a list of pairs of paths. Where these begin on another machine (/SegNet/CamVid/train/x.png), they
    are looked for from the list's folder and those above it, without the leading folders that are not here."""
    alone = next((entry for entry in entries if entry.label is None), None)
    if alone is not None:
        raise UserError(
            f"{file}, line {alone.line}: {alone.image}: no label beside it; give --images and --labels, the folders in "
            "which images and labels are looked for"
        )
    folder, dropped = _root(file, entries[0])

    def placed(path: str) -> Path:
        return folder.joinpath(*_parts(path)[dropped:])

    return [Item(entry.id, placed(entry.image), placed(entry.label or "")) for entry in entries]


def _root(file: Path, entry: Entry) -> tuple[Path, int]:
    """From which folder, and without how many leading folders, a list's paths are meant; found by one pair of them."""
    image, label = _parts(entry.image), _parts(entry.label or "")
    near = list(file.absolute().parents)[: _FOLDERS_ABOVE + 1]
    whole = [Path("/"), *near] if entry.image.startswith("/") else [*near, Path()]
    for dropped in range(min(len(image), len(label))):
        for folder in near if dropped else whole:
            files = folder.joinpath(*image[dropped:]), folder.joinpath(*label[dropped:])
            if files[0] != files[1] and all(one.is_file() for one in files):
                return folder, dropped
    raise UserError(
        f"{file}, line {entry.line}: {entry.image} and {entry.label}: no such files, also not from {near[0]} on; give "
        "--images and --labels, the folders in which images and labels are looked for"
    )


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/")
