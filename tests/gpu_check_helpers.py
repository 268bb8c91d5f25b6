"""A machine with a GPU as tests pretend it, and programs of its bundle."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from renet.gpu_check import stages
from renet.gpu_check.entries import Entry
from renet.gpu_check.machine import Machine
from renet.gpu_check.work import BF16, FLOAT32, FORWARD, FORWARD_BACKWARD, TF32, Rates

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARK = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu")) / "bin" / "benchmark_net"
RATES = Rates({FLOAT32: 10.0, TF32: 40.0, BF16: 80.0}, 2.0, "measured")
GROUP = Entry("tiny group", FORWARD_BACKWARD, 9, (2, 3, 5, 4, 2), images=2, peer=True)


def later(seconds: float) -> float:
    """A deadline."""
    return time.monotonic() + seconds


def add_program(machine: Machine, name: str, text: str) -> None:
    """A program of the bundle, in Python."""
    file = Path(machine.program(name))
    # by way of the shell, as the path of an interpreter with a space in it would end there
    start = f"""#!/bin/sh\n'''exec' "{sys.executable}" "$0" "$@"\n' '''\n"""
    file.write_text(f"{start}import json, os, sys, time\n{text}")
    file.chmod(0o755)


def recorded(**changes: object) -> dict[str, Any]:
    """The metadata of a recorded row."""
    row = {
        **GROUP._asdict(),
        **{"precision": FLOAT32, "median": 2.0, "milliseconds": [2.0], "milliseconds_an_image": 0.2},
        **{"pytorch_milliseconds": [5.0, 4.0, 6.0], "ratio": 2.5, "memory_mib": 12.4, "pytorch_memory_mib": 99.6},
        **{"differences": {"output": 1e-6, "input gradient": 3e-6}, "microseconds_a_step": 17.7},
        **{"floor": {"milliseconds": 0.5, "limit": "memory", "rates": "measured"}, "share_of_limit": 0.25},
    }
    return {**row, **changes}


def dumped(machine: Machine, name: str, text: str, *options: str) -> stages.Dumped:
    """What benchmark_net writes of a network."""
    return stages.dumped(machine, text, options or ("-pass", FORWARD), machine.out / name, later(60))
