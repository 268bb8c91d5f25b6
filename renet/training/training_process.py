"""The training that other programs embed: in a child process, so that Caffe never ends the caller."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from renet.common.errors import UserError
from renet.common.scratch import scratch_folder
from renet.runtime.builds import import_gpu_build, solver_asks_for_gpu
from renet.runtime.watched_process import BYTES_OF_NOTES, Work, death_of, signal_at_death_of
from renet.runtime.worker_process import NativeCrash, run_native
from renet.training.run_folder import note_death
from renet.training.run_state import TrainingResult

if TYPE_CHECKING:
    from renet.training.session import TrainingSettings

AnyPath = str | os.PathLike[str]


def train(
    solver: AnyPath | None,
    run: AnyPath,
    *,
    iterations: int | None = None,
    seed: int | None = None,
    weights: AnyPath | Sequence[AnyPath] = (),
    gpu: int | None = None,
    resume: bool = False,
    keep: int = 3,
    keep_best: str | None = None,
    patience: int | None = None,
    tensorboard: bool = False,
    verbose: bool = False,
) -> TrainingResult:
    """Train a network as `tools/train.py` does, and wait for its end.

    Ctrl-C ends the training with a snapshot, and then raises KeyboardInterrupt; a second one ends it at once.

    Args:
        solver: the solver prototxt; None where `run` is resumed.
        run: the run's folder.
        iterations: in place of the solver's max_iter.
        seed: of weights and samples, in place of the solver's.
        weights: file or files to start from, by layers' names, in place of those that the solver names.
        gpu: device number; None: as the solver says.
        resume: go on from the run's newest whole snapshot.
        keep: how many snapshots stay.
        keep_best: also keep the snapshot of the test with the best `mean_iou`, `class_accuracy`, `pixel_accuracy` or
            `loss`; a resumption goes on with it.
        patience: finish after so many tests without a better one; likewise.
        tensorboard: also write the metrics as event files into the run's folder.
        verbose: tell the progress on stderr.

    Raises:
        UserError: wrong or missing files, a run that is there already, a training that diverges, or Caffe stopped it;
            run.json tells it, too.
    """
    numbers = (("iterations", iterations, 1), ("seed", seed, 0), ("gpu", gpu, 0), ("keep", keep, 1))
    for name, value, least in (*numbers, ("patience", patience, 1)):
        if value is not None and value < least:
            raise UserError(f"{name} is {value}, and must be {least} or more")
    files = [weights] if isinstance(weights, str | os.PathLike) else weights
    asked: dict[str, Any] = {
        "solver": None if solver is None else Path(solver),
        "run": Path(run),
        "iterations": iterations,
        "seed": seed,
        "weights": tuple(map(Path, files)),
        "gpu": gpu,
        "resume": resume,
        "keep": keep,
        "keep_best": keep_best,
        "patience": patience,
        "tensorboard": tensorboard,
    }
    with scratch_folder() as scratch:
        notes = scratch / "notes"
        notes.write_bytes(bytes(BYTES_OF_NOTES))
        try:
            events = run_native(_trained, asked, str(notes), os.getpid(), hears=sys.stderr.write if verbose else None)
            child = next(events)
            with _interruptions_sent_to(child) as interrupted:
                result: TrainingResult = next(events)
            events.close()
        except NativeCrash as crash:
            death = death_of(crash.signal or 0, notes.read_bytes()) if crash.signal else None
            if death is None or death.log is None:
                raise UserError(f"{run}: {crash}") from None
            note_death(Path(run), "failed", death.reason)
            raise UserError(f"{death.reason} (log: {death.log})") from None
    if interrupted:
        raise KeyboardInterrupt
    return result


def _trained(asked: dict[str, Any], notes: str, parent: int) -> Iterator[int | TrainingResult]:
    """Train in this process; yields its number first, for those who want it to stop, and then the result."""
    if asked["gpu"] is not None or solver_asks_for_gpu(asked["solver"], asked["run"] if asked["resume"] else None):
        import_gpu_build()
    from renet.training.session import TrainingSettings, perform  # Caffe comes with it

    with open(notes, "r+b") as file:
        work = Work(notes=mmap.mmap(file.fileno(), BYTES_OF_NOTES))
    work.listen()
    signal_at_death_of(parent, signal.SIGTERM)
    yield os.getpid()
    settings: TrainingSettings = TrainingSettings(**asked)
    yield perform(settings, work)


@contextmanager
def _interruptions_sent_to(child: int) -> Iterator[list[int]]:
    """Let the first Ctrl-C ask the child to stop, and the second raise KeyboardInterrupt; yields those that came."""
    came: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
