"""LRN, MVN, L2Normalization and Normalize as ONNX."""

from __future__ import annotations

import numpy as np
from caffe.proto import caffe_pb2

from renet.exchange.graph import Converter, Graph, Layer


def _lrn(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.lrn_param
    size = parameter.local_size
    if parameter.norm_region == caffe_pb2.LRNParameter.ACROSS_CHANNELS:
        settings = {"alpha": parameter.alpha, "beta": parameter.beta, "bias": parameter.k}
        return [graph.add("LRN", layer.bottoms[0], size=size, **settings)]
    squares = graph.add("Mul", layer.bottoms[0], layer.bottoms[0])
    pads = [(size - 1) // 2] * 4
    mean = graph.add("AveragePool", squares, kernel_shape=[size] * 2, pads=pads, count_include_pad=1)
    power = graph.constant(np.float32(-parameter.beta))
    return [graph.add("Mul", layer.bottoms[0], graph.add("Pow", graph.scaled(mean, parameter.alpha, 1), power))]


def _mvn(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.mvn_param
    axes = list(range(1 if parameter.across_channels else 2, layer.rank))
    mean = graph.add("ReduceMean", layer.bottoms[0], axes=axes)
    value = graph.add("Sub", layer.bottoms[0], mean)
    if not parameter.normalize_variance:
        return [value]
    variance = graph.add("ReduceMean", graph.add("Mul", value, value), axes=axes)
    return [graph.add("Div", value, graph.scaled(graph.add("Sqrt", variance), 1, parameter.eps))]


def _l2_normalization(graph: Graph, layer: Layer) -> list[str]:
    norm = graph.add("ReduceL2", layer.bottoms[0], axes=list(range(1, layer.rank)))
    # A map of zeros stays zero
    norm = graph.add("Max", norm, graph.constant(np.finfo(np.float32).tiny))
    return [graph.scaled(graph.add("Div", layer.bottoms[0], norm), layer.parameter.l2_normalization_param.scale)]


def _normalize(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.norm_param
    value = layer.bottoms[0]
    axes = list(range(1, layer.rank)) if parameter.across_spatial else [1]
    squares = graph.add("ReduceSum", graph.add("Mul", value, value), graph.constant(axes), keepdims=1)
    # Without eps a position of zeros stays zero
    least = graph.constant(np.finfo(np.float32).tiny)
    norm = graph.add("Sqrt", graph.add("Max", graph.scaled(squares, 1, parameter.eps), least))
    scale = layer.weights[0].reshape(-1, *(1,) * (layer.rank - 2))
    return [graph.add("Mul", graph.add("Div", value, norm), graph.constant(scale))]


CONVERTERS: dict[str, Converter] = {
    "L2Normalization": _l2_normalization,
    "LRN": _lrn,
    "MVN": _mvn,
    "Normalize": _normalize,
}
