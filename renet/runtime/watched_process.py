"""Watch over work that may abort its process, with the reason of its death in one line.

Caffe ends the whole process where a CHECK fails. So the work is done by a forked process whose messages (file
descriptor 2, where Caffe logs) go to a log file, and this process waits: it passes signals on, and where the work dies
it finds the line that says why.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from renet.common.command_line import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from renet.common.commands import as_typed
from renet.common.progress import draws_bars
from renet.runtime.worker_process import last_words

# SIGUSR1 is what mpirun passes on without ending everything itself
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_SENT_BY_KERNEL = 0x80  # si_code of a signal from the terminal: the whole process group has it already
_PR_SET_PDEATHSIG = 1
BYTES_OF_NOTES = 1 << 16  # for a few paths, however long
_SECONDS_OF_ONE_PRESS = 0.5  # `timeout` and shells deliver one interruption twice


@dataclass
class Work:
    """Environment of the working process.

    Attributes:
        stop: the signal that asked it to stop, or None.
        notes: memory of `BYTES_OF_NOTES` shared with the waiting process, which finds there where the log is and what
            is being done.
    """

    stop: int | None = None
    notes: mmap.mmap | None = field(default=None, repr=False)
    _log: tuple[int, str] | None = field(default=None, repr=False)
    _place: str = field(default="", repr=False)

    def listen(self) -> None:
        """Let signals that ask to stop only set `stop`."""

        def ask_to_stop(number: int, _frame: object) -> None:
            self.stop = self.stop or number

        for number in _STOP_SIGNALS:
            signal.signal(number, ask_to_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_STOP_SIGNALS, signal.SIGCHLD])

    def log_to(self, file: Path) -> None:
        """Append to `file` all that is written to file descriptor 2; `sys.stderr` goes on to where it went."""
        sys.stderr.flush()
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._log = os.fstat(log).st_size, str(file.resolve())
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(log, 2)
        os.close(log)
        self._note("")

    def locate(self, place: str) -> None:
        """Name which of the processes that work together this one is, and where it is: what the message begins with
        where the work dies; with a place it died for all."""
        self._place = place
        self._note("")

    @contextmanager
    def during(self, what: str, *unfinished: Path) -> Iterator[None]:
        """Name what is being done: where the work dies in here, the message has `what` after the reason, and the files
        `unfinished` are deleted (of a link: the link); after `log_to`."""
        self._note(what, *unfinished)
        try:
            yield
        finally:
            self._note("")

    def _note(self, what: str, *unfinished: Path) -> None:
        """Leave where the log is, what is being done, and by whom, where the waiting process finds it."""
        if self.notes is not None:
            self.notes[:] = (
                json.dumps([self._log, what, [str(file.absolute()) for file in unfinished], self._place])
                .encode()
                .ljust(len(self.notes), b"\0")
            )


def watched(work: Callable[[Work], int], on_death: Callable[[Path, str, str], None] | None = None) -> int:
    """Call `work` in a process of its own and return its exit status.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 only set `Work.stop`: the work is to end by itself. A second SIGINT kills it.

    Args:
        work: returns the exit status.
        on_death: where the work died of a signal after `Work.log_to`: called with the log file, `failed` (or
            `interrupted`, where somebody wanted it) and the reason.

    Returns:
        the work's exit status; 2 where Caffe aborted, or where the work was one of several processes' (`Work.locate`);
        130 where a second SIGINT killed it, else 128 + the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_STOP_SIGNALS, signal.SIGCHLD])
    notes = mmap.mmap(-1, BYTES_OF_NOTES)  # shared by both, and no file that might be one too many
    child = os.fork()
    if child == 0:
        _work(work, Work(notes=notes), os.getppid())
    status, impatient = _wait(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_STOP_SIGNALS, signal.SIGCHLD])
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    return _explain_death(os.WTERMSIG(status), impatient, notes[:], on_death)


def signal_at_death_of(parent: int, number: int) -> None:
    """Let this process get a signal when the parent's thread that started it ends; it exits where that is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent and parent != 1:
        os._exit(1)


def _work(work: Callable[[Work], int], environment: Work, parent: int) -> None:
    """The life of the working process; never returns."""
    status = 1
    try:
        # Where the waiting process is killed, nobody is left to stop this one: it goes, too.
        signal_at_death_of(parent, signal.SIGKILL)

        environment.listen()
        status = work(environment)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):  # nobody reads it, or it is closed
                stream.flush()
        # Without the interpreter's and Caffe's farewell: prefetching threads may be in the middle of their work.
        os._exit(status)


def _wait(child: int) -> tuple[int, bool]:
    """The child's wait status, and whether it was killed because somebody asked twice."""
    first_interrupt: float | None = None
    impatient = False
    while True:
        info = signal.sigwaitinfo([*_STOP_SIGNALS, signal.SIGCHLD])
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status, impatient
            continue
        now = time.monotonic()
        if info.si_signo == signal.SIGINT:
            if first_interrupt is not None and now - first_interrupt > _SECONDS_OF_ONE_PRESS:
                impatient = True
                os.kill(child, signal.SIGKILL)
                continue
            first_interrupt = first_interrupt or now
        if info.si_code != _SENT_BY_KERNEL:
            os.kill(child, info.si_signo)


@dataclass(frozen=True)
class Death:
    """How work died that could not say so itself.

    Attributes:
        reason: in a line.
        log: the file of `Work.log_to`; None where it was not called yet.
        status: to exit with.
    """

    reason: str
    log: Path | None
    status: int


def death_of(number: int, notes: bytes) -> Death:
    """Find out why work died of the signal `number`, and delete the files that it left unfinished.

    Args:
        number: of the signal.
        notes: that the work left.
    """
    noted = notes.rstrip(b"\0")
    log, what, unfinished, place = json.loads(noted) if noted else (None, "", [], "")
    for file in unfinished:
        with suppress(OSError):
            os.unlink(file)
    reason = f"ended by signal {number} ({signal.Signals(number).name})"
    if number == signal.SIGABRT and log is not None:
        with open(log[1], "rb") as stream:
            stream.seek(log[0])
            reason = last_words(stream.read().decode(errors="replace"), -number)
    elif number == signal.SIGKILL:
        reason = "killed (signal 9), perhaps for want of memory"
    reason = f"{reason}, {what}" if what else reason
    is_fault = bool(place) or (number == signal.SIGABRT and log is not None)
    return Death(
        f"{place}: {reason}" if place else reason,
        None if log is None else Path(log[1]),
        EXIT_BAD_INPUT if is_fault else 128 + number,
    )


def _explain_death(
    number: int, impatient: bool, notes: bytes, on_death: Callable[[Path, str, str], None] | None
) -> int:
    death = death_of(number, notes)
    reason, status = death.reason, death.status
    if impatient:
        reason, status = "stopped at once, without a snapshot", EXIT_INTERRUPTED
    if draws_bars():
        print(file=sys.stderr)  # the progress bar's line is unfinished
    where = f" (log: {_short(death.log)})" if death.log is not None and not impatient else ""
    with suppress(OSError):
        print(f"{as_typed(Path(sys.argv[0]).name)}: {reason}{where}", file=sys.stderr)
    if death.log is not None and on_death is not None:
        # where this fails, too, the reason has been told: a full disk, say
        with suppress(OSError):
            on_death(death.log, "interrupted" if impatient else "failed", reason)
    return status


def _short(path: Path) -> str:
    """The path from the current folder where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
