"""Stanford Background dataset: the archive as distributed."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from renet.common.archives import open_tar
from renet.common.errors import UserError
from renet.common.fetch import fetch
from renet.common.parts import WHOLE
from renet.common.progress import progress
from renet.common.text_files import decode_text
from renet.conversion.prepare import OutputOptions, file_fingerprint, framed, prepare, shuffled
from renet.data.catalog import STANFORD_BACKGROUND
from renet.data.dataset import IGNORE_LABEL, Dataset
from renet.data.image_formats import read_image_bytes
from renet.data.image_ids import read_ids
from renet.data.images import LabelFrame, normalise
from renet.data.split_writer import Pair, Sample

# the server may know no https; what came is compared with CONTENT_SHA256 either way
HOMES = ("https://dags.stanford.edu/data/iccv09Data.tar.gz", "http://dags.stanford.edu/data/iccv09Data.tar.gz")
HOME_PAGE = "http://dags.stanford.edu/projects/scenedataset.html"
TOP_FOLDER = "iccv09Data"
LABEL_SUFFIX = ".regions.txt"
CONTENT_SHA256 = "34e973a33ccf60096a240fa52a9959aee35fcc3ea73908b0bf230f5b5bace68f"  # see ArchiveSource.content_sha256
MOST_MEMBERS = 2 * STANFORD_BACKGROUND.images["all"]
LARGEST_MEMBER = 1 << 22
MOST_UNPACKED = 1 << 30  # with the labels of other kinds, which are not read


class Source(Protocol):
    """Files of the distribution, by their names within its top folder: `images/<id>.jpg`, `labels/<id>.regions.txt`."""

    def names(self) -> list[str]:
        """List every image's and label's name."""

    def read(self, name: str) -> bytes:
        """Read a file; raises UserError where it is missing."""

    def where(self, name: str) -> str:
        """Name the file's path, for messages."""

    def fingerprint(self, name: str) -> str:
        """Give a text that changes when the file changes."""


class FolderSource:
    """Unpacked distribution."""

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
        return read_image_bytes(self._root / name)

    def where(self, name: str) -> str:
        """See Source."""
        return str(self._root / name)

    def fingerprint(self, name: str) -> str:
        """See Source."""
        return file_fingerprint(self._root / name)


class ArchiveSource:
    """Archive, read into memory once: tar files of this kind are quick from front to back only."""

    def __init__(self, archive: Path) -> None:
        """Read the archive.

        Raises:
            UserError: no such file, not a tar archive, cut off, or with more or larger files than the dataset has.
        """
        self._archive = archive
        self._files: dict[str, bytes] = {}
        if archive.is_dir():
            raise UserError(f"{archive}: a folder; an unpacked archive is passed with --root")
        with open_tar(archive, MOST_UNPACKED) as tar:
            for member in progress(tar, description=f"reading {archive.name}", unit="file"):
                folder, _, name = member.name.removeprefix("./").removeprefix(f"{TOP_FOLDER}/").partition("/")
                wanted = (folder == "images" and name) or (folder == "labels" and name.endswith(LABEL_SUFFIX))
                if not wanted or not member.isreg():  # links and devices among them
                    continue
                if member.size > LARGEST_MEMBER or len(self._files) == MOST_MEMBERS:
                    raise UserError(
                        f"{archive}: not the Stanford Background dataset, of {MOST_MEMBERS} files of at most "
                        f"{LARGEST_MEMBER >> 20} MiB ({member.name}: {member.size:,} bytes)"
                    )
                content = tar.extractfile(member)
                assert content is not None, "a regular member has content"
                self._files[f"{folder}/{name}"] = content.read()

    def content_sha256(self) -> str:
        """Compute one SHA-256 over the names and contents of all files, in the order of their names."""
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()

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
    """List all ids, sorted.

    Raises:
        UserError: the source does not hold the 715 images of the dataset.
    """
    names = source.names()
    ids = sorted({Path(name).stem for name in names if name.startswith("images/") and name.endswith(".jpg")})
    if len(ids) != STANFORD_BACKGROUND.images["all"]:
        raise UserError(
            f"{source.where('images')}: {len(ids)} JPEG images; the Stanford Background dataset has "
            f"{STANFORD_BACKGROUND.images['all']}"
        )
    return ids


def read_regions(text: bytes, where: str) -> np.ndarray:
    """Read a file of region labels: H x W, negative numbers (unknown) as 255.

    Raises:
        UserError: the text is no rectangle of whole numbers, or holds one that is no class; names `where`.
    """
    if not text.strip():
        raise UserError(f"{where}: empty")
    try:
        regions = np.loadtxt(io.StringIO(decode_text(text, where)), dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise UserError(f"{where}: not rows of whole numbers, all of one length ({error})") from None
    if not regions.size:  # comments alone
        raise UserError(f"{where}: empty")
    if regions.max() >= len(STANFORD_BACKGROUND.classes):
        most = len(STANFORD_BACKGROUND.classes) - 1
        raise UserError(f"{where}: label value {regions.max()} is out of range: 0..{most}, or negative")
    regions[regions < 0] = IGNORE_LABEL
    return regions


def read_pair(source: Source, image_id: str, label_frame: LabelFrame) -> Pair:
    """Read one image and its labels."""
    image, label = _image_name(image_id), _label_name(image_id)
    regions = read_regions(source.read(label), source.where(label))
    return Pair(normalise(source.read(image), source.where(image), regions.shape, label_frame), regions)


def make_samples(source: Source, ids: list[str], label_frame: LabelFrame) -> list[Sample]:
    """List the samples of these ids, in their order."""
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
    """Draw even random folds: `fold<n>/test` is a part of the ids, `fold<n>/train` all the others."""
    order = shuffled(ids, seed)
    parts = [order[n * len(order) // folds : (n + 1) * len(order) // folds] for n in range(folds)]
    splits = {}
    for n, part in enumerate(parts):
        held_out = set(part)
        splits[f"fold{n}/train"] = [one for one in order if one not in held_out]
        splits[f"fold{n}/test"] = part
    return splits


def listed_fold(ids: list[str], lists: Path) -> dict[str, list[str]]:
    """Read one fold, `fold0`, from `lists/train.txt` and `lists/test.txt`.

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


def _image_name(image_id: str) -> str:
    return f"images/{image_id}.jpg"


def _label_name(image_id: str) -> str:
    return f"labels/{image_id}{LABEL_SUFFIX}"


def open_source(archive: Path | None, root: Path | None, folder: Path) -> Source:
    """Open an unpacked distribution, or an archive, which is fetched into `folder` where neither is given.

    Raises:
        UserError: it is not what it should be, or the download failed, or brought other files than the known ones.
    """
    if root is not None:
        return FolderSource(root)
    if archive is not None:
        return ArchiveSource(archive)
    by_hand = f"get iccv09Data.tar.gz by hand ({HOME_PAGE}) and pass it with --archive FILE"
    fetched = fetch(HOMES, folder / Path(HOMES[0]).name, by_hand)
    source = ArchiveSource(fetched)
    if source.content_sha256() != CONTENT_SHA256:
        raise UserError(
            f"{fetched}: its files are not the known ones (their SHA-256 is {source.content_sha256()}); remove it to "
            "fetch it again, or, if you trust it, pass it with --archive FILE"
        )
    return source


def convert(
    output: OutputOptions,
    *,
    archive: Path | None = None,
    root: Path | None = None,
    fold_lists: Path | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Dataset:
    """Prepare the splits `fold0/train`, `fold0/test`, ...

    Args:
        output: where to and how.
        archive: see `open_source`.
        root: see `open_source`.
        fold_lists: the folder of `listed_fold`; None: random folds.
        folds: number of random folds.
        seed: of the random folds.

    Raises:
        UserError: a part of what is to be fetched; see `open_source`, `image_ids`, `listed_fold` and `prepare`.
    """
    if fold_lists is not None and not fold_lists.is_dir():
        raise UserError(f"{fold_lists}: no such folder")
    if output.part != WHOLE and archive is None and root is None:
        raise UserError("--part needs --archive or --root: several parts would fetch the archive at once")
    source = open_source(archive, root, output.folder)
    ids = image_ids(source)
    splits = random_folds(ids, folds, seed) if fold_lists is None else listed_fold(ids, fold_lists)
    return prepare(
        output,
        name=STANFORD_BACKGROUND.name,
        classes=STANFORD_BACKGROUND.classes,
        palette=STANFORD_BACKGROUND.palette,
        splits={split: make_samples(source, listed, output.label_frame) for split, listed in splits.items()},
        training=[split for split in splits if split.endswith("/train")],
    )
