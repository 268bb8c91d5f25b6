"""Metadata of the machine that a result was made on."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from renet.common.repository import commit

PROCESSORS = Path("/proc/cpuinfo")
# environment variables of Caffe by which the same network gives other results (docs/layers.md)
SWITCHES = ("CAFFE_ALLOW_BF16", "CAFFE_ALLOW_TF32", "CAFFE_ONEDNN", "CAFFE_WINOGRAD")


def environment() -> dict[str, Any]:
    """Collect the environment of a result: command, versions, commit, machine, number of threads, and switches."""
    import caffe  # only where figures are made: it is slow to load
    import numpy as np

    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "versions": {"caffe": caffe.__version__, "python": platform.python_version(), "numpy": np.__version__},
        "commit": commit(),
        "machine": {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()},
        "threads": threads(),
        "switches": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def switches_text(values: Mapping[str, str]) -> str:
    """Write Caffe's environment variables as one types them before a command."""
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in values.items())


def threads() -> int:
    """Count the threads that the layers use: OMP_NUM_THREADS, else one for each core that this process may run on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Read how much memory the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processor_name() -> str:
    """Read the processor's name as the kernel tells it, or its kind."""
    return _of_processor("model name") or platform.machine()


def multiplies_bfloat16() -> bool:
    """Tell whether layers that may round to it have products of it on this processor (docs/layers.md)."""
    is_amd = _of_processor("vendor_id") == "AuthenticAMD"
    return has_matrix_tiles() or ("avx512_bf16" in _of_processor("flags").split() and is_amd)


def has_matrix_tiles() -> bool:
    """Tell whether the processor has AMX's tiles, to which every convolution goes that may round (docs/layers.md)."""
    return "amx_bf16" in _of_processor("flags").split()


def _of_processor(what: str) -> str:
    """What the kernel tells of the first processor; empty where it tells nothing."""
    with suppress(OSError):  # in a root folder, for example, where /proc is not mounted
        for line in PROCESSORS.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == what:
                return value.strip()
    return ""


def gpu_name(number: int | None) -> str | None:
    """Ask the driver for the GPU's name; None for the CPU, or where nobody says."""
    if number is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", f"--id={number}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
