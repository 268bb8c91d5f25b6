"""What a user is told of a network or a solver that Caffe cannot take: one line with layer or field."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from renet.runtime.worker_process import NativeCrash, last_words, run_native

caffe = pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "build/cpu/bin/caffe"
NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "bad" bottom: "data" top: "out" %s }
"""


def build(file: str) -> Iterator[int]:
    yield len(caffe.Net(file, caffe.TRAIN).layers)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 group: 0 }',
            r"^Convolution layer 'bad': convolution_param.group is 0, expected 1 to .* \(layer_values.cpp\)$",
        ),
        (
            'type: "LRN" lrn_param { local_size: 4 }',
            r"local_size in the set-up of layer 'bad' \(LRN, TRAIN\) \(lrn_layer.cpp\)$",
        ),
    ],
)
def test_one_line_names_the_layer(layer: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(NET % layer)
    with pytest.raises(NativeCrash, match=message):
        list(run_native(build, str(file)))


@pytest.mark.parametrize("value", ["iter_size: -1", "clip_gradients: nan", 'regularization_type: "L9"', "test_iter: 0"])
def test_caffe_train_refuses_a_solver_without_sense(value: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET % 'type: "ReLU"')
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 solver_mode: CPU {value}'
    )
    done = subprocess.run([PROGRAM, "train", "-solver", solver], capture_output=True, text=True)
    assert done.returncode != 0
    field = value.partition(":")[0]
    assert last_words(done.stderr, done.returncode).startswith(f"solver: {field} is ")
    assert not list(tmp_path.glob("*.caffemodel"))
