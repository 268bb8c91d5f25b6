"""Snapshots (checkpoints) of a training: finding the newest whole one, and keeping only a few.

A snapshot is a pair of files, `..._iter_N.caffemodel` (weights) and `..._iter_N.solverstate` (the solver's history,
and, where the weights are averages, those that are trained).
Caffe writes first the one, then the other, in place: a process killed while it writes leaves a part of a file.
Once both are whole, their SHA-256 are noted beside them (`renet/weights/checksums.py`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from renet.weights.checksums import checksum_fault, checksum_file, write_checksums

_STATE_NAME = re.compile(r".*_iter_(\d+)\.solverstate")
# Values that a solver remembers of each weight; one where it is not named.
_HISTORIES = {"Adam": 2, "AdamW": 2, "AdaDelta": 2}


@dataclass(frozen=True)
class Snapshot:
    """Pair of files; either may be missing or broken until `fault` says that it is not.

    Attributes:
        iteration: N of the files' names.
        state: the .solverstate file.
    """

    iteration: int
    state: Path

    @property
    def weights(self) -> Path:
        """Name the .caffemodel file."""
        return self.state.with_suffix(".caffemodel")

    def fault(self, solver_type: str = "SGD") -> str | None:
        """Find what is wrong with the pair, naming the file; None where it is whole.

        Whole means: both files parse, the state's last field is there, every blob holds as many values as its shape
        says, all of them finite, and the weights have all the blobs whose histories the state of such a solver holds.
        Where their SHA-256 are noted, the files are those that were written.
        """
        state = caffe_pb2.SolverState()
        network = caffe_pb2.NetParameter()
        changed = []
        for file, message in ((self.state, state), (self.weights, network)):
            try:
                content = file.read_bytes()
                message.ParseFromString(content)
            except FileNotFoundError:
                return f"{file}: missing"
            except DecodeError:
                return f"{file}: only a part of a snapshot"
            changed.append(checksum_fault(file, content))
        if not state.HasField("current_step") or state.iter != self.iteration:
            return f"{self.state}: only a part of a snapshot"
        weights = [blob for layer in network.layer for blob in layer.blobs]
        for file, blobs in ((self.state, [*state.history, *state.weights]), (self.weights, weights)):
            for blob in blobs:
                if len(blob.data) + len(blob.double_data) != math.prod(blob.shape.dim):
                    return f"{file}: only a part of a snapshot"
                if not np.isfinite(np.asarray(blob.data or blob.double_data)).all():
                    return f"{file}: has values that are infinite or no numbers"
        histories = Counter(tuple(blob.shape.dim) for blob in state.history)
        present = Counter(tuple(blob.shape.dim) for blob in weights)
        each = _HISTORIES.get(solver_type, 1)
        if any(count > each * present[shape] for shape, count in histories.items()):
            return f"{self.weights}: only a part of a snapshot"
        return next((fault for fault in changed if fault is not None), None)

    def forget_checksums(self) -> None:
        """Delete the note of the files' SHA-256, before other files are written in their place."""
        checksum_file(self.state).unlink(missing_ok=True)

    def note_checksums(self) -> None:
        """Note the SHA-256 of both files beside them."""
        write_checksums([self.weights, self.state])

    def remove(self) -> None:
        """Delete the files, the state first, so that no state is ever without its weights."""
        self.state.unlink(missing_ok=True)
        self.weights.unlink(missing_ok=True)
        self.forget_checksums()


def find(folder: Path) -> list[Snapshot]:
    """List the snapshots of a folder, newest (most iterations) first, whole or not."""
    found = [
        Snapshot(int(match[1]), file)
        for file in folder.glob("*.solverstate")
        if (match := _STATE_NAME.fullmatch(file.name))
    ]
    return sorted(found, key=lambda snapshot: -snapshot.iteration)


def newest_whole(folder: Path, solver_type: str) -> tuple[Snapshot | None, list[str]]:
    """Find the newest snapshot of a folder without a fault, and the faults of those that are newer."""
    faults = []
    for snapshot in find(folder):
        fault = snapshot.fault(solver_type)
        if fault is None:
            return snapshot, faults
        faults.append(fault)
    return None, faults


def prune(folder: Path, newest: int, keep: int, best: int | None = None) -> None:
    """Delete all but the last `keep` of the snapshots up to iteration `newest`, and that of iteration `best`.

    Later ones are left alone: a resumed training found them broken, and will write them again.
    """
    for snapshot in [snapshot for snapshot in find(folder) if snapshot.iteration <= newest][keep:]:
        if snapshot.iteration != best:
            snapshot.remove()
