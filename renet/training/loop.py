"""The loop of a training: steps of Caffe's solver, with progress, tests, metrics and snapshots that are looked into."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import caffe
import numpy as np

from renet.common.errors import UserError
from renet.common.progress import draws_bars, progress
from renet.runtime.watched_process import Work
from renet.training.files import TEST, TestNetwork, TrainingFiles
from renet.training.run_folder import RunFolder
from renet.training.scores import build as build_test
from renet.training.scores import check_classes, find_heads, main_head, told, total_loss
from renet.training.scores import score as score_test
from renet.weights import snapshots

DEFAULT_DISPLAY = 20
WIDE_TERMINAL = 130  # columns that hold a run's name beside all that the bar tells
SCORES = {"pixel_accuracy": "pixel accuracy", "class_accuracy": "class accuracy", "mean_iou": "mean IoU"}


def is_finite(network: caffe.Net) -> bool:
    """Whether all weights are numbers, and finite."""
    return all(np.isfinite(blob.data).all() for blobs in network.params.values() for blob in blobs)


@dataclass
class Interval:
    """Sums over the iterations since the last line of metrics."""

    loss: float = 0.0
    iterations: int = 0
    seconds: float = 0.0

    def add(self, loss: float, seconds: float) -> None:
        """Count one iteration."""
        self.loss += loss
        self.iterations += 1
        self.seconds += seconds


@dataclass
class Training:
    """One solver, run to its end or until it is asked to stop.

    Attributes:
        files: solver and networks.
        folder: where everything goes.
        solver: pycaffe's solver.
        keep: how many snapshots stay.
        work: tells when to stop.
        tested: the results that are in the metrics, by kind of the test and iteration.
        present: loss, speed and learning rate, in words.
    """

    files: TrainingFiles
    folder: RunFolder
    solver: Any
    keep: int
    work: Work
    tested: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    present: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.losses: list[float] = []  # of the forward passes of one iteration
        if self.files.solver.iter_size > 1:
            last = len(self.solver.net.layers) - 1
            self.solver.net.after_forward(
                lambda layer: self.losses.append(total_loss(self.solver.net)) if layer == last else None
            )

    def check(self) -> None:
        """Build every test network once, as Caffe's solver would, compare all with their datasets, and say which loss
        of several the scores are of.

        Raises:
            UserError: a network has fewer outputs than its dataset has classes.
        """
        heads = find_heads(self.solver.net, self.files.training_layers)
        notes = list(check_classes(heads, self.files.training_layers, str(self.files.training.origin)))
        for test in self.files.tests:
            _, heads_of_test = build_test(test, self.file_of(test))
            notes += check_classes(heads_of_test, test.layers, str(test.network.origin))
            line = told(heads_of_test)
            notes += [] if line is None else [f"{test.title}: {line}"]
        for note in dict.fromkeys(notes):
            print(note, file=sys.stderr)
        head = main_head(heads)
        first = self.solver.net._blobs[self.solver.net._top_ids(0)[0]] if head is None else head.score
        self.batch = first.shape[0] * self.files.solver.iter_size

    def file_of(self, test: TestNetwork) -> Path:
        """The test's network in the run's folder."""
        return self.folder.path / test.network.name

    def run(self) -> None:
        """Train until max_iter or a stop signal, with a snapshot of the last iteration (after max_iter unless the
        solver wants none).

        Raises:
            UserError: the loss or a weight is no number any more, or a label is out of range.
        """
        start = self.solver.iter
        try:
            self.iterate()
        except BrokenPipeError:
            self.work.stop = signal.SIGPIPE  # nobody reads what it says any more: as if asked to stop
        wanted = self.files.solver.snapshot_after_train or self.solver.iter < self.files.solver.max_iter
        if self.solver.iter > start and wanted and not self.present_snapshot().state.exists():
            self.snapshot()

    def iterate(self) -> None:
        """The iterations, with what is due between them."""
        settings = self.files.solver
        display = settings.display or DEFAULT_DISPLAY
        recent: deque[float] = deque(maxlen=settings.average_loss)
        interval = Interval()
        narrow = draws_bars() and os.get_terminal_size(sys.stderr.fileno()).columns < WIDE_TERMINAL
        name = "" if narrow else self.folder.name
        begin = self.solver.iter
        with progress(total=settings.max_iter, description=name, unit="iteration", initial=begin, rate=False) as bar:
            while True:
                iteration = self.solver.iter
                for test in self.files.tests:
                    if self.test_is_due(test, iteration):
                        self.test(test, iteration, bar)
                if iteration >= settings.max_iter or self.work.stop is not None:
                    break
                rate = self.solver.lr
                began = time.monotonic()
                loss = self.step()
                interval.add(loss, time.monotonic() - began)
                iteration += 1
                self.folder.iteration = iteration
                if not math.isfinite(loss):
                    raise self.diverged(iteration, f"the loss is {loss}")
                recent.append(loss)
                speed = self.batch * interval.iterations / interval.seconds
                self.present = (f"loss {np.mean(recent):.4f}", f"{speed:.1f} images/s", f"rate {rate:.3g}")
                self.show(bar)
                bar.update()
                if iteration % display == 0:
                    self.folder.add_metrics(
                        kind="train",
                        iteration=iteration,
                        loss=interval.loss / interval.iterations,
                        learning_rate=rate,
                        images_per_second=round(speed, 2),
                        seconds=round(self.folder.seconds(), 1),
                    )
                    interval = Interval()
                if settings.snapshot and iteration % settings.snapshot == 0:
                    self.snapshot()

    def step(self) -> float:
        """Do one iteration, and return its loss (the mean of its iter_size passes)."""
        self.losses.clear()
        self.solver.step(1)
        return float(np.mean(self.losses)) if self.losses else total_loss(self.solver.net)

    def show(self, bar: Any) -> None:
        """Tell the present state and the newest test's score on the bar, when it is drawn next."""
        if self.present:
            loss, *others = self.present
            bar.set_postfix_str(", ".join([loss, *shown_score(self.tested.get(TEST, {})), *others]), refresh=False)

    def present_snapshot(self) -> snapshots.Snapshot:
        """The snapshot that belongs to the present iteration, written or not."""
        iteration = self.solver.iter
        return snapshots.Snapshot(iteration, Path(f"{self.files.solver.snapshot_prefix}_iter_{iteration}.solverstate"))

    def test_is_due(self, test: TestNetwork, iteration: int) -> bool:
        """Whether the solver wants a test before this iteration; the last one always gets one."""
        settings = self.files.solver
        if iteration in self.tested.get(test.kind, {}):
            return False
        if iteration == 0:
            return settings.test_interval > 0 and settings.test_initialization
        return iteration >= settings.max_iter or (
            settings.test_interval > 0 and iteration % settings.test_interval == 0
        )

    def test(self, test: TestNetwork, iteration: int, bar: Any) -> None:
        """Score the present weights and write the result down.

        Raises:
            UserError: the loss is no number, or a label is out of range.
        """
        result = score_test(test, self.file_of(test), self.solver.net, self.work)
        if result is None:
            return
        if not math.isfinite(result["loss"]):
            raise self.diverged(iteration, f"{test.title}: the loss is {result['loss']}")
        self.folder.add_metrics(kind=test.kind, iteration=iteration, **result)
        self.tested.setdefault(test.kind, {})[iteration] = result
        text = "".join(f", {name} {100 * result[key]:.2f}" for key, name in SCORES.items() if key in result)
        self.show(bar)
        bar.clear()
        title = test.title if len(self.files.tests) > 1 else test.kind
        print(f"iteration {iteration}: {title} loss {result['loss']:.4f}{text}", file=sys.stderr)

    def snapshot(self) -> None:
        """Write a snapshot of sound weights, look whether it is whole, and delete the oldest.

        Raises:
            UserError: a weight is no number, or what was written is not whole (a full disk, say).
        """
        iteration = self.solver.iter
        if not is_finite(self.solver.net):
            raise self.diverged(iteration, "a weight is infinite or no number")
        snapshot = self.present_snapshot()
        what = f"while writing {snapshot.weights.with_suffix('')}.* (is the disk full?)"
        with self.work.during(what, snapshot.state, snapshot.weights):
            self.solver.snapshot()
        fault = snapshot.fault(self.files.solver.type)
        if fault is not None:
            snapshot.remove()  # of no use, and room for another try
            raise UserError(f"{fault} (just written: is the disk full?)")
        snapshots.prune(self.folder.snapshots, iteration, self.keep)
        self.folder.note(iteration=iteration)

    def diverged(self, iteration: int, what: str) -> UserError:
        """The error of a training that left the numbers."""
        last, _ = snapshots.newest_whole(self.folder.snapshots, self.files.solver.type)
        kept = f"the last good snapshot is {last.state}" if last else "there is no snapshot yet"
        return UserError(
            f"iteration {iteration}: {what}: the training has diverged; {kept}. Try a lower base_lr, clip_gradients: 5,"
            " or another seed"
        )


def shown_score(tested: Mapping[int, Mapping[str, float]]) -> list[str]:
    """The newest test for the progress bar: its mean IoU, or its loss where the network has no scores; nothing before
    the first test."""
    if not tested:
        return []
    newest = tested[max(tested)]
    if "mean_iou" in newest:
        return [f"test mean IoU {100 * newest['mean_iou']:.1f}%"]
    return [f"test loss {newest['loss']:.4f}"]
