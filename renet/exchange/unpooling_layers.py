"""Unpooling and Upsample as ONNX: values to the places that a mask says, or over their windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from caffe.proto import caffe_pb2

from renet.exchange.convolution_layers import sides
from renet.exchange.graph import Converter, Graph, Layer, Size

_FLOAT, _INT64 = 1, 7
_TO_THE_END = np.iinfo(np.int32).max
_METHODS = caffe_pb2.UnpoolingParameter


@dataclass(frozen=True)
class _Windows:
    """Windows of a pooling, height and width each.

    Attributes:
        kernel: their sizes.
        stride: their steps.
        pad: by how much the first ones begin before the map.
        cut: by how much less than the windows reach the map goes, behind its last place.
        given: the map's size; None: it follows from the windows.
    """

    kernel: list[int]
    stride: list[int]
    pad: list[int]
    cut: list[int]
    given: list[int] | None


def _unpooling(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.unpooling_param
    pad = sides(parameter, "pad", "pad")
    given = sides(parameter, "unpool_size", "unpool")
    windows = _Windows(
        sides(parameter, "kernel_size", "kernel"),
        sides(parameter, "stride", "stride"),
        pad,
        pad,
        given if any(given) else None,
    )
    if parameter.unpool == _METHODS.MAX:
        return [_scattered(graph, layer, windows)]
    return [_spread(graph, layer, windows, average=parameter.unpool == _METHODS.AVE)]


def _upsample(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.upsample_param
    scale = sides(parameter, "scale", "scale")
    cut = [int(parameter.pad_out_h), int(parameter.pad_out_w)]
    given = [parameter.upsample_h, parameter.upsample_w] if parameter.HasField("upsample_h") else None
    windows = _Windows(scale, scale, [0, 0], cut, given)
    if len(layer.bottoms) == 2:
        return [_scattered(graph, layer, windows)]
    return [_spread(graph, layer, windows, average=False)]


def _scattered(graph: Graph, layer: Layer, windows: _Windows) -> str:
    """Each value at its place in its map, by the mask or, without one, at its window's first place."""
    value = layer.bottoms[0]
    size = graph.size(value, 2, 4)
    reach = graph.constant(np.array(windows.kernel) - windows.stride - windows.pad - windows.cut)
    target = graph.add("Add", graph.add("Mul", size, graph.constant(windows.stride)), reach)
    if windows.given is not None:
        graph.needs_fixed_size(layer)
        target = graph.constant(windows.given)
    maps = graph.size(value, 0, 2)
    flat = graph.reshape(value, [0, 0, -1])
    if len(layer.bottoms) == 2:
        places = graph.reshape(graph.add("Cast", layer.bottoms[1], to=_INT64), [0, 0, -1])
    else:
        first = [_first_places(graph, size, target, windows, axis) for axis in (0, 1)]
        width = graph.add("Slice", target, graph.constant([1]), graph.constant([2]))
        rows = graph.reshape(graph.add("Mul", first[0], width), [-1, 1])
        places = graph.add("Expand", graph.reshape(graph.add("Add", rows, first[1]), [-1]), graph.shape(flat))
    area = graph.add("ReduceProd", target, axes=[0], keepdims=1)
    zeros = graph.add("Expand", graph.constant(np.float32(0)), graph.join([maps, area]))
    return graph.reshape(graph.add("ScatterElements", zeros, places, flat, axis=2), [maps, target])


def _first_places(graph: Graph, size: str, target: str, windows: _Windows, axis: int) -> str:
    """Row (or column) of the first place of each window along an axis, within the map."""
    at = graph.constant([axis]), graph.constant([axis + 1])
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    numbers = graph.add("Range", zero, graph.add("Squeeze", graph.add("Slice", size, *at)), one)
    starts = graph.add("Mul", numbers, graph.constant([windows.stride[axis]]))
    inside = graph.add("Max", graph.add("Sub", starts, graph.constant([windows.pad[axis]])), graph.constant([0]))
    return graph.add("Min", inside, graph.add("Sub", graph.add("Slice", target, *at), graph.constant([1])))


def _spread(graph: Graph, layer: Layer, windows: _Windows, average: bool) -> str:
    """Each value in all places of its window, or an equal part of it: a transposed convolution with ones."""
    value, channels = layer.bottoms[0], layer.shapes[0][1]
    if windows.given is not None:
        graph.needs_fixed_size(layer)
    if average:
        value = graph.add("Div", value, graph.constant(_counts(layer, windows)))
    ones = graph.constant(np.ones((channels, 1, *windows.kernel)))
    whole = graph.add(
        "ConvTranspose", value, ones, kernel_shape=windows.kernel, strides=windows.stride, group=channels
    )  # fmt: skip
    ends: list[Size] = [-cut if cut else _TO_THE_END for cut in windows.cut]
    if windows.given is not None:
        ends = [pad + size for pad, size in zip(windows.pad, windows.given)]
        missing = [
            max(0, end - (count - 1) * stride - kernel)
            for end, count, stride, kernel in zip(ends, layer.shapes[0][2:], windows.stride, windows.kernel)
        ]
        if any(missing):
            whole = graph.add("Pad", whole, graph.constant([0] * 6 + missing), graph.constant(np.float32(0)))
    if windows.pad == [0, 0] and ends == [_TO_THE_END] * 2:
        return whole
    return graph.add("Slice", whole, graph.constant(windows.pad), graph.join(ends), graph.constant([2, 3]))


def _counts(layer: Layer, windows: _Windows) -> np.ndarray:
    """What Caffe's average pooling divides by: the places of each window, of the map and the padding around it."""
    if windows.given is None:
        return np.array(float(np.prod(windows.kernel)))
    sizes = [
        np.clip(size + 2 * pad - np.arange(count) * stride, 1, kernel)
        for size, pad, count, stride, kernel in zip(
            windows.given, windows.pad, layer.shapes[0][2:], windows.stride, windows.kernel
        )
    ]
    return np.outer(*sizes).astype(float)


CONVERTERS: dict[str, Converter] = {"Unpooling": _unpooling, "Upsample": _upsample}
