"""The shipped tables of torchvision's ResNet-50, FCN and DeepLabV3: Caffe answers as PyTorch does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe import layers as L
from caffe import params as P
from torchvision_worker import CLASSES, SIZE, WIDTH

from renet.exchange.name_table import find_table, read_table
from renet.exchange.weight_tensors import convert_weights

WORKER = Path(__file__).resolve().parents[1] / "torchvision_worker.py"
TORCH = os.environ.get("RENET_TORCH")  # where PyTorch is installed, which is no part of the tests' environment
MEAN = (103.53, 116.28, 123.675)


class Caffes:
    """A network of Caffe's with the tables' names."""

    def __init__(self) -> None:
        self.spec = caffe.NetSpec()
        self.spec.data = L.Input(input_param={"shape": {"dim": [1, 3, *SIZE]}})

    def convolution(
        self, name: str, bottom: L, channels: int, kernel: int, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> L:
        """A convolution, the two layers of its batch normalisation, and a ReLU."""
        pad = dilation * (kernel // 2)
        fields = {"num_output": channels, "kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
        part = name.removeprefix("res") if name.startswith("res") else f"_{name}"
        self.spec[name] = L.Convolution(bottom, bias_term=False, **fields)
        self.spec[f"bn{part}"] = L.BatchNorm(self.spec[name], in_place=True)
        self.spec[f"scale{part}"] = top = L.Scale(self.spec[f"bn{part}"], bias_term=True, in_place=True)
        if relu:
            self.spec[f"{name}_relu"] = top = L.ReLU(top, in_place=True)
        return top

    def resnet50(self, dilated: bool) -> L:
        """torchvision's: it halves in branch2b, and its pooling rounds down."""
        top = self.convolution("conv1", self.spec.data, WIDTH, 7, 2)
        window = {"kernel_size": 3, "stride": 2, "pad": 1, "round_mode": P.Pooling.FLOOR}
        self.spec.pool1 = top = L.Pooling(top, pool=P.Pooling.MAX, **window)
        dilation = 1
        for stage, blocks in enumerate(("abc", "abcd", "abcdef", "abc")):
            before, stride = dilation, 1 if stage == 0 else 2
            if dilated and stage >= 2:
                dilation, stride = 2 * dilation, 1
            for block in blocks:
                name, width, short = f"res{stage + 2}{block}", WIDTH << stage, top
                step, widened = (stride, before) if block == "a" else (1, dilation)
                if block == "a":
                    short = self.convolution(f"{name}_branch1", top, 4 * width, 1, step, relu=False)
                branch = self.convolution(f"{name}_branch2a", top, width, 1)
                branch = self.convolution(f"{name}_branch2b", branch, width, 3, step, widened)
                branch = self.convolution(f"{name}_branch2c", branch, 4 * width, 1, relu=False)
                self.spec[name] = L.Eltwise(short, branch)
                self.spec[f"{name}_relu"] = top = L.ReLU(self.spec[name], in_place=True)
        return top


def resnet50() -> Caffes:
    made = Caffes()
    made.spec.pool5 = L.Pooling(made.resnet50(dilated=False), pool=P.Pooling.AVE, global_pooling=True)
    made.spec.fc1000 = L.InnerProduct(made.spec.pool5, num_output=CLASSES)
    return made


def fcn_resnet50() -> Caffes:
    made = Caffes()
    top = made.convolution("fcn_conv", made.resnet50(dilated=True), 16, 3)
    made.spec.fcn_score = L.Convolution(top, num_output=CLASSES, kernel_size=1)
    return made


def deeplabv3_resnet50() -> Caffes:
    made = Caffes()
    features = made.resnet50(dilated=True)
    parts = [made.convolution("aspp0", features, 16, 1)]
    parts += [made.convolution(f"aspp{number}", features, 16, 3, 1, 12 * number) for number in (1, 2, 3)]
    made.spec.image = L.Pooling(features, pool=P.Pooling.AVE, global_pooling=True)
    image = made.convolution("aspp_image", made.spec.image, 16, 1)
    made.spec.spread = L.BilinearInterpolation(image, features)
    made.spec.parts = L.Concat(*parts, made.spec.spread)
    top = made.convolution("deeplab_conv", made.convolution("aspp", made.spec.parts, 16, 1), 16, 3)
    made.spec.deeplab_score = L.Convolution(top, num_output=CLASSES, kernel_size=1)
    return made


NETWORKS = {each.__name__: each for each in (resnet50, fcn_resnet50, deeplabv3_resnet50)}


def built(name: str, tmp_path: Path, *weights: str) -> caffe.Net:
    file = tmp_path / "net.prototxt"
    file.write_text(str(NETWORKS[name]().spec.to_proto()))
    return caffe.Net(str(file), *weights, caffe.TEST)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_fills_every_layer(name: str, tmp_path: Path) -> None:
    network = built(name, tmp_path)
    expected = [f"{layer}.{number}" for layer, blobs in network.params.items() for number in range(len(blobs))]
    assert sorted(entry.blob for entry in read_table(find_table(f"{name}_torchvision"))) == sorted(expected)


@pytest.mark.skipif(TORCH is None, reason="RENET_TORCH does not name a folder with PyTorch")
@pytest.mark.parametrize("name", NETWORKS)
def test_caffe_answers_as_pytorch(name: str, tmp_path: Path) -> None:
    state = tmp_path / "state.npz"
    done = subprocess.run([sys.executable, WORKER, TORCH, name, state], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "net.caffemodel"
    convert_weights(state, weights, find_table(f"{name}_torchvision"))
    network = built(name, tmp_path, str(weights))
    answer = np.load(f"{state}.answer.npz")
    image = 255 * answer["image"][0, ::-1]
    network.blobs["data"].data[0] = image - np.reshape(MEAN, (3, 1, 1))
    (found,) = network.forward().values()
    expected = answer["scores"]
    assert found.shape == expected.shape and np.ptp(expected) > 0.1
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
