"""Maps that share memory (`net.share_maps`): every network gives what it gives where each map has its own.

With RENET_TEST_GPU=1, in a build with a GPU, the memory is the GPU's.
"""

from __future__ import annotations

import os
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.benchmark.foreign_networks import googlenet, mobilenet_v2, resnet50
from renet.common.repository import ROOT
from renet.networks.analysis import compared_shapes, fill_with_noise, without_data
from renet.runtime.prototxt import read_network

SHAPE = (1, 3, 64, 80)
SHAPES = {"deeplab_largefov": (1, 3, 41, 57), "segnet": (1, 3, 360, 480)}  # sizes that they take
# one data set's network of each; DeconvNet takes a gigabyte, and images of 224 x 224 at least
MODELS = sorted(
    {folder.parent.name: folder for folder in ROOT.glob("prototxt/*/*/") if folder.parent.name != "deconvnet"}.items()
)
SEED = 3
ON_GPU = os.environ.get("RENET_TEST_GPU") == "1"


def results(net: caffe.Net, backward: bool) -> dict[str, np.ndarray]:
    """What a pass gives: outputs, and the parameters' gradients."""
    caffe.set_random_seed(SEED)
    net.clear_param_diffs()
    net.forward()
    found = {name: net.blobs[name].data.copy() for name in net.outputs}
    if backward:
        net.backward()
        for name, blobs in net.params.items():
            found |= {f"{name} {index}": blob.diff.copy() for index, blob in enumerate(blobs)}
    return found


def expect_the_same(text: str, backward: bool, tmp_path: Path) -> None:
    """Compare passes without and with `share_maps`, bit for bit."""
    file = tmp_path / "net.prototxt"
    file.write_text(text)
    (caffe.set_mode_gpu if ON_GPU else caffe.set_mode_cpu)()
    caffe.set_random_seed(SEED)
    net = caffe.Net(str(file), caffe.TRAIN if backward else caffe.TEST)
    fill_with_noise(net, text_format.Parse(text, caffe_pb2.NetParameter()))
    expected = results(net, backward)
    assert expected
    net.share_maps()
    for _ in range(3):  # the first one sees what is in use when, the second one makes the plan
        found = results(net, backward)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize(("model", "folder"), MODELS, ids=[model for model, _folder in MODELS])
@pytest.mark.parametrize("kind", ["deploy", "train_val"])
def test_a_network_of_ours(model: str, folder: Path, kind: str, tmp_path: Path) -> None:
    file = folder / f"{kind}.prototxt"
    if not file.is_file():
        pytest.skip(f"{model} has none")
    train = kind == "train_val"
    network, phase = read_network(file), caffe_pb2.TRAIN if train else caffe_pb2.TEST
    shape = SHAPES.get(model, SHAPE)
    blank = text_format.MessageToString(without_data(network, phase, shape))
    compared = next(compared_shapes(blank)) if train else None
    fed = without_data(network, phase, shape, compared)
    expect_the_same(text_format.MessageToString(fed), train, tmp_path)


@pytest.mark.parametrize("write", [resnet50, mobilenet_v2, googlenet], ids=lambda write: write.__name__)
def test_a_network_of_others(write, tmp_path: Path) -> None:
    expect_the_same(write((1, 3, 224, 224)), False, tmp_path)
