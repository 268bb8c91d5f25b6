"""Layers of VGG-16: its thirteen convolutions, their names and shapes, and how they lie in a Caffe model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from renet.common.errors import UserError
from renet.common.input_files import read_bytes
from renet.common.text_layout import shape_text
from renet.weights.weight_files import blob_shape

KERNEL = 3
POOLED_AFTER = ("conv1_2", "conv2_2", "conv3_3", "conv4_3")
# Outputs and inputs of each layer, from the image on.
CHANNELS = {
    "conv1_1": (64, 3),
    "conv1_2": (64, 64),
    "conv2_1": (128, 64),
    "conv2_2": (128, 128),
    "conv3_1": (256, 128),
    "conv3_2": (256, 256),
    "conv3_3": (256, 256),
    "conv4_1": (512, 256),
    "conv4_2": (512, 512),
    "conv4_3": (512, 512),
    "conv5_1": (512, 512),
    "conv5_2": (512, 512),
    "conv5_3": (512, 512),
}


class Convolution(NamedTuple):
    """Parameters of one layer.

    Attributes:
        kernels: outputs x inputs x 3 x 3 (rows, columns), float32; applied as they lie, as Caffe does.
        biases: outputs.
    """

    kernels: np.ndarray
    biases: np.ndarray


Weights = Mapping[str, Convolution]


def checked(weights: Weights, where: str) -> Weights:
    """Return the weights themselves, when they are VGG-16's.

    Raises:
        UserError: a layer is missing, has another shape, or values that are no numbers; names layer and shapes.
    """
    for name, (outputs, inputs) in CHANNELS.items():
        if name not in weights:
            raise UserError(f"{where}: has no convolution {name}; VGG-16 has {', '.join(CHANNELS)}")
        for what, values, shape in (
            ("kernels", weights[name].kernels, (outputs, inputs, KERNEL, KERNEL)),
            ("biases", weights[name].biases, (outputs,)),
        ):
            if values.shape != shape:
                has = shape_text(values.shape) or "nothing"
                raise UserError(f"{where}: {name} has {what} of {has}; VGG-16's are {shape_text(shape)}")
            if not np.isfinite(values).all():
                raise UserError(f"{where}: {name} has {what} that are infinite or no numbers")
    return weights


def to_network(weights: Weights, name: str) -> caffe_pb2.NetParameter:
    """Make a Caffe model of the thirteen layers and nothing else."""
    network = caffe_pb2.NetParameter(name=name)
    for layer_name, convolution in weights.items():
        layer = network.layer.add(name=layer_name, type="Convolution")
        layer.convolution_param.num_output = len(convolution.biases)
        layer.convolution_param.kernel_size.append(KERNEL)
        layer.convolution_param.pad.append(KERNEL // 2)
        for values in convolution:
            blob = layer.blobs.add()
            blob.shape.dim.extend(values.shape)
            blob.data.extend(np.ascontiguousarray(values, np.float32).ravel().tolist())
    return network


def read_caffemodel(file: Path) -> Weights:
    """Read the thirteen convolutions of a .caffemodel, of either age: V1 `layers` with four-dimensional blobs, or
    `layer`.

    What else is in the file (fully connected layers) is left out.

    Raises:
        UserError: no such file, no Caffe model, or not VGG-16's layers.
    """
    network = caffe_pb2.NetParameter()
    try:
        network.ParseFromString(read_bytes(file))
    except DecodeError:
        raise UserError(f"{file}: not a Caffe model, or only a part of one (a .caffemodel is read)") from None
    found = {}
    for layer in convolutions(network):
        if layer.name in CHANNELS:
            if len(layer.blobs) != 2:
                raise UserError(f"{file}: {layer.name} has {len(layer.blobs)} blobs; kernels and biases are expected")
            kernels, biases = (_values(blob, f"{file}: {layer.name}") for blob in layer.blobs)
            # of old blobs with their four dimensions, biases are 1 x 1 x 1 x outputs
            found[layer.name] = Convolution(kernels, biases.reshape(biases.shape[-1:]) if biases.size else biases)
    return checked({name: found[name] for name in CHANNELS if name in found}, str(file))


def convolutions(network: caffe_pb2.NetParameter) -> Iterator[Any]:
    """Iterate over the convolution layers of a model in the present or the V1 format."""
    yield from (layer for layer in network.layer if layer.type == "Convolution")
    yield from (layer for layer in network.layers if layer.type == caffe_pb2.V1LayerParameter.CONVOLUTION)


def _values(blob: caffe_pb2.BlobProto, where: str) -> np.ndarray:
    values = np.array(blob.double_data or blob.data, np.float32)
    shape = blob_shape(blob)
    if math.prod(shape) != values.size:
        raise UserError(f"{where}: only a part of a model ({values.size} values for {shape_text(shape) or 'nothing'})")
    return values.reshape(shape)
