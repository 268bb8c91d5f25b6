"""Running Caffe where its death can be told.

Caffe answers bad input (a prototxt, weights, a size that a layer cannot take) by aborting the process. So it works in a
child process here, and the parent turns the child's last words into one line. A child either yields what a generator
yields (`run_native`), or answers requests one after another (`Conversation`).
"""

from __future__ import annotations

import math
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import spawn
from multiprocessing.connection import wait
from typing import Any

from renet.common.errors import UserError, is_of_the_system, told

# glog: "F20261122 17:48:39.123456  1234 net.cpp:123] Check failed: ..." (older ones: F1122) up to "*** Check failure".
_FATAL_LINE = re.compile(r"^F\d{4,8} [\d:.]+ +\d+ ([\w.]+):\d+\] (.*?)(?=^\*\*\*|\Z)", re.DOTALL | re.MULTILINE)
_ITEM, _USER_ERROR, _BUG, _END = range(4)
# The child gets the parent's module search path, and never its main module: a script need not guard what it does.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from renet.runtime.worker_process import serve; serve(int(sys.argv[1]))"
)
_SECONDS_BETWEEN_LOOKS = 0.2  # at what a child says, where somebody listens


class NativeCrash(Exception):
    """A child died in native code; the message is what Caffe said last.

    Attributes:
        child: its number among those of one `run_native_together`.
        signal: that ended it; None where it ended by itself.
    """

    def __init__(self, message: str, child: int = 0, signal: int | None = None) -> None:
        super().__init__(message)
        self.child = child
        self.signal = signal


class _Connection:
    """Pickled values over a socket; arrays go without a copy, which probabilities of many classes are too large for."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours

    def fileno(self) -> int:
        """The socket's descriptor, for `wait`."""
        return self._socket.fileno()

    def send(self, value: Any) -> None:
        """Send a value."""
        arrays: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
        parts = [memoryview(pickled), *(array.raw() for array in arrays)]
        self._socket.sendall(struct.pack(f"={1 + len(parts)}Q", len(parts), *(part.nbytes for part in parts)))
        for part in parts:
            self._socket.sendall(part)

    def receive(self) -> Any:
        """Wait for the value that comes next.

        Raises:
            EOFError: the other side is gone.
        """
        (count,) = struct.unpack("=Q", self._read(8))
        pickled, *arrays = map(self._read, struct.unpack(f"={count}Q", self._read(8 * count)))
        return pickle.loads(pickled, buffers=arrays)

    def poll(self, seconds: float) -> bool:
        """Wait so long at most; whether something has come."""
        return bool(wait([self], seconds))

    def close(self) -> None:
        """Close this side."""
        self._socket.close()

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        left = memoryview(content)
        while left:
            got = self._socket.recv_into(left)
            if not got:
                raise EOFError
            left = left[got:]
        return content


class _Child:
    """A child process at work, what it sends, and what it says on stderr."""

    def __init__(
        self,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        answers: bool,
        environment: Mapping[str, str] | None = None,
        hears: Callable[[str], object] | None = None,
        number: int = 0,
    ) -> None:
        self.number = number
        self._hears = hears
        self._heard = 0
        self._said = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        self.connection = _Connection(ours)
        # Caffe's account of every layer is no news, unless somebody listens
        defaults = {"GLOG_minloglevel": "0" if hears else "2", "GLOG_logtostderr": "1"}
        # a new interpreter, not a fork: OpenMP's and OpenBLAS's threads do not survive one
        command = [os.fsdecode(spawn.get_executable()), "-c", _PROGRAM, str(theirs.fileno()), *sys.path]
        try:
            with children_without_interrupts():
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stderr=self._said,
                    pass_fds=[theirs.fileno()],
                    env={**defaults, **os.environ, **(environment or {})},
                )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.send((work, arguments, answers, sys.argv))

    def send(self, value: Any) -> None:
        """Send a value; one that has died is found out by `receive`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(value)

    def receive(self, seconds: float | None = None) -> tuple[int, Any]:
        """The kind and the value of what the child sends next.

        Args:
            seconds: to wait for it; None waits for as long as it takes.

        Raises:
            NativeCrash: it died.
            TimeoutError: nothing came in time.
        """
        self._await(seconds)
        try:
            kind, value = self.connection.receive()
        except (EOFError, ConnectionResetError):
            status = self._process.wait()
            self._tell()
            message = last_words(self._text(0).decode(errors="replace"), status)
            raise NativeCrash(message, self.number, -status if status < 0 else None) from None
        self._tell()
        return kind, value

    def _await(self, seconds: float | None) -> None:
        """Wait until something comes, where somebody listens meanwhile or the time is limited."""
        if self._hears is None and seconds is None:
            return
        end = math.inf if seconds is None else time.monotonic() + seconds
        step = math.inf if self._hears is None else _SECONDS_BETWEEN_LOOKS
        while not self.connection.poll(max(0, min(step, end - time.monotonic()))):
            self._tell()
            if time.monotonic() >= end:
                raise TimeoutError

    def _text(self, start: int) -> bytes:
        descriptor = self._said.fileno()
        return os.pread(descriptor, max(0, os.fstat(descriptor).st_size - start), start)

    def _tell(self) -> None:
        """Pass on what the child has said since the last look."""
        if self._hears is not None and (text := self._text(self._heard)):
            self._heard += len(text)
            self._hears(text.decode(errors="replace"))

    def end(self) -> None:
        """End it, whatever it is at."""
        self.connection.close()
        self._process.kill()  # also where it is stopped
        self._process.wait()
        self._said.close()


def _value(kind: int, value: Any) -> Any:
    """What a child has sent, its errors raised."""
    if kind == _USER_ERROR:
        raise UserError(value)
    if kind == _BUG:
        raise RuntimeError(f"in the working process:\n{value}")
    return value


def run_native(
    work: Callable[..., Iterator[Any]], *arguments: Any, hears: Callable[[str], object] | None = None
) -> Iterator[Any]:
    """Yield what the generator `work(*arguments)` yields, while it runs in a child process.

    Args:
        work: a module-level generator function; what it takes and yields is pickled.
        arguments: its arguments.
        hears: gets what the child says on stderr, Caffe's messages among it; by default none of it is told.

    Raises:
        UserError: as raised by `work`.
        NativeCrash: the child was killed or aborted.
        RuntimeError: any other exception in `work`, with its traceback.
    """
    for _, value in run_native_together(work, [arguments], hears=hears):
        yield value


def run_native_together(
    work: Callable[..., Iterator[Any]],
    arguments: Sequence[tuple[Any, ...]],
    environment: Mapping[str, str] | None = None,
    hears: Callable[[str], object] | None = None,
) -> Iterator[tuple[int, Any]]:
    """As `run_native`, with a child process for each of `arguments`, all at once.

    Args:
        work: a module-level generator function.
        arguments: those of each child.
        environment: variables that the children get in addition, before Caffe is loaded (OMP_NUM_THREADS).
        hears: as of `run_native`.

    Yields:
        The child's number and what it yielded, as they come.

    Raises:
        UserError, NativeCrash, RuntimeError: of the first child that fails; the others are ended.
    """
    with ExitStack() as stack:
        children = {}
        for number, of_child in enumerate(arguments):
            child = _Child(work, of_child, answers=False, environment=environment, hears=hears, number=number)
            stack.callback(child.end)
            children[child.connection] = child
        while children:
            for connection in wait(list(children)) if hears is None else list(children):
                child = children[connection]
                kind, value = child.receive()
                if kind == _END:
                    del children[connection]
                else:
                    yield child.number, _value(kind, value)


class Conversation:
    """A child process that answers one request after another, until it is closed."""

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        hears: Callable[[str], object] | None = None,
    ) -> None:
        """Call `make(*arguments)` in a child process; what it returns is called with each request.

        Args:
            make: a module-level function or class.
            arguments: pickled, as are requests and answers.
            environment: variables that the child gets in addition.
            hears: as of `run_native`.

        Raises:
            UserError, NativeCrash, RuntimeError: as `run_native`, of `make`.
        """
        self._child = _Child(make, arguments, answers=True, environment=environment, hears=hears)
        try:
            _value(*self._child.receive())
        except BaseException:
            self._child.end()
            raise

    def ask(self, request: Any, seconds: float | None = None) -> Any:
        """The answer to a request.

        Args:
            request: what the child is asked.
            seconds: that it may take; None: as long as it does.

        Raises:
            UserError: as the child raised it, which goes on answering.
            TimeoutError: it took longer.
            NativeCrash, RuntimeError: as `run_native`; then, and where it took longer or the wait was interrupted, the
                conversation is over, for the answer would be taken for that of the next request.
        """
        try:
            self._child.send(request)
            kind, value = self._child.receive(seconds)
            if kind != _USER_ERROR:
                return _value(kind, value)
        except BaseException:
            self._child.end()
            raise
        raise UserError(value)

    def close(self) -> None:
        """End the child; a second call does nothing."""
        self._child.end()


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole process group; of processes that are started in here none hears it, for this one ends
    them. An interruption of this one waits until they are started.

    What is blocked is inherited by the children, but blocked in this thread alone: where another thread (a progress
    bar's) takes the signal, Python still interrupts this one, so its handler waits, too.
    """
    interrupted = False

    def remember(*_: object) -> None:
        nonlocal interrupted
        interrupted = True

    heeded = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, remember) if heeded else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if heeded:
            signal.signal(signal.SIGINT, handler)
    if interrupted:
        signal.raise_signal(signal.SIGINT)


def serve(descriptor: int) -> None:
    """The life of a child process: do what comes first over the connection with this file descriptor."""
    connection = _Connection(socket.socket(fileno=descriptor))
    try:
        work, arguments, answers, sys.argv = connection.receive()
        if answers:
            _answer(connection, work(*arguments))
        else:
            for value in work(*arguments):
                connection.send((_ITEM, value))
        connection.send((_END, None))
    except (BrokenPipeError, EOFError):
        os._exit(1)  # the parent is gone
    except BaseException as error:
        connection.send(_as_message(error))


def _answer(connection: _Connection, handler: Callable[[Any], Any]) -> None:
    connection.send((_ITEM, None))
    while True:
        try:
            request = connection.receive()
        except EOFError:
            os._exit(0)  # nobody has another request
        try:
            message = (_ITEM, handler(request))
        except Exception as error:
            message = _as_message(error)
        connection.send(message)


def _as_message(error: BaseException) -> tuple[int, str]:
    if isinstance(error, UserError):
        return _USER_ERROR, str(error)
    if isinstance(error, OSError) and is_of_the_system(error):
        return _USER_ERROR, told(error)
    return _BUG, traceback.format_exc()


def last_words(text: str, exit_code: int) -> str:
    """One line on why a child died: Caffe's failed check, or the signal that ended it."""
    fatal = _FATAL_LINE.search(text)
    if fatal:
        return " ".join(fatal[2].split()) + f" ({fatal[1]})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    end = f"; its last line: {lines[-1]}" if lines else ""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ", probably for want of memory" if -exit_code == signal.SIGKILL else ""
        return f"the working process was ended by {name}{memory}{end}"
    return f"the working process ended with status {exit_code}{end}"
