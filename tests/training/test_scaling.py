"""tools/scaling.py: what one of several processes does in an iteration, and what is predicted from it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from renet.common.errors import UserError
from renet.training.scaling import PAYLOAD, Link, Schedule, Step, Trace, measure_all, median, predict, table

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = [sys.executable, str(REPOSITORY / "tools/scaling.py")]
# 1000 bytes of content a microsecond, and no latency
FAST = Link(8 / PAYLOAD, 0)


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with batch normalization, whose data is nowhere."""
    folder = tmp_path_factory.mktemp("scaling")
    (folder / "net.prototxt").write_text("""
        name: "small"
        layer { name: "data" type: "SegmentationData" top: "data" top: "label"
                segmentation_data_param { source: "nowhere" batch_size: 6 crop_height: 12 crop_width: 10 } }
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                convolution_param { num_output: 5 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
        layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
        layer { name: "scores" type: "Convolution" bottom: "bn" top: "scores"
                convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "msra" } } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
    """)
    file = folder / "solver.prototxt"
    file.write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 864000 snapshot_prefix: "x"\n')
    return file


def test_a_link_takes_the_time_of_a_ring() -> None:
    assert FAST.seconds(4_000_000, 2) == pytest.approx(2 * 0.002)
    assert FAST.seconds(4_000_000, 8) == pytest.approx(14 * 0.0005)
    latency = Link(8, 100)
    assert latency.seconds(8, 8) == pytest.approx(14 * 100e-6, rel=1e-3)
    assert latency.seconds(8, 1) == 0
    # what a gigabit carries beside the headers of Ethernet, IP and TCP
    assert Link(1, 0).seconds(117_685_000, 2) == pytest.approx(1, rel=1e-4)


def test_a_prediction_hides_what_goes_beside_computation() -> None:
    """Two processes, to which a megabyte takes a millisecond."""
    hidden = Trace(2, 0.010, ((0.002, 1_000_000), (0.004, 0)))
    assert predict(hidden, FAST) == Step(2, pytest.approx(0.010), 0)
    exposed = Trace(2, 0.010, ((0.002, 3_000_000), (0.003, 1_000_000), (0.004, 0)))
    assert predict(exposed, FAST) == Step(2, pytest.approx(0.012), pytest.approx(0.002))
    # a small sum waits for the large one before it, and so all that follows comes later
    behind = Trace(2, 0.010, ((0.002, 5_000_000), (0.003, 8), (0.003, 0), (0.005, 2_000_000), (0.010, 0)))
    assert predict(behind, FAST) == Step(
        2,
        pytest.approx(0.014, rel=1e-4),
        pytest.approx(0.004, rel=1e-4),
    )
    assert predict(behind, Link(8e6, 0)).seconds == pytest.approx(0.010)


def test_the_usual_iteration_is_that_of_medians() -> None:
    usual = [Trace(2, seconds, ((seconds / 2, 40), (seconds, 0))) for seconds in (1.0, 2.0, 9.0)]
    compares = Trace(2, 100.0, ((1.0, 40), (2.0, 0), (3.0, 8), (4.0, 0)))
    assert median([*usual, compares]) == Trace(2, 2.0, ((1.0, 40), (2.0, 0)))


def test_what_is_exchanged_is_caffes_plan(solver: Path) -> None:
    schedule = Schedule.read(solver, [2, 3])
    assert schedule.batch == 6
    alone, *others = measure_all(schedule, [2, 3], 2)
    parameters = 5 * 3 * 9 + 5 + 3 * 5 + 3
    assert [trace.ranks for trace in others] == [2, 3]
    for trace in (alone, *others):
        sizes = [size for _, size in trace.events if size]
        assert sizes.count(4 * parameters) == 1  # one bucket
        assert sizes.count(4 * 5) == 4  # batch normalization's sums, two each way
        assert [at for at, _ in trace.events] == sorted(at for at, _ in trace.events)
        assert trace.events[-1][0] <= trace.seconds
    rows = table(schedule, [alone, *others], [Link(1, 50), Link(1e-6, 50)])
    assert len(rows) == 7
    assert rows[1][1:3] == ["1", "6"]
    assert rows[3][1:3] == ["3", "2"]
    assert float(rows[6][-1]) > float(rows[3][-1])
    assert float(rows[6][4].rstrip("%")) > 90


def test_the_command(solver: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*TOOL, "--solver", solver, "--processes", "2", "--iterations", "1", "--gigabits", "1", "10"]
        + ["--plot", tmp_path / "scaling.svg", "--markdown", tmp_path / "scaling.md"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("small: 6 images in a pass, 864000 iterations; each sums 0.0 MB in ")
    assert len(re.findall(r"10 Gb/s, 50 us", done.stdout)) == 2
    assert (tmp_path / "scaling.md").read_text().count("\n") == 6
    assert "10 Gb/s, 50 us" in (tmp_path / "scaling.svg").read_text()


def test_bad_input_is_told(solver: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a batch of 6 cannot be divided among 4 processes"):
        Schedule.read(solver, [4])
    with pytest.raises(UserError, match="missing"):
        Schedule.read(tmp_path / "missing.prototxt", [2])
    (other := tmp_path / "solver.prototxt").write_text('net: "net.prototxt"')
    (tmp_path / "net.prototxt").write_text('layer { name: "data" type: "DummyData" top: "data" }')
    with pytest.raises(UserError, match="no data layer whose batch can be divided"):
        Schedule.read(other, [2])
    other.write_text("max_iter: 5")
    with pytest.raises(UserError, match="names no network"):
        Schedule.read(other, [2])
    done = subprocess.run([*TOOL, "--solver", solver, "--gigabits", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("scaling.py: argument --gigabits: '0' is not a number over 0")
