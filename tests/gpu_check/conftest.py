"""A machine with a GPU that only pretends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpu_check_helpers import BENCHMARK, add_program

from renet.gpu_check.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A bundle that holds nothing yet; what is kept and said is forgotten."""
    for folder in ("bundle/programs", "bundle/test", "out"):
        (tmp_path / folder).mkdir(parents=True)
    environment = dict(os.environ)
    return Machine(
        bundle=tmp_path / "bundle",
        out=tmp_path / "out",
        variables=environment,
        own_variables=environment,
        manifest={"our_test_suites": ["OurTest", "GPUAgreementTest"], "commit": None},
        gpu="NVIDIA H200",
        keep=lambda metadata: None,
        say=lambda text: None,
    )


@pytest.fixture
def processor_as_gpu(machine: Machine) -> Machine:
    """The CPU's benchmark_net, which computes on the processor whatever -gpu says."""
    if not BENCHMARK.is_file():
        pytest.skip(f"{BENCHMARK} is not built: make caffe")
    text = f"""arguments = sys.argv[1:]
if "-gpu" in arguments:
    place = arguments.index("-gpu")
    del arguments[place:place + 2]
os.execv({str(BENCHMARK)!r}, [{str(BENCHMARK)!r}, *arguments])
"""
    add_program(machine, "benchmark_net", text)
    return machine
