"""Networks and solvers of every age are read as Caffe reads them, and mistakes are told with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from caffe.proto import caffe_pb2

from renet.common.errors import UserError
from renet.runtime.prototxt import read_network, read_solver

FIRST_GENERATION = """
name: "old"
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 9
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "pad" }
layers {
  layer {
    name: "conv" type: "conv" num_output: 4 kernelsize: 5 stride: 1
    blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  }
  bottom: "pad" top: "conv"
}
layers { layer { name: "prob" type: "softmax" } bottom: "conv" top: "prob" }
"""
SECOND_GENERATION = """
name: "newer"
layers {
  name: "data" type: DATA top: "data" top: "label"
  data_param { source: "x" batch_size: 1 scale: 0.5 mirror: true }
}
layers {
  name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 3
  convolution_param { num_output: 2 kernel_size: 1 }
}
layers { name: "loss" type: SOFTMAX_LOSS bottom: "conv" bottom: "label" top: "loss" }
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, coding: str = "utf-8") -> Path:
        file = tmp_path / "given.prototxt"
        file.write_bytes(text.encode(coding))
        return file

    return write


def test_first_generation(write) -> None:
    network = read_network(write(FIRST_GENERATION))
    assert [(layer.name, layer.type) for layer in network.layer] == [
        ("input", "Input"),
        ("conv", "Convolution"),
        ("prob", "Softmax"),
    ]
    assert list(network.layer[0].input_param.shape[0].dim) == [1, 3, 8, 9]
    convolution = network.layer[1]
    assert list(convolution.convolution_param.pad) == [2] and list(convolution.convolution_param.kernel_size) == [5]
    assert [(p.lr_mult, p.decay_mult) for p in convolution.param] == [(1, 1), (2, 0)]
    assert not network.layers and not network.input


def test_second_generation_with_old_transformation(write) -> None:
    network = read_network(write(SECOND_GENERATION))
    assert [layer.type for layer in network.layer] == ["Data", "Convolution", "SoftmaxWithLoss"]
    assert network.layer[0].transform_param.scale == 0.5 and network.layer[0].transform_param.mirror
    assert network.layer[1].param[0].lr_mult == 3


@pytest.mark.parametrize(
    "shape", ["input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5", "input_shape { dim: [1, 3, 4, 5] }"]
)
def test_input_without_a_layer(write, shape: str) -> None:
    (layer,) = read_network(write(f'input: "data" {shape}')).layer
    assert (layer.type, list(layer.top), list(layer.input_param.shape[0].dim)) == ("Input", ["data"], [1, 3, 4, 5])


def test_batch_norm_of_three_params(write) -> None:
    text = f'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y" {"param { lr_mult: 0 } " * 3} }}'
    assert not [p for p in read_network(write(text)).layer[0].param if p.lr_mult]


def test_todays_network_stays_as_it_is(write, repository: Path) -> None:
    file = repository / "prototxt" / "h_renet_bn_mlfb" / "voc2012" / "train_val.prototxt"
    network = read_network(file)
    assert read_network(write(str(network))) == network and len(network.layer) > 20


@pytest.mark.parametrize("number,name", list(enumerate(("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"))))
def test_solver_type(write, number: int, name: str) -> None:
    old = caffe_pb2.SolverParameter.SolverType.Name(number)
    solver = read_solver(write(f'net: "x" solver_type: {old}'))
    assert solver.type == name and not solver.HasField("solver_type")


def test_marks_and_line_ends_of_other_systems(write) -> None:
    assert read_solver(write('net: "x"\r\nmax_iter: 3\r\n', "utf-8-sig")).max_iter == 3
    with pytest.raises(UserError, match="UTF-16"):
        read_solver(write('net: "x"', "utf-16"))


@pytest.mark.parametrize(
    "text,message",
    [
        (
            'net: "x"\nlr_polcy: "fixed"',
            r"given\.prototxt:2:1: SolverParameter has no field 'lr_polcy'; did you mean lr_policy",
        ),
        ("solver_mode: TPU", r"1:14: TPU is no SolverMode; there are CPU, GPU$"),
        ("base_lr: quick", r":1:10: Couldn't parse float: quick"),
        ("base_lr: nan", "base_lr is nan, which is no number"),
        ("momentum: inf", "momentum is inf, which is no number"),
        ("max_iter: 1\nmax_iter: 2", r":2:1\d: .*multiple \"max_iter\""),
    ],
)
def test_mistakes_in_a_solver(write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_solver(write(text))


@pytest.mark.parametrize(
    "text,message",
    [
        (
            'layer { name: "p" poolin_param { } }',
            "LayerParameter has no field 'poolin_param'; did you mean pooling_param",
        ),
        (
            'layer { name: "p" pooling_param { pool: MAXIMUM } }',
            "MAXIMUM is no PoolMethod; there are MAX, AVE, STOCHASTIC",
        ),
        ('layer { name: "d" dropout_param { dropout_ratio: nan } }', "layer 'd': dropout_param: dropout_ratio is nan"),
        ('layer { name: "l" loss_weight: 1 loss_weight: -inf }', "layer 'l': loss_weight is -inf"),
    ],
)
def test_mistakes_in_a_network(write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_network(write(text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.prototxt: no such file"):
        read_network(tmp_path / "none.prototxt")


@pytest.mark.parametrize(
    "text,message",
    [
        (
            'layer { name: "p" type: "Padding" padding_param { pad_beg: 1 } }',
            r"given\.prototxt: layer 'p' is of type Padding; DeepLab has it; here serves pad in the convolution",
        ),
        (
            'layers { name: "w" type: MAT_WRITE mat_write_param { prefix: "x" } }',
            "layer 'w' is of type MatWrite; DeepLab has it; here serves HDF5Output",
        ),
        ('layer { name: "r" type: "ReLU" rel_param { } }', r":1:\d+: LayerParameter has no field 'rel_param'; did you"),
        ("layers { type: PADING }", "PADING is no LayerType; there are .*PADDING"),
    ],
)
def test_layers_that_only_forks_have(write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_network(write(text))


def test_names_of_forks(write) -> None:
    network = read_network(
        write(
            """
            layers { name: "bn" type: BN bottom: "x" top: "x" bn_param { bn_mode: INFERENCE } }
            layers { name: "fc6" type: CONVOLUTION bottom: "x" top: "y" convolution_param { hole_h: 2 hole_w: 3 } }
            """
        )
    )
    assert [layer.type for layer in network.layer] == ["BN", "Convolution"]
    assert list(network.layer[1].convolution_param.dilation) == [2, 3]
    assert network.layer[0].bn_param.bn_mode == caffe_pb2.BNParameter.INFERENCE
