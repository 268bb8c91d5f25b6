"""The network in a process of its own: images wait for it in a queue, and where Caffe ends it, another one starts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from math import ceil
from time import perf_counter

import numpy as np
from fastapi import HTTPException

from renet.common.errors import UserError
from renet.prediction.computation import Computation, Prediction, Request, Setup
from renet.runtime.worker_process import Conversation, NativeCrash
from renet.service.metrics import Metrics

_SHARE_OF_THE_LAST = 0.2  # of an image's seconds in the running mean that Retry-After is reckoned with


class Network:
    """A network that predicts one image at a time; images wait in the order in which they come.

    Attributes:
        fault: why there is no network at the moment; None where there is one.
    """

    def __init__(self, setup: Setup, metrics: Metrics, queue: int, seconds: float) -> None:
        """Load the network.

        Args:
            setup: what to load.
            metrics: to count in.
            queue: how many images may wait beside the one that is predicted.
            seconds: that an image may take in the network.

        Raises:
            UserError: the network cannot be loaded; names the file.
        """
        self._setup = setup
        self._metrics = metrics
        self._places = queue + 1
        self._taken = 0
        self._limit = seconds
        self._seconds_of_one = 1.0
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1)
        self.fault: str | None = None
        self._conversation: Conversation | None = self._started()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place in the queue.

        Raises:
            HTTPException: 429, there is none; with the seconds after which there may be one.
        """
        if self._taken >= self._places:
            seconds = max(1, ceil(self._taken * self._seconds_of_one))
            raise HTTPException(
                429, f"{self._taken} images are waiting already; try again later", {"Retry-After": str(seconds)}
            )
        self._taken += 1
        self._metrics.waiting.inc()
        try:
            yield
        finally:
            self._taken -= 1
            self._metrics.waiting.dec()

    async def predict(
        self, request: Request, is_gone: Callable[[], Awaitable[bool]], note: Callable[[str, float], object]
    ) -> np.ndarray | Prediction:
        """Wait for the network and let it predict.

        Args:
            request: an image.
            is_gone: whether nobody waits for the answer any more; asked when the image's turn has come.
            note: gets the stages' names and seconds.

        Raises:
            HTTPException: 422, the network cannot predict such an image; 500, it stopped at this one; 503, it cannot
                be loaded any more; 504, it took too long.
        """
        start = perf_counter()
        async with self._turn:
            self._metrics.seconds.labels("queue").observe(perf_counter() - start)
            note("queue", perf_counter() - start)
            if await is_gone():
                raise HTTPException(503, "nobody waits for the answer any more")
            with self._metrics.stage("network", note):
                before = perf_counter()
                found = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, request)
                self._seconds_of_one += _SHARE_OF_THE_LAST * (perf_counter() - before - self._seconds_of_one)
            return found

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown()
        if self._conversation is not None:
            self._conversation.close()

    def _ask(self, request: Request) -> np.ndarray | Prediction:
        conversation = self._conversation
        if conversation is None:
            try:
                conversation = self._conversation = self._started()
            except UserError as error:
                raise HTTPException(503, self._public(error)) from None
        try:
            return conversation.ask(request, self._limit)
        except UserError as error:
            raise HTTPException(422, self._public(error)) from None
        except NativeCrash as crash:
            self._start_anew()
            raise HTTPException(500, f"the network stopped at this image: {crash}; it starts anew") from None
        except TimeoutError:
            self._start_anew()
            raise HTTPException(504, f"the network was not done in {self._limit:g} seconds") from None

    def _start_anew(self) -> None:
        """Load the network again, before the next image comes to this thread."""
        self._conversation = None
        self._metrics.restarts.inc()
        self._thread.submit(self._try_to_start)

    def _try_to_start(self) -> None:
        with suppress(UserError):  # `fault` tells, and the next image tries again
            self._conversation = self._started()

    def _started(self) -> Conversation:
        file = self._setup.network.deploy
        try:
            conversation = Conversation(_load, self._setup)
        except NativeCrash as crash:
            self.fault = f"{file.name}: Caffe cannot make this network: {crash}"
            raise UserError(f"{file.parent / self.fault}") from None
        except UserError as error:
            self.fault = self._public(error)
            raise
        self.fault = None
        return conversation

    def _public(self, error: UserError) -> str:
        """What is wrong, without the folder in which the network lies."""
        return str(error).replace(f"{self._setup.network.deploy.parent}/", "")


def _load(setup: Setup) -> Computation:
    # where a whole process group is asked to end, the images in the queue are still predicted
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return Computation(setup)
