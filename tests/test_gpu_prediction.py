"""Predictions of the ReNet layers' times on a GPU."""

import re
from pathlib import Path

import pytest
from segmentation_helpers import call_tool, only_line

from data_prep.command_line import UserError
from tools.benchmark_settings import SHAPES
from tools.gpu_limits import FLOAT32, data_sheet
from tools.gpu_prediction import H200, PASS_INSTRUCTIONS, STEP_CLOCKS, group, n_renet, scan_seconds, sweep


def test_one_tile_is_counted_by_hand() -> None:
    # 4 lines of 60 units: 8 warps, two on each quarter; 240 multiply-adds of 64 states a line and thread
    clocks = STEP_CLOCKS + 2 * (PASS_INSTRUCTIONS + 4 * 4 * 60 * 64 / 256)
    assert scan_seconds(H200, 4, 10, 60, False) == pytest.approx(10 * clocks / H200.clock)


def test_lines_are_free_until_the_chip_is_full() -> None:
    few, full, more = (scan_seconds(H200, lines, 10, 120, False) for lines in (4, 4 * 66, 4 * 67))
    assert few == full < more


def test_a_prediction_is_above_the_arithmetic() -> None:
    tflops = data_sheet(H200.name).tflops[FLOAT32]
    for shape in SHAPES:
        images, channels, height, width, hidden = shape
        for layer, inputs in zip(group(H200, shape), (channels, 2 * hidden)):
            operations = 2 * images * height * width * 8 * hidden * (inputs + hidden)
            assert layer.forward * 1e12 * tflops > operations
            assert layer.backward > layer.forward > layer.scan


def test_too_many_units_are_refused() -> None:
    with pytest.raises(UserError, match="160 units"):
        sweep(H200, 1, 3, 8, 8, 160, True)


def test_the_network_is_its_groups() -> None:
    assert n_renet(H200, 10, 240, 320) > n_renet(H200, 1, 240, 320) > 840 * STEP_CLOCKS / H200.clock


def test_the_model_is_the_kernels(repository: Path) -> None:
    source = (repository / "caffe_layers/include/caffe/renet/gpu/resident_product.cuh").read_text()
    constants = dict(re.findall(r"const (?:int|double) (k\w+) = (\d+);", source))
    assert int(constants["kLatency"]) == STEP_CLOCKS
    assert int(constants["kInstructions"]) == PASS_INSTRUCTIONS


def test_as_a_user_runs_it(tmp_path: Path) -> None:
    done = call_tool("gpu_prediction.py", "--shapes", "1,16,8,8,32", cwd=tmp_path)
    assert done.returncode == 0 and "| 1, 16, 8, 8, 32 |" in done.stdout
    failed = call_tool("gpu_prediction.py", "--shapes", "1,16,8,8,160", cwd=tmp_path)
    assert "160 units" in only_line(failed, "gpu_prediction.py")
