"""The table of what kernels take, out of ptxas's own report."""

from __future__ import annotations

from pathlib import Path

import kernel_resources
import pytest
from kernel_resources import Kernel

REPOSITORY = Path(__file__).resolve().parents[2]

SCAN = "_ZN5caffe36_GLOBAL__N__a1c5f8a1_4_k_cu_fb55aee54ScanINS0_4CellIfEELi3EEEvPfT_i"
EMPTY = "_ZN5caffe36_GLOBAL__N__a1c5f8a1_4_k_cu_fb55aee55EmptyEv"
# As nvcc 13.0 printed it for two kernels, between lines of the build.
REPORT = f"""\
[1/2] Building CUDA object CMakeFiles/kernels.dir/k.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{SCAN}' for 'sm_75'
ptxas info    : Function properties for {SCAN}
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 236 registers, used 1 barriers, 256 bytes cumulative stack size, 256 bytes smem, 524 bytes cmem[0]
ptxas info    : Compile time = 62.526 ms
ptxas info    : Compiling entry function '{EMPTY}' for 'sm_75'
ptxas info    : Function properties for {EMPTY}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 4 registers, used 0 barriers, 352 bytes cmem[0]
ptxas info    : Compile time = 10.306 ms
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{SCAN}' for 'sm_90'
ptxas info    : Function properties for {SCAN}
    1376 bytes stack frame, 1976 bytes spill stores, 2696 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 1376 bytes cumulative stack size, 256 bytes smem
ptxas info    : Compile time = 100.253 ms
ptxas info    : Compiling entry function '{EMPTY}' for 'sm_90'
ptxas info    : Function properties for {EMPTY}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 4 registers, used 0 barriers
ptxas info    : Compile time = 0.927 ms
[2/2] Linking
"""


def test_reads_every_kernel_for_every_architecture() -> None:
    assert kernel_resources.parse(REPORT.splitlines()) == [
        Kernel(SCAN, "sm_75", registers=236, shared=256, stack=256, spills=0),
        Kernel(EMPTY, "sm_75", registers=4),
        Kernel(SCAN, "sm_90", registers=32, shared=256, stack=1376, spills=1976 + 2696),
        Kernel(EMPTY, "sm_90", registers=4),
    ]


def test_properties_of_a_called_function_are_not_the_kernels() -> None:
    called = (
        "ptxas info    : Function properties for _Z6helperf\n"
        "    8 bytes stack frame, 64 bytes spill stores, 4 bytes spill loads\n"
    )
    used = "ptxas info    : Used 32 registers"
    (kernel,) = [
        kernel
        for kernel in kernel_resources.parse(REPORT.replace(used, called + used).splitlines())
        if kernel.name == SCAN and kernel.architecture == "sm_90"
    ]
    assert kernel.spills == 1976 + 2696


def test_table_has_a_row_a_kernel_with_its_name_as_in_the_source(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "log").write_text(REPORT)
    assert kernel_resources.main([str(tmp_path / "log")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| kernel (sm_75 / sm_90) | registers | shared, bytes | stack, bytes | spills, bytes |",
        "|---|---:|---:|---:|---:|",
        "| `Empty` | 4 | 0 | 0 | 0 |",
        "| `Scan<Cell<float>, 3>` | 236 / 32 | 256 | 256 / 1376 | 0 / 4672 |",
    ]


def test_summary_names_the_worst_spill(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text(REPORT)
    assert kernel_resources.main([str(tmp_path / "log"), "--out", str(tmp_path / "table.md")]) == 0
    line = "2 kernels, at most 236 registers; 1 spill, most Scan<Cell<float>, 3> for sm_90: 4672 bytes"
    assert capsys.readouterr().out == f"{line}: {tmp_path / 'table.md'}\n"
    assert "`Empty`" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("caffe::(anonymous namespace)::Scan<caffe::(anonymous namespace)::Cell<float>, 40>", "Scan<Cell<float>, 40>"),
        ("void caffe::Gather<double, (int)4, (bool)1>", "void Gather<double, 4, 1>"),
        ("caffe::Sweep<(caffe::Cell)2, -1>", "Sweep<2, -1>"),
    ],
)
def test_names_lose_namespaces_and_casts(name: str, short: str) -> None:
    assert kernel_resources.short_name(name) == short


def test_log_without_a_report_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("[1/1] Building CXX object\n")
    assert kernel_resources.main([str(tmp_path / "log")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'log'}: no report of a CUDA compiler in it\n"
