"""Train as one of the processes that were started together: SOLVER ITERATIONS OUT.

The first one writes the update of the first iteration, the weights after the last one, and the seconds of each. A
network without data, within the solver, gets noise.
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
    seconds = []
    for iteration in range(iterations):
        began = time.perf_counter()
        solver.step(1)
        seconds.append(time.perf_counter() - began)
        if iteration == 0:
            first = np.concatenate([blob.diff.ravel() for blob in learnt])
    last = np.concatenate([blob.data.ravel() for blob in learnt])
    if group is None or group.rank == 0:
        np.savez(out, start=start, first=first, last=last, seconds=seconds)
    if group is not None:
        group.leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
