"""The networks in PyTorch that speed is measured beside: they compute what Caffe computes from the same prototxt."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_check_helpers import BENCHMARK, REPOSITORY

from renet.gpu_check.conversation import Conversation, Died
from renet.gpu_check.entries import group_text
from renet.gpu_check.work import BRANCHING_TOLERANCE, FLOAT32, FORWARD, FORWARD_BACKWARD, GRADIENT, TF32

TWO_IMAGES = "data:2,3,97,131"  # no multiple of any stride or patch
SOME_LABELS = "data:2,3,49,67 label:2,1,49,67:21"


@pytest.fixture(scope="module")
def peer(peer_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Conversation]:
    """PyTorch's side, ready for questions."""
    folder = tmp_path_factory.mktemp("peer")
    environment = {"OMP_NUM_THREADS": "2", **os.environ}
    with Conversation(peer_command, environment, folder, folder / "log", time.monotonic() + 600) as conversation:
        yield conversation


def answer(peer: Conversation, model: Path, inputs: str, passes: str, precision: str) -> dict[str, dict[str, float]]:
    """Its answer to the question how far its results are from those in the model's folder."""
    network = {"model": str(model), "inputs": inputs, "backward": passes != FORWARD}
    return peer.ask("compare", folder=str(model.parent), precision=precision, **network)


def ask(peer: Conversation, model: Path, inputs: str, passes: str) -> dict[str, float]:
    """How far PyTorch's results are from those in the model's folder."""
    return answer(peer, model, inputs, passes, FLOAT32)["differences"]


def differences(peer: Conversation, text: str, inputs: str, passes: str, folder: Path) -> dict[str, float]:
    """Run a network in Caffe, and hold PyTorch's results beside it."""
    if not BENCHMARK.is_file():
        pytest.skip(f"{BENCHMARK} is not built: make caffe")
    model = folder / "net.prototxt"
    model.write_text(text)
    command = [BENCHMARK, "-model", model, "-pass", passes, "-inputs", inputs, "-warmup", "0", "-repeats", "1"]
    command += ["-dump", folder, "-json", folder / "out.json"]
    environment = {"OMP_NUM_THREADS": "2", **os.environ}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return ask(peer, model, inputs, passes)


def shipped(network: str, file: str) -> str:
    return (REPOSITORY / "prototxt" / network / f"{file}.prototxt").read_text()


def scores_alone(text: str) -> str:
    """A deploy network without its softmax."""
    return text[: text.index('layer {\n  name: "prob"')]


@pytest.mark.parametrize(
    "network", ["fcn/voc2012", "h_renet/voc2012", "h_renet_bn_mlfb/voc2012", "n_renet/stanford_background"]
)
def test_scores(peer: Conversation, network: str, tmp_path: Path) -> None:
    found = differences(peer, scores_alone(shipped(network, "deploy")), TWO_IMAGES, FORWARD, tmp_path)
    assert list(found) == ["upsample"]
    assert 0 < found["upsample"] < 2e-5


@pytest.mark.parametrize(
    ("network", "with_gradient"),
    # convolutions from conv3 on; two ReNet layers; a Scale for each of three maps
    [("fcn/voc2012", 24), ("h_renet/voc2012", 24 + 12), ("h_renet_bn_mlfb/voc2012", 24 + 12 + 6)],
)
def test_training(peer: Conversation, network: str, with_gradient: int, tmp_path: Path) -> None:
    """Loss and gradients; none of conv1 and conv2. Rounding decides some ReLUs and maxima the other way."""
    found = differences(peer, shipped(network, "train_val"), SOME_LABELS, FORWARD_BACKWARD, tmp_path)
    assert found.pop("loss") < 1e-5
    assert len(found) == with_gradient
    assert all(name.endswith(GRADIENT) and not name.startswith(("conv1", "conv2")) for name in found)
    assert found["conv8.param0 gradient"] < 1e-4
    assert max(found.values()) < BRANCHING_TOLERANCE[FLOAT32]


def test_the_mean_over_labelled_pixels(peer: Conversation, tmp_path: Path) -> None:
    """Some labels are the one to be ignored."""
    text = shipped("h_renet/voc2012", "train_val").replace("ignore_label: 255", "ignore_label: 7")
    found = differences(peer, text, SOME_LABELS, FORWARD_BACKWARD, tmp_path)
    assert found["loss"] < 1e-5
    assert found["conv8.param0 gradient"] < 1e-4


def test_a_group(peer: Conversation, tmp_path: Path) -> None:
    """It feeds itself, ends in no loss, and wants its input's gradient."""
    found = differences(peer, group_text((2, 3, 11, 9, 5)), "", FORWARD_BACKWARD, tmp_path)
    assert len(found) == 1 + 1 + 12
    assert 0 < max(found.values()) < 1e-5
    model = tmp_path / "net.prototxt"
    assert answer(peer, model, "", FORWARD_BACKWARD, FLOAT32)["own"] == {}
    own = answer(peer, model, "", FORWARD_BACKWARD, TF32)["own"]
    assert own == dict.fromkeys(found, 0.0), "the processor's float32 is the same at every precision"
    (tmp_path / "vertical.param1.data.f32").write_bytes(b"1234")
    with pytest.raises(Died, match=r"ValueError: .*vertical\.param1\.data\.f32: 4 bytes, 80 expected"):
        ask(peer, model, "", FORWARD_BACKWARD)


def test_it_is_timed(peer: Conversation, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(group_text((1, 2, 3, 4, 2)))
    network = {"model": str(tmp_path / "net.prototxt"), "inputs": "", "backward": True}
    assert peer.ask("prepare", **network, precision=FLOAT32, chain=2) == {"memory_mib": None}
    assert peer.ask("run")["milliseconds"] > 0


LAYER = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 2, 3, 4] } } }\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layer { name: "x" type: "ReNetGRU" bottom: "data" top: "x" }', "layer 'x': a layer of type ReNetGRU is not"),
        (
            'layer { name: "x" type: "ReNetLSTM" bottom: "data" top: "x"'
            " renet_param { num_output: 2 peephole: true } }",
            "layer 'x': renet_param.peephole: not known here",
        ),
        (
            'layer { name: "x" type: "Pooling" bottom: "data" top: "x" pooling_param { pool: STOCHASTIC } }',
            "layer 'x': pooling STOCHASTIC: MAX or AVE expected",
        ),
        (
            'layer { name: "x" type: "Convolution" bottom: "data" top: "x"'
            " convolution_param { num_output: 2 kernel_size: 3 kernel_size: 1 } }",
            "layer 'x': kernel_size: 2 values, one expected",
        ),
        ('layer { name: "x" type: "Scale" bottom: "data" top: "x" }', "layer 'x': a Scale that follows no BatchNorm"),
        ('layer { name: "x" type: "Data" top: "x" }', "layer 'x': the shape of 'x' is not given"),
        ("layer {", "leaves a bracket open"),
        ("}", "closes a bracket that it did not open"),
    ],
)
def test_what_is_not_known_is_told(peer: Conversation, text: str, words: str, tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(f"# a comment {{\n{LAYER}{text}")
    with pytest.raises(Died, match="ValueError") as raised:
        ask(peer, model, "", FORWARD)
    assert words in str(raised.value)
