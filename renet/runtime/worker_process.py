"""Running Caffe where its death can be told.

Caffe answers bad input (a prototxt, weights, a size that a layer cannot take) by aborting the process. So it works in a
child process here, and the parent turns the child's last words into one line.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from renet.common.errors import UserError, is_of_the_system, told

# glog: "F20261122 17:48:39.123456  1234 net.cpp:123] Check failed: ..." (older ones: F1122) up to "*** Check failure".
_FATAL_LINE = re.compile(r"^F\d{4,8} [\d:.]+ +\d+ ([\w.]+):\d+\] (.*?)(?=^\*\*\*|\Z)", re.DOTALL | re.MULTILINE)
_ITEM, _USER_ERROR, _BUG, _END = range(4)


class NativeCrash(Exception):
    """A child died in native code; the message is what Caffe said last.

    Attributes:
        child: its number among those of one `run_native_together`.
    """

    def __init__(self, message: str, child: int = 0) -> None:
        super().__init__(message)
        self.child = child


def run_native(work: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """Yield what the generator `work(*arguments)` yields, while it runs in a child process.

    Args:
        work: a module-level generator function; what it takes and yields is pickled.
        arguments: its arguments.

    Raises:
        UserError: as raised by `work`.
        NativeCrash: the child was killed or aborted.
        RuntimeError: any other exception in `work`, with its traceback.
    """
    for _, value in run_native_together(work, [arguments]):
        yield value


def run_native_together(
    work: Callable[..., Iterator[Any]],
    arguments: Sequence[tuple[Any, ...]],
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[int, Any]]:
    """As `run_native`, with a child process for each of `arguments`, all at once.

    Args:
        work: a module-level generator function.
        arguments: those of each child.
        environment: variables that the children get in addition, before Caffe is loaded (OMP_NUM_THREADS).

    Yields:
        The child's number and what it yielded, as they come.

    Raises:
        UserError, NativeCrash, RuntimeError: of the first child that fails; the others are ended.
    """
    context = get_context("spawn")  # not forked: OpenMP and OpenBLAS threads do not survive a fork
    with ExitStack() as stack:
        children = {}
        for number, of_child in enumerate(arguments):
            said = stack.enter_context(tempfile.NamedTemporaryFile())
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(sender, work, of_child, said.name, dict(environment or {})), daemon=True
            )
            with children_without_interrupts():
                child.start()
                sender.close()
                stack.callback(_end, child, receiver)
            children[receiver] = (number, child, said)
        while children:
            for receiver in wait(list(children)):
                number, child, said = children[receiver]
                try:
                    kind, value = receiver.recv()
                except EOFError:
                    child.join()
                    said.seek(0)
                    message = last_words(said.read().decode(errors="replace"), child.exitcode or 0)
                    raise NativeCrash(message, number) from None
                if kind == _END:
                    del children[receiver]
                elif kind == _USER_ERROR:
                    raise UserError(value)
                elif kind == _BUG:
                    raise RuntimeError(f"in the working process:\n{value}")
                else:
                    yield number, value


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches the whole process group; of processes that are started in here none hears it, for this one ends
    them. An interruption of this one waits until they are started.

    What is blocked is inherited by the children, but blocked in this thread alone: where another thread (a progress
    bar's) takes the signal, Python still interrupts this one, so its handler waits, too.
    """
    resource_tracker.ensure_running()  # the first process would start it, which lets interruptions through again
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


def _end(child: BaseProcess, receiver: Connection) -> None:
    receiver.close()
    child.terminate()
    child.join()


def _child(
    sender: Connection,
    work: Callable[..., Iterator[Any]],
    arguments: tuple[Any, ...],
    said: str,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    os.environ.setdefault("GLOG_minloglevel", "2")  # Caffe's account of every layer is no news here
    os.environ.setdefault("GLOG_logtostderr", "1")
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
        for value in work(*arguments):
            sender.send((_ITEM, value))
        sender.send((_END, None))
    except UserError as error:
        sender.send((_USER_ERROR, str(error)))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone
    except OSError as error:
        sender.send((_USER_ERROR, told(error)) if is_of_the_system(error) else (_BUG, traceback.format_exc()))
    except BaseException:
        sender.send((_BUG, traceback.format_exc()))


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
