"""The speed comparison: what it counts and prints, that both sides compute the same, and its command line."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from renet_reference import ReNetReference

pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

from data_prep.command_line import UserError
from tools import benchmark
from tools.speed_report import (
    COLUMNS,
    Measurement,
    Side,
    group_flops,
    largest_difference,
    markdown_table,
    product_gflops,
    text_table,
)
from tools.speed_worker import (
    FORWARD,
    FORWARD_BACKWARD,
    PRODUCT_SIZE,
    CaffeGroup,
    Shape,
    group_inputs,
    sampled,
)

TINY = Shape(2, 3, 5, 4, 2)


@pytest.fixture
def tool(repository: Path) -> list[str]:
    return [sys.executable, str(repository / "tools" / "benchmark.py")]


def test_operations_of_a_group() -> None:
    # 40 positions; a scan: 8 x 3 and 8 x 2 weights vertically, 8 x 4 and 8 x 2 horizontally; two scans, two operations.
    assert group_flops(TINY, FORWARD) == 40 * ((24 + 16) + (32 + 16)) * 2 * 2
    assert group_flops(TINY, FORWARD_BACKWARD) == 3 * group_flops(TINY, FORWARD)
    assert group_flops(Shape(10, 240, 50, 63, 120), FORWARD) == pytest.approx(43.5e9, rel=1e-2)


def test_speed_of_a_product() -> None:
    assert product_gflops(1000) == pytest.approx(2 * PRODUCT_SIZE**3 / 1e9)


@pytest.fixture
def measurements() -> list[Measurement]:
    caffe, pytorch = Side((20.0, 10.0, 30.0), 12.4), Side((50.0, 40.0, 45.0), 99.6)
    return [
        Measurement(Shape(10, 240, 50, 63, 120), FORWARD, caffe, pytorch),
        Measurement(Shape(1, 1, 1, 1, 1), FORWARD_BACKWARD, caffe, None),
    ]


def test_ratio_is_of_the_medians(measurements: list[Measurement]) -> None:
    assert measurements[0].ratio == pytest.approx(45 / 20)
    assert measurements[1].ratio is None
    assert measurements[0].gflops(measurements[0].caffe) == pytest.approx(43.5e9 / 0.02 / 1e9, rel=1e-2)


def test_tables(measurements: list[Measurement]) -> None:
    flops = group_flops(Shape(10, 240, 50, 63, 120), FORWARD)
    peak = flops / 0.01 / 1e9  # Caffe's median of 20 ms is half of it
    markdown = markdown_table(measurements, peak).splitlines()
    assert markdown[0] == f"| {' | '.join(COLUMNS)} |"
    cells = [cell.strip() for cell in markdown[2].strip("|").split("|")]
    assert cells[:5] == ["10, 240, 50, 63, 120", FORWARD, "20.0 (10.0-30.0)", "45.0 (40.0-50.0)", "2.25"]
    assert cells[6] == "50%"
    assert cells[8:] == ["12", "100"]
    alone = [cell.strip() for cell in markdown[3].strip("|").split("|")]
    assert [alone[i] for i in (3, 4, 7, 9)] == ["-"] * 4
    assert len({line.count("|") for line in markdown}) == 1
    text = text_table(measurements, peak).splitlines()
    assert len({len(line) for line in text}) == 1, "columns are flush right"
    assert text[1].split() == " ".join(cells).split()


def test_difference_of_results() -> None:
    ours, theirs = {"a": [1.0, 2.0], "b": [0.5]}, {"a": [1.0, 4.0], "b": [0.5]}
    assert largest_difference(ours, ours) == 0
    assert largest_difference(ours, theirs) == pytest.approx(0.5)
    assert largest_difference({"a": [float("nan"), 0.0]}, {"a": [1.0, 1.0]}) == float("inf")


def test_sampled_values_are_spread() -> None:
    assert sampled(np.arange(6.0).reshape(2, 3)) == [0, 1, 2, 3, 4, 5]
    many = sampled(np.arange(1_000_000.0))
    assert len(many) < 1000
    assert (many[0], many[-1]) == (0, 999_999)


@pytest.mark.parametrize("backward", [False, True])
def test_caffe_side_computes_the_group(backward: bool) -> None:
    """Twice the same: gradients start anew in each run."""
    group = CaffeGroup(TINY, backward, 1)
    group.run()
    group.run()
    bottom, top_diff, (vertical, horizontal) = (
        group_inputs(TINY)[0].astype(np.float64),
        group_inputs(TINY)[1].astype(np.float64),
        [[values.astype(np.float64) for values in layer] for layer in group_inputs(TINY)[2]],
    )
    first, second = ReNetReference("ReNetLSTM", True), ReNetReference("ReNetLSTM", False)
    expected = {"output": second.forward(first.forward(bottom, vertical), horizontal)}
    if backward:
        expected["input gradient"], weight_diffs = first.backward(second.backward(top_diff)[0])
        expected["weight gradient"] = weight_diffs[0]
    results = group.results()
    assert results.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(results[name], values, rtol=1e-4, atol=1e-5)


def test_run_without_pytorch(tool: list[str], tmp_path: Path) -> None:
    options = ["--without-pytorch", "--runs", "2", "--threads", "1", "--shapes", str(TINY)]
    files = ["--json", str(tmp_path / "speed.json"), "--markdown", str(tmp_path / "speed.md")]
    done = subprocess.run([*tool, *options, *files], capture_output=True, text=True, cwd="/", timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["threads"] == 1
    assert report["sgemm_gflops"]["numpy"] > 0
    assert [m["passes"] for m in report["measurements"]] == [FORWARD, FORWARD_BACKWARD]
    assert report["measurements"][0]["shape"] == TINY._asdict()
    for measurement in report["measurements"]:
        assert len(measurement["caffe"]["milliseconds"]) == 2
        assert measurement["pytorch"] is None
    assert "2, 3, 5, 4, 2" in done.stdout
    assert "| 2, 3, 5, 4, 2 | forward |" in (tmp_path / "speed.md").read_text()


def test_both_libraries_come_to_the_same_result() -> None:
    if not (benchmark.PEER_ENVIRONMENT / "installed.txt").is_file():
        pytest.skip(f"no PyTorch in {benchmark.PEER_ENVIRONMENT}: make bench installs it")
    compared = benchmark.measure([Shape(2, 3, 11, 9, 5)], [FORWARD, FORWARD_BACKWARD], 1, 1, benchmark.prepare_peer())
    assert compared.largest_difference is not None
    assert 0 < compared.largest_difference < 1e-5
    assert all(m.pytorch and m.pytorch.median > 0 for m in compared.measurements)


def test_a_dead_worker_is_told() -> None:
    with pytest.raises(UserError, match=r"^nonsense: .*ended with status 1; its last line: KeyError"):
        benchmark.Worker(sys.executable, "nonsense", TINY, FORWARD, 1)


def test_a_death_in_caffe_is_told() -> None:
    with pytest.raises(UserError, match=r"^caffe: Check failed: .*num_output"):
        benchmark.Worker(sys.executable, "caffe", Shape(1, 1, 1, 1, 0), FORWARD, 1)


def test_failed_installation_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "bench-venv").write_text("in the way")
    with pytest.raises(UserError, match=r"could not be installed .*logs/bench-venv\.log.*--without-pytorch"):
        benchmark.prepare_peer(tmp_path / "bench-venv")
    assert (tmp_path / "logs" / "bench-venv.log").read_text()


def test_complete_installation_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "installed.txt").write_text("\n".join(benchmark.PEER_REQUIREMENTS) + "\n")
    assert benchmark.prepare_peer(tmp_path) == tmp_path / "bin" / "python"


def test_shapes_are_parsed() -> None:
    assert benchmark.parse_shape("1,2,3,4,5") == Shape(1, 2, 3, 4, 5)
    for text in ("1,2,3,4", "1,2,3,4,5,6", "a,b,c,d,e", "1,2,3,4,0", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="shape"):
            benchmark.parse_shape(text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--shapes", "1,2"], "is no shape"), (["--runs", "0"], "at least 1"), (["--threads", "x"], "at least 1")],
)
def test_wrong_arguments(tool: list[str], arguments: list[str], complaint: str) -> None:
    done = subprocess.run([*tool, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_examples(tool: list[str]) -> None:
    done = subprocess.run([*tool, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "tools/benchmark.py --runs 3" in done.stdout
