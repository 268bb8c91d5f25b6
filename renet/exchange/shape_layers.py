"""Layers that cut, join, reshape, resize and reduce maps, as ONNX."""

from __future__ import annotations

import numpy as np
from caffe.proto import caffe_pb2

from renet.exchange.graph import Converter, Graph, Layer, Size


def _concat(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.concat_param
    axis = parameter.concat_dim if parameter.HasField("concat_dim") else layer.axis(parameter.axis)
    return [graph.add("Concat", *layer.bottoms, axis=axis)]


def _slice(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.slice_param
    axis = parameter.slice_dim if parameter.HasField("slice_dim") else layer.axis(parameter.axis)
    if len(layer.tops) == 1:
        return [layer.bottoms[0]]
    sizes = []
    if parameter.slice_point:
        ends = [0, *parameter.slice_point, layer.shapes[0][axis]]
        sizes = [graph.constant(np.diff(ends))]
    first = graph.add("Split", layer.bottoms[0], *sizes, outputs=len(layer.tops), axis=axis)
    return [first, *(f"{first}:{number}" for number in range(1, len(layer.tops)))]


def _crop(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.crop_param
    axis = layer.axis(parameter.axis)
    count = layer.rank - axis
    offsets = list(parameter.offset) or [0]
    starts = graph.constant(np.array(offsets * count if len(offsets) == 1 else offsets, np.int64))
    ends = graph.add("Add", graph.size(layer.bottoms[1], axis, layer.rank), starts)
    axes = graph.constant(np.arange(axis, layer.rank))
    return [graph.add("Slice", layer.bottoms[0], starts, ends, axes)]


def _flatten(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.flatten_param
    axis, end = layer.axis(parameter.axis), layer.axis(parameter.end_axis)
    if axis == end:
        return [layer.bottoms[0]]
    behind = [graph.size(layer.bottoms[0], place) for place in range(end + 1, layer.rank)]
    return [graph.reshape(layer.bottoms[0], [*(0,) * axis, -1, *behind])]


def _reshape(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.reshape_param
    bottom = layer.bottoms[0]
    # An axis from the back may lie one behind the last
    axis = parameter.axis if parameter.axis >= 0 else layer.rank + 1 + parameter.axis
    end = layer.rank if parameter.num_axes == -1 else axis + parameter.num_axes
    sizes: list[Size] = [0] * axis
    for place, dim in enumerate(parameter.shape.dim):
        sizes.append(graph.size(bottom, axis + place) if dim == 0 else int(dim))
    sizes += [graph.size(bottom, place) for place in range(end, layer.rank)]
    return [graph.reshape(bottom, sizes)]


def _tile(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.tile_param
    repeats = [1] * layer.rank
    repeats[layer.axis(parameter.axis)] = parameter.tiles
    return [graph.add("Tile", layer.bottoms[0], graph.constant(repeats))]


def _arg_max(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.argmax_param
    value, axis = layer.bottoms[0], layer.axis(parameter.axis)
    if not parameter.HasField("axis"):
        value, axis = graph.reshape(value, [0, 1, -1]), 2
    best = graph.add("TopK", value, graph.constant([parameter.top_k]), outputs=2, axis=axis)
    indices = graph.add("Cast", f"{best}:1", to=1)
    if parameter.HasField("axis"):
        return [best if parameter.out_max_val else indices]
    if parameter.out_max_val:
        indices = graph.add("Concat", indices, best, axis=1)
    # As many axes as bottom[0] has, at least three
    return [graph.reshape(indices, [0, 0, 0, *(1,) * (layer.rank - 3)])]


def _reduction(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.reduction_param
    axes = list(range(layer.axis(parameter.axis), layer.rank))
    kinds = caffe_pb2.ReductionParameter
    value = layer.bottoms[0]
    if parameter.operation == kinds.MEAN:
        value = graph.add("ReduceMean", value, axes=axes, keepdims=0)
    else:
        # OpenVINO keeps the axes of a ReduceL1 that it should drop
        if parameter.operation == kinds.ASUM:
            value = graph.add("Abs", value)
        elif parameter.operation == kinds.SUMSQ:
            value = graph.add("Mul", value, value)
        value = graph.add("ReduceSum", value, graph.constant(axes), keepdims=0)
    return [graph.scaled(value, parameter.coeff)]


def _permute(graph: Graph, layer: Layer) -> list[str]:
    named = list(layer.parameter.permute_param.order)
    return [graph.transpose(layer.bottoms[0], [*named, *(axis for axis in range(layer.rank) if axis not in named)])]


def _bilinear_interpolation(graph: Graph, layer: Layer) -> list[str]:
    value, like = layer.bottoms
    return [_resized(graph, value, graph.size(like, 2, 4))]


def _interp(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.interp_param
    value = layer.bottoms[0]
    if parameter.pad_beg or parameter.pad_end:
        ends = [parameter.pad_end or np.iinfo(np.int32).max] * 2
        value = graph.add(
            "Slice", value, graph.constant([-parameter.pad_beg] * 2), graph.constant(ends), graph.constant([2, 3])
        )  # fmt: skip
    if len(layer.bottoms) == 2:
        return [_resized(graph, value, graph.size(layer.bottoms[1], 2, 4))]
    if parameter.HasField("height"):
        # What has this size for one image only is what it is put beside
        graph.needs_fixed_size(layer)
        return [_resized(graph, value, graph.constant([parameter.height, parameter.width]))]
    one = graph.constant([1, 1])
    steps = graph.add("Sub", graph.size(value, 2, 4), one)
    steps = graph.add("Div", steps, graph.constant([parameter.shrink_factor] * 2))
    steps = graph.add("Mul", steps, graph.constant([parameter.zoom_factor] * 2))
    # OpenVINO wants to see that no size is below 0
    return [_resized(graph, value, graph.add("Max", graph.add("Add", steps, one), one))]


def _resized(graph: Graph, value: str, size: str) -> str:
    sizes = graph.join([graph.size(value, 0, 2), size])
    return graph.add("Resize", value, "", "", sizes, mode="linear", coordinate_transformation_mode="align_corners")


CONVERTERS: dict[str, Converter] = {
    "ArgMax": _arg_max,
    "BilinearInterpolation": _bilinear_interpolation,
    "Concat": _concat,
    "Crop": _crop,
    "Flatten": _flatten,
    "Interp": _interp,
    "Permute": _permute,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Slice": _slice,
    "Tile": _tile,
}
