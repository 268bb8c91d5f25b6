"""Verification of what is kept for long: prepared datasets, snapshots and model folders, by their SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.data.dataset import FILE_NAME, Dataset
from renet.data.split_reader import IMAGES, RecordDigest, SplitReader
from renet.networks.model_folder import MODEL, read_model_folder
from renet.networks.trained_run import RUN, SNAPSHOTS, SOLVER
from renet.runtime.worker_process import NativeCrash, run_native


def verify(path: Path) -> Iterator[str]:
    """Verify a prepared dataset, one split of it, a run's folder or a model folder.

    Args:
        path: the folder.

    Yields:
        A line for each part that is sound.

    Raises:
        UserError: something is damaged, or is none of these; names file and record.
    """
    if (path / IMAGES).is_dir():
        yield verify_split(path)
    elif (path / MODEL).is_file():
        read_model_folder(path)
        yield f"{path}: model folder, every file as it was packed"
    elif (path / RUN).is_file():
        yield from _verify_run(path)
    elif (path / FILE_NAME).is_file():
        dataset = Dataset.open(path)
        if not dataset.splits:
            raise UserError(f"{path / FILE_NAME}: names no split")
        for name in dataset.splits:
            yield verify_split(path / name)
    else:
        raise UserError(f"{path}: no prepared dataset or split, no run's folder and no model folder")


def verify_split(split: Path) -> str:
    """Read every record of a prepared split, and compare their SHA-256 with the one in its dataset.json.

    It is read in a process of its own, which damage of the database may kill.

    Returns:
        A line that says what it holds.

    Raises:
        UserError: it is damaged, or holds other records than were written; names them.
    """
    dataset = Dataset.of_split(split)
    summary = None if dataset is None else dataset.summary_of(split)
    events = run_native(_records, split, dataset)
    try:
        count = next(events)
        for _ in progress(range(count), description=str(split), unit="image"):
            next(events)
        found = next(events)
    except NativeCrash as crash:
        raise UserError(f"{split}: damaged: reading it ends the process ({crash}); copy or prepare it anew") from None
    images = f"{split}: {count} image{'' if count == 1 else 's'}"
    if summary is None or not summary.sha256:
        return f"{images}, all readable; no dataset.json tells their SHA-256"
    if (count, found) != (summary.count, summary.sha256):
        raise UserError(
            f"{split}: is not what was prepared: {count} images of SHA-256 {found}, and {FILE_NAME} tells of "
            f"{summary.count} of {summary.sha256}; copy or prepare it anew"
        )
    return f"{images}, as they were prepared"


def _records(split: Path, dataset: Dataset | None) -> Iterator[int | str | None]:
    """Yield the number of samples, then once for each that is sound, then the SHA-256 of all."""
    digest = RecordDigest()
    with SplitReader(split) as reader:
        yield len(reader)
        for index, record in enumerate(reader.records()):
            digest.add(*record)
            reader.image(index)
            label = reader.label(index)
            if label is not None and dataset is not None:
                wrong = label[(label >= len(dataset.classes)) & (label != dataset.ignore_label)]
                if wrong.size:
                    raise UserError(
                        f"{split}: record {reader.keys()[index]}: the label {np.min(wrong)} is no class: 0 to "
                        f"{len(dataset.classes) - 1}, or {dataset.ignore_label} (ignored)"
                    )
            yield None
    yield digest.hexdigest()


def _verify_run(run: Path) -> Iterator[str]:
    from renet.runtime.prototxt import read_solver  # Caffe comes with them
    from renet.weights import snapshots
    from renet.weights.checksums import noted_checksum

    solver_type = read_solver(run / SOLVER).type
    found = snapshots.find(run / SNAPSHOTS)
    if not found:
        raise UserError(f"{run / SNAPSHOTS}: no snapshot")
    for snapshot in found:
        fault = snapshot.fault(solver_type)
        if fault is not None:
            raise UserError(fault)
        known = "as it was written" if noted_checksum(snapshot.weights) else "whole; its SHA-256 is not known"
        yield f"{snapshot.state.with_suffix('')}: snapshot, {known}"
