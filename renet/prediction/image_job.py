"""Predictions of many images in a folder: what is to be done, what is done already, and how a result is written."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from renet.common.errors import UserError
from renet.common.files import write_atomically, write_new
from renet.common.json_schema import STRICT, read_json_as
from renet.common.parts import WHOLE, Part
from renet.data.dataset import Dataset
from renet.data.image_formats import read_image_bytes
from renet.data.image_ids import check_name, named_file
from renet.data.images import normalise
from renet.data.label_maps import write_label_map
from renet.data.overlay import draw_overlay
from renet.data.split_reader import SplitReader, decode_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
RECORD = "prediction.json"
OVERLAYS = "overlay"
PROBABILITY_MAPS = "probabilities"


class _Record(TypedDict, total=False):
    """RECORD, as far as it is read; earlier versions wrote less."""

    __pydantic_config__ = STRICT
    model: str
    model_sha256: str
    weights: str
    weights_sha256: str
    classes: list[str]
    settings: dict[str, Any]
    seconds_per_image: float
    device: str


_RECORD: TypeAdapter[dict[str, Any]] = TypeAdapter(_Record)


@dataclass(frozen=True)
class Item:
    """One image: a file, or a sample of the job's split.

    Attributes:
        image_id: names the outputs.
        file: the image's file; None where it is in the split.
        index: its number in the split; -1 where it is a file.
    """

    image_id: str
    file: Path | None = None
    index: int = -1

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let what is wrong with this image be told with its name."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.file or self.image_id}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class ImageJob(ABC):
    """Images to predict and what to write of each.

    Attributes:
        dataset: names and colours of the classes.
        out: folder of the results.
        items: images to predict.
        split: prepared split that `items` number into; None for files.
        overlay: write overlays, too.
        probabilities: write probability maps, too.
    """

    dataset: Dataset
    out: Path
    items: tuple[Item, ...]
    split: Path | None = None
    overlay: bool = False
    probabilities: bool = False

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What makes the predictions, as JSON: model, model_sha256, weights, weights_sha256, settings.

        Raises:
            UserError: a file of it is missing.
        """

    def outputs(self, image_id: str) -> list[Path]:
        """The files that one image's prediction consists of; the label map comes last, when all else is written."""
        files = []
        if self.probabilities:
            files.append(named_file(self.out / PROBABILITY_MAPS, image_id, ".npz"))
        if self.overlay:
            files.append(named_file(self.out / OVERLAYS, image_id, ".jpg"))
        return [*files, named_file(self.out, image_id, ".png")]

    def is_done(self, item: Item) -> bool:
        """Whether all of the image's outputs exist (each is written whole or not at all)."""
        return all(file.is_file() for file in self.outputs(item.image_id))


@dataclass(frozen=True)
class Started:
    """The network is about to see this image."""

    image_id: str


@dataclass(frozen=True)
class Advanced:
    """So many rows of the image are predicted, of the height of it."""

    image_id: str
    rows: int
    height: int


@dataclass(frozen=True)
class Finished:
    """The image's outputs are written; `seconds` is the time from pixels to probabilities."""

    image_id: str
    seconds: float


def items_of_files(inputs: Sequence[Path]) -> tuple[Item, ...]:
    """The images among files and folders (a folder's own files, not those of its subfolders), by file name.

    Raises:
        UserError: a path does not exist, a folder holds no image, or two images have one id.
    """
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(
                f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")
            )
            if not found:
                raise UserError(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    by_id: dict[str, Path] = {}
    for file in files:
        check_name(file.name, file.parent)
        other = by_id.setdefault(file.stem, file)
        if other is not file:
            raise UserError(f"{file}: has the same image id as {other}, so both would be {file.stem}.png")
    return tuple(Item(image_id, file=file) for image_id, file in by_id.items())


def items_of_split(split: Path) -> tuple[Item, ...]:
    """The samples of a prepared split, in order.

    Raises:
        UserError: `split` is no prepared split.
    """
    with SplitReader(split) as reader:
        return tuple(Item(image_id, index=index) for index, image_id in enumerate(reader.ids()))


def open_folder(job: ImageJob, overwrite: bool, shared: bool = False) -> tuple[Item, ...]:
    """Make the output folder, record in it what predicts, and say which images are still to do.

    Predictions of two networks must not mix in one folder, so what an earlier call with other settings left there is an
    error, or is removed with `overwrite`.

    Args:
        job: the images.
        overwrite: predict them anew.
        shared: other processes may be at work there, each with a part of the images.

    Raises:
        UserError: the folder holds other predictions, or a source image would be overwritten.
    """
    for item in job.items:
        for file in job.outputs(item.image_id):
            if item.file is not None and file.exists() and file.samefile(item.file):
                raise UserError(f"{item.file}: the prediction would overwrite the image; choose another --out")
    record_file = job.out / RECORD
    record = {**job.origin(), "dataset": job.dataset.name, "classes": list(job.dataset.classes)}
    earlier = read_record(job.out)
    if earlier is not None and not shared and not any(job.out.glob("*.png")):
        earlier = None  # that call failed before its first image
    if overwrite:
        _remove_predictions(job, everything=earlier is not None)
    elif earlier is None:
        present = [item for item in job.items if (job.out / f"{item.image_id}.png").exists()]
        if present:
            raise UserError(
                f"{job.out / present[0].image_id}.png: exists and is not known to be a prediction of this network; "
                "choose another --out, or say --overwrite"
            )
    elif identity(earlier) != identity(record):
        raise UserError(
            f"{job.out}: holds predictions of another network or with other settings ({RECORD} says which); "
            "choose another --out, or say --overwrite"
        )
    for file in job.outputs("any"):
        file.parent.mkdir(parents=True, exist_ok=True)
    if overwrite or earlier is None:
        content = (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()
        if shared and not write_new(record_file, content):
            return open_folder(job, overwrite, shared)  # another part was quicker, maybe of another network
        if not shared:
            write_atomically(record_file, content)
    return tuple(item for item in job.items if not job.is_done(item))


def begin(job: ImageJob, overwrite: bool, part: Part = WHOLE) -> tuple[Item, ...]:
    """As `open_folder`, and tell a person what is done already.

    Args:
        job: the images, of a part its own alone.
        overwrite: predict them anew.
        part: which part of all images they are.

    Raises:
        UserError: as `open_folder` does; or a part is to overwrite, which would remove what the others do.
    """
    if part != WHOLE and overwrite:
        raise UserError(
            f"--part does not go with --overwrite; remove {job.out} before the parts begin, or take another"
        )
    left = open_folder(job, overwrite, shared=part != WHOLE)
    if part != WHOLE:
        print(f"part {part}: {len(job.items)} images")
    if len(left) < len(job.items):
        print(f"{len(job.items) - len(left)} of {len(job.items)} images are done already")
    if not left:
        print(f"nothing left to do in {job.out}")
    return left


def record_time(out: Path, seconds: Sequence[float], device: str) -> None:
    """Add to the folder's record how long one image took (the median) and where."""
    record = read_record(out)
    if record is None or not seconds:
        return
    record.update(seconds_per_image=round(float(np.median(seconds)), 5), timed_images=len(seconds), device=device)
    write_atomically(out / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a folder of predictions says of how they were made; None where it says nothing.

    Raises:
        UserError: the record is damaged.
    """
    file = folder / RECORD
    try:
        return read_json_as(file, _RECORD) if file.is_file() else None
    except UserError as error:
        raise UserError(f"{error}; remove it together with the predictions beside it") from None


def identity(record: dict[str, Any]) -> tuple[Any, ...]:
    """The part of a record that tells whether two predictions of an image are the same."""
    settings = record.get("settings")
    if isinstance(settings, dict):  # an older record lacks what was added later, whose default is null, or this
        settings = {"scales": [1.0]} | {name: value for name, value in settings.items() if value is not None}
        if "crf" in settings:
            settings["crf"] = {"normalization": "SYMMETRIC"} | settings["crf"]
    return (*(record.get(key) for key in ("model_sha256", "weights_sha256", "classes")), settings)


def _remove_predictions(job: ImageJob, everything: bool) -> None:
    """Remove this job's outputs; `everything` also those of other images (the folder is known to be predict's)."""
    files = [file for item in job.items for file in job.outputs(item.image_id)]
    if everything:
        files += [
            *job.out.glob("*.png"),
            *job.out.glob(f"{OVERLAYS}/*.jpg"),
            *job.out.glob(f"{PROBABILITY_MAPS}/*.npz"),
        ]
    for file in files:
        file.unlink(missing_ok=True)


def read_image(item: Item, reader: SplitReader | None) -> np.ndarray:
    """One image, H x W x 3 uint8, BGR: from the job's split, or from its file.

    Raises:
        UserError: the image is broken; names it.
    """
    if reader is not None:
        return reader.image(item.index)
    assert item.file is not None, "an item of a job without a split is a file"
    return decode_image(normalise(read_image_bytes(item.file), str(item.file)).data)


def write_outputs(
    job: ImageJob, item: Item, image: np.ndarray, labels: np.ndarray, probabilities: np.ndarray | None
) -> None:
    """Write what the job asks for of one image, each file whole or not at all.

    Args:
        job: says which outputs, and where.
        item: the image.
        image: H x W x 3 uint8, BGR.
        labels: H x W uint8.
        probabilities: C x H x W float32; needed where the job asks for them.
    """
    files = job.outputs(item.image_id)
    if job.probabilities:
        assert probabilities is not None, "the job's inference keeps them"
        buffer = io.BytesIO()
        np.savez_compressed(buffer, probabilities=probabilities.astype(np.float16))
        write_atomically(files[0], buffer.getvalue())
    if job.overlay:
        buffer = io.BytesIO()
        draw_overlay(image, labels, job.dataset).save(buffer, format="JPEG", quality=92, subsampling=0)
        write_atomically(files[-2], buffer.getvalue())
    write_label_map(files[-1], labels, job.dataset)
