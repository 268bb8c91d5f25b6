"""Image ids: the name that an image, its label, its prediction and the lines of lists share.

An image's id is its file's name without the ending and without a suffix that all images (or all labels) share, such
as Cityscapes' `_leftImg8bit` and `_gtFine_labelTrainIds`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from renet.common.errors import UserError
from renet.common.text_files import numbered_lines

IMAGE_ENDINGS = frozenset(Image.registered_extensions())
LABEL_ENDING = ".png"

# Control characters and line ends, which forge lines of a log, and what is no UTF-8 (Python's surrogates).
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMED = 3  # how many examples a message gives
# Names may have spaces in them: only a tab, or an image's ending before the gap, makes two columns.
_ENDINGS = "|".join(map(re.escape, sorted(IMAGE_ENDINGS)))
_PAIR = re.compile(rf"(\S.*?(?:{_ENDINGS})|[^\t]*\S(?=\s*\t))[\s,;]+(\S.*{re.escape(LABEL_ENDING)})", re.IGNORECASE)
# In VOC's ImageSets/Main -1 says that the image lacks the file's class.
_OTHER_COLUMN = re.compile(r"[^\t]*\S\s*\t\s*(\S.*)|\S+\s+(-1)")


@dataclass(frozen=True)
class Entry:
    """Image of a list.

    Attributes:
        line: its number in the file.
        id: the image's id.
        image: what the list says: an id, a name or a path.
        label: the path of its label where the list has pairs; else None.
    """

    line: int
    id: str
    image: str
    label: str | None = None


def check_name(name: str, where: object) -> None:
    """Make sure that an id, or a path that another's file states, leads nowhere but into the folder that it is used in.

    Raises:
        UserError: it is absolute, has `..` in it, characters that are no text or no UTF-8, or is empty; names `where`.
    """
    if _UNSAFE_CHARACTERS.search(name):
        raise UserError(f"{where}: the name {name!r} has characters that are no text; rename it")
    if not name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise UserError(f"{where}: the name {name!r} may lead out of its folder; rename it")


def named_file(folder: Path, image_id: str, ending: str) -> Path:
    """The file of an image in a folder, such as its prediction; everything that makes a path of an id does it here.

    Raises:
        UserError: as `check_name`, or the id has a folder in it.
    """
    check_name(image_id, folder)
    if "/" in image_id:
        raise UserError(f"{folder}: the name {image_id!r} has a folder in it, so no file can be named by it; rename it")
    return folder / f"{image_id}{ending}"


def file_id(name: str, suffix: str = "") -> str:
    """Take the image id from a file's name or path: without folders, an image's ending in any case, and `suffix`."""
    base = PurePosixPath(name.replace("\\", "/")).name
    stem, dot, ending = base.rpartition(".")
    if stem and f"{dot}{ending}".lower() in IMAGE_ENDINGS:
        base = stem
    return base.removesuffix(suffix)


def bare_suffix(text: str) -> str:
    """Take an image's ending off a suffix: `_labels.png` and `_labels` name the same files."""
    stem, dot, ending = text.rpartition(".")
    return stem if f"{dot}{ending}".lower() in IMAGE_ENDINGS else text


def find_images(
    folder: Path, suffix: str = "", besides: str = "", endings: Collection[str] = IMAGE_ENDINGS
) -> dict[str, Path]:
    """Find the images of a folder by id, sorted; where it has none of its own, those of its subfolders.

    Args:
        folder: where they are.
        suffix: what each image's name ends in before its ending; others are left out.
        besides: the suffix of labels that may lie among the images.
        endings: those of images, with the dot, in small letters.

    Raises:
        UserError: no such folder, no image in it, or two images of one id.
    """

    def is_image(name: str) -> bool:
        stem, ending = os.path.splitext(name)
        return ending.lower() in endings and stem.endswith(suffix) and not (besides and stem.endswith(besides))

    return _by_id(folder, _matching(folder, is_image), suffix, "image")


def find_labels(folder: Path, suffix: str = "", ending: str = LABEL_ENDING) -> dict[str, Path]:
    """Find the label files of a folder by image id, sorted; where it has none of its own, those of its subfolders.

    Args:
        folder: where they are.
        suffix: what each label's name ends in before its ending; others are left out.
        ending: of labels' files, with the dot, in small letters.

    Raises:
        UserError: no such folder, no label in it, or two labels of one image.
    """

    def is_label(name: str) -> bool:
        stem, own = os.path.splitext(name)
        return own.lower() == ending and stem.endswith(suffix)

    return _by_id(folder, _matching(folder, is_label), suffix, f"label {ending[1:].upper()}")


def read_list(file: Path, suffix: str = "") -> list[Entry]:
    """Read the images of a list: ids, names or paths, one a line, or pairs of an image's and its label's path.

    Empty lines and lines that begin with # do not count.

    Raises:
        UserError: no such file, not text, nothing in it, a second column that names no label, or an id twice; names
            the file and the line.
    """
    lines = [(number, line) for number, line in numbered_lines(file) if not line.startswith("#")]
    if not lines:
        raise UserError(f"{file}: lists no image")
    entries = [_entry(line, number, file, suffix) for number, line in lines]
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise UserError(f"{file}, line {entry.line}: lists {entry.id} twice")
        seen.add(entry.id)
        check_name(entry.id, f"{file}, line {entry.line}")
    return entries


def read_ids(file: Path, suffix: str = "") -> list[str]:
    """Read the image ids of a list, in its order; as `read_list`, whose pairs' labels play no part.

    Raises:
        UserError: as `read_list`.
    """
    return [entry.id for entry in read_list(file, suffix)]


def _entry(line: str, number: int, file: Path, suffix: str) -> Entry:
    pair = _PAIR.fullmatch(line)
    if pair is not None:
        return Entry(number, file_id(pair[1], suffix), pair[1], pair[2])
    other = _OTHER_COLUMN.fullmatch(line)
    if other is not None:
        raise UserError(
            f"{file}, line {number}: {other[1] or other[2]!r} is no label PNG; a list has one image a line, or an "
            "image and its label (of VOC's lists, those in ImageSets/Segmentation are meant)"
        )
    return Entry(number, file_id(line, suffix), line)


def _matching(folder: Path, is_meant: Callable[[str], bool]) -> list[Path]:
    """The files of a folder, or where it has none, those of its subfolders: sorted, hidden ones left out."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(place, name) for name in sorted(names) if not name.startswith(".") and is_meant(name)]
        found += [file for file in files if file.is_file()]
        if found and Path(place) == folder:
            break
    return found


def _by_id(folder: Path, files: list[Path], suffix: str, kind: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        check_name(file.name, file.parent)
        # x.json and x.jpg.json are both of the image x
        one = file_id(file.name if file.suffix.lower() in IMAGE_ENDINGS else file.stem, suffix)
        if one in found:
            other = found[one].relative_to(folder)
            raise UserError(f"{file}: has the same id as {other}; ids are names without ending and suffix")
        found[one] = file
    if not found:
        raise UserError(f"{folder}: no {kind} in it{_instead(folder, suffix)}")
    return found


def _instead(folder: Path, suffix: str) -> str:
    """What a folder holds in place of what is looked for, for the end of a message."""
    names = [file.name for file in _matching(folder, lambda name: True)[:_NAMED]]
    wanted = f" whose name ends in {suffix}" if suffix else ""
    return f"{wanted}; it has {', '.join(names)} ..." if names else wanted
