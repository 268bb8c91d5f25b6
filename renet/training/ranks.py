"""The processes (ranks) that mpirun or srun has started together, and that train one network."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from renet.common.command_line import EXIT_BAD_INPUT
from renet.common.errors import UserError, is_of_the_system, told

ALL_GPUS = "all"  # in place of a GPU's number: each rank takes its own

# What ends all ranks alike the first one says; another one that has something else to say waits so long.
SECONDS_FOR_THE_FIRST = 3.0
# Data layers whose batches the ranks divide, and their parameters; the first also divide tests
_DIVIDE_TESTS = {
    "SegmentationData": "segmentation_data_param",
    "ImageSegData": "image_data_param",
    "DenseImageData": "dense_image_data_param",
}
_BATCHES = {**_DIVIDE_TESTS, "Data": "data_param", "HDF5Data": "hdf5_data_param"}


@dataclass
class Ranks:
    """The ranks of a training, of which this process is one; all make the same calls in the same order.

    Attributes:
        group: of pycaffe; None: this process trains alone, and is the first and only rank.
        iteration: how far the training is, for messages.
    """

    group: Any = None
    iteration: int = 0

    @classmethod
    def join(cls) -> Ranks:
        """Join the processes that were started together with this one.

        Raises:
            UserError: this build knows no MPI, or another one than they were started with.
        """
        try:
            return cls(caffe.join_ranks())
        except RuntimeError as error:
            raise UserError(str(error)) from None

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return 0 if self.group is None else self.group.rank

    @property
    def size(self) -> int:
        """How many there are."""
        return 1 if self.group is None else self.group.size

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def waited_seconds(self) -> float:
        """How long this process has waited for others so far."""
        return 0.0 if self.group is None else self.group.waited_seconds

    def choose_gpu(self, asked: int | str) -> int:
        """Choose this rank's GPU: the one that is asked for, or of all, the one of its number on its machine.

        Raises:
            UserError: a machine has more ranks than GPUs, or this process trains alone and is to take all.
        """
        if self.group is None and asked == ALL_GPUS:
            raise UserError(
                "--gpu all is for several processes, which take a GPU each: mpirun -n 4 ... tools/train.py --gpu all"
            )
        if self.group is None:
            return int(asked)
        try:
            return self.group.choose_gpu([] if asked == ALL_GPUS else [asked])
        except RuntimeError as error:
            raise UserError(str(error)) from None

    def names(self) -> list[str]:
        """Each rank with its machine, in words."""
        return [] if self.group is None else [self.group.name(rank) for rank in range(self.size)]

    @property
    def place(self) -> str:
        """Which rank this is, on which machine, and where it is, in words; empty where it trains alone."""
        return "" if self.group is None else f"{self.group.name(self.rank)}: iteration {self.iteration}"

    def located(self, text: str) -> str:
        """What is to be said with the place before it where there are several ranks."""
        return text if self.group is None else f"{self.place}: {text}"

    def share(self, content: Any) -> Any:
        """Give all ranks what the first one has: anything that JSON holds."""
        if self.group is None:
            return content
        own = json.dumps(content).encode() if self.is_first else b""
        length = self.group.sum_integers([len(own)])[0]
        sent = list(own) if self.is_first else [0] * length
        return json.loads(bytes(self.group.sum_integers(sent)))

    def greatest(self, number: int) -> int:
        """Find the largest number of all ranks' (0 or more)."""
        if self.group is None:
            return number
        own = [number if rank == self.rank else 0 for rank in range(self.size)]
        return max(self.group.sum_integers(own))

    def mean(self, number: float) -> float:
        """Compute the mean of all ranks' numbers."""
        return number if self.group is None else self.group.sum_floats([number])[0] / self.size

    def sum(self, number: float) -> float:
        """Compute the sum of all ranks' numbers."""
        return number if self.group is None else self.group.sum_floats([number])[0]

    def sum_counts(self, counts: np.ndarray) -> np.ndarray:
        """Compute the sums of all ranks' whole numbers, of the same shape."""
        if self.group is None:
            return counts
        return np.array(self.group.sum_integers(counts.ravel().tolist()), np.int64).reshape(counts.shape)

    def exchange(self, solver: Any) -> None:
        """Let pycaffe's solver, which has its first weights, train with those of all ranks.

        Raises:
            UserError: a rank has another build, solver, network, data or number of threads; or SystemExit, of another
                rank than the first, which says it.
        """
        if self.group is not None:
            self._demand_none(self.group.difference_of_solver(solver))
            self.group.exchange(solver)

    def compare_code(self) -> None:
        """Look whether all ranks run the same library.

        Raises:
            UserError: one does not; or SystemExit, as of `exchange`.
        """
        if self.group is not None:
            folder = Path(__file__).parents[1]
            files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py")}
            text = "".join(
                f"{name}: {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for name, file in sorted(files.items())
            )
            self._demand_none(self.group.difference("library renet", text))

    def compare_data(self, network: Any) -> None:
        """Look whether all ranks have the data of pycaffe's network.

        Raises:
            UserError: one has not; or SystemExit, as of `exchange`.
        """
        if self.group is not None:
            self._demand_none(self.group.difference_of_data(network))

    def _demand_none(self, difference: str) -> None:
        if difference and self.is_first:
            raise UserError(difference)
        if difference:
            raise SystemExit(EXIT_BAD_INPUT)

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Let an error that is not of all ranks say whose it is: of the system (a full disk), and of another rank than
        the first, which is not to say what the first one says, too.

        Raises:
            UserError: in place of an error of the system, where there are several ranks.
        """
        try:
            yield
        except UserError as error:
            if self.is_first:
                raise
            time.sleep(SECONDS_FOR_THE_FIRST)
            raise UserError(f"{self.group.name(self.rank)}: {error}") from None
        except OSError as error:
            if self.group is None or not is_of_the_system(error):
                raise
            raise UserError(self.located(told(error))) from None

    def leave(self, status: int) -> None:
        """End the connection: where all end alike (0, or by a signal) each by itself, else all at once."""
        if self.group is None:
            return
        if 0 < status < 128:
            self.group.abort(status)
        self.group.leave()
        self.group = None


def divides_test(layers: Iterable[caffe_pb2.LayerParameter]) -> bool:
    """Tell whether ranks may test a network on different batches, as its data layers read those of their rank."""
    return any(layer.type in _DIVIDE_TESTS for layer in layers)


def batch_of(layers: Iterable[caffe_pb2.LayerParameter]) -> int | None:
    """Find the batch of the first data layer whose batch ranks divide; None where there is none."""
    return next((getattr(each, _BATCHES[each.type]).batch_size for each in layers if each.type in _BATCHES), None)


def check_batches(layers: Iterable[caffe_pb2.LayerParameter], ranks: int) -> None:
    """Look whether the batch of each data layer, which is that of all ranks together, can be divided.

    Raises:
        UserError: it cannot; names the layer and the numbers of processes that do.
    """
    for layer in layers:
        if layer.type in _BATCHES:
            batch = getattr(layer, _BATCHES[layer.type]).batch_size
            if batch % ranks:
                divisors = ", ".join(str(number) for number in range(1, batch + 1) if batch % number == 0)
                raise UserError(
                    f"layer {layer.name!r}: a batch of {batch} cannot be divided among {ranks} processes; these numbers"
                    f" of processes can: {divisors}"
                )
