"""A machine with a GPU as the checks see it: what it has, and how the bundle's programs are run on it.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from renet.gpu_check.googletest import last_words
from renet.gpu_check.launcher import DRIVER_FOLDERS, c_library, pythons
from renet.gpu_check.work import Rates

PASSED, FAILED, SKIPPED, UNFINISHED = "passed", "FAILED", "skipped", "UNFINISHED"
NAME_BYTES = 256


@dataclass
class Outcome:
    """How a stage went.

    Attributes:
        status: PASSED, FAILED, SKIPPED or UNFINISHED.
        summary: one line.
        metadata: what the JSON report holds of it.
    """

    status: str
    summary: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Machine:
    """What every stage needs.

    Attributes:
        bundle: the bundle's folder.
        out: a folder for logs.
        variables: the environment of the bundle's programs.
        own_variables: the environment of everything else.
        manifest: the bundle's.
        gpu: the GPU's name.
        keep: stores metadata of the stage that runs in the report at once, in case that the run is killed.
        say: tells the user how far it is.
        peer: a Python with a PyTorch that sees the GPU, if there is one.
        rates: of the GPU, if they are known.
    """

    bundle: Path
    out: Path
    variables: dict[str, str]
    own_variables: dict[str, str]
    manifest: dict[str, Any]
    gpu: str
    keep: Callable[[dict[str, Any]], None]
    say: Callable[[str], None]
    peer: str | None = None
    rates: Rates | None = None

    def program(self, name: str) -> str:
        """The path of one of the bundle's programs."""
        return str(self.bundle / "programs" / name)


def gpu_names() -> list[str]:
    """The names of the GPUs that CUDA's driver offers to this process; empty where there is no driver."""
    for place in ("libcuda.so.1", *(os.path.join(folder, "libcuda.so.1") for folder in DRIVER_FOLDERS)):
        try:
            driver = ctypes.CDLL(place)
            break
        except OSError:
            continue
    else:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for ordinal in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(NAME_BYTES)
        if driver.cuDeviceGet(ctypes.byref(device), ordinal) == 0:
            driver.cuDeviceGetName(name, NAME_BYTES, device)
            names.append(name.value.decode(errors="replace"))
    return names


def only_gpu(number: int, variables: Mapping[str, str]) -> dict[str, str]:
    """The variable that lets a program see GPU `number` alone, counted among those that are visible now."""
    visible = [name for name in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return {"CUDA_VISIBLE_DEVICES": visible[number] if visible else str(number)}


class Ended(NamedTuple):
    """A command that ended: its status (None: it was stopped at the deadline) and what it said."""

    status: int | None
    output: str

    @property
    def words(self) -> str:
        """One line on how it ended."""
        if self.status is None:
            return "stopped: the time was up"
        return last_words(self.output.splitlines(), self.status)


def run_commands(
    commands: Sequence[Sequence[str]],
    deadline: float,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> list[Ended]:
    """Run commands side by side; at the deadline (of time.monotonic) they and what they started are stopped.

    A command that cannot be started gives the status 127.
    """
    with contextlib.ExitStack() as stack:
        started: list[tuple[subprocess.Popen | str, Any]] = []
        for command in commands:
            said = stack.enter_context(tempfile.TemporaryFile())
            try:
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=None if variables is None else dict(variables),
                    cwd=None if folder is None else str(folder),
                    start_new_session=True,
                )
            except OSError as error:
                started.append((f"{command[0]}: {error.strerror}", said))
                continue
            stack.callback(_stop, process)
            started.append((process, said))
        return [_ended(process, said, deadline) for process, said in started]


def run_command(
    command: Sequence[str], deadline: float, variables: Mapping[str, str] | None = None, folder: Path | None = None
) -> Ended:
    """Run one command as run_commands does."""
    return run_commands([command], deadline, variables, folder)[0]


def _ended(process: subprocess.Popen | str, said: Any, deadline: float) -> Ended:
    if isinstance(process, str):
        return Ended(127, process)
    status: int | None = None
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = process.wait(timeout=max(0.0, deadline - time.monotonic()))
    _stop(process)
    said.seek(0)
    return Ended(status, said.read().decode(errors="replace"))


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Died(Exception):
    """A process that answers questions ended, or answered with an error; the message is one line."""


class Conversation:
    """A process that answers each line that it reads with a line of JSON."""

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path, deadline: float
    ) -> None:
        """Start it.

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
        self._stop = threading.Timer(max(0.0, deadline - time.monotonic()), self._process.kill)
        self._stop.daemon = True
        self._stop.start()
        try:
            self.ready: dict[str, Any] = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, question: str) -> dict[str, Any]:
        """The answer to a question; raises Died."""
        with contextlib.suppress(BrokenPipeError):  # the answer tells what happened
            self._process.stdin.write(question + "\n")
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
        if self._process.poll() is None:
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
        return last_words(self._log.read().splitlines(), self._process.returncode)


def find_peer(variables: Mapping[str, str], deadline: float) -> tuple[str | None, dict[str, str]]:
    """The first Python whose PyTorch sees a GPU, and what each of the others lacks."""
    question = "import torch; torch.zeros(1).cuda(); print(torch.__version__)"
    lacking = {}
    for python in pythons(variables):
        asked = run_command([python, "-c", question], deadline, variables)
        if asked.status == 0:
            return python, lacking
        lacking[python] = asked.words
    return None, lacking


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def find_sanitizer(variables: Mapping[str, str]) -> str | None:
    """The path of compute-sanitizer, if it is installed."""
    homes = [variables.get("CUDA_HOME", ""), *sorted(glob.glob("/usr/local/cuda*"), reverse=True)]
    folders = [os.path.join(home, below) for home in homes if home for below in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer", path=os.pathsep.join([variables.get("PATH", ""), *folders]))


def metadata_of(machine: Machine, libraries: Mapping[str, str], deadline: float) -> dict[str, Any]:
    """What the machine is: GPU, driver, CUDA's libraries, system."""
    asked = "name,driver_version,memory.total,power.limit,clocks.max.sm"
    smi = run_command(["nvidia-smi", f"--query-gpu={asked}", "--format=csv"], deadline)
    query = run_command([machine.program("caffe"), "device_query", "-gpu", "0"], deadline, machine.variables)
    return {
        "gpu": machine.gpu,
        "nvidia_smi": smi.output.splitlines() if smi.status == 0 else smi.words,
        "device_query": query.words if query.status else query.output.splitlines(),
        "libraries": {name: os.path.realpath(os.path.join(place, name)) for name, place in sorted(libraries.items())},
        "c_library": c_library(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": os.cpu_count(),
    }
