"""CAFFE_ALLOW_BF16: predictions whose convolutions and ReNet layers round to bfloat16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from renet.common.machine import PROCESSORS, multiplies_bfloat16

PROGRAM = """
import json, sys
import caffe
import numpy as np

caffe.set_random_seed(5)
net = caffe.Net(sys.argv[1], caffe.TEST)
net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=net.blobs["data"].shape)
print(json.dumps(net.forward()[net.outputs[0]].tolist()))
"""
CONVOLUTION = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 28 dim: 9 dim: 13 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 24 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
"""
RENET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 20 dim: 9 dim: 13 } } }
layer { name: "renet" type: "ReNetLSTM" bottom: "data" top: "renet" renet_param { num_output: 40 PRECISION } }
"""


def run(tmp_path: Path, network: str, **environment: str) -> tuple[np.ndarray, str]:
    """The network's output, and what was said."""
    file = tmp_path / "net.prototxt"
    file.write_text(network)
    variables = {name: value for name, value in os.environ.items() if name != "CAFFE_ALLOW_BF16"} | environment
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, file], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1])), done.stderr


@pytest.mark.parametrize("instructions", [None, "avx512_bf16", "amx"])
def test_convolutions_are_rounded_a_little_and_only_when_allowed(tmp_path: Path, instructions: str | None) -> None:
    """Asked for by name they are on Intel's processors without tiles, too, though it is slower there."""
    asked = {} if instructions is None else {"RENET_INSTRUCTION_SET": instructions}
    can_be_asked = bool({"avx512_bf16", "amx_bf16"} & set(PROCESSORS.read_text().split()))
    plain, said = run(tmp_path, CONVOLUTION)
    assert "CAFFE_ALLOW_BF16" not in said
    assert np.array_equal(plain, run(tmp_path, CONVOLUTION, CAFFE_ALLOW_BF16="0")[0])
    rounded, said = run(tmp_path, CONVOLUTION, CAFFE_ALLOW_BF16="1", **asked)
    difference = np.abs(rounded - plain).max() / np.abs(plain).max()
    if can_be_asked if asked else multiplies_bfloat16():
        assert 1e-5 < difference < 0.01 and "CAFFE_ALLOW_BF16" not in said
    else:
        assert difference == 0 and said.count("need a processor with AMX or, from AMD, AVX512_BF16") == 1


def test_a_processor_without_bfloat16_says_so_once_and_computes_in_float32(tmp_path: Path) -> None:
    plain, _ = run(tmp_path, CONVOLUTION)
    same, said = run(tmp_path, CONVOLUTION, CAFFE_ALLOW_BF16="1", RENET_INSTRUCTION_SET="avx2")
    assert np.array_equal(plain, same)
    assert said.count("from AMD, AVX512_BF16: they are float32's") == 1


def test_renet_layers_round_unless_they_say_otherwise(tmp_path: Path) -> None:
    told, _ = run(tmp_path, RENET.replace("PRECISION", "precision: BF16"))
    assert np.array_equal(told, run(tmp_path, RENET.replace("PRECISION", ""), CAFFE_ALLOW_BF16="1")[0])
    exact = RENET.replace("PRECISION", "precision: FLOAT32")
    assert np.array_equal(run(tmp_path, exact)[0], run(tmp_path, exact, CAFFE_ALLOW_BF16="1")[0])


@pytest.mark.parametrize("value", ["yes", "2"])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(AssertionError, match=f'CAFFE_ALLOW_BF16 is "{value}"; 1 lets'):
        run(tmp_path, CONVOLUTION, CAFFE_ALLOW_BF16=value)
