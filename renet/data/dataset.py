"""Description of a prepared dataset: dataset.json."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.json_schema import STRICT, read_json_as
from renet.common.parts import Part
from renet.common.text_files import read_json
from renet.data.split_view import Split

FILE_NAME = "dataset.json"
IGNORE_LABEL = 255
_CHECKSUM = "written_sha256"  # of everything else in the file: tells whether a person has edited it
MOST_CLASSES = 255  # labels are 8 bits and one value is the ignored one
_Colour = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
_Mean = Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]


class _SplitContent(TypedDict):
    __pydantic_config__ = STRICT
    count: Annotated[int, Field(ge=0)]
    sha256: str


class _PartContent(TypedDict):
    __pydantic_config__ = STRICT
    number: int
    count: int
    training: list[str]


class _Content(TypedDict):
    """dataset.json."""

    __pydantic_config__ = STRICT
    name: str
    classes: Annotated[list[str], Field(min_length=1, max_length=MOST_CLASSES)]
    palette: list[_Colour]
    mean: _Mean
    ignore_label: int
    splits: dict[str, _SplitContent]
    image_scale: NotRequired[Annotated[float, Field(gt=0, le=1)]]
    distant_context_classes: NotRequired[list[str]]
    skipped: NotRequired[dict[str, list[str]]]
    part: NotRequired[_PartContent]


_SCHEMA = TypeAdapter(_Content)


@dataclass(frozen=True)
class SplitSummary:
    """Content of a complete split.

    Attributes:
        count: images.
        sha256: over all records in the order of their keys (see `split_reader.records_sha256`), the same wherever and
            however often the split is built from the same source.
    """

    count: int
    sha256: str


@dataclass(frozen=True)
class DatasetPart:
    """What a part of a dataset has to be told of, so that all parts can be joined.

    Attributes:
        part: which it is.
        training: the splits whose pixels give the mean of the whole; none where the mean is that of another dataset.
    """

    part: Part
    training: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """Prepared dataset.

    Attributes:
        name: short name, as in file names.
        classes: names of the labels 0 .. C-1.
        palette: C x 3 uint8, RGB.
        mean: of the training split's pixels, in the order B, G, R, 0..255.
        ignore_label: the label of pixels that count nowhere.
        splits: by name, such as `train` or `fold0/test`; a split's folder is `folder / name`.
        folder: where dataset.json lies.
        image_scale: factor by which the source's images and labels were shrunk.
        distant_context_classes: classes that only what lies far away in the image tells apart; often empty.
        skipped: by split, one line for each sample left out with `--skip-bad`.
        part: of a part of a dataset, which; its mean is that of its own pixels.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    mean: tuple[float, float, float]
    ignore_label: int
    splits: dict[str, SplitSummary]
    folder: Path
    image_scale: float = 1.0
    distant_context_classes: tuple[str, ...] = ()
    skipped: dict[str, list[str]] = field(default_factory=dict)
    part: DatasetPart | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Dataset:
        """Read a dataset.json, named itself or by its folder.

        Raises:
            UserError: there is none, or what it says is not a dataset; names the file.
        """
        file = Path(path)
        if file.is_dir():
            file = file / FILE_NAME
        if not file.exists():
            raise UserError(f"{file}: no such file; a prepared dataset has one (data_prep/*.py write it)")
        content = read_json_as(file, _SCHEMA)
        try:
            return cls._from_json(content, file.parent)
        except ValueError as error:
            raise UserError(f"{file}: not a dataset description: {error}") from None

    @classmethod
    def of_split(cls, split: Path) -> Dataset | None:
        """Read the dataset that a split belongs to: that of the nearest dataset.json above it, or None.

        Raises:
            UserError: the dataset.json is damaged.
        """
        folder = folder_of_split(split)
        return None if folder is None else cls.open(folder)

    @classmethod
    def _from_json(cls, content: _Content, folder: Path) -> Dataset:
        classes = tuple(content["classes"])
        if len(set(classes)) < len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ValueError(f"classes has {twice!r} twice")
        if len(content["palette"]) != len(classes):
            raise ValueError(f"palette has {len(content['palette'])} colours for {len(classes)} classes")
        blue, green, red = map(float, content["mean"])
        ignore_label = content["ignore_label"]
        if not len(classes) <= ignore_label <= 255:
            raise ValueError(
                f"ignore_label must lie in {len(classes)}..255, not {ignore_label}, which is a class's number; "
                f"prepare the data with --map {ignore_label}=255 (data_prep/folder.py)"
                if 0 <= ignore_label < len(classes)
                else f"ignore_label must lie in {len(classes)}..255, not {ignore_label}"
            )
        distant = tuple(content.get("distant_context_classes", ()))
        unknown = sorted(set(distant) - set(classes))
        if unknown:
            raise ValueError(f"distant_context_classes has {unknown[0]!r}, which is no class")
        return cls(
            name=content["name"],
            classes=classes,
            palette=np.array(content["palette"], np.uint8),
            mean=(blue, green, red),
            ignore_label=ignore_label,
            splits={
                name: SplitSummary(count=split["count"], sha256=split["sha256"])
                for name, split in content["splits"].items()
            },
            folder=folder,
            image_scale=float(content.get("image_scale", 1.0)),
            distant_context_classes=distant,
            skipped=content.get("skipped", {}),
            part=_part(content["part"]) if "part" in content else None,
        )

    def save(self) -> None:
        """Write dataset.json into `folder`, whole or not at all.

        Raises:
            UserError: a person has edited the one that is there.
            OSError: the folder cannot be written.
        """
        check_unedited(self.folder)
        content = {
            "name": self.name,
            "classes": list(self.classes),
            "palette": self.palette.tolist(),
            "ignore_label": self.ignore_label,
            "mean": list(self.mean),
            "image_scale": self.image_scale,
            "splits": {name: {"count": s.count, "sha256": s.sha256} for name, s in self.splits.items()},
        }
        if self.distant_context_classes:
            content["distant_context_classes"] = list(self.distant_context_classes)
        if any(self.skipped.values()):
            content["skipped"] = {name: lines for name, lines in self.skipped.items() if lines}
        if self.part is not None:
            part = self.part.part
            content["part"] = {"number": part.number, "count": part.count, "training": list(self.part.training)}
        content[_CHECKSUM] = _checksum(content)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        # Lists of numbers (colours, the mean) on one line each, for the person who opens the file.
        text = re.sub(r"\[\s*(-?[\d.]+(?:,\s*-?[\d.]+)*)\s*\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
        write_atomically(self.folder / FILE_NAME, (text + "\n").encode())

    def split(self, name: str) -> Split:
        """The samples of a split, such as `train` or `fold0/test`, as arrays.

        Raises:
            UserError: the dataset has no such split, or it is damaged.
        """
        if name not in self.splits:
            raise UserError(f"{self.folder}: has no split {name!r} (it has {', '.join(self.splits) or 'none'})")
        return Split(self.folder / name)

    def summary_of(self, split: Path) -> SplitSummary | None:
        """Find the summary of a split, a folder in `folder`; None where there is none."""
        for path, folder in ((split.absolute(), self.folder.absolute()), (split.resolve(), self.folder.resolve())):
            if path.is_relative_to(folder):
                return self.splits.get(path.relative_to(folder).as_posix())
        return None

    def full_palette(self) -> list[int]:
        """List 256 RGB triples for PIL's `putpalette`: classes, then black; the ignored label is white."""
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self.classes)] = self.palette
        colours[self.ignore_label] = 255
        return colours.reshape(-1).tolist()


def _part(content: _PartContent) -> DatasetPart:
    if not 1 <= content["number"] <= content["count"]:
        raise ValueError(f"there is no part {content['number']} of {content['count']}")
    return DatasetPart(Part(content["number"], content["count"]), tuple(content["training"]))


def folder_of_split(split: Path) -> Path | None:
    """Find the nearest folder above a split that has a dataset.json, on the way that was typed or on that of its
    links."""
    for path in (split.absolute(), split.resolve()):
        for folder in path.parents:
            if (folder / FILE_NAME).is_file():
                return folder
    return None


def check_unedited(folder: Path) -> None:
    """Make sure that a dataset.json in `folder`, if there is one, is as it was written, so that it may be replaced.

    Raises:
        UserError: a person has changed it.
    """
    file = folder / FILE_NAME
    if not file.exists():
        return
    content = read_json(file)
    stated = content.pop(_CHECKSUM, None) if isinstance(content, dict) else ""
    if stated is not None and stated != _checksum(content):  # earlier versions stated none
        raise UserError(
            f"{file}: was edited, and would be written anew; move it away (your changes can go into the new one), "
            "or choose another --out"
        )


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
