"""benchmark_net: what it computes while it takes the time, what it writes, and how it tells wrong use."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from renet_reference import ReNetReference

from renet.gpu_check.entries import group_text

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu")) / "bin" / "benchmark_net"
TRAINING = REPOSITORY / "prototxt/n_renet_small/synthetic_scenes/train_val.prototxt"
INPUTS = "data:2,3,16,24 label:2,1,16,24:8"

pytestmark = pytest.mark.skipif(not PROGRAM.is_file(), reason=f"{PROGRAM} is not built: make caffe")


def call(*options: str | Path, cwd: Path, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=cwd, input=said, env=environment, capture_output=True, text=True, timeout=120)


def results(folder: Path, *options: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON and the dumped arrays of a run."""
    folder.mkdir()
    done = call(*options, "-json", folder / "out.json", "-dump", folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "out.json").read_text())
    return written, {
        name.removesuffix(".f32"): np.fromfile(folder / name, np.float32).reshape(shape)
        for name, shape in written["dump"].items()
    }


def test_group_is_computed(tmp_path: Path) -> None:
    """Output and gradients of a ReNet group; twice the same, as gradients start anew in each pass."""
    (tmp_path / "net.prototxt").write_text(group_text((2, 3, 5, 4, 2)))
    options = ["-model", tmp_path / "net.prototxt", "-pass", "forward+backward", "-repeats", "2", "-chain", "3"]
    written, values = results(tmp_path / "out", *options)
    assert len(written["milliseconds"]) == 2
    assert [layer["type"] for layer in written["layers"]] == ["Input", "ReNetLSTM", "ReNetLSTM"]
    parameters = [
        [values[f"{name}.param{i}.data"].astype(np.float64) for i in range(6)] for name in ("vertical", "horizontal")
    ]
    first, second = ReNetReference("ReNetLSTM", True), ReNetReference("ReNetLSTM", False)
    top = second.forward(first.forward(values["data.data"].astype(np.float64), parameters[0]), parameters[1])
    np.testing.assert_allclose(values["horizontal.data"], top, rtol=1e-4, atol=1e-5)
    middle_diff, _ = second.backward(values["horizontal.diff"].astype(np.float64))
    bottom_diff, weight_diffs = first.backward(middle_diff)
    np.testing.assert_allclose(values["data.diff"], bottom_diff, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(values["vertical.param0.diff"], weight_diffs[0], rtol=1e-3, atol=1e-4)


def test_a_step_is_the_solvers(tmp_path: Path) -> None:
    """One step takes rate x (gradient + decay x value) off each value."""
    (tmp_path / "solver.prototxt").write_text(
        'base_lr: 0.5 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 1 test_iter: 1 test_interval: 1\n'
        'snapshot: 1 snapshot_prefix: "no/such/folder" net: "replaced by -model"'
    )
    once = ["-model", TRAINING, "-inputs", INPUTS, "-warmup", "0", "-repeats", "1"]
    _, before = results(tmp_path / "before", *once, "-pass", "forward+backward")
    _, after = results(tmp_path / "after", *once, "-pass", "step", "-solver", tmp_path / "solver.prototxt")
    name = "renet1_vertical.param0"
    gradient, value = before[f"{name}.diff"], before[f"{name}.data"]
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(after[f"{name}.data"], value - 0.5 * (gradient + 0.01 * value), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(before["data.data"], after["data.data"])
    labels = before["label.data"]
    assert set(np.unique(labels)) == set(range(8))
    assert 0.7 < before["data.data"].std() < 1.3


def test_batch_norm_has_met_something(tmp_path: Path) -> None:
    """In a test it divides by a variance about 1, not by the root of its eps."""
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }\n'
        'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" }\n'
    )
    once = ["-model", tmp_path / "net.prototxt", "-warmup", "0", "-repeats", "1"]
    _, values = results(tmp_path / "test", *once)
    mean, variance = (values[f"bn.param{i}.data"].reshape(3, 1, 1) for i in range(2))
    assert values["bn.param2.data"] == 1
    assert variance.min() >= 0.5
    assert len(np.unique(mean)) == 3
    np.testing.assert_allclose(
        values["bn.data"], (values["data.data"] - mean) / np.sqrt(variance), rtol=1e-4, atol=1e-5
    )
    _, values = results(tmp_path / "train", *once, "-phase", "TRAIN")
    np.testing.assert_allclose(values["bn.param0.data"], values["data.data"].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_times_on_request(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(group_text((1, 2, 3, 4, 2)))
    options = ["-model", tmp_path / "net.prototxt", "-serve", "-json", tmp_path / "out.json"]
    done = call(*options, cwd=tmp_path, said="run\nrun\n")
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert ready["ready"]
    milliseconds = json.loads((tmp_path / "out.json").read_text())["milliseconds"]
    assert [answer["milliseconds"] for answer in answers] == pytest.approx(milliseconds, rel=1e-3)
    assert len(milliseconds) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-model", "none.prototxt"], "none.prototxt"),
        ([], "-model expects a network"),
        (["-pass", "sideways"], "-pass sideways: forward, forward+backward or step expected"),
        (["-pass", "step"], "-pass step expects -solver"),
        (["-phase", "SOMETIMES", "-model", TRAINING], "-phase SOMETIMES: TRAIN or TEST expected"),
        (["-model", TRAINING, "-inputs", "data:2,x"], "-inputs: 'x' in 'data:2,x' is no number above 0"),
        (
            ["-model", TRAINING, "-inputs", "data"],
            "-inputs: 'data' given, name:N,C,H,W or name:N,C,H,W:classes expected",
        ),
        (["-model", TRAINING, "-inputs", "data:1,3,8,8"], "names 1 of the 2 tops of the layer 'data'"),
        (["-model", TRAINING, "-inputs", f"{INPUTS} other:1,1"], "no layer of the network feeds a blob 'other'"),
        (["stray"], "stray: not understood"),
        (["-model", TRAINING, "-inputs", INPUTS, "-dump", "/no/folder"], "/no/folder/data.data.f32: not writable"),
    ],
)
def test_wrong_use(options: list[str | Path], words: str, tmp_path: Path) -> None:
    extra = ["-warmup", "0", "-repeats", "1", "-json", tmp_path / "out.json"]
    done = call(*options, *extra, cwd=tmp_path)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_network_without_gradient_is_told(tmp_path: Path) -> None:
    text = group_text((1, 2, 3, 4, 2)).replace("force_backward: true", "")
    (tmp_path / "net.prototxt").write_text(text)
    done = call("-model", tmp_path / "net.prototxt", "-pass", "forward+backward", cwd=tmp_path)
    assert done.returncode != 0
    assert "no layer of 'group' has a gradient; a loss or force_backward: true is expected" in done.stderr
