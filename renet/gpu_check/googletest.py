"""Run many tests of a GoogleTest program side by side; a test that ends the program costs itself alone.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

LINE = re.compile(r"^\[ *(RUN|OK|FAILED) *\] ([\w/]+\.\w+)")
# glog: "F20261122 17:48:39.123456  1234 net.cpp:123] Check failed: ..."
FATAL = re.compile(r"^F\d{4,8} [\d:.]+ +\d+ ([\w.]+:\d+)\] (.*)")
LINES_KEPT = 6  # of what a failed test said


class Report(NamedTuple):
    """What came of some tests.

    Attributes:
        passed: names, with their seconds.
        failed: names, with what they said.
        crashed: names of tests in which the program ended, with its last words.
        unfinished: names that the time did not suffice for.
    """

    passed: dict[str, float]
    failed: dict[str, str]
    crashed: dict[str, str]
    unfinished: list[str]

    def __bool__(self) -> bool:
        return not (self.failed or self.crashed or self.unfinished)


def listed_tests(text: str) -> list[str]:
    """The names in the output of --gtest_list_tests."""
    names, suite = [], ""
    for line in text.splitlines():
        name = line.split("#")[0].rstrip()
        if re.fullmatch(r"[\w/]+\.", name):
            suite = name
        elif suite and re.fullmatch(r"  \w+", name):
            names.append(suite + name.strip())
    return names


def uses_gpu(name: str) -> bool:
    """Whether a test of Caffe's program works on the GPU, by its name.

    Suites typed by device have float and double on the CPU as /0 and /1, on the GPU as /2 and /3.
    """
    return bool(re.search(r"GPU|Gpu|CuDNN|CUDA|Cuda|NCCL|/[23]\.", name)) and "Emulation" not in name


def shares(names: Sequence[str], count: int) -> list[list[str]]:
    """The names dealt out to `count` shares; neighbours, which take equally long, go to different ones."""
    return [list(names[i::count]) for i in range(count) if names[i::count]]


def last_words(lines: Sequence[str], status: int) -> str:
    """Why a program ended: its failed check, else its status and last line."""
    for line in reversed(lines):
        fatal = FATAL.match(line)
        if fatal:
            return f"{fatal.group(2)} ({fatal.group(1)})"
    said = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith(("@", "***"))]
    end = f"signal {-status}" if status < 0 else f"status {status}"
    return f"ended with {end}" + (f"; last line: {said[-1]}" if said else "")


class Processes:
    """The processes that run now, and whether any more may be started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._halted = False

    def start(self, *arguments: Any, **options: Any) -> subprocess.Popen | None:
        """As subprocess.Popen; None after halt()."""
        with self._lock:
            if self._halted:
                return None
            process = subprocess.Popen(*arguments, **options)
            self._running.add(process)
            return process

    def ended(self, process: subprocess.Popen) -> None:
        """Forget a process."""
        with self._lock:
            self._running.discard(process)

    def halt(self) -> None:
        """End all, and start none any more."""
        with self._lock:
            self._halted = True
            for process in self._running:
                process.kill()


def run_share(
    command: Sequence[str],
    names: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    deadline: float,
    log: Path,
    processes: Processes,
) -> Report:
    """Run the tests `names`, one after the other, starting the program anew after each that ended it.

    Args:
        command: the program, and arguments.
        names: tests.
        variables: the environment's variables.
        folder: the working directory.
        deadline: when to stop, by time.monotonic().
        log: where everything that the program says is appended.
        processes: knows those that run.
    """
    report = Report({}, {}, {}, [])
    rest = list(names)
    while rest and time.monotonic() < deadline:
        lines: list[str] = []
        running, since = None, 0.0
        done = set()
        process = processes.start(
            [*command, f"--gtest_filter={':'.join(rest)}", "--gtest_color=no"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            cwd=str(folder),
            universal_newlines=True,
            errors="replace",
        )
        if process is None:
            break
        stop = threading.Timer(max(0.0, deadline - time.monotonic()), process.kill)
        stop.start()
        with open(log, "a", encoding="utf-8") as written:
            for line in process.stdout:
                written.write(line)
                found = LINE.match(line)
                kind, name = found.groups() if found else ("", "")
                if kind == "RUN":
                    running, since, lines = name, time.monotonic(), []
                elif name and name == running:
                    if kind == "OK":
                        report.passed[name] = round(time.monotonic() - since, 3)
                    else:
                        report.failed[name] = "\n".join(lines[:LINES_KEPT])
                    done.add(name)
                    running = None
                else:
                    lines.append(line.rstrip("\n"))
        status = process.wait()
        processes.ended(process)
        timed_out = not stop.is_alive() and time.monotonic() >= deadline
        stop.cancel()
        if running is not None and not timed_out:
            report.crashed[running] = last_words(lines, status)
            done.add(running)
        elif not done and not timed_out:
            # it did not even begin: so it will not the next time
            report.crashed.update((name, last_words(lines, status)) for name in rest)
            return report
        rest = [name for name in rest if name not in done]
    report.unfinished.extend(rest)
    return report


def run_tests(
    command: Sequence[str],
    names: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    deadline: float,
    logs: Path,
    at_once: int,
) -> Report:
    """Run tests in `at_once` processes side by side; arguments as for run_share, `logs` is a folder."""
    dealt = shares(names, at_once)
    processes = Processes()
    with ThreadPoolExecutor(max_workers=max(1, len(dealt))) as pool:
        running = [
            pool.submit(run_share, command, share, variables, folder, deadline, logs / f"{number}.log", processes)
            for number, share in enumerate(dealt)
        ]
        try:
            return merged(each.result() for each in running)
        except BaseException:
            processes.halt()  # or leaving the pool would wait for the deadline
            raise


def merged(reports: Iterable[Report]) -> Report:
    """Several reports as one."""
    total = Report({}, {}, {}, [])
    for report in reports:
        total.passed.update(report.passed)
        total.failed.update(report.failed)
        total.crashed.update(report.crashed)
        total.unfinished.extend(report.unfinished)
    return total
