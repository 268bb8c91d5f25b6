"""Layers that take each value by itself, or the same place of several maps, as ONNX."""

from __future__ import annotations

import math

import numpy as np
from caffe.proto import caffe_pb2

from renet.exchange.graph import Converter, Graph, Layer, NoOnnxForm

_SEGNET_EPS = 1e-9  # what SegNet's BN adds to a variance


def _plain(operator: str) -> Converter:
    return lambda graph, layer: [graph.add(operator, layer.bottoms[0])]


def same(graph: Graph, layer: Layer) -> list[str]:
    """Pass bottom[0] on to every top: Dropout, which does nothing in a prediction, and Split."""
    return [layer.bottoms[0]] * len(layer.tops)


def _relu(graph: Graph, layer: Layer) -> list[str]:
    slope = layer.parameter.relu_param.negative_slope
    if slope:
        return [graph.add("LeakyRelu", layer.bottoms[0], alpha=slope)]
    return [graph.add("Relu", layer.bottoms[0])]


def _prelu(graph: Graph, layer: Layer) -> list[str]:
    slopes = layer.weights[0].reshape(-1, *(1,) * (layer.rank - 2))
    return [graph.add("PRelu", layer.bottoms[0], graph.constant(slopes))]


def _elu(graph: Graph, layer: Layer) -> list[str]:
    return [graph.add("Elu", layer.bottoms[0], alpha=layer.parameter.elu_param.alpha)]


def _power(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.power_param
    value = graph.scaled(layer.bottoms[0], parameter.scale, parameter.shift)
    if parameter.power != 1:
        value = graph.add("Pow", value, graph.constant(np.float32(parameter.power)))
    return [value]


def _exp(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.exp_param
    logarithm = 1.0 if parameter.base == -1 else math.log(parameter.base)
    return [graph.add("Exp", graph.scaled(layer.bottoms[0], parameter.scale * logarithm, parameter.shift * logarithm))]


def _log(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.log_param
    value = graph.add("Log", graph.scaled(layer.bottoms[0], parameter.scale, parameter.shift))
    return [graph.scaled(value, 1.0 if parameter.base == -1 else 1 / math.log(parameter.base))]


def _swish(graph: Graph, layer: Layer) -> list[str]:
    gate = graph.add("Sigmoid", graph.scaled(layer.bottoms[0], layer.parameter.swish_param.beta))
    return [graph.add("Mul", layer.bottoms[0], gate)]


def _clip(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.clip_param
    low, high = (graph.constant(np.float32(bound)) for bound in (parameter.min, parameter.max))
    return [graph.add("Clip", layer.bottoms[0], low, high)]


def _threshold(graph: Graph, layer: Layer) -> list[str]:
    bound = graph.constant(np.float32(layer.parameter.threshold_param.threshold))
    return [graph.add("Cast", graph.add("Greater", layer.bottoms[0], bound), to=1)]


def _softmax(graph: Graph, layer: Layer) -> list[str]:
    return [graph.add("Softmax", layer.bottoms[0], axis=layer.axis(layer.parameter.softmax_param.axis))]


def _eltwise(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.eltwise_param
    values = list(layer.bottoms)
    if parameter.operation == caffe_pb2.EltwiseParameter.MAX:
        return [graph.add("Max", *values)]
    if parameter.operation == caffe_pb2.EltwiseParameter.SUM:
        if parameter.coeff:
            values = [graph.scaled(value, factor) for value, factor in zip(values, parameter.coeff, strict=True)]
        return [graph.add("Sum", *values)]
    product = values[0]
    for value in values[1:]:
        product = graph.add("Mul", product, value)
    return [product]


def _along_axes(graph: Graph, layer: Layer, axis: int, blob: int, learned_axes: int) -> str:
    """The factors or summands of a Scale or Bias layer in a shape that ONNX lays over bottom[0]: bottom[1], or the
    parameter blob of that number."""
    if len(layer.bottoms) == 1:
        weights = layer.weights[blob]
        return graph.constant(weights.reshape(weights.shape + (1,) * (layer.rank - axis - learned_axes)))
    missing = layer.rank - axis - len(layer.shapes[1])
    if missing == 0:
        return layer.bottoms[1]
    axes = range(len(layer.shapes[1]), len(layer.shapes[1]) + missing)
    return graph.add("Unsqueeze", layer.bottoms[1], graph.constant(np.array(axes, np.int64)))


def _scale(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.scale_param
    axis = layer.axis(parameter.axis)
    factors = _along_axes(graph, layer, axis, 0, layer.weights[0].ndim if len(layer.bottoms) == 1 else 0)
    value = graph.add("Mul", layer.bottoms[0], factors)
    if parameter.bias_term:
        bias = layer.weights[-1]
        value = graph.add(
            "Add", value, graph.constant(bias.reshape(bias.shape + (1,) * (layer.rank - axis - bias.ndim)))
        )
    return [value]


def _bias(graph: Graph, layer: Layer) -> list[str]:
    axis = layer.axis(layer.parameter.bias_param.axis)
    learned = layer.weights[0].ndim if layer.weights else 0
    return [graph.add("Add", layer.bottoms[0], _along_axes(graph, layer, axis, 0, learned))]


def _embed(graph: Graph, layer: Layer) -> list[str]:
    indices = graph.add("Cast", layer.bottoms[0], to=7)
    value = graph.add("Gather", graph.constant(layer.weights[0]), indices)
    if layer.parameter.embed_param.bias_term:
        value = graph.add("Add", value, graph.constant(layer.weights[1]))
    return [value]


def _batch_norm(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.batch_norm_param
    if parameter.HasField("use_global_stats") and not parameter.use_global_stats:
        raise NoOnnxForm("use_global_stats: false normalises by the batch's own statistics; leave it out")
    mean, variance, count = layer.weights
    factor = 0 if count[0] == 0 else 1 / count[0]
    ones = np.ones_like(mean)
    values = [graph.constant(each) for each in (ones, 0 * ones, mean * factor, variance * factor)]
    return [graph.add("BatchNormalization", layer.bottoms[0], *values, epsilon=parameter.eps)]


def _bn(graph: Graph, layer: Layer) -> list[str]:
    """BN of SegNet's form (two blobs) or of PSPNet's (four)."""
    parameter, value = layer.parameter.bn_param, layer.bottoms[0]
    blobs = [blob.reshape(-1) for blob in layer.weights]
    if len(blobs) == 4:
        return [graph.add("BatchNormalization", value, *map(graph.constant, blobs), epsilon=parameter.eps)]
    if parameter.bn_mode == caffe_pb2.BNParameter.LEARN:  # the batch's own statistics, in a prediction, too
        axes = [0, *range(2, layer.rank)]
        value = graph.add("Sub", value, graph.add("ReduceMean", value, axes=axes))
        variance = graph.add("ReduceMean", graph.add("Mul", value, value), axes=axes)
        value = graph.add("Div", value, graph.add("Sqrt", graph.scaled(variance, 1, _SEGNET_EPS)))
    scale, shift = (graph.constant(blob.reshape(-1, *(1,) * (layer.rank - 2))) for blob in blobs)
    return [graph.add("Add", graph.add("Mul", value, scale), shift)]


CONVERTERS: dict[str, Converter] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "BN": _bn,
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Clip": _clip,
    "Dropout": same,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Embed": _embed,
    "Exp": _exp,
    "Log": _log,
    "PReLU": _prelu,
    "Power": _power,
    "ReLU": _relu,
    "Scale": _scale,
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _softmax,
    "Split": same,
    "Swish": _swish,
    "TanH": _plain("Tanh"),
    "Threshold": _threshold,
}
