"""Train as one of the processes that were started together.

The first one writes the update of the first iteration, the weights after the last one, the seconds of each, and the
confusion matrices of the solver's test before the first and after the last. A network without data, within the solver,
gets noise.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.networks.analysis import fill_with_noise
from renet.training.files import TrainingFiles
from renet.training.ranks import Ranks
from renet.training.scores import count


def confusion(files: TrainingFiles, solver: caffe.Solver, group: caffe.Ranks | None) -> np.ndarray:
    """The confusion matrix of the solver's test with its present weights."""
    (test,) = files.tests
    counted = count(test, test.network.origin, solver, lambda: False, Ranks(group))
    assert counted is not None
    return counted[1]


def joined(blobs: list[caffe.Blob], what: str) -> np.ndarray:
    """The data or diff of all blobs, one after another."""
    return np.concatenate([getattr(blob, what).ravel() for blob in blobs])


def main(solver_file: str, iterations: int, out: Path, keep: Path | None, follow: Path | None) -> None:
    """Train."""
    caffe.set_mode_cpu()
    group = caffe.join_ranks()
    solver = caffe.get_solver(solver_file)
    if group is not None:
        fault = group.difference_of_solver(solver)
        if fault:
            raise SystemExit(fault)
        group.exchange(solver)
    network = text_format.Parse(Path(solver_file).read_text(), caffe_pb2.SolverParameter()).train_net_param
    fill_with_noise(solver.net, network)
    learnt = [blob for blobs in solver.net.params.values() for blob in blobs]
    files = None if network.layer else TrainingFiles.read(Path(solver_file))
    counts = {} if files is None else {"confusion_before": confusion(files, solver, group)}
    followed = None if follow is None else np.load(follow)["weights"]
    ends = np.cumsum([blob.count for blob in learnt])[:-1]
    weights, updates, seconds = [], [], []
    for iteration in range(iterations):
        if followed is not None:
            for blob, values in zip(learnt, np.split(followed[iteration], ends), strict=True):
                blob.data.flat = values
        if keep is not None:
            weights.append(joined(learnt, "data"))
        began = time.perf_counter()
        solver.step(1)
        seconds.append(time.perf_counter() - began)
        if keep is not None or not updates:
            updates.append(joined(learnt, "diff"))
    last = joined(learnt, "data")
    if files is not None:
        counts["confusion"] = confusion(files, solver, group)
    if group is None or group.rank == 0:
        np.savez(out, first=updates[0], last=last, seconds=seconds, **counts)
        if keep is not None:
            np.savez(keep, weights=weights, updates=updates)
    if group is not None:
        group.leave()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver_file")
    parser.add_argument("iterations", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path, help="write each iteration's update and the weights that it began with")
    parser.add_argument("--follow", type=Path, help="begin each iteration with the weights that another training kept")
    main(**vars(parser.parse_args()))
