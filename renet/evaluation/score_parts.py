"""Counts of a part of the images in a file, and the scores that all parts' files come to.

Part 3 of 8 of what `scores.json` is to hold is `scores.parts/3_of_8.npz`: every count that a score, an interval or a
comparison is computed of, so that the scores of the joined parts are those of one evaluation, bit for bit.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.archives import load_npz
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.parts import Part, find_parts
from renet.evaluation.boundaries import Boundaries
from renet.evaluation.image_counts import ClassCounts, ImageCounts
from renet.evaluation.scores import Evaluation, Tally
from renet.evaluation.sizes import Sizes

_ENDING = ".npz"
_MOST_BYTES = 2**33  # counts of a million images and a hundred classes


@dataclass(frozen=True)
class Subject:
    """What is scored, of which all parts must be the same.

    Attributes:
        dataset: its name.
        classes: names of the C classes.
        images: number of all images.
        image_ids_sha256: over all ids in their order.
        labels_sha256: of a prepared split's records; empty where the truth is a folder.
        predictions: the network, weights and settings of predict.py's folder; null where others wrote it.
        boundary_tolerance: None where boundaries are not scored.
        size_shares: None where sizes are not scored.
    """

    dataset: str
    classes: list[str]
    images: int
    image_ids_sha256: str
    labels_sha256: str
    predictions: Any
    boundary_tolerance: float | None
    size_shares: list[float] | None


def ids_sha256(image_ids: Sequence[str]) -> str:
    """Compute the SHA-256 over ids in their order, in hexadecimal."""
    return hashlib.sha256(json.dumps(list(image_ids)).encode()).hexdigest()


def folder_of(scores: Path) -> Path:
    """Find the folder of the parts of a file of scores."""
    return scores.with_suffix(".parts")


def write_part(scores: Path, part: Part, subject: Subject, tally: Tally) -> Path:
    """Write the counts of a part's images beside the file of scores that all parts come to; the part's file."""
    header = {
        "part": str(part),
        "subject": asdict(subject),
        "image_ids": tally.image_counts.image_ids,
        "ignored_pixels": tally.ignored_pixels,
    }
    arrays = {"confusion": tally.confusion} | _columns("images", tally.image_counts.counts)
    if tally.boundaries is not None:
        arrays |= _columns("trimap", tally.boundaries.trimap) | {"boundary_f": tally.boundaries.f}
    if tally.sizes is not None:
        arrays |= _columns("sizes", tally.sizes.counts) | {"regions": tally.sizes.regions}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    file = folder_of(scores) / f"{part.name}{_ENDING}"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())
    return file


def join_parts(scores: Path) -> tuple[Evaluation, str]:
    """Join the parts of a file of scores.

    Returns:
        What one evaluation of all images gives, and the dataset's name.

    Raises:
        UserError: a part is missing, damaged, or of something else than the others; names it and what differs.
    """
    files = find_parts(folder_of(scores), _ENDING)
    tallies, first = [], None
    for file in files:
        subject, tally = _read(file)
        if first is None:
            first = subject
        differing = next((name for name, value in asdict(first).items() if asdict(subject)[name] != value), None)
        if differing is not None:
            raise UserError(f"{file}: is of something else than {files[0].name}: {differing.replace('_', ' ')} differs")
        tallies.append(tally)
    assert first is not None, "find_parts finds one"
    whole = Tally.joined(tallies)
    if ids_sha256(whole.image_counts.image_ids) != first.image_ids_sha256:
        raise UserError(f"{folder_of(scores)}: the parts are not shares of one list of images; score them anew")
    try:
        return Evaluation.of_tally(whole, first.classes), first.dataset
    except ValueError as error:
        raise UserError(f"{folder_of(scores)}: {error}") from None


def _columns(name: str, counts: ClassCounts) -> dict[str, np.ndarray]:
    return {f"{name}_{column}": values for column, values in vars(counts).items()}


def _read(file: Path) -> tuple[Subject, Tally]:
    try:
        arrays = load_npz(file, _MOST_BYTES, what="a part of scores of evaluate.py")
    except UserError as error:
        raise UserError(f"{error}; score it anew") from None
    try:
        header = json.loads(arrays["header"].tobytes())
        subject = Subject(**header["subject"])
        image_ids = tuple(header["image_ids"])

        def counts(name: str) -> ClassCounts:
            return ClassCounts(*(arrays[f"{name}_{column}"] for column in ClassCounts.__annotations__))

        along = by_size = None
        if "boundary_f" in arrays:
            along = Boundaries(subject.boundary_tolerance or 0.0, image_ids, counts("trimap"), arrays["boundary_f"])
        if "regions" in arrays:
            by_size = Sizes(tuple(subject.size_shares or ()), image_ids, counts("sizes"), arrays["regions"])
        of_images = ImageCounts(image_ids, counts("images"))
        return subject, Tally(arrays["confusion"], header["ignored_pixels"], of_images, along, by_size)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not a part of scores of evaluate.py, or damaged ({error}); score it anew") from None
