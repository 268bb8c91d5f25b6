"""How a training's step grows with the processes that share it: measured on one, predicted for many and their link.

One process computes the part of the batch that falls to one of n, and Caffe records when it would exchange how much
(`caffe.emulate_ranks`): the plan is the one that a training follows, the sums of losses and batch normalization
included. The prediction then gives each exchange the time that it takes on a link, one after another as Caffe's queue
does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.common.repository import find_file
from renet.networks.analysis import fill_with_noise, without_data
from renet.networks.cost import DEFAULT_SIZE, shapes_beside_labels, training_size
from renet.networks.net_state import layers_in, state_of
from renet.runtime.prototxt import read_network, read_solver
from renet.runtime.worker_process import NativeCrash, run_native
from renet.training.ranks import batch_of, check_batches

SUMMARY = (
    "link", "processes", "images each", "step s", "exposed communication", "speed-up", "efficiency", "days"
)  # fmt: skip
SECONDS_OF_A_DAY = 24 * 60 * 60
# of the bytes that usual Ethernet frames take on the wire, gaps included, those that are TCP.s content
PAYLOAD = 1448 / 1538


@dataclass(frozen=True)
class Link:
    """A network between machines.

    Attributes:
        gigabits: a second, of one machine's connection, each way.
        microseconds: from one process to another, for a message without content.
    """

    gigabits: float
    microseconds: float

    def __str__(self) -> str:
        return f"{self.gigabits:g} Gb/s, {self.microseconds:g} us"

    def seconds(self, size: int, ranks: int) -> float:
        """Compute how long the sum of `size` bytes over some ranks takes: in a ring, as Caffe asks Open MPI for."""
        latency, bandwidth = self.microseconds / 1e6, PAYLOAD * self.gigabits * 1e9 / 8
        return 2 * (ranks - 1) * (latency + size / (ranks * bandwidth))


@dataclass(frozen=True)
class Trace:
    """What one of some ranks does in an iteration.

    Attributes:
        ranks: how many share the batch.
        seconds: of the iteration, where exchange costs nothing.
        events: in order: seconds since the iteration began, and bytes to be summed from then on; 0 bytes: the
            computation waits for all sums.
    """

    ranks: int
    seconds: float
    events: tuple[tuple[float, int], ...]

    @property
    def bytes(self) -> int:
        """What a rank has summed in an iteration."""
        return sum(size for _, size in self.events)

    @property
    def sums(self) -> int:
        """In how many parts."""
        return sum(size > 0 for _, size in self.events)


@dataclass(frozen=True)
class Step:
    """An iteration as it is predicted.

    Attributes:
        ranks: how many share the batch.
        seconds: how long it takes.
        waited: seconds of these in which a rank waits for sums.
    """

    ranks: int
    seconds: float
    waited: float


def predict(trace: Trace, link: Link) -> Step:
    """Predict an iteration of ranks that are alike, over a link."""
    now = free = waited = before = 0.0
    for at, size in trace.events:
        now += at - before
        before = at
        if size:
            free = max(free, now) + link.seconds(size, trace.ranks)
        elif free > now:
            waited += free - now
            now = free
    return Step(trace.ranks, now + trace.seconds - before, waited)


@dataclass(frozen=True)
class Schedule:
    """A training to be shared.

    Attributes:
        solver: with its network, which reads no data.
        batch: images of a pass.
        name: the network's.
    """

    solver: caffe_pb2.SolverParameter
    batch: int
    name: str

    @classmethod
    def read(cls, file: Path, processes: Sequence[int]) -> Schedule:
        """Read a solver, and give its network noise for data, of the training's size.

        Raises:
            UserError: a file is missing or no such prototxt, there is no batch to be divided, or the number of
                processes does not divide it.
        """
        solver = read_solver(file)
        name = solver.train_net or solver.net
        if not name:
            raise UserError(f"{file}: names no network to train, as net or train_net")
        origin = find_file(name, file)
        network = read_network(origin)
        state = state_of(network, caffe_pb2.TRAIN, solver.train_state)
        layers = layers_in(network, state)
        batch = batch_of(layers)
        if batch is None:
            raise UserError(f"{origin}: has no data layer whose batch can be divided")
        for ranks in processes:
            check_batches(layers, ranks)
        size = training_size(network, state) or DEFAULT_SIZE
        try:
            compared = shapes_beside_labels(network, state, size)
        except NativeCrash as crash:
            raise UserError(f"{origin}: {crash}") from None
        of_steps = caffe_pb2.SolverParameter()
        of_steps.CopyFrom(solver)
        for field in ("net", "test_net", "test_iter", "test_interval", "test_state", "weights", "display", "snapshot"):
            of_steps.ClearField(field)
        of_steps.base_lr = 0  # the weights stay: noise teaches nothing
        of_steps.train_net_param.CopyFrom(without_data(network, state, (batch, 3, *size), compared))
        of_steps.ClearField("train_net")
        return cls(of_steps, batch, network.name or str(origin))


def measure(solver_text: str, ranks: int, iterations: int) -> Iterator[Trace]:
    """Train as one of some ranks, alone, and yield what it does in an iteration; to be run in a process of its own.

    Args:
        solver_text: a solver of a network that reads no data.
        ranks: how many would share the batch.
        iterations: to take the medians of; one more goes before them.
    """
    caffe.set_mode_cpu()
    group = caffe.emulate_ranks(ranks)
    network = text_format.Parse(solver_text, caffe_pb2.SolverParameter()).train_net_param
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "solver.prototxt"
        file.write_text(solver_text)
        solver = caffe.get_solver(str(file))
    group.exchange(solver)
    fill_with_noise(solver.net, network)
    solver.step(1)
    found = []
    for _ in range(iterations):
        group.take_events()
        began = time.monotonic()  # the clock of the events, too
        solver.step(1)
        seconds = time.monotonic() - began
        found.append(Trace(ranks, seconds, tuple((at - began, size) for at, size in group.take_events())))
    group.leave()
    yield median(found)


def median(traces: Sequence[Trace]) -> Trace:
    """Compute the usual iteration, from the medians of the times between what is done: of those that do the usual (now
    and then checksums of the weights are compared)."""
    (usual, _), *_ = Counter(tuple(size for _, size in trace.events) for trace in traces).most_common(1)
    alike = [trace for trace in traces if tuple(size for _, size in trace.events) == usual]
    times = [[0.0, *(at for at, _ in trace.events), trace.seconds] for trace in alike]
    between = [statistics.median(column) for column in zip(*([b - a for a, b in pairwise(one)] for one in times))]
    ends = list(accumulate(between))
    return Trace(alike[0].ranks, ends[-1], tuple(zip(ends, usual)))


def measure_all(schedule: Schedule, processes: Sequence[int], iterations: int) -> list[Trace]:
    """Measure an iteration of one of each number of processes, and of one alone first.

    Raises:
        UserError: Caffe refuses the network.
    """
    numbers = sorted({1, *processes})
    text = text_format.MessageToString(schedule.solver)
    found = []
    for ranks in progress(numbers, total=len(numbers), description="measuring", unit="part"):
        try:
            (trace,) = run_native(measure, text, ranks, iterations)
        except NativeCrash as crash:
            raise UserError(f"{schedule.name}: {crash}") from None
        found.append(trace)
    return found


def table(schedule: Schedule, traces: Sequence[Trace], links: Sequence[Link]) -> list[list[str]]:
    """Lay out the predictions, the header first; `traces` begins with one process alone."""
    alone = traces[0].seconds
    rows = [list(SUMMARY)]
    for link in links:
        for trace in traces:
            step = predict(trace, link)
            speed_up = alone / step.seconds
            rows.append(
                [
                    str(link),
                    str(trace.ranks),
                    str(schedule.batch // trace.ranks),
                    f"{step.seconds:.3f}",
                    f"{100 * step.waited / step.seconds:.0f}%",
                    f"{speed_up:.2f}",
                    f"{100 * speed_up / trace.ranks:.0f}%",
                    f"{step.seconds * schedule.solver.max_iter / SECONDS_OF_A_DAY:.2f}",
                ]
            )
    return rows
