#!/usr/bin/env python3
"""Train a network: run a Caffe solver with progress, tests, snapshots and a folder that holds all of it."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from data_prep.command_line import UserError, draws_bars, progress, run
from data_prep.prepare import whole_number
from tools import initial_weights, snapshots
from tools.evaluation import confusion_matrix, scores
from tools.gpu_build import check_gpu, restart_with_gpu_build, training_asks_for_gpu
from tools.repository import ROOT
from tools.run_folder import EVENTS, SNAPSHOTS, RunFolder, read_facts, write_facts
from tools.training_files import SOLVER, TRAIN_VAL, TrainingFiles, find_file, path_for_caffe
from tools.watched_process import Work, watched

DEFAULT_DISPLAY = 20
WIDE_TERMINAL = 130  # columns that hold a run's name beside all that the bar tells
SCORES = {"pixel_accuracy": "pixel accuracy", "class_accuracy": "class accuracy", "mean_iou": "mean IoU"}


def total_loss(network: caffe.Net) -> float:
    """The weighted sum of the network's loss blobs after a forward pass (with iter_size over 1: the last one's)."""
    weights = network.blob_loss_weights
    return float(sum(weights[name] * network.blobs[name].data.sum() for name in network.outputs if weights[name]))


def is_finite(network: caffe.Net) -> bool:
    """Whether all weights are numbers, and finite."""
    return all(np.isfinite(blob.data).all() for blobs in network.params.values() for blob in blobs)


@dataclass
class Scoring:
    """Where a TEST network's scores and labels are: the bottoms of its softmax loss.

    Attributes:
        score: N x C x H x W blob.
        label: N x 1 x H x W blob.
        ignore_label: label that counts nowhere.
    """

    score: Any
    label: Any
    ignore_label: int

    @classmethod
    def find(cls, network: caffe.Net, description: caffe_pb2.NetParameter) -> Scoring | None:
        """Look for the loss in the built network; None where it has no SoftmaxWithLoss."""
        ignored = {
            layer.name: layer.loss_param.ignore_label if layer.loss_param.HasField("ignore_label") else 255
            for layer in description.layer
        }
        for index, (name, layer) in enumerate(zip(network._layer_names, network.layers)):
            if layer.type == "SoftmaxWithLoss":
                score, label = list(network._bottom_ids(index))[:2]
                return cls(network._blobs[score], network._blobs[label], ignored.get(name, 255))
        return None


def test(
    network_file: Path, description: caffe_pb2.NetParameter, trained: caffe.Net, batches: int, work: Work
) -> dict[str, float] | None:
    """Score the trained weights on the first `batches` batches of the network's TEST phase.

    Every call builds the network anew, so that it always sees the same images and holds no memory in between.

    Returns:
        `loss`, and where the network has a SoftmaxWithLoss `pixel_accuracy`, `class_accuracy` and `mean_iou`
        (fractions); None where the work was asked to stop.
    """
    network = caffe.Net(str(network_file), caffe.TEST)
    network.share_with(trained)
    scoring = Scoring.find(network, description)
    confusion: np.ndarray | int = 0
    loss = 0.0
    for _ in progress(range(batches), description="test", unit="batch", within=True):
        if work.stop is not None:
            return None
        network.forward()
        loss += total_loss(network)
        if scoring is not None:
            classes = scoring.score.shape[1]
            predictions = scoring.score.data.argmax(axis=1).astype(np.uint8)
            truths = scoring.label.data.reshape(predictions.shape).astype(np.uint8)
            for truth, prediction in zip(truths, predictions):
                confusion = confusion + confusion_matrix(truth, prediction, classes, scoring.ignore_label)
    result = {"loss": loss / batches}
    if scoring is not None and np.any(confusion):
        found = scores(confusion)
        result |= {
            "pixel_accuracy": found.pixel_accuracy,
            "class_accuracy": found.class_accuracy,
            "mean_iou": found.mean_iou,
        }
    return result


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
        files: solver and network.
        folder: where everything goes.
        solver: pycaffe's solver.
        keep: how many snapshots stay.
        work: tells when to stop.
        tested: the result of each test that is in the metrics, by iteration.
        present: loss, speed and learning rate, in words.
    """

    files: TrainingFiles
    folder: RunFolder
    solver: Any
    keep: int
    work: Work
    tested: dict[int, dict[str, float]] = field(default_factory=dict)
    present: tuple[str, ...] = ()

    def run(self) -> None:
        """Train until max_iter or a stop signal; the last iteration's snapshot is kept either way.

        Raises:
            UserError: the loss or a weight is no number any more.
        """
        settings = self.files.solver
        display = settings.display or DEFAULT_DISPLAY
        batch = self.solver.net._blobs[self.solver.net._top_ids(0)[0]].shape[0] * settings.iter_size
        smoothed: list[float] = []
        interval = Interval()
        start = self.solver.iter
        narrow = draws_bars() and os.get_terminal_size(sys.stderr.fileno()).columns < WIDE_TERMINAL
        name = "" if narrow else self.folder.name
        with progress(total=settings.max_iter, description=name, unit="iteration", initial=start, rate=False) as bar:
            while True:
                iteration = self.solver.iter
                if self.test_is_due(iteration):
                    self.test(iteration, bar)
                if iteration >= settings.max_iter or self.work.stop is not None:
                    break
                rate = self.solver.lr
                began = time.monotonic()
                self.solver.step(1)
                loss = total_loss(self.solver.net)
                interval.add(loss, time.monotonic() - began)
                iteration += 1
                if not math.isfinite(loss):
                    raise self.diverged(iteration, f"the loss is {loss}")
                smoothed = [*smoothed[-max(1, settings.average_loss) + 1 :], loss]
                speed = batch * interval.iterations / interval.seconds
                self.present = (f"loss {np.mean(smoothed):.4f}", f"{speed:.1f} images/s", f"rate {rate:.3g}")
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
        if self.solver.iter > start and not self.present_snapshot().state.exists():
            self.snapshot()

    def show(self, bar: Any) -> None:
        """Tell the present state and the newest test's score on the bar, when it is drawn next."""
        if self.present:
            loss, *others = self.present
            bar.set_postfix_str(", ".join([loss, *shown_score(self.tested), *others]), refresh=False)

    def present_snapshot(self) -> snapshots.Snapshot:
        """The snapshot that belongs to the present iteration, written or not."""
        iteration = self.solver.iter
        return snapshots.Snapshot(iteration, Path(f"{self.files.solver.snapshot_prefix}_iter_{iteration}.solverstate"))

    def test_is_due(self, iteration: int) -> bool:
        """Whether the solver wants a test before this iteration; the last one always gets one."""
        settings = self.files.solver
        if not settings.test_iter or iteration in self.tested:
            return False
        if iteration == 0:
            return settings.test_interval > 0 and settings.test_initialization
        return iteration >= settings.max_iter or (
            settings.test_interval > 0 and iteration % settings.test_interval == 0
        )

    def test(self, iteration: int, bar: Any) -> None:
        """Score the present weights and write the result down."""
        batches = self.files.solver.test_iter[0]
        network_file = self.folder.path / TRAIN_VAL
        result = test(network_file, self.files.network, self.solver.net, batches, self.work)
        if result is None:
            return
        self.folder.add_metrics(kind="test", iteration=iteration, **result)
        self.tested[iteration] = result
        text = "".join(f", {name} {100 * result[key]:.2f}" for key, name in SCORES.items() if key in result)
        self.show(bar)
        bar.clear()
        print(f"iteration {iteration}: test loss {result['loss']:.4f}{text}", file=sys.stderr)

    def snapshot(self) -> None:
        """Write a snapshot of sound weights, look whether it is whole, and delete the oldest.

        Raises:
            UserError: a weight is no number, or what was written is not whole (a full disk, say).
        """
        iteration = self.solver.iter
        if not is_finite(self.solver.net):
            raise self.diverged(iteration, "a weight is infinite or no number")
        self.solver.snapshot()
        fault = self.present_snapshot().fault(self.files.solver.type)
        if fault is not None:
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


def newest_snapshot(folder: RunFolder, solver_type: str) -> snapshots.Snapshot | None:
    """The snapshot to go on from; names those that are broken on the way."""
    found, faults = snapshots.newest_whole(folder.snapshots, solver_type)
    for fault in faults:
        print(f"train.py: skipped {fault}", file=sys.stderr)
    if found is None:
        print("train.py: no whole snapshot yet; starting from the beginning", file=sys.stderr)
    return found


def build_solver(files: TrainingFiles, restore: snapshots.Snapshot | None) -> Any:
    """pycaffe's solver, with a snapshot restored into it."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / SOLVER
        file.write_text(files.solver_for_steps(), encoding="utf-8")
        solver = caffe.get_solver(str(file))
        if restore is not None:
            state = caffe_pb2.SolverState.FromString(restore.state.read_bytes())
            # The state names its weights by the path of the time; the run's folder may have moved since.
            state.learned_net = str(restore.weights.absolute())
            moved = Path(scratch) / restore.state.name
            moved.write_bytes(state.SerializeToString())
            solver.restore(str(moved))
    return solver


def fill_from_files(solver: Any, folder: RunFolder, files: Sequence[Path]) -> None:
    """Copy the weights into a built solver's network, and say which layers they filled.

    Raises:
        UserError: a file is missing or does not fit.
    """
    filled = initial_weights.fill(solver.net, files)
    for line in initial_weights.report(solver.net, filled):
        print(line, file=sys.stderr)
    folder.note(**initial_weights.facts(solver.net, filled))


def find_weights(arguments: argparse.Namespace, solver: caffe_pb2.SolverParameter) -> list[str]:
    """The files to start from: --weights, else what the solver names, from the current folder or the repository's root.

    Raises:
        UserError: one is missing.
    """
    if arguments.weights is None:
        files = [find_file(name, arguments.solver) for name in initial_weights.split_names(solver.weights)]
    else:
        files = list(map(Path, initial_weights.split_names([arguments.weights])))
    for file in files:
        initial_weights.check_file(file)
    return list(map(path_for_caffe, files))


def open_run(arguments: argparse.Namespace) -> tuple[RunFolder, TrainingFiles]:
    """The run's folder, held, and its files: the run's own copies where it is resumed.

    Raises:
        UserError: nothing to resume, something there already, a wrong file, missing data, a GPU that cannot be used.
    """
    if arguments.solver is None and not (arguments.resume and arguments.run):
        raise UserError("--solver is missing (or --resume with --run, to go on with a run)")
    folder = RunFolder(arguments.run or ROOT / "runs" / default_name(arguments.solver))
    if arguments.resume and (folder.path / SOLVER).is_file():
        files = TrainingFiles.read(folder.path / SOLVER, folder.path / TRAIN_VAL)
        prefix = Path(files.solver.snapshot_prefix).name  # the same, though the folder may have been renamed
        if arguments.seed is not None or arguments.weights is not None:
            raise UserError("--resume goes on with the run's own seed and weights; leave out --seed and --weights")
    elif arguments.resume and arguments.solver is None:
        raise UserError(f"{folder.path}: there is no training to resume ({SOLVER} is missing)")
    else:
        if folder.is_used():
            raise UserError(
                f"{folder.path}: exists already; go on with it by --resume, choose another name by --run, or delete it"
            )
        folder.facts = {}
        prefix = folder.name
        files = TrainingFiles.read(arguments.solver)
        if arguments.seed is not None:
            files.set_seed(arguments.seed)
        elif files.solver.random_seed < 0:
            # Unseeded would mean: another result with each call, and after each resumption.
            files.solver.random_seed = 0
        files.solver.weights[:] = find_weights(arguments, files.solver)
    if arguments.iterations is not None:
        files.solver.max_iter = arguments.iterations
    if arguments.gpu is not None:
        files.solver.solver_mode = caffe_pb2.SolverParameter.GPU
        files.solver.device_id = arguments.gpu
    if trains_on_gpu(files.solver):
        check_gpu(files.solver.device_id)
    folder.open()
    files.write(folder.path, prefix)
    return folder, files


def trains_on_gpu(solver: caffe_pb2.SolverParameter) -> bool:
    """Whether the solver says so; Caffe's own default, where it says nothing, is not followed."""
    return solver.HasField("solver_mode") and solver.solver_mode == caffe_pb2.SolverParameter.GPU


def default_name(solver: Path) -> str:
    """A run's name after its solver file, or after the file's folder where that is just called solver.prototxt."""
    return solver.resolve().parent.name if solver.name == SOLVER else solver.stem


def main(arguments: argparse.Namespace, work: Work) -> int:
    """Train as the command line says; 128 + signal where a signal stopped it."""
    folder, files = open_run(arguments)
    settings = files.solver
    restore = newest_snapshot(folder, settings.type) if arguments.resume else None
    restored = restore.iteration if restore else 0
    metrics = folder.cut_metrics(restored)
    data = files.data_folder()
    folder.begin(
        {
            "model": files.network.name,
            "dataset": str(data) if data is not None else None,
            "seed": settings.random_seed,
            "iteration": restored,
            "iterations": settings.max_iter,
        }
    )
    work.log_to(folder.path / "train.log")
    if trains_on_gpu(settings):
        caffe.set_device(settings.device_id)
        caffe.set_mode_gpu()
    else:
        caffe.set_mode_cpu()
    solver = build_solver(files, restore)
    folder.note(parameters=sum(blob.count for blobs in solver.net.params.values() for blob in blobs))
    tested = {line["iteration"]: line for line in metrics if line["kind"] == "test"}
    training = Training(files, folder, solver, arguments.keep, work, tested)
    events = None
    try:
        if arguments.tensorboard:
            from tools.tensorboard_events import EventFiles  # most trainings do without

            events = EventFiles(folder.path / EVENTS, restored, metrics)
            folder.listener = events.add
        if settings.weights and restore is None:
            fill_from_files(solver, folder, list(map(Path, initial_weights.split_names(settings.weights))))
        training.run()
    except UserError as error:
        folder.end("failed", iteration=solver.iter, message=str(error))
        raise
    finally:
        if events is not None:
            events.close()
    return finish(training)


def finish(training: Training) -> int:
    """Write and say how it ended; returns the exit status."""
    folder, iteration = training.folder, training.solver.iter
    if iteration >= training.files.solver.max_iter:
        folder.end("finished", iteration=iteration)
        weights = training.present_snapshot().weights
        print(f"finished {iteration} iterations; weights: {weights}", file=sys.stderr)
        return 0
    folder.end("interrupted", iteration=iteration)
    stop = training.work.stop or signal.SIGTERM
    print(
        f"stopped at iteration {iteration} by {signal.Signals(stop).name}; go on with:"
        f" tools/train.py --resume --run {folder.path}",
        file=sys.stderr,
    )
    return 128 + stop


def note_death(log: Path, reason: str) -> None:
    """Write into run.json that the training died."""
    facts = read_facts(log.parent)
    if facts:
        write_facts(log.parent, facts | {"state": "failed", "message": reason})


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network with a Caffe solver.",
        epilog=f"""examples:
  .venv/bin/python tools/train.py --solver solvers/n_renet_stanford_background.prototxt
  .venv/bin/python tools/train.py --resume --run runs/n_renet_stanford_background

A run's folder holds the prototxts as they were used, metrics.jsonl (loss, learning rate, test scores), train.log (what
Caffe says), run.json (who, what, when, on which machine) and {SNAPSHOTS}/. Ctrl-C ends with a snapshot; a second one
ends at once. The same seed, data and number of threads give the same weights, however often a run is resumed.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--solver", type=Path, metavar="FILE", help="solver prototxt")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/<solver's name>)")
    parser.add_argument(
        "--iterations", type=whole_number(1), metavar="N", help="in place of the solver's max_iter (poly follows it)"
    )
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help="of weights and samples (default: solver's)")
    parser.add_argument(
        "--weights", metavar="FILE", help="start from this .caffemodel, by layers' names (several: FILE,FILE)"
    )
    parser.add_argument("--gpu", type=whole_number(0), metavar="N", help="train on this GPU (default: on the CPU)")
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest whole snapshot")
    parser.add_argument(
        "--keep", type=whole_number(1), default=3, metavar="N", help="keep the newest N snapshots (default 3)"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help=f"also write the metrics as event files, into the run's {EVENTS}/"
    )
    return parser


if __name__ == "__main__":
    if training_asks_for_gpu(sys.argv[1:]):
        restart_with_gpu_build()
    raise SystemExit(watched(lambda work: run(partial(main, work=work), make_parser()), note_death))
