"""Convolution, Deconvolution and InnerProduct as ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from renet.exchange.graph import Converter, Graph, Layer, NoOnnxForm


def along_axes(parameter: Any, field: str, axes: int, default: int) -> list[int]:
    """Read a size of a convolution for each spatial axis: given for height and width (`pad_h`, `pad_w`), for each
    axis, or once for all."""
    short = field.removesuffix("_size")
    if parameter.HasField(f"{short}_h") or parameter.HasField(f"{short}_w"):
        return [getattr(parameter, f"{short}_h"), getattr(parameter, f"{short}_w")]
    values = list(getattr(parameter, field)) or [default]
    return values * axes if len(values) == 1 else values


def sides(parameter: Any, both: str, stem: str) -> list[int]:
    """Read a size for height and width: given as `STEM_h` and `STEM_w`, or as `both` at once."""
    names = [f"{stem}_h", f"{stem}_w"]
    if any(parameter.HasField(name) for name in names):
        return [getattr(parameter, name) for name in names]
    return [getattr(parameter, both)] * 2


def _convolution(operator: str) -> Converter:
    def convert(graph: Graph, layer: Layer) -> list[str]:
        parameter = layer.parameter.convolution_param
        if layer.axis(parameter.axis) != 1:
            raise NoOnnxForm(f"axis: {parameter.axis} is not the channels' axis of ONNX, 1")
        kernel = list(layer.weights[0].shape[2:])
        axes = len(kernel)
        dilation = list(parameter.dilation) or [1]
        pads = along_axes(parameter, "pad", axes, 0)
        weights = [graph.constant(blob) for blob in layer.weights]
        return [
            graph.add(
                operator,
                bottom,
                *weights,
                kernel_shape=kernel,
                strides=along_axes(parameter, "stride", axes, 1),
                pads=pads * 2,
                dilations=dilation * axes if len(dilation) == 1 else dilation,
                group=parameter.group,
            )
            for bottom in layer.bottoms
        ]

    return convert


def _inner_product(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.inner_product_param
    axis = layer.axis(parameter.axis)
    graph.needs_fixed_size(layer)
    weights = layer.weights[0] if parameter.transpose else layer.weights[0].T
    value = layer.bottoms[0]
    if layer.rank != axis + 1:
        value = graph.reshape(value, [*(0,) * axis, int(np.prod(layer.shapes[0][axis:]))])
    value = graph.add("MatMul", value, graph.constant(weights))
    return [graph.add("Add", value, graph.constant(layer.weights[1])) if parameter.bias_term else value]


CONVERTERS: dict[str, Converter] = {
    "Convolution": _convolution("Conv"),
    "Deconvolution": _convolution("ConvTranspose"),
    "InnerProduct": _inner_product,
}
