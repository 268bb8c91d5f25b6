"""A process that answers questions, both ends of it: each question and each answer is a line of JSON.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# glog: "F20261122 17:48:39.123456  1234 net.cpp:123] Check failed: ..."
FATAL = re.compile(r"^F\d{4,8} [\d:.]+ +\d+ ([\w.]+:\d+)\] (.*)", re.M)


def last_words(text: str, status: int) -> str:
    """Why a program ended: its last failed check, else its status and last line."""
    fatal = FATAL.findall(text)
    if fatal:
        return f"{fatal[-1][1]} ({fatal[-1][0]})"
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("@", "***"))]
    end = f"signal {-status}" if status < 0 else f"status {status}"
    return f"ended with {end}" + (f"; last line: {said[-1]}" if said else "")


class Died(Exception):
    """A process that answers questions ended, or answered with an error; the message is one line."""


class Conversation:
    """The asking end."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        log: Path,
        deadline: float | None = None,
    ) -> None:
        """Start the answering process.

        Args:
            command: the program, and arguments.
            variables: its environment.
            folder: its working directory.
            log: where it says what it says besides answers.
            deadline: when it is stopped, by time.monotonic().

        Raises:
            Died: it ended before it was ready.
        """
        self._log = open(log, "w+", errors="replace")  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(variables),
            cwd=str(folder),
            universal_newlines=True,
        )
        seconds = threading.TIMEOUT_MAX if deadline is None else max(0.0, deadline - time.monotonic())
        self._stop = threading.Timer(seconds, self._process.kill)
        self._stop.daemon = True
        self._stop.start()
        try:
            self.ready: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """The answer to a question; raises Died."""
        with contextlib.suppress(BrokenPipeError):  # the answer tells what happened
            self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def finish(self) -> None:
        """Let it end its work and wait for it.

        Raises:
            Died: it failed at that.
        """
        self._process.stdin.close()
        if self._process.wait() != 0:
            raise Died(self._words())

    def close(self) -> None:
        """End it, however far it is."""
        self._stop.cancel()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._log.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise Died(self._words())
        answer = json.loads(line)
        if "error" in answer:
            raise Died(answer["error"])
        return answer

    def _words(self) -> str:
        if not self._stop.is_alive() and self._process.returncode == -signal.SIGKILL:
            return "stopped: the time was up"
        self._log.seek(0)
        return last_words(self._log.read(), self._process.returncode)


def serve(begin: Callable[[], tuple[dict[str, Any], Any]]) -> None:
    """Be the answering end until the input ends.

    Args:
        begin: gives the first answer, which tells that all is ready, and an object whose methods answer: the question
            {"do": "run", "times": 3} is the call run(times=3). An exception is answered {"error": ...}.
    """
    # only answers go to the pipe, whatever a library prints
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    ready, answering = begin()
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = getattr(answering, question.pop("do"))(**question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(answer), file=answers)
