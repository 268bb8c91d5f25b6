"""The network in a process of its own: images wait for it in a queue, and where Caffe ends it, another one starts."""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from time import perf_counter

from fastapi import HTTPException

from renet.common.errors import UserError
from renet.exchange.onnx_file import SUFFIX
from renet.prediction.computation import Answer, Computation, Request, Setup
from renet.runtime.worker_process import Conversation, NativeCrash
from renet.service.metrics import Metrics

_SHARE_OF_THE_LAST = 0.2  # of an image's seconds in the running mean that Retry-After is reckoned with


@dataclass(eq=False)
class _Waiting:
    """An image in the line."""

    request: Request
    is_gone: Callable[[], Awaitable[bool]]
    note: Callable[[str, float], object]
    answer: asyncio.Future[Answer]
    since: float

    def kind(self) -> object:
        """What those have in common that can be predicted together."""
        return self.request.content.shape, self.request.settings

    def pixels(self) -> int:
        """As the largest of the scales makes them."""
        height, width = self.request.content.shape[:2]
        settings = self.request.settings
        return ceil(height * width * (settings.image_scale * max(settings.scales)) ** 2)

    def fail(self, fault: Exception) -> None:
        """Answer with what went wrong, where an answer is still wanted."""
        if not self.answer.done():
            self.answer.set_exception(fault)

    def can_share(self) -> bool:
        """Whether it is predicted in one pass."""
        return self.request.settings.window is None


class Network:
    """A network that predicts one image after another, in the order in which they come.

    Those of one size and with one settings that wait meanwhile are predicted together, which is quicker.

    Attributes:
        fault: why there is no network at the moment; None where there is one.
    """

    def __init__(self, setup: Setup, metrics: Metrics, queue: int, seconds: float, together: int, pixels: int) -> None:
        """Load the network.

        Args:
            setup: what to load.
            metrics: to count in.
            queue: how many images may wait beside the one that is predicted.
            seconds: that an image may take in the network.
            together: how many images the network may see at once.
            pixels: of all of them.

        Raises:
            UserError: the network cannot be loaded; names the file.
        """
        self._setup = setup
        self._metrics = metrics
        self._places = queue + 1
        self._taken = 0
        self._limit = seconds
        self._seconds_of_one = 1.0
        self._together = together if setup.network.deploy.suffix != SUFFIX else 1
        self._pixels = pixels
        self._line: deque[_Waiting] = deque()
        self._work: asyncio.Task[None] | None = None
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
    ) -> Answer:
        """Wait for the network and let it predict.

        Args:
            request: an image as an array, and its settings.
            is_gone: whether nobody waits for the answer any more; asked when the image's turn has come.
            note: gets the stages' names and seconds.

        Raises:
            HTTPException: 422, the network cannot predict such an image; 500, it stopped at this one; 503, it cannot
                be loaded any more; 504, it took too long.
        """
        waiting = _Waiting(request, is_gone, note, asyncio.get_running_loop().create_future(), perf_counter())
        self._line.append(waiting)
        if self._work is None:
            self._work = asyncio.create_task(self._serve_line())
        return await waiting.answer

    async def _serve_line(self) -> None:
        try:
            while self._line:
                await self._answer(await self._next())
        finally:
            self._work = None

    async def _next(self) -> list[_Waiting]:
        """Take the first from the line, and those further back that can be predicted together with it."""
        chosen: list[_Waiting] = []
        most = self._together
        for waiting in list(self._line):
            if len(chosen) >= most:
                break
            if chosen and waiting.kind() != chosen[0].kind():
                continue
            self._line.remove(waiting)
            seconds = perf_counter() - waiting.since
            self._metrics.seconds.labels("queue").observe(seconds)
            waiting.note("queue", seconds)
            if await waiting.is_gone():
                waiting.fail(HTTPException(503, "nobody waits for the answer any more"))
                continue
            if not chosen:
                most = min(most, self._pixels // waiting.pixels()) if waiting.can_share() else 1
            chosen.append(waiting)
        return chosen

    async def _answer(self, chosen: list[_Waiting]) -> None:
        """Let the network predict images; where that fails, each alone, for one's failure is none of another's."""
        if not chosen:
            return
        start = perf_counter()
        requests = [waiting.request for waiting in chosen]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, requests)
        except Exception as fault:
            if len(chosen) == 1:
                chosen[0].fail(fault)
                return
            for waiting in chosen:
                await self._answer([waiting])
            return
        seconds = perf_counter() - start
        self._metrics.together.observe(len(chosen))
        self._seconds_of_one += _SHARE_OF_THE_LAST * (seconds / len(chosen) - self._seconds_of_one)
        for waiting, answer in zip(chosen, found, strict=True):
            self._metrics.seconds.labels("network").observe(seconds)
            waiting.note("network", seconds)
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    def close(self) -> None:
        """End the process."""
        self._thread.shutdown()
        if self._conversation is not None:
            self._conversation.close()

    def _ask(self, requests: list[Request]) -> list[Answer]:
        conversation = self._conversation
        if conversation is None:
            try:
                conversation = self._conversation = self._started()
            except UserError as error:
                raise HTTPException(503, self._public(error)) from None
        try:
            if len(requests) == 1:
                return [conversation.ask(requests[0], self._limit)]
            return conversation.ask(requests, len(requests) * self._limit)
        except UserError as error:
            raise HTTPException(422, self._public(error)) from None
        except NativeCrash as crash:
            self._start_anew()
            raise HTTPException(500, f"the network stopped at this image: {crash}; it starts anew") from None
        except TimeoutError:
            self._start_anew()
            raise HTTPException(504, f"the network was not done in {self._limit:g} seconds") from None
        except Exception:
            self._start_anew()
            raise

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
