"""The loop of a training: steps of Caffe's solver, with progress, tests, metrics and snapshots that are looked into."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import caffe
import numpy as np

from renet.common.errors import UserError
from renet.common.progress import draws_bars, progress
from renet.networks.trained_run import LOSS, SCORES, Best, best_test
from renet.runtime.watched_process import Work
from renet.training.files import TEST, TestNetwork, TrainingFiles
from renet.training.ranks import Ranks
from renet.training.run_folder import RunFolder
from renet.training.scores import build as build_test
from renet.training.scores import check_classes, find_heads, main_head, told, total_loss
from renet.training.scores import score as score_test
from renet.weights import snapshots

DEFAULT_DISPLAY = 20
WIDE_TERMINAL = 130  # columns that hold a run's name beside all that the bar tells


def is_finite(network: caffe.Net) -> bool:
    """Whether all weights are numbers, and finite."""
    return all(np.isfinite(blob.data).all() for blobs in network.params.values() for blob in blobs)


@dataclass
class Interval:
    """Sums over the iterations since the last line of metrics."""

    loss: float = 0.0
    iterations: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, loss: float, seconds: float, waited: float) -> None:
        """Count one iteration."""
        self.loss += loss
        self.iterations += 1
        self.seconds += seconds
        self.waited += waited


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
        keep_best: the score whose best test keeps its snapshot beside the newest; None: the newest alone stay.
        patience: tests without a better score that end the training; None: it goes on.
        saved: the iteration of the snapshot that was written or restored last.
        is_out_of_patience: whether the training has ended by that.
        ranks: the processes that train together.
    """

    files: TrainingFiles
    folder: RunFolder
    solver: Any
    keep: int
    work: Work
    tested: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    keep_best: str | None = None
    patience: int | None = None
    saved: int | None = None
    is_out_of_patience: bool = False
    ranks: Ranks = field(default_factory=Ranks)

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
            UserError: a network has fewer outputs than its dataset has classes, or none of the score of `keep_best`.
        """
        heads = find_heads(self.solver.net, self.files.training_layers)
        notes = list(check_classes(heads, self.files.training_layers, str(self.files.training.origin)))
        for test in self.files.tests:
            network, heads_of_test = build_test(test, self.file_of(test))
            self.ranks.compare_data(network)
            notes += check_classes(heads_of_test, test.layers, str(test.network.origin))
            if test.kind == TEST and not heads_of_test and self.keep_best not in (None, LOSS):
                raise UserError(f"{test.network.origin}: its test has no scores, only a loss: --keep-best {LOSS}")
            line = told(heads_of_test)
            notes += [] if line is None else [f"{test.title}: {line}"]
        for note in dict.fromkeys(notes):
            print(note, file=sys.stderr)
        head = main_head(heads)
        first = self.solver.net._blobs[self.solver.net._top_ids(0)[0]] if head is None else head.score
        self.batch = first.shape[0] * self.files.solver.iter_size * self.ranks.size

    def is_done(self) -> bool:
        """Whether nothing is left to train."""
        return self.is_out_of_patience or self.folder.iteration >= self.files.solver.max_iter

    def file_of(self, test: TestNetwork) -> Path:
        """The test's network in the run's folder."""
        return self.folder.path / test.network.name

    def run(self) -> None:
        """Train until max_iter, the end of patience or a stop signal, with a snapshot of the last iteration (after
        max_iter unless the solver wants none).

        Raises:
            UserError: the loss or a weight is no number any more, or a label is out of range.
        """
        start = self.solver.iter
        self.note_best()
        try:
            self.iterate()
        except BrokenPipeError:
            if self.ranks.size > 1:
                raise  # the others go on: all are ended
            self.work.stop = signal.SIGPIPE  # nobody reads what it says any more: as if asked to stop
        wanted = self.files.solver.snapshot_after_train or self.solver.iter < self.files.solver.max_iter
        if self.solver.iter > start and wanted and self.saved != self.solver.iter:
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
                if self.keep_best is not None and iteration in self.tested[TEST]:
                    self.keep_the_best(iteration)
                if iteration >= settings.max_iter or self.is_stopped() or self.is_out_of_patience:
                    break
                rate = self.solver.lr
                began, waited = time.monotonic(), self.ranks.waited_seconds
                loss = self.step()
                interval.add(loss, time.monotonic() - began, self.ranks.waited_seconds - waited)
                iteration += 1
                self.folder.iteration = iteration
                self.ranks.iteration = iteration
                self.work.locate(self.ranks.place)
                if not math.isfinite(loss):
                    raise self.diverged(iteration, f"the loss is {loss}")
                recent.append(loss)
                speed = self.batch * interval.iterations / interval.seconds
                self.present = (f"loss {np.mean(recent):.4f}", f"{speed:.1f} images/s", f"rate {rate:.3g}")
                waits = {}
                if self.ranks.size > 1:
                    share = interval.waited / interval.seconds
                    waits = {"exposed_communication": round(share, 4)}
                    self.present = (*self.present, f"communication {100 * share:.0f}%")
                self.show(bar)
                bar.update()
                if iteration % display == 0:
                    self.folder.add_metrics(
                        kind="train",
                        iteration=iteration,
                        loss=interval.loss / interval.iterations,
                        learning_rate=rate,
                        images_per_second=round(speed, 2),
                        **waits,
                        seconds=round(self.folder.seconds(), 1),
                    )
                    interval = Interval()
                if settings.snapshot and iteration % settings.snapshot == 0:
                    self.snapshot()

    def step(self) -> float:
        """Do one iteration, and return its loss (the mean of its iter_size passes)."""
        self.losses.clear()
        self.solver.step(1)
        return self.ranks.mean(float(np.mean(self.losses)) if self.losses else total_loss(self.solver.net))

    def is_stopped(self) -> bool:
        """Whether one of the ranks is asked to stop: then all do, at this iteration."""
        asked = self.ranks.greatest(self.work.stop or 0)
        if asked:  # else a signal that came meanwhile would be forgotten: the next time it counts
            self.work.stop = asked
        return asked > 0

    def show(self, bar: Any) -> None:
        """Tell the present state and the newest test's score on the bar, when it is drawn next."""
        if self.present:
            loss, *others = self.present
            bar.set_postfix_str(", ".join([loss, *shown_score(self.tested.get(TEST, {})), *others]), refresh=False)

    def present_snapshot(self) -> snapshots.Snapshot:
        """The snapshot that belongs to the present iteration, written or not."""
        return self.snapshot_at(self.solver.iter)

    def snapshot_at(self, iteration: int) -> snapshots.Snapshot:
        """The snapshot of an iteration, written or not."""
        return snapshots.Snapshot(iteration, Path(f"{self.files.solver.snapshot_prefix}_iter_{iteration}.solverstate"))

    def best_kept(self) -> Best | None:
        """The best test among those whose snapshot is there; None where none is to be kept."""
        if self.keep_best is None:
            return None
        return self._best(lambda iteration: self.snapshot_at(iteration).state.exists())

    def _best(self, counts: Callable[[int], bool]) -> Best | None:
        tests = ({**line, "kind": TEST, "iteration": at} for at, line in self.tested[TEST].items() if counts(at))
        return best_test(tests, self.keep_best)

    def keep_the_best(self, iteration: int) -> None:
        """After the test of this iteration: keep its snapshot where it is the best, and look whether patience ends.

        The metrics have the test already, so that whoever goes on from this snapshot knows why it was kept.
        """
        best = self._best(lambda at: at == iteration or self.snapshot_at(at).state.exists())
        if not self.ranks.is_first:
            pass
        elif best is not None and best.iteration == iteration and self.saved != iteration:
            self.snapshot()
        else:
            snapshots.prune(self.folder.snapshots, iteration, self.keep, best.iteration if best else None)
        self.note_best()
        if self.patience is not None and iteration < self.files.solver.max_iter:
            self.is_out_of_patience = self.tests_in_vain() >= self.patience

    def note_best(self) -> None:
        """Say in run.json of which test the snapshot is kept."""
        if self.keep_best is not None:
            best = self.best_kept()
            self.folder.note(best=None if best is None else asdict(best))

    def tests_in_vain(self) -> int:
        """How many tests came after the best of all."""
        best = self._best(lambda _: True)
        return sum(best is None or iteration > best.iteration for iteration in self.tested[TEST])

    def reason(self) -> str:
        """Why the training ended before max_iter, in words."""
        best, count = self._best(lambda _: True), self.tests_in_vain()
        tests = f"{count} test{'' if count == 1 else 's'}"
        measure = SCORES.get(self.keep_best or "", self.keep_best)
        if best is None:
            return f"no {measure} in {tests}"
        return f"no better {measure} in {tests} after {best} at iteration {best.iteration}"

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
        result = score_test(test, self.file_of(test), self.solver, self.is_stopped, self.ranks)
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
        if not self.ranks.is_first:
            self.saved = iteration
            return
        if not is_finite(self.solver.net):
            raise self.diverged(iteration, "a weight is infinite or no number")
        snapshot = self.present_snapshot()
        what = f"while writing {snapshot.weights.with_suffix('')}.* (is the disk full?)"
        snapshot.forget_checksums()
        with self.work.during(what, snapshot.state, snapshot.weights):
            self.solver.snapshot()
        fault = snapshot.fault(self.files.solver.type)
        if fault is not None:
            snapshot.remove()  # of no use, and room for another try
            raise UserError(self.ranks.located(f"{fault} (just written: is the disk full?)"))
        snapshot.note_checksums()
        self.saved = iteration
        best = self.best_kept()
        snapshots.prune(self.folder.snapshots, iteration, self.keep, None if best is None else best.iteration)
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
