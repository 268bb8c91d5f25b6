"""A training from its start, or its resumption, to its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2

from renet.common.command_line import EXIT_BAD_INPUT
from renet.common.commands import as_typed
from renet.common.errors import UserError, naming
from renet.common.machine import gpu_name, switches_text
from renet.common.repository import ROOT, find_file, path_for_caffe, shipped_file
from renet.common.scratch import scratch_folder
from renet.networks.trained_run import MEASURES, best_test, read_metrics
from renet.runtime.builds import check_gpu
from renet.runtime.python_layers import check_python_layers
from renet.runtime.watched_process import Work
from renet.training.files import SOLVER, TrainingFiles
from renet.training.loop import Training
from renet.training.ranks import ALL_GPUS, Ranks, check_batches
from renet.training.resumption import starts_again
from renet.training.run_folder import EVENTS, LOG, RunFolder, SilentRunFolder, note_death
from renet.training.run_state import TrainingResult
from renet.weights import initial_weights, snapshots

_RANKS: list[Ranks] = []  # those that this process has joined


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What is asked of a training, beside what its solver says.

    Attributes:
        solver: the solver prototxt; None where `run` is resumed.
        run: the run's folder; None: `runs/<solver's name>` in the repository.
        iterations: in place of the solver's max_iter.
        seed: of weights and samples, in place of the solver's.
        weights: files to start from, by layers' names; none: those that the solver names.
        gpu: device number, or `ALL_GPUS`, one for each process; None: as the solver says.
        resume: go on from the run's newest whole snapshot.
        keep: how many snapshots stay.
        keep_best: the score whose best test keeps its snapshot, too, of `MEASURES`; None: as the resumed run has it.
        patience: tests without a better one that end the training; likewise.
        tensorboard: also write the metrics as event files.
    """

    solver: Path | None = None
    run: Path | None = None
    iterations: int | None = None
    seed: int | None = None
    weights: tuple[Path, ...] = ()
    gpu: int | str | None = None
    resume: bool = False
    keep: int = 3
    keep_best: str | None = None
    patience: int | None = None
    tensorboard: bool = False


def perform(settings: TrainingSettings, work: Work) -> TrainingResult:
    """Train from the start, or go on, until the last iteration or until `work` is asked to stop.

    Raises:
        UserError: nothing to train or to resume, wrong or missing files, a training that diverges; run.json tells it,
            too, once the run has begun.
    """
    ranks = Ranks.join()
    _RANKS.append(ranks)
    work.locate(ranks.place)
    ranks.compare_code()
    if not ranks.is_first:
        return follow(settings, work, ranks)
    with ranks.errors_named():
        try:
            folder, files, restore, metrics = begin(settings, ranks)
        except BaseException:
            ranks.share(None)
            raise
        ranks.share({"folder": str(folder.path), "iteration": restore.iteration if restore else None})
        with folder.failures_noted():
            training = train(settings, work, folder, files, restore, metrics, ranks)
        return finish(training)


def begin(
    settings: TrainingSettings, ranks: Ranks
) -> tuple[RunFolder, TrainingFiles, snapshots.Snapshot | None, list[dict[str, Any]]]:
    """Open the run's folder and write into it; with its files, the snapshot to go on from, and the metrics up to there.

    Raises:
        UserError: as of `open_run`; or several processes cannot train this.
    """
    folder, files = open_run(settings, ranks)
    if ranks.size > 1:
        check_batches(files.training_layers, ranks.size)
    restore = newest_snapshot(folder, files.solver.type) if settings.resume else None
    folder.iteration = restore.iteration if restore else 0
    metrics = folder.cut_metrics(folder.iteration)
    data = files.data_folder()
    before = folder.metadata.get("switches")
    folder.begin(
        {
            "model": files.network.name,
            "network": folder.metadata.get("network", str(files.training.origin)),
            "dataset": str(data) if data is not None else None,
            "gpu": _device_name(files.solver),
            "seed": files.solver.random_seed,
            "iteration": folder.iteration,
            "iterations": files.solver.max_iter,
            "processes": ranks.names() or None,
        }
    )
    now = folder.metadata["switches"]
    if restore and before is not None and before != now:
        named = [switches_text(values) or "no CAFFE_ variable" for values in (now, before)]
        changed = f"{named[0]} in the environment, {named[1]} before"
        _say(f"not bit for bit as without the interruption (docs/training.md): {changed}")
    return folder, files, restore, metrics


def follow(settings: TrainingSettings, work: Work, ranks: Ranks) -> TrainingResult:
    """Train as another rank than the first: with the files of the run's folder, which that has written, and silently.

    Raises:
        SystemExit: the first rank could not begin, and says why.
        UserError: as of `perform`; names the rank.
    """
    begun = ranks.share(None)
    if begun is None:
        raise SystemExit(EXIT_BAD_INPUT)
    folder = SilentRunFolder(Path(begun["folder"]))
    with ranks.errors_named(), scratch_folder() as scratch:
        files = TrainingFiles.read(folder.path / SOLVER, own=True)
        _choose_gpu(settings, files.solver, ranks)
        folder.begin({})
        restore = None
        if begun["iteration"] is not None:
            prefix = f"{files.solver.snapshot_prefix}_iter_{begun['iteration']}"
            restore = snapshots.Snapshot(begun["iteration"], Path(f"{prefix}.solverstate"))
            folder.iteration = restore.iteration
        log = scratch / LOG
        work.log_to(log)
        with open(log, "a", buffering=1, encoding="utf-8") as stream, redirect_stderr(stream):
            training = train(
                replace(settings, tensorboard=False), work, folder, files, restore, read_metrics(folder.path), ranks
            )
    state = "finished" if training.is_done() else "interrupted"
    return TrainingResult(state, folder.iteration, folder.path, None, None)


def leave_ranks(status: int) -> None:
    """End the connection to other ranks, if there are any, at the end of a process with this exit status."""
    for ranks in _RANKS:
        ranks.leave(status)


def _device_name(solver: caffe_pb2.SolverParameter) -> str | None:
    """The GPU's name, or its number where nobody tells the name; None of the CPU."""
    if not trains_on_gpu(solver):
        return None
    return gpu_name(solver.device_id) or f"GPU {solver.device_id}"


def newest_snapshot(folder: RunFolder, solver_type: str) -> snapshots.Snapshot | None:
    """The snapshot to go on from; names those that are broken on the way."""
    found, faults = snapshots.newest_whole(folder.snapshots, solver_type)
    for fault in faults:
        _say(f"skipped {fault}")
    if found is None:
        _say("no whole snapshot yet; starting from the beginning")
    return found


def build_solver(files: TrainingFiles, restore: snapshots.Snapshot | None) -> Any:
    """pycaffe's solver, with a snapshot restored into it."""
    with scratch_folder() as scratch:
        file = scratch / SOLVER
        with naming(file):
            file.write_text(files.solver_for_steps(), encoding="utf-8")
        solver = caffe.get_solver(str(file))
        if restore is not None:
            solver.restore(str(with_its_weights(restore, scratch)))
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


def find_weights(settings: TrainingSettings, solver: caffe_pb2.SolverParameter) -> list[str]:
    """The files to start from: the settings', else what the solver names, wherever `find_file` finds it.

    Raises:
        UserError: one is missing.
    """
    if not settings.weights:
        files = [find_file(name, settings.solver) for name in initial_weights.split_names(solver.weights)]
    else:
        files = list(settings.weights)
    for file in files:
        initial_weights.check_file(file)
    return list(map(path_for_caffe, files))


def open_run(settings: TrainingSettings, ranks: Ranks) -> tuple[RunFolder, TrainingFiles]:
    """The run's folder, held, and its files: the run's own copies where it is resumed.

    Raises:
        UserError: nothing to resume, something there already, a wrong file, missing data, a layer in Python that cannot
            be imported, a GPU that cannot be used.
    """
    if settings.solver is None and not (settings.resume and settings.run):
        raise UserError("--solver is missing (or --resume with --run, to go on with a run)")
    if settings.solver is not None:
        settings = replace(settings, solver=shipped_file(settings.solver))
    folder = RunFolder(settings.run or ROOT / "runs" / default_name(settings.solver))
    if settings.resume and (folder.path / SOLVER).is_file():
        files = TrainingFiles.read(folder.path / SOLVER, own=True)
        prefix = Path(files.solver.snapshot_prefix).name  # the same, though the folder may have been renamed
        if settings.seed is not None or settings.weights:
            raise UserError("--resume goes on with the run's own seed and weights; leave out --seed and --weights")
    elif settings.resume and settings.solver is None:
        raise UserError(f"{folder.path}: there is no training to resume ({SOLVER} is missing)")
    else:
        if folder.is_used():
            raise UserError(
                f"{folder.path}: exists already; go on with it by --resume, choose another name by --run, or delete it"
            )
        folder.metadata = {}
        prefix = folder.name
        files = TrainingFiles.read(settings.solver)
        for file in (settings.solver, *(network.origin for network in files.networks)):
            if file.resolve().parent == folder.path.resolve():
                raise UserError(f"{file}: lies in the run's folder, and would be overwritten; choose another by --run")
        if settings.seed is not None:
            files.set_seed(settings.seed)
        elif files.solver.random_seed < 0:
            # Unseeded would mean: another result with each call, and after each resumption.
            files.solver.random_seed = 0
        files.solver.weights[:] = find_weights(settings, files.solver)
    _choose_best(settings, folder, files)
    if settings.iterations is not None:
        files.solver.max_iter = settings.iterations
    _choose_gpu(settings, files.solver, ranks)
    for layers in (files.training_layers, *(test.layers for test in files.tests)):
        check_python_layers(layers)
    folder.open()
    place = None if settings.resume else files.place()
    if place is not None:
        print(place, file=sys.stderr)
    files.write(folder.path, prefix)
    return folder, files


def _choose_gpu(settings: TrainingSettings, solver: caffe_pb2.SolverParameter, ranks: Ranks) -> None:
    """Let the solver, where it is to train on a GPU, name this process's.

    Raises:
        UserError: there is none for it, or it cannot be used.
    """
    if settings.gpu is not None:
        solver.solver_mode = caffe_pb2.SolverParameter.GPU
    if trains_on_gpu(solver):
        named = solver.device_id if ranks.size == 1 else ALL_GPUS
        solver.device_id = ranks.choose_gpu(named if settings.gpu is None else settings.gpu)
        check_gpu(solver.device_id)


def _choose_best(settings: TrainingSettings, folder: RunFolder, files: TrainingFiles) -> None:
    """Note by which score the best snapshot is kept, and the patience, for this training and its resumptions.

    Raises:
        UserError: no such score, patience with none, or a solver without a test.
    """
    for name in ("keep_best", "patience"):
        asked = getattr(settings, name)
        if asked is not None:
            folder.metadata[name] = asked
    measure = folder.metadata.get("keep_best")
    if measure is None:
        if folder.metadata.get("patience") is not None:
            raise UserError("--patience counts tests without a better score; name the score with --keep-best")
        return
    if measure not in MEASURES:
        raise UserError(f"--keep-best {measure}: is none of {', '.join(MEASURES)}")
    if not files.tests:
        raise UserError(f"{files.file}: has no test (test_iter), and --keep-best {measure} is of tests")


def trains_on_gpu(solver: caffe_pb2.SolverParameter) -> bool:
    """Whether the solver says so; Caffe's own default, where it says nothing, is not followed."""
    return solver.HasField("solver_mode") and solver.solver_mode == caffe_pb2.SolverParameter.GPU


def default_name(solver: Path) -> str:
    """A run's name after its solver file, or after the file's folder where that is just called solver.prototxt."""
    return solver.resolve().parent.name if solver.name == SOLVER else solver.stem


def train(
    settings: TrainingSettings,
    work: Work,
    folder: RunFolder,
    files: TrainingFiles,
    restore: snapshots.Snapshot | None,
    metrics: Sequence[Mapping[str, Any]],
    ranks: Ranks,
) -> Training:
    """Build the solver and run it, from the snapshot `restore` where there is one; `metrics` lead up to there."""
    ranks.iteration = folder.iteration
    work.locate(ranks.place)
    solver_settings = files.solver
    lost = starts_again(files.training_layers) if restore else []
    if lost:
        _say(f"not bit for bit as without the interruption (docs/training.md): {', '.join(lost)}")
    if ranks.is_first:
        work.log_to(folder.path / LOG)
    if trains_on_gpu(solver_settings):
        caffe.set_device(solver_settings.device_id)
        caffe.set_mode_gpu()
    else:
        caffe.set_mode_cpu()
    solver = build_solver(files, restore)
    folder.note(parameters=sum(blob.count for blobs in solver.net.params.values() for blob in blobs))
    training = Training(
        files,
        folder,
        solver,
        settings.keep,
        work,
        tests_by_kind(files, metrics),
        keep_best=folder.metadata.get("keep_best"),
        patience=folder.metadata.get("patience"),
        saved=restore.iteration if restore else None,
        ranks=ranks,
    )
    training.check()
    with ExitStack() as stack:
        if settings.tensorboard:
            from renet.training.tensorboard_events import EventFiles  # most trainings do without

            events = stack.enter_context(closing(EventFiles(folder.path / EVENTS, folder.iteration, metrics)))
            folder.listener = events.add
        if solver_settings.weights and restore is None:
            fill_from_files(solver, folder, list(map(Path, initial_weights.split_names(solver_settings.weights))))
        ranks.exchange(solver)
        solver.net.share_maps()
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


def finish(training: Training) -> TrainingResult:
    """Write and say how it ended."""
    folder, snapshot = training.folder, training.present_snapshot()
    best = best_test(read_metrics(folder.path), training.keep_best)
    weights = folder.snapshots / snapshot.weights.name if snapshot.weights.exists() else None
    kept = training.best_kept()
    best_weights = None if kept is None else folder.snapshots / training.snapshot_at(kept.iteration).weights.name
    if training.is_done():
        told = [f"finished {folder.iteration} iterations"]
        if training.is_out_of_patience:
            reason = training.reason()
            told = [f"finished early, at iteration {folder.iteration}: {reason}"]
            folder.end("finished", message=f"finished early: {reason}")
        else:
            folder.end("finished")
        told.append(f"weights: {snapshot.weights}" if weights else "no snapshot (snapshot_after_train)")
        if kept is not None:
            told.append(f"best: {kept} at iteration {kept.iteration}: {best_weights}")
        print("; ".join(told), file=sys.stderr)
        return TrainingResult("finished", folder.iteration, folder.path, weights, best, best_weights)
    folder.end("interrupted")
    stop = training.work.stop or signal.SIGTERM
    again = as_typed(f"tools/train.py --resume --run {folder.path}")
    print(
        f"stopped at iteration {folder.iteration} by {signal.Signals(stop).name}; go on with: {again}",
        file=sys.stderr,
    )
    return TrainingResult("interrupted", folder.iteration, folder.path, weights, best, best_weights)


def _say(text: str) -> None:
    print(f"{as_typed(Path(sys.argv[0]).name)}: {text}", file=sys.stderr)


def death_noted(log: Path, state: str, reason: str) -> None:
    """Write into run.json how a training ended that could not do so itself."""
    note_death(log.parent, state, reason)
