"""Pooling as ONNX, with Caffe's rounding.

Caffe rounds the number of windows up, and leaves a last window out that would begin behind the map. ONNX's own rounding
(`ceil_mode`) serves where no window can begin so far behind; elsewhere the map is padded to what the windows cover.
"""

from __future__ import annotations

import numpy as np
from caffe.proto import caffe_pb2

from renet.exchange.convolution_layers import sides
from renet.exchange.graph import Converter, Graph, Layer, NoOnnxForm

_LOWEST = float(np.finfo(np.float32).min)  # what Caffe's maximum of nothing is


def _pooling(graph: Graph, layer: Layer) -> list[str]:
    parameter = layer.parameter.pooling_param
    if parameter.pool == caffe_pb2.PoolingParameter.STOCHASTIC:
        raise NoOnnxForm("pool: STOCHASTIC draws by chance")
    average = parameter.pool == caffe_pb2.PoolingParameter.AVE
    bottom = layer.bottoms[0]
    has_mask = len(layer.tops) > 1
    if parameter.global_pooling:
        if has_mask:
            raise NoOnnxForm("its second top, the mask, has none with global_pooling")
        return [graph.add("GlobalAveragePool" if average else "GlobalMaxPool", bottom)]
    kernel, stride, pads = (
        sides(parameter, both, stem) for both, stem in (("kernel_size", "kernel"), ("stride", "stride"), ("pad", "pad"))
    )
    up = parameter.round_mode == caffe_pb2.PoolingParameter.CEIL and stride != [1, 1]
    inside = all(s <= k - p for s, k, p in zip(stride, kernel, pads))
    sizes = {"kernel_shape": kernel, "strides": stride}
    if not up or (inside and not average):
        more = {"count_include_pad": 1} if average else {}
        operator = "AveragePool" if average else "MaxPool"
        value = graph.add(
            operator, bottom, outputs=len(layer.tops), pads=pads * 2, ceil_mode=int(up), **sizes, **more
        )  # fmt: skip
        return [value, _mask(graph, bottom, f"{value}:1")] if has_mask else [value]
    if has_mask:
        raise NoOnnxForm("its second top, the mask, has one only where stride is at most kernel_size less pad")
    size = graph.size(bottom, 2, 4)
    windows = _windows(graph, size, kernel, stride, pads)
    covered = graph.add(
        "Add", graph.add("Mul", graph.add("Sub", windows, graph.constant([1, 1])), graph.constant(stride)),
        graph.constant(kernel),
    )  # fmt: skip
    behind = graph.add("Sub", covered, graph.add("Add", size, graph.constant(pads)))
    # Windows may end before the map does
    behind = graph.add("Max", behind, graph.constant([0, 0]))
    amounts = graph.join([0, 0, *pads, 0, 0, behind])
    filled = graph.add("Pad", bottom, amounts, graph.constant(np.float32(0 if average else _LOWEST)))
    if not average:
        return [graph.add("MaxPool", filled, **sizes)]
    mean = graph.add("AveragePool", filled, **sizes)
    sums = graph.add("Mul", mean, graph.constant(np.float32(kernel[0] * kernel[1])))
    rows, columns = (_counted(graph, size, windows, axis, kernel[axis], stride[axis], pads[axis]) for axis in (0, 1))
    counts = graph.add("Mul", graph.reshape(rows, [-1, 1]), columns)
    return [graph.add("Div", sums, counts)]


def _mask(graph: Graph, bottom: str, indices: str) -> str:
    """Caffe's mask: a maximum's place in its map, where ONNX counts through all maps."""
    area = graph.add("ReduceProd", graph.size(bottom, 2, 4), axes=[0], keepdims=1)
    return graph.add("Cast", graph.add("Mod", indices, area), to=1)


def _windows(graph: Graph, size: str, kernel: list[int], stride: list[int], pads: list[int]) -> str:
    """How many windows Caffe has along height and width, at least one, int64 of shape (2,)."""
    more = np.array(stride) - 1 + 2 * np.array(pads) - kernel
    steps = graph.add("Div", graph.add("Add", size, graph.constant(more)), graph.constant(stride))
    if any(pads) or any(s > k for s, k in zip(stride, kernel)):
        # The last begins before the padding behind the map: steps * stride <= size + pad - 1
        last = graph.add("Div", graph.add("Add", size, graph.constant(np.array(pads) - 1)), graph.constant(stride))
        steps = graph.add("Min", steps, last)
    return graph.add("Add", steps, graph.constant([1, 1]))


def _counted(graph: Graph, size: str, windows: str, axis: int, kernel: int, stride: int, pad: int) -> str:
    """How many rows (or columns) Caffe counts in each window of an average: those of the map and its padding."""
    count = graph.add("Squeeze", graph.add("Slice", windows, graph.constant([axis]), graph.constant([axis + 1])))
    end = graph.add("Slice", size, graph.constant([axis]), graph.constant([axis + 1]))
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    starts = graph.add("Mul", graph.add("Range", zero, count, one), graph.constant([stride]))
    # Both counted from the first padded row
    length = graph.add("Sub", graph.add("Add", end, graph.constant([2 * pad])), starts)
    return graph.add("Cast", graph.add("Min", length, graph.constant([kernel])), to=1)


CONVERTERS: dict[str, Converter] = {"Pooling": _pooling}
