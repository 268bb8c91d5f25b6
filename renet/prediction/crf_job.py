"""The dense CRF over many images whose class probabilities were saved, on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.archives import load_npz
from renet.common.errors import UserError
from renet.data.image_ids import named_file
from renet.data.split_reader import SplitReader
from renet.prediction.crf_inference import DenseCrf
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.image_job import (
    PROBABILITY_MAPS,
    RECORD,
    Finished,
    ImageJob,
    Item,
    Started,
    read_image,
    read_record,
    write_outputs,
)
from renet.prediction.probabilities import check_probabilities, most_probable
from renet.runtime.worker_process import NativeCrash, run_native_together

_VALUE_BYTES = 8  # of a probability at most
_HEADER_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class CrfJob(ImageJob):
    """Images for the CRF.

    Attributes:
        predictions: folder that `predict.py --probabilities` wrote.
        parameters: of the CRF.
    """

    predictions: Path
    parameters: CrfParameters

    def origin(self) -> dict[str, Any]:
        """See `ImageJob.origin`: the network's, with the CRF among the settings."""
        record = prediction_record(self.predictions)
        kept = {name: record[name] for name in ("model", "model_sha256", "weights", "weights_sha256")}
        return {**kept, "settings": {**record["settings"], "crf": asdict(self.parameters)}}


def prediction_record(predictions: Path) -> dict[str, Any]:
    """The record of a folder of predictions that a CRF can be laid over.

    Raises:
        UserError: no such folder, no record in it, or a CRF was applied there already.
    """
    record = read_record(predictions)
    if record is None or not isinstance(record.get("settings"), dict):
        raise UserError(f"{predictions}: not a folder of predict.py's (no {RECORD})")
    if record["settings"].get("crf"):
        raise UserError(f"{predictions}: these are predictions after a CRF already")
    return record


def probability_file(predictions: Path, image_id: str) -> Path:
    """Where predict.py keeps the probabilities of an image."""
    return named_file(predictions / PROBABILITY_MAPS, image_id, ".npz")


def check_probabilities_exist(predictions: Path, items: Sequence[Item]) -> None:
    """Make sure, before the work begins, that every image has its probabilities.

    Raises:
        UserError: names the first that is missing and counts the others.
    """
    missing = [item for item in items if not probability_file(predictions, item.image_id).is_file()]
    if missing:
        raise UserError(
            f"{probability_file(predictions, missing[0].image_id)}: missing; {len(missing)} of {len(items)} images "
            "have no saved probabilities (predict.py --probabilities writes them)"
        )


def read_probabilities(file: Path, classes: int, image: np.ndarray) -> np.ndarray:
    """Saved probabilities of `image` (H x W x 3): C x H x W float16.

    Raises:
        UserError: missing, damaged, or of other classes or another size than the image; names the file.
    """
    most = _VALUE_BYTES * classes * image.shape[0] * image.shape[1] + _HEADER_BYTES
    probabilities = load_npz(file, most, what="probabilities of predict.py").get("probabilities")
    if probabilities is None:
        raise UserError(f"{file}: not probabilities of predict.py: it holds none")
    expected = (classes, *image.shape[:2])
    if probabilities.shape != expected:
        got, wanted = (" x ".join(map(str, shape)) for shape in (probabilities.shape, expected))
        raise UserError(f"{file}: probabilities are {got}, the image with its classes is {wanted}")
    if probabilities.dtype.kind != "f":
        raise UserError(f"{file}: has values of the type {probabilities.dtype}, expected floating point")
    check_probabilities(probabilities, f"{file}:")
    return probabilities


def shares(items: Sequence[Item], processes: int) -> list[tuple[Item, ...]]:
    """The images dealt out to at most `processes`, none of them empty."""
    return [tuple(items[start::processes]) for start in range(min(processes, len(items)))]


def perform(job: CrfJob) -> Iterator[Started | Finished]:
    """Do every image of the job; meant for a process of its own (see `worker_process`).

    Raises:
        UserError: an image or its probabilities are broken; names the file.
    """
    crf = DenseCrf(len(job.dataset.classes), job.parameters)
    with ExitStack() as stack:
        reader = stack.enter_context(SplitReader(job.split)) if job.split is not None else None
        for item in job.items:
            yield Started(item.image_id)
            image = read_image(item, reader)
            file = probability_file(job.predictions, item.image_id)
            probabilities = read_probabilities(file, len(job.dataset.classes), image)
            start = time.perf_counter()
            with item.named():
                sharpened = crf.apply(probabilities, image)
            seconds = time.perf_counter() - start
            write_outputs(job, item, image, most_probable(sharpened), sharpened)
            yield Finished(item.image_id, seconds)


def perform_together(job: CrfJob, processes: int) -> Iterator[Finished]:
    """As `perform`, by several processes of one thread each, which together are faster than one of many threads.

    Raises:
        UserError: as `perform`; also where Caffe stopped, with the image.
    """
    parts = [(replace(job, items=share),) for share in shares(job.items, processes)]
    current: dict[int, str] = {}
    try:
        for number, event in run_native_together(perform, parts, {"OMP_NUM_THREADS": "1"}):
            if isinstance(event, Started):
                current[number] = event.image_id
            else:
                yield event
    except NativeCrash as crash:
        raise UserError(f"{current.get(crash.child, 'the CRF')}: Caffe stopped: {crash}") from None
