"""The Stanford Background dataset: the archive as distributed, to LMDB splits.

715 outdoor photographs, each with a text file of region labels (Gould, Fulton and Koller, "Decomposing a scene into
geometric and semantically consistent regions", ICCV 2009); the paper's section 4.1 evaluates on five random folds.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from renet.common.command_line import UserError, progress, run
from renet.data.dataset import IGNORE_LABEL
from renet.common.fetch import fetch
from renet.data.image_ids import read_ids
from renet.data.images import LabelFrame, normalise
from renet.conversion.prepare import add_output_arguments, file_fingerprint, framed, prepare, shuffled, whole_number
from renet.data.split_writer import Pair, Sample
from renet.common.text_files import decode_text

NAME = "stanford_background"
CLASSES = ("sky", "tree", "road", "grass", "water", "building", "mountain", "foreground object")
PALETTE = np.array(
    [
        (135, 206, 250),  # sky
        (27, 94, 32),  # tree
        (120, 110, 130),  # road
        (140, 200, 60),  # grass
        (25, 80, 200),  # water
        (170, 60, 45),  # building
        (150, 105, 60),  # mountain
        (255, 190, 0),  # foreground object
    ],
    np.uint8,
)
IMAGES = 715
HOME = "http://dags.stanford.edu/data/iccv09Data.tar.gz"
TOP_FOLDER = "iccv09Data"
LABEL_SUFFIX = ".regions.txt"

EXAMPLE = """\
examples:
  # the archive as distributed (fetched where --archive is left out), five random folds
  .venv/bin/python data_prep/stanford_background.py --archive iccv09Data.tar.gz --out data/stanford_background

  # one fold from lists of ids, at half the size
  .venv/bin/python data_prep/stanford_background.py --archive iccv09Data.tar.gz --fold-lists lists/ \\
      --image-scale 0.5 --out data/stanford_background_half
"""


class Source(Protocol):
    """The distribution's files, by their names within its top folder: `images/<id>.jpg`, `labels/<id>.regions.txt`."""

    def names(self) -> list[str]:
        """Every image's and label's name."""

    def read(self, name: str) -> bytes:
        """A file's content; raises UserError where it is missing."""

    def where(self, name: str) -> str:
        """The file's path, for messages."""

    def fingerprint(self, name: str) -> str:
        """Changes when the file changes."""


class FolderSource:
    """An unpacked distribution."""

    def __init__(self, root: Path) -> None:
        """Find it in `root` or in `root/iccv09Data`.

        Raises:
            UserError: neither holds `images` and `labels`.
        """
        inner = root / TOP_FOLDER
        self._root = inner if inner.is_dir() else root
        for folder in ("images", "labels"):
            if not (self._root / folder).is_dir():
                raise UserError(f"{self._root / folder}: no such folder; --root is the unpacked archive")

    def names(self) -> list[str]:
        """See Source."""
        return [f"{folder}/{file.name}" for folder in ("images", "labels") for file in (self._root / folder).iterdir()]

    def read(self, name: str) -> bytes:
        """See Source."""
        return (self._root / name).read_bytes()

    def where(self, name: str) -> str:
        """See Source."""
        return str(self._root / name)

    def fingerprint(self, name: str) -> str:
        """See Source."""
        return file_fingerprint(self._root / name)


class ArchiveSource:
    """The archive, read into memory once: tar files of this kind are quick from front to back only."""

    def __init__(self, archive: Path) -> None:
        """Read the archive.

        Raises:
            UserError: no such file, not a tar archive, or cut off.
        """
        self._archive = archive
        self._files: dict[str, bytes] = {}
        try:
            with tarfile.open(archive, "r:*") as tar:
                for member in progress(tar, description=f"reading {archive.name}", unit="file"):
                    folder, _, name = member.name.removeprefix("./").removeprefix(f"{TOP_FOLDER}/").partition("/")
                    wanted = (folder == "images" and name) or (folder == "labels" and name.endswith(LABEL_SUFFIX))
                    content = tar.extractfile(member) if wanted else None
                    if content is not None:
                        self._files[f"{folder}/{name}"] = content.read()
        except FileNotFoundError:
            raise UserError(f"{archive}: no such file") from None
        except IsADirectoryError:
            raise UserError(f"{archive}: a folder; an unpacked archive is passed with --root") from None
        except Exception as error:  # each of the compressions has errors of its own
            raise UserError(f"{archive}: not a whole tar archive ({error})") from None

    def names(self) -> list[str]:
        """See Source."""
        return list(self._files)

    def read(self, name: str) -> bytes:
        """See Source."""
        try:
            return self._files[name]
        except KeyError:
            raise UserError(f"{self.where(name)}: no such file") from None

    def where(self, name: str) -> str:
        """See Source."""
        return f"{self._archive}:{TOP_FOLDER}/{name}"

    def fingerprint(self, name: str) -> str:
        """See Source."""
        content = self._files.get(name)
        return "missing" if content is None else str(len(content))


def image_ids(source: Source) -> list[str]:
    """All ids, sorted.

    Raises:
        UserError: the source does not hold the 715 images of the dataset.
    """
    names = source.names()
    ids = sorted({Path(name).stem for name in names if name.startswith("images/") and name.endswith(".jpg")})
    if len(ids) != IMAGES:
        raise UserError(
            f"{source.where('images')}: {len(ids)} JPEG images; the Stanford Background dataset has {IMAGES}"
        )
    return ids


def read_regions(text: bytes, where: str) -> np.ndarray:
    """A file of region labels: H x W, negative numbers (unknown) as 255.

    Raises:
        UserError: the text is no rectangle of whole numbers, or holds one that is no class; names `where`.
    """
    if not text.strip():
        raise UserError(f"{where}: empty")
    try:
        regions = np.loadtxt(io.StringIO(decode_text(text, where)), dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise UserError(f"{where}: not rows of whole numbers, all of one length ({error})") from None
    if regions.max() >= len(CLASSES):
        raise UserError(f"{where}: label value {regions.max()} is out of range: 0..{len(CLASSES) - 1}, or negative")
    regions[regions < 0] = IGNORE_LABEL
    return regions


def read_pair(source: Source, image_id: str, label_frame: LabelFrame) -> Pair:
    """One image and its labels."""
    image, label = _image_name(image_id), _label_name(image_id)
    regions = read_regions(source.read(label), source.where(label))
    return Pair(normalise(source.read(image), source.where(image), regions.shape, label_frame), regions)


def make_samples(source: Source, ids: list[str], label_frame: LabelFrame) -> list[Sample]:
    """The samples of these ids, in their order."""
    return [
        Sample(
            id=one,
            fingerprint=framed(
                f"{source.fingerprint(_image_name(one))}/{source.fingerprint(_label_name(one))}", label_frame
            ),
            read=partial(read_pair, source, one, label_frame),
            label_where=source.where(_label_name(one)),
        )
        for one in ids
    ]


def random_folds(ids: list[str], folds: int, seed: int) -> dict[str, list[str]]:
    """Even random folds: `fold<n>/test` is a part of the ids, `fold<n>/train` all the others."""
    order = shuffled(ids, seed)
    parts = [order[n * len(order) // folds : (n + 1) * len(order) // folds] for n in range(folds)]
    splits = {}
    for n, part in enumerate(parts):
        held_out = set(part)
        splits[f"fold{n}/train"] = [one for one in order if one not in held_out]
        splits[f"fold{n}/test"] = part
    return splits


def listed_fold(ids: list[str], lists: Path) -> dict[str, list[str]]:
    """One fold, `fold0`, from `lists/train.txt` and `lists/test.txt`.

    Raises:
        UserError: a list is missing or empty, names an image that there is not, or shares one with the other list.
    """
    splits = {}
    for part in ("train", "test"):
        file = lists / f"{part}.txt"
        splits[f"fold0/{part}"] = listed = read_ids(file)
        unknown = sorted(set(listed) - set(ids))
        if unknown:
            raise UserError(f"{file}: lists {unknown[0]}, which the dataset does not have ({len(unknown)} such ids)")
    shared = set(splits["fold0/train"]) & set(splits["fold0/test"])
    if shared:
        raise UserError(f"{lists}: {min(shared)} is in both train.txt and test.txt ({len(shared)} such ids)")
    return splits


def main(arguments: argparse.Namespace) -> None:
    """Prepare the dataset as the command line says."""
    if arguments.fold_lists and not arguments.fold_lists.is_dir():
        raise UserError(f"{arguments.fold_lists}: no such folder")
    source: Source
    if arguments.root:
        source = FolderSource(arguments.root)
    else:
        archive = arguments.archive or fetch(
            HOME,
            arguments.out / Path(HOME).name,
            "get iccv09Data.tar.gz by hand (http://dags.stanford.edu/projects/scenedataset.html) "
            "and pass it with --archive FILE",
        )
        source = ArchiveSource(archive)
    ids = image_ids(source)
    splits: Mapping[str, list[str]]
    if arguments.fold_lists:
        splits = listed_fold(ids, arguments.fold_lists)
    else:
        splits = random_folds(ids, arguments.folds, arguments.seed)
    frame = LabelFrame(arguments.label_frame)
    prepare(
        arguments.out,
        name=NAME,
        classes=CLASSES,
        palette=PALETTE,
        splits={split: make_samples(source, listed, frame) for split, listed in splits.items()},
        training=[split for split in splits if split.endswith("/train")],
        image_scale=arguments.image_scale,
        skip_bad=arguments.skip_bad,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="stanford_background.py",
        description="The Stanford Background dataset to LMDB splits fold0/train, fold0/test, ...",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--archive", type=Path, metavar="FILE", help=f"the archive as distributed; default: fetch {HOME}"
    )
    source.add_argument("--root", type=Path, metavar="DIR", help="the archive unpacked")
    folds = parser.add_mutually_exclusive_group()
    folds.add_argument("--folds", type=whole_number(2), default=5, metavar="N", help="even random folds (default 5)")
    folds.add_argument("--fold-lists", type=Path, metavar="DIR", help="one fold: ids in train.txt and test.txt")
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of the random folds (default 0)")
    add_output_arguments(parser)
    return parser


def _image_name(image_id: str) -> str:
    return f"images/{image_id}.jpg"


def _label_name(image_id: str) -> str:
    return f"labels/{image_id}{LABEL_SUFFIX}"


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
