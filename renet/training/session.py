"""A training from its start, or its resumption, to its end."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2

from renet.common.errors import UserError, naming
from renet.common.repository import ROOT, find_file, path_for_caffe
from renet.runtime.builds import check_gpu
from renet.runtime.python_layers import check_python_layers
from renet.runtime.watched_process import Work
from renet.training.files import SOLVER, TrainingFiles
from renet.training.loop import Training
from renet.training.resumption import starts_again
from renet.training.run_folder import EVENTS, LOG, RunFolder, note_death
from renet.weights import initial_weights, snapshots


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
        with naming(file):
            file.write_text(files.solver_for_steps(), encoding="utf-8")
        solver = caffe.get_solver(str(file))
        if restore is not None:
            solver.restore(str(with_its_weights(restore, Path(scratch))))
    return solver


def with_its_weights(snapshot: snapshots.Snapshot, scratch: Path) -> Path:
    """The snapshot's state, in a copy where it names its weights by a path of the time that leads elsewhere now: the
    run's folder may have moved."""
    state = caffe_pb2.SolverState.FromString(snapshot.state.read_bytes())
    weights = snapshot.weights.absolute()
    if Path(state.learned_net).absolute() == weights:
        return snapshot.state
    state.learned_net = str(weights)
    moved = scratch / snapshot.state.name
    with naming(moved):
        moved.write_bytes(state.SerializeToString())
    return moved


def fill_from_files(solver: Any, folder: RunFolder, files: Sequence[Path]) -> None:
    """Copy the weights into a built solver's network, and say which layers they filled.

    Raises:
        UserError: a file is missing or does not fit.
    """
    filled = initial_weights.fill(solver.net, files)
    for line in initial_weights.report(solver.net, filled):
        print(line, file=sys.stderr)
    folder.note(**initial_weights.metadata(solver.net, filled))


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
        UserError: nothing to resume, something there already, a wrong file, missing data, a layer in Python that cannot
            be imported, a GPU that cannot be used.
    """
    if arguments.solver is None and not (arguments.resume and arguments.run):
        raise UserError("--solver is missing (or --resume with --run, to go on with a run)")
    folder = RunFolder(arguments.run or ROOT / "runs" / default_name(arguments.solver))
    if arguments.resume and (folder.path / SOLVER).is_file():
        files = TrainingFiles.read(folder.path / SOLVER, own=True)
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
        folder.metadata = {}
        prefix = folder.name
        files = TrainingFiles.read(arguments.solver)
        for file in (arguments.solver, *(network.origin for network in files.networks)):
            if file.resolve().parent == folder.path.resolve():
                raise UserError(f"{file}: lies in the run's folder, and would be overwritten; choose another by --run")
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
    for layers in (files.training_layers, *(test.layers for test in files.tests)):
        check_python_layers(layers)
    folder.open()
    place = None if arguments.resume else files.place()
    if place is not None:
        print(place, file=sys.stderr)
    files.write(folder.path, prefix)
    return folder, files


def trains_on_gpu(solver: caffe_pb2.SolverParameter) -> bool:
    """Whether the solver says so; Caffe's own default, where it says nothing, is not followed."""
    return solver.HasField("solver_mode") and solver.solver_mode == caffe_pb2.SolverParameter.GPU


def default_name(solver: Path) -> str:
    """A run's name after its solver file, or after the file's folder where that is just called solver.prototxt."""
    return solver.resolve().parent.name if solver.name == SOLVER else solver.stem


def train(
    arguments: argparse.Namespace,
    work: Work,
    folder: RunFolder,
    files: TrainingFiles,
    restore: snapshots.Snapshot | None,
    metrics: Sequence[Mapping[str, Any]],
) -> Training:
    """Build the solver and run it, from the snapshot `restore` where there is one; `metrics` lead up to there."""
    settings = files.solver
    lost = starts_again(files.training_layers) if restore else []
    if lost:
        print(
            f"train.py: not bit for bit as without the interruption (docs/training.md): {', '.join(lost)}",
            file=sys.stderr,
        )
    work.log_to(folder.path / LOG)
    if trains_on_gpu(settings):
        caffe.set_device(settings.device_id)
        caffe.set_mode_gpu()
    else:
        caffe.set_mode_cpu()
    solver = build_solver(files, restore)
    folder.note(parameters=sum(blob.count for blobs in solver.net.params.values() for blob in blobs))
    training = Training(files, folder, solver, arguments.keep, work, tests_by_kind(files, metrics))
    training.check()
    with ExitStack() as stack:
        if arguments.tensorboard:
            from renet.training.tensorboard_events import EventFiles  # most trainings do without

            events = stack.enter_context(closing(EventFiles(folder.path / EVENTS, folder.iteration, metrics)))
            folder.listener = events.add
        if settings.weights and restore is None:
            fill_from_files(solver, folder, list(map(Path, initial_weights.split_names(settings.weights))))
        training.run()
    return training


def tests_by_kind(
    files: TrainingFiles, metrics: Iterable[Mapping[str, Any]]
) -> dict[str, dict[int, Mapping[str, float]]]:
    """The tests that are in the metrics, by kind and iteration."""
    found: dict[str, dict[int, Mapping[str, float]]] = {test.kind: {} for test in files.tests}
    for line in metrics:
        if line.get("kind") in found:
            found[line["kind"]][line["iteration"]] = line
    return found


def finish(training: Training) -> int:
    """Write and say how it ended; returns the exit status."""
    folder = training.folder
    if folder.iteration >= training.files.solver.max_iter:
        folder.end("finished")
        snapshot = training.present_snapshot()
        weights = f"weights: {snapshot.weights}" if snapshot.weights.exists() else "no snapshot (snapshot_after_train)"
        print(f"finished {folder.iteration} iterations; {weights}", file=sys.stderr)
        return 0
    folder.end("interrupted")
    stop = training.work.stop or signal.SIGTERM
    print(
        f"stopped at iteration {folder.iteration} by {signal.Signals(stop).name}; go on with:"
        f" tools/train.py --resume --run {folder.path}",
        file=sys.stderr,
    )
    return 128 + stop


def death_noted(log: Path, state: str, reason: str) -> None:
    """Write into run.json how a training ended that could not do so itself."""
    note_death(log.parent, state, reason)
