"""Pictures of the report page: each test image with its truth, predictions and errors, inside the page or beside it."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from renet.common.errors import UserError, naming
from renet.common.files import partial_folder
from renet.common.progress import progress
from renet.data.dataset import Dataset
from renet.data.label_maps import encode_label_map, read_label_map
from renet.data.split_reader import SplitReader
from renet.visualization.page_content import Entry, image_scores
from renet.visualization.sheet import photograph

PICTURE_WIDTH = 480  # pixels; larger pictures are shrunk
BUDGET = 25.0  # megabytes of pictures that a page holds itself: what opens at once on a phone, and goes by mail
_RIGHT, _WRONG, _UNLABELLED = range(3)
_ERROR_COLOURS = (255, 255, 255, 229, 23, 63, 128, 128, 128)
_ERROR_OPACITY = bytes((0, 255, 140))  # what is right lets the photograph through
_KINDS = {"jpg": "image/jpeg", "png": "image/png"}
_OUR_FILE = re.compile(r"\d{6}_(input|truth|labels\d+|errors\d+)\.(jpg|png)")
_AT_ONCE = 64  # images in memory as arrays


@dataclass(frozen=True)
class File:
    """Encoded picture.

    Attributes:
        name: of the file, unique in the report.
        content: its bytes.
    """

    name: str
    content: bytes

    @property
    def uri(self) -> str:
        """Encode the picture itself as a data URI."""
        kind = _KINDS[self.name.rsplit(".", 1)[1]]
        return f"data:{kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Picture:
    """Test image in the gallery.

    Attributes:
        image_id: its id.
        position: its number in the split.
        width: of the shown pictures, pixels.
        height: of the shown pictures, pixels.
        source: the photograph.
        truth: its labels.
        predictions: each entry's labels.
        errors: where each entry is wrong (red) and where the truth says nothing (grey); transparent elsewhere.
        accuracies: each entry's pixel accuracy; None where the truth has no labelled pixel.
        ious: each entry's mean IoU; None likewise.
        class_ious: for each class in the truth, by its index, each entry's IoU in this image.
    """

    image_id: str
    position: int
    width: int
    height: int
    source: File
    truth: File
    predictions: tuple[File, ...]
    errors: tuple[File, ...]
    accuracies: tuple[float | None, ...]
    ious: tuple[float | None, ...]
    class_ious: dict[int, tuple[float, ...]]

    @property
    def files(self) -> tuple[File, ...]:
        """List all its pictures."""
        return (self.source, self.truth, *self.predictions, *self.errors)


def worst_first(entry: Entry) -> list[str]:
    """Sort image ids by rising pixel accuracy; images that cannot be scored come last."""
    accuracy = {}
    for image_id, result in entry.images.items():
        own = image_scores(result)
        accuracy[image_id] = 2.0 if own is None else own.pixel_accuracy
    return sorted(accuracy, key=lambda image_id: (accuracy[image_id], image_id))


def spread(ids: Sequence[str], count: int) -> list[str]:
    """Choose `count` of the ids at even distances, the first and the last among them; all where there are no more."""
    if count >= len(ids):
        return list(ids)
    return [ids[index] for index in np.unique(np.linspace(0, len(ids) - 1, count).round().astype(int))]


def draw_gallery(entries: Sequence[Entry], split: Path, dataset: Dataset, count: int | None = None) -> list[Picture]:
    """Draw the gallery: the images from the worst of the first entry to its best.

    Args:
        entries: those with predictions are shown.
        split: the prepared test split.
        dataset: classes and colours.
        count: most images, taken from the whole range of quality; None takes all.

    Raises:
        UserError: a damaged record or file; names it.
    """
    shown = [entry for entry in entries if entry.predictions is not None]
    if not shown or count == 0:
        return []
    ids = worst_first(shown[0])
    chosen = ids if count is None else spread(ids, count)
    with SplitReader(split) as reader, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        bar = progress(total=len(chosen), description="pictures", unit="image")
        result = []
        remaining = iter(chosen)
        while batch := list(islice(remaining, _AT_ONCE)):
            tasks = [_Task.read(reader, index_of[image_id], image_id, shown) for image_id in batch]
            for picture in pool.map(lambda task: task.picture(dataset), tasks):
                result.append(picture)
                bar.update()
        bar.close()
    return result


@dataclass(frozen=True)
class _Task:
    """An image as arrays, before its pictures are encoded."""

    image_id: str
    position: int
    image: np.ndarray
    truth: np.ndarray
    labels: list[np.ndarray]
    shown: Sequence[Entry]

    @classmethod
    def read(cls, reader: SplitReader, position: int, image_id: str, shown: Sequence[Entry]) -> _Task:
        truth = reader.label(position)
        assert truth is not None, "entries are scored against this split's labels"
        labels = [read_label_map(entry.images[image_id].prediction) for entry in shown]
        return cls(image_id, position, reader.image(position), truth, labels, shown)

    def picture(self, dataset: Dataset) -> Picture:
        height, width = self.image.shape[:2]
        size = (min(PICTURE_WIDTH, width), max(1, round(height * min(PICTURE_WIDTH, width) / width)))
        truth = _resized(self.truth, size)
        labels = [_resized(of_entry, size) for of_entry in self.labels]
        scores = [image_scores(entry.images[self.image_id]) for entry in self.shown]
        confusions = [entry.images[self.image_id].confusion for entry in self.shown]
        present = np.flatnonzero(confusions[0].sum(axis=1)).tolist()
        stem = f"{self.position:06d}"
        return Picture(
            image_id=self.image_id,
            position=self.position,
            width=size[0],
            height=size[1],
            source=File(f"{stem}_input.jpg", _jpeg(self.image, size)),
            truth=File(f"{stem}_truth.png", encode_label_map(truth, dataset)),
            predictions=tuple(
                File(f"{stem}_labels{number}.png", encode_label_map(of_entry, dataset))
                for number, of_entry in enumerate(labels)
            ),
            errors=tuple(
                File(f"{stem}_errors{number}.png", _errors(truth, of_entry, dataset.ignore_label))
                for number, of_entry in enumerate(labels)
            ),
            accuracies=tuple(None if s is None else s.pixel_accuracy for s in scores),
            ious=tuple(None if s is None else s.mean_iou for s in scores),
            class_ious={c: tuple(float(s.iou[c] or 0) for s in scores if s is not None) for c in present},
        )


def _jpeg(image: np.ndarray, size: tuple[int, int]) -> bytes:
    picture = photograph(image)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _resized(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if labels.shape[::-1] == size:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))


def _errors(truth: np.ndarray, labels: np.ndarray, ignore_label: int) -> bytes:
    marks = np.where(truth == ignore_label, _UNLABELLED, np.where(truth == labels, _RIGHT, _WRONG)).astype(np.uint8)
    picture = Image.fromarray(marks)
    picture.putpalette(_ERROR_COLOURS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", transparency=_ERROR_OPACITY, bits=2)
    return buffer.getvalue()


def megabytes(gallery: Sequence[Picture]) -> float:
    """Sum the sizes of all pictures, as data URIs."""
    return sum(len(file.content) for picture in gallery for file in picture.files) * 4 / 3 / 1e6


def picture_folder(page: Path) -> Path:
    """Name the folder of a page's pictures, for a page that does not hold them itself."""
    return page.with_name(f"{page.stem}_files")


def write_beside(page: Path, gallery: Sequence[Picture]) -> None:
    """Write the pictures into the page's folder, in place of those of an earlier page.

    Raises:
        UserError: the folder is there and holds something else.
    """
    folder = picture_folder(page)
    check_is_ours(folder)
    with partial_folder(folder) as partial:
        for file in _files(gallery):
            with naming(folder / file.name):
                (partial / file.name).write_bytes(file.content)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)


def remove_beside(page: Path) -> None:
    """Remove the pictures of an earlier page of this name that was larger; a folder of anything else stays."""
    folder = picture_folder(page)
    if folder.is_dir() and all(_OUR_FILE.fullmatch(file.name) for file in folder.iterdir()):
        shutil.rmtree(folder)


def check_is_ours(folder: Path) -> None:
    """Make sure that nothing but a page's pictures is lost where `folder` is written anew.

    Raises:
        UserError: something else is there; names it.
    """
    if not folder.exists():
        return
    other = next((file for file in folder.iterdir() if not _OUR_FILE.fullmatch(file.name)), None)
    if other is not None:
        raise UserError(f"{folder}: the page's pictures go there, and {other.name} is in the way (another --out?)")


def _files(gallery: Sequence[Picture]) -> Iterator[File]:
    return (file for picture in gallery for file in picture.files)
