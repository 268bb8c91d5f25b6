"""Train as one of the processes that were started together: SOLVER ITERATIONS OUT.

The first one writes the update of the first iteration, the weights after the last one, the seconds of each, and the
confusion matrices of the solver's test before the first and after the last. A network without data, within the solver,
gets noise.
"""

from __future__ import annotations

import sys
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


def main(solver_file: str, iterations: int, out: Path) -> None:
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
    start = np.concatenate([blob.data.ravel() for blob in learnt])
    files = None if network.layer else TrainingFiles.read(Path(solver_file))
    counts = {} if files is None else {"confusion_before": confusion(files, solver, group)}
    seconds = []
    for iteration in range(iterations):
        began = time.perf_counter()
        solver.step(1)
        seconds.append(time.perf_counter() - began)
        if iteration == 0:
            first = np.concatenate([blob.diff.ravel() for blob in learnt])
    last = np.concatenate([blob.data.ravel() for blob in learnt])
    if files is not None:
        counts["confusion"] = confusion(files, solver, group)
    if group is None or group.rank == 0:
        np.savez(out, start=start, first=first, last=last, seconds=seconds, **counts)
    if group is not None:
        group.leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
