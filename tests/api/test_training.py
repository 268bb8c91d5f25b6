"""renet.networks.write and renet.train as a program uses them: scripts without a guard, in a folder of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import renet

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    scenes = ["--train", "6", "--test", "2", "--size", "48x64", "--out", "scenes"]
    script = REPOSITORY / "data_prep/synthetic_scenes.py"
    subprocess.run([sys.executable, script, *scenes], cwd=folder, check=True, capture_output=True)
    return folder


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / "script.py"
    file.write_text(text)
    return subprocess.run([sys.executable, file], cwd=folder, capture_output=True, text=True, timeout=300)


SCRIPT = """
import sys
import renet
written = renet.networks.write("conv_small", "scenes", "net", crop=(24, 24), batch=2, iterations=8, interval=4)
result = renet.train(written.solver, "run", seed=3)
print(result.state, result.iteration, result.best.measure, result.best.iteration, result.folder, result.weights)
more = renet.train(None, "run", resume=True, iterations=12, verbose=True)
print(more.state, more.iteration)
for asked in (dict(run="run"), dict(run="other", gpu=99), dict(run="third", weights="lost.caffemodel")):
    try:
        renet.train(written.solver, **asked)
    except renet.UserError as error:
        print(error)
"""


def test_a_training_is_quiet_goes_on_and_refuses_in_a_line(folder: Path) -> None:
    done = run_script(folder, SCRIPT)
    assert done.returncode == 0, done.stderr
    first, second, *errors = done.stdout.splitlines()
    assert first.startswith("finished 8 mean_iou ")
    assert first.endswith(" run run/snapshots/run_iter_8.caffemodel")
    assert second == "finished 12"
    assert errors[0].startswith("run: exists already")
    assert errors[1].startswith("GPU 99 cannot be used: ")
    assert errors[2].startswith("lost.caffemodel: no such file")
    # what is told is of the verbose training alone, and none of it is Caffe's
    told = done.stderr.splitlines()
    assert any("iteration 12: test loss" in line for line in told) and told[-1].startswith("finished 12 iterations")
    assert not any("iteration 8: " in line or "net.cpp" in line for line in told)
    # the command gives the same weights
    words = ["--solver", "net/solver.prototxt", "--run", "command", "--seed", "3"]
    subprocess.run([sys.executable, REPOSITORY / "tools/train.py", *words], cwd=folder, check=True, capture_output=True)
    names = [(folder / name / f"snapshots/{name}_iter_8.caffemodel").read_bytes() for name in ("run", "command")]
    assert names[0] == names[1]


def write_long(folder: Path, out: str) -> Path:
    return renet.networks.write(
        "conv_small", folder / "scenes", folder / out, crop=(24, 24), batch=1, iterations=10**6, interval=10**6
    ).solver


def test_ctrl_c_ends_a_training_with_a_snapshot(folder: Path) -> None:
    solver = write_long(folder, "long")

    def interrupt() -> None:
        metrics = folder / "stopped/metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        renet.train(solver, folder / "stopped")
    waiting.join()
    (state,) = (folder / "stopped/snapshots").glob("*.solverstate")
    result = renet.train(None, folder / "stopped", resume=True, iterations=int(state.stem.rpartition("_")[2]) + 1)
    assert result.state == "finished"


def test_what_caffe_refuses_is_an_error_of_the_caller(folder: Path) -> None:
    solver = write_long(folder, "wrong")
    network = solver.with_name("train_val.prototxt")
    network.write_text(network.read_text().replace('type: "SoftmaxWithLoss"', 'type: "SoftmaxWithoutLoss"'))
    with pytest.raises(renet.UserError, match=r"Unknown layer type: SoftmaxWithoutLoss .*\(log: .*train\.log\)"):
        renet.train(solver, folder / "refused")
    assert '"state": "failed"' in (folder / "refused/run.json").read_text()
    network.write_text("layer {")
    with pytest.raises(renet.UserError, match=r"train_val\.prototxt:"):
        renet.train(solver, folder / "unread")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "n_renett"}, "no model 'n_renett'; did you mean n_renet"),
        ({"dataset": "nowhere"}, "nowhere/?.*: no such file"),
        ({"train_split": "lost"}, "has no split lost"),
        ({"batch": 0}, "batch is a whole number of at least 1, not 0"),
        ({"crop": (0, 5)}, "crop's height is a whole number of at least 1"),
        ({"rate": -1.0}, r"rate is a number over 0, not -1\.0"),
        ({"solver": "adagrad"}, "solver is one of sgd, adam, adamw, not 'adagrad'"),
        ({"frozen": 9}, "frozen is a whole number of 0 to 5"),
    ],
)
def test_networks_that_cannot_be_written(
    folder: Path, tmp_path: Path, choices: dict[str, object], message: str
) -> None:
    asked = {"model": "conv_small", "dataset": folder / "scenes", "out": tmp_path / "net", **choices}
    with pytest.raises(renet.UserError, match=message):
        renet.networks.write(**asked)
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(("name", "value"), [("iterations", 0), ("seed", -1), ("keep", 0), ("gpu", -1)])
def test_numbers_that_no_training_has(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(renet.UserError, match=f"{name} is {value}, and must be"):
        renet.train("solver.prototxt", tmp_path, **{name: value})
