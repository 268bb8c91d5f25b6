"""A machine with a GPU as the checks see it: what it has, and how the bundle's programs are run on it.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import glob
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

from renet.gpu_check.conversation import last_words
from renet.gpu_check.launcher import DRIVER_FOLDERS, c_library, pythons
from renet.gpu_check.work import Rates

PASSED, FAILED, SKIPPED, UNFINISHED = "passed", "FAILED", "skipped", "UNFINISHED"
NAME_BYTES = 256
SECONDS_BETWEEN_LOOKS = 0.02  # at whether a command has ended


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
        halted: set where nothing shall go on.
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
    halted: threading.Event = field(default_factory=threading.Event)

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
        return last_words(self.output, self.status)


def run_commands(
    commands: Sequence[Sequence[str]],
    deadline: float,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
    halted: threading.Event | None = None,
) -> list[Ended]:
    """Run commands side by side; at the deadline (of time.monotonic), or once `halted`, they and what they started are
    stopped.

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
        return [_ended(process, said, deadline, halted) for process, said in started]


def run_command(command: Sequence[str], *arguments: Any) -> Ended:
    """Run one command as run_commands does."""
    return run_commands([command], *arguments)[0]


def _ended(process: subprocess.Popen | str, said: Any, deadline: float, halted: threading.Event | None) -> Ended:
    if isinstance(process, str):
        return Ended(127, process)
    while process.poll() is None and time.monotonic() < deadline and not (halted and halted.is_set()):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    status = process.returncode
    _stop(process)
    said.seek(0)
    return Ended(status, said.read().decode(errors="replace"))


def _stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def side_by_side(
    machine: Machine,
    work: Callable[[Any], Any],
    items: Sequence[Any],
    at_once: int,
    done: Callable[[Any, Any], None] = lambda item, result: None,
) -> None:
    """Call `work` with each item in threads, and `done` with the item and the result as they come.

    An exception, such as Ctrl-C's, halts the machine: no item more is begun, and no command of the others goes on.
    """
    with concurrent.futures.ThreadPoolExecutor(max(1, at_once)) as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for future in concurrent.futures.as_completed(futures):
                done(futures[future], future.result())
        except BaseException:
            machine.halted.set()
            for future in futures:
                future.cancel()
            raise


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
    with open("/proc/cpuinfo", errors="replace") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


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
