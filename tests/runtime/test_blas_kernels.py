"""OpenBLAS's kernels on processors that it does not know."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from caffe.blas_kernels import kernels_for

CAFFE = Path(__file__).resolve().parents[2] / "build" / "cpu" / "bin" / "caffe"
WITHOUT_AVX2 = {"Unknown", "Prescott", "Core2", "Penryn", "Nehalem", "Sandybridge", "Barcelona", "Bulldozer"}
AVX2, AVX512 = "fpu avx2 fma", "fpu avx2 fma avx512f avx512dq avx512bw avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "kernels"),
    [
        ("GenuineIntel", AVX512, "SKYLAKEX"),
        ("GenuineIntel", AVX2, "HASWELL"),
        ("GenuineIntel", "fpu sse2", None),
        ("AuthenticAMD", AVX512, None),
    ],
)
def test_kernels_for_a_processor(vendor: str, flags: str, kernels: str | None) -> None:
    assert kernels_for(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n") == kernels


def test_kernels_for_no_processor() -> None:
    assert kernels_for("") is None


@pytest.mark.skipif(" avx2 " not in Path("/proc/cpuinfo").read_text(), reason="the processor has no AVX2")
@pytest.mark.parametrize(
    ("command", "first"),
    [([CAFFE, "-version"], -1), ([sys.executable, "-c", "import caffe"], 0)],
    ids=["caffe", "python"],
)
def test_the_kernels_are_not_old_ones(command: list[str | Path], first: int) -> None:
    """As OpenBLAS says itself: a program that starts again twice, NumPy's own one likewise."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment | {"OPENBLAS_VERBOSE": "2"}
    )
    assert done.returncode == 0, done.stderr
    chosen = re.findall(r"^Core: (\S+)$", done.stdout + done.stderr, re.MULTILINE)
    assert chosen and WITHOUT_AVX2.isdisjoint(chosen[first:])


def test_a_choice_of_the_users_stays() -> None:
    done = subprocess.run(
        [CAFFE, "-version"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OPENBLAS_VERBOSE": "2", "OPENBLAS_CORETYPE": "Prescott"},
    )
    assert re.findall(r"^Core: (\S+)$", done.stdout + done.stderr, re.MULTILINE) == ["Prescott"]
