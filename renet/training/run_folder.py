"""What a training writes beside its prototxts and snapshots: run.json, metrics.jsonl, and a lock."""

from __future__ import annotations

import errno
import fcntl
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from renet.common.errors import UserError, naming, told
from renet.common.files import write_atomically
from renet.common.machine import environment
from renet.networks.trained_run import METRICS, RUN, SNAPSHOTS, read_metadata, read_metrics

LOG = "train.log"
EVENTS = "tensorboard"
SECONDS_OF_A_LOOK = 0.2


class RunFolder:
    """A run's folder, held by one process at a time.

    Attributes:
        path: the folder.
        metadata: content of run.json.
        iteration: how far the training is.
        listener: gets every line of metrics, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = read_metadata(path)
        self.listener: Callable[[dict[str, Any]], None] | None = None
        self.iteration = 0
        self._started = time.monotonic()
        self._before: dict[str, float] = {}

    @property
    def name(self) -> str:
        """The run's name: the folder's."""
        return self.path.resolve().name

    @property
    def snapshots(self) -> Path:
        """The folder of the snapshots."""
        return self.path / SNAPSHOTS

    def is_used(self) -> bool:
        """Whether a training got so far here that there is something to lose."""
        metrics = self.path / METRICS
        written = metrics.is_file() and metrics.stat().st_size > 0
        return written or any(self.snapshots.glob("*_iter_*"))

    def open(self) -> None:
        """Make the folder and hold it until this process ends.

        Raises:
            UserError: another process trains there.
        """
        self.snapshots.mkdir(parents=True, exist_ok=True)
        # Held by the kernel for as long as the process lives, also where it is killed.
        self._lock = open(self.path / LOG, "a")  # noqa: SIM115
        for patience in (SECONDS_OF_A_LOOK, 0):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(patience)  # perhaps somebody was just looking, see `is_held`
        raise UserError(f"{self.path}: another process is training there")

    def begin(self, metadata: dict[str, Any]) -> None:
        """Note the start (or the resumption) of a training in run.json."""
        self.metadata = {
            "name": self.name,
            "started": _now(),
            **self.metadata,
            **metadata,
            "state": "running",
            "finished": None,
        }
        self.metadata |= environment()
        self.metadata.pop("message", None)
        self._before = {key: self.metadata.get(key, 0.0) for key in ("seconds", "processor_seconds")}
        self._started = time.monotonic()
        self.note()

    def seconds(self) -> float:
        """Wall-clock seconds of this training so far, its earlier parts included."""
        return self._before.get("seconds", 0.0) + time.monotonic() - self._started

    def note(self, **metadata: Any) -> None:
        """Bring run.json up to date."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        processor = self._before.get("processor_seconds", 0.0) + used.ru_utime + used.ru_stime
        self.metadata |= {"seconds": round(self.seconds(), 1), "processor_seconds": round(processor, 1), **metadata}
        write_metadata(self.path, self.metadata)

    def end(self, state: str, **metadata: Any) -> None:
        """Note how the training ended: `finished`, `interrupted` or `failed`."""
        self.note(state=state, iteration=self.iteration, finished=_now(), **metadata)

    @contextmanager
    def failures_noted(self) -> Iterator[None]:
        """Note any exception as the end of the training, and why."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):  # where the disk is full there is no room for this, either
                self.end("failed", message=_in_one_line(error))
            raise

    def add_metrics(self, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        file = self.path / METRICS
        with naming(file), open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")
        if self.listener is not None:
            self.listener(values)

    def cut_metrics(self, iteration: int) -> list[dict[str, Any]]:
        """Drop the lines after `iteration`, and one that a killed process left half written; return the rest."""
        kept = [line for line in read_metrics(self.path) if line["iteration"] <= iteration]
        write_atomically(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())
        return kept


class SilentRunFolder(RunFolder):
    """A run's folder as a process sees it whose first rank (`Ranks`) alone writes there."""

    def begin(self, metadata: dict[str, Any]) -> None:
        """Begin the time of this training."""
        self._started = time.monotonic()

    def note(self, **metadata: Any) -> None:
        """Note nothing."""

    def add_metrics(self, **values: Any) -> None:
        """Append nothing."""


def is_held(folder: Path) -> bool:
    """Whether a process trains in the folder."""
    try:
        with open(folder / LOG, "rb") as log:
            fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise_for_want_of_files(error)
        return False  # nothing was ever trained there, or it is none of ours
    return False


def raise_for_want_of_files(error: OSError) -> None:
    """Raise the error again where this process may open no more files, so that it says nothing of the file."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error


def note_death(folder: Path, state: str, reason: str) -> None:
    """Write into run.json of a training that could not do so itself how it ended."""
    metadata = read_metadata(folder)
    if metadata:
        write_metadata(folder, metadata | {"state": state, "message": reason, "finished": _now()})


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return told(error)
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")


def write_metadata(folder: Path, metadata: dict[str, Any]) -> None:
    """Write run.json, whole or not at all."""
    write_atomically(folder / RUN, (json.dumps(metadata, indent=2) + "\n").encode())
