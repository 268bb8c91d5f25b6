"""Each kind of layer as ONNX gives Caffe's values in onnxruntime and OpenVINO."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from onnx_engines import Engines, compare

# (batch, height, width): odd sizes, and batches
SIZES = [(1, 8, 11), (3, 7, 6), (2, 13, 9)]
# Layers on "data", N x 4 x H x W, by the names of their tops
ELEMENTWISE = {
    "abs": 'type: "AbsVal"',
    "bnll": 'type: "BNLL"',
    "clip": 'type: "Clip" clip_param { min: -0.5 max: 0.25 }',
    "dropout": 'type: "Dropout"',
    "elu": 'type: "ELU" elu_param { alpha: 0.5 }',
    "exp": 'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 0.25 }',
    "exp of e": 'type: "Exp"',
    "log": 'type: "Log" log_param { base: 10 scale: 2 shift: 9 }',
    "power": 'type: "Power" power_param { power: 2 scale: 0.5 shift: 0.25 }',
    "prelu": 'type: "PReLU"',
    "prelu shared": 'type: "PReLU" prelu_param { channel_shared: true }',
    "relu": 'type: "ReLU"',
    "leaky relu": 'type: "ReLU" relu_param { negative_slope: 0.1 }',
    "sigmoid": 'type: "Sigmoid"',
    "softmax": 'type: "Softmax"',
    "softmax of rows": 'type: "Softmax" softmax_param { axis: -1 }',
    "swish": 'type: "Swish" swish_param { beta: 1.5 }',
    "tanh": 'type: "TanH"',
    "threshold": 'type: "Threshold" threshold_param { threshold: 0.2 }',
    "batch norm": 'type: "BatchNorm"',
    "bn of segnet": 'type: "BN" bn_param { bn_mode: INFERENCE }',
    "bn of the batch": 'type: "BN" bn_param { bn_mode: LEARN }',
    "bn of pspnet": 'type: "BN" bn_param { frozen: true eps: 0.01 }',
    "scale": 'type: "Scale" scale_param { bias_term: true }',
    "scale without bias": 'type: "Scale"',
    "scale by one": 'type: "Scale" scale_param { num_axes: 0 bias_term: true }',
    "bias": 'type: "Bias"',
}
MAPS = {
    "convolution": 'type: "Convolution" convolution_param { num_output: 5 kernel_size: 3 pad: 1 stride: 2 }',
    "dilated": 'type: "Convolution" convolution_param { num_output: 5 kernel_size: 3 pad: 2 dilation: 2 }',
    "with holes": 'type: "Convolution" convolution_param { num_output: 5 kernel_size: 3 pad: 3 hole_h: 2 hole_w: 3 }',
    "oblong": 'type: "Convolution" convolution_param { num_output: 5 kernel_h: 3 kernel_w: 1 pad_h: 2 pad_w: 0 '
    "stride_h: 1 stride_w: 2 bias_term: false }",
    "for each axis": 'type: "Convolution" convolution_param { num_output: 5 kernel_size: 3 kernel_size: 2 pad: 0 '
    "pad: 1 }",
    "groups": 'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 group: 2 }',
    "depthwise": 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 4 }',
    "deconvolution": 'type: "Deconvolution" convolution_param { num_output: 5 kernel_size: 4 stride: 2 pad: 1 }',
    "deconvolution of groups": 'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 4 stride: 2 '
    "group: 4 bias_term: false }",
    "lrn": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }',
    "lrn within": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 norm_region: WITHIN_CHANNEL }',
    "mvn": 'type: "MVN"',
    "mvn across": 'type: "MVN" mvn_param { across_channels: true }',
    "mvn mean alone": 'type: "MVN" mvn_param { normalize_variance: false }',
    "l2 normalization": 'type: "L2Normalization" l2_normalization_param { scale: 10 }',
    "permute": 'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }',
    "permute some": 'type: "Permute" permute_param { order: 0 order: 3 }',
    "normalize": 'type: "Normalize"',
    "normalize positions": 'type: "Normalize" norm_param { across_spatial: false channel_shared: false '
    'scale_filler { type: "uniform" min: 5 max: 20 } }',
    "interp smaller": 'type: "Interp" interp_param { shrink_factor: 2 }',
    "interp larger": 'type: "Interp" interp_param { zoom_factor: 3 pad_beg: -1 }',
    "interp of both": 'type: "Interp" interp_param { shrink_factor: 3 zoom_factor: 2 pad_beg: -2 pad_end: -1 }',
    "upsample": 'type: "Upsample" upsample_param { scale_h: 2 scale_w: 3 }',
    "upsample one less": 'type: "Upsample" upsample_param { scale: 2 pad_out_w: true }',
    "first places": 'type: "Unpooling" unpooling_param { kernel_size: 3 stride: 2 pad: 1 }',
    "tiles": 'type: "Unpooling" unpooling_param { unpool: TILE kernel_h: 3 kernel_w: 2 stride: 2 }',
    "parts": 'type: "Unpooling" unpooling_param { unpool: AVE kernel_size: 3 stride: 2 pad: 1 }',
    "argmax": 'type: "ArgMax" argmax_param { axis: 1 }',
    "largest": 'type: "ArgMax" argmax_param { axis: 1 top_k: 2 out_max_val: true }',
    "argmax of all": 'type: "ArgMax" argmax_param { top_k: 3 }',
    "argmax of all with values": 'type: "ArgMax" argmax_param { top_k: 3 out_max_val: true }',
    "sum": 'type: "Reduction" reduction_param { axis: 1 coeff: 0.5 }',
    "asum": 'type: "Reduction" reduction_param { operation: ASUM axis: 2 }',
    "sumsq": 'type: "Reduction" reduction_param { operation: SUMSQ axis: -1 }',
    "mean": 'type: "Reduction" reduction_param { operation: MEAN axis: 1 }',
    "tile": 'type: "Tile" tile_param { axis: 1 tiles: 3 }',
    "flatten": 'type: "Flatten"',
    "flatten some": 'type: "Flatten" flatten_param { axis: 1 end_axis: 2 }',
    "reshape": 'type: "Reshape" reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }',
    "reshape an axis": 'type: "Reshape" reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }',
    "reshape at the end": 'type: "Reshape" reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }',
    "global average": 'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
    "global maximum": 'type: "Pooling" pooling_param { global_pooling: true }',
}


def inputs(sizes: list[tuple[int, int, int]], channels: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(5)
    return [{"image": random.normal(0, 1, (n, channels, h, w)).astype(np.float32)} for n, h, w in sizes]


def network(folder: Path, layers: str) -> Path:
    """A prototxt of the input "image", "data" made of it by a layer with weights, and the layers."""
    file = folder / "deploy.prototxt"
    file.write_text(
        'layer { name: "image" type: "Input" top: "image" input_param { shape { dim: 1 dim: 4 dim: 8 dim: 11 } } } '
        f'layer {{ name: "data" bottom: "image" top: "data" type: "Scale" }} {layers}'
    )
    return file


def side_by_side(layers: dict[str, str]) -> str:
    """Layers that each read "data", with tops of their names."""
    return "".join(
        f'layer {{ name: "{name}" bottom: "data" top: "{name}" {layer} }} ' for name, layer in layers.items()
    )


@pytest.mark.parametrize("layers", [ELEMENTWISE, MAPS], ids=["elementwise", "maps"])
def test_layers(layers: dict[str, str], engines: Engines, tmp_path: Path) -> None:
    compare(engines, network(tmp_path, side_by_side(layers)), tmp_path, inputs(SIZES))


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        (
            'layer { name: "it" bottom: "data" top: "out" type: "InnerProduct" inner_product_param { num_output: 5 } }',
            1,
        ),
        (
            'layer { name: "it" bottom: "data" top: "out" type: "InnerProduct" '
            "inner_product_param { num_output: 5 transpose: true bias_term: false } }",
            1,
        ),
        (
            'layer { name: "it" bottom: "data" top: "out" type: "InnerProduct" '
            "inner_product_param { num_output: 5 axis: 3 } }",
            1,
        ),
        (
            'layer { name: "pool" bottom: "data" top: "pool" type: "Pooling" pooling_param { global_pooling: true } } '
            'layer { name: "it" bottom: "pool" top: "out" type: "InnerProduct" inner_product_param { num_output: 5 } }',
            3,
        ),
    ],
    ids=["whole map", "transposed", "rows", "pooled map"],
)
def test_inner_product_fixes_the_size_where_it_must(layers: str, sizes: int, engines: Engines, tmp_path: Path) -> None:
    runs = inputs([(2, 8, 11), (1, 8, 11), (3, 8, 11)] if sizes == 1 else SIZES)
    compare(engines, network(tmp_path, layers), tmp_path, runs)
    if sizes == 1:
        with pytest.raises(AssertionError, match="dimensions"):
            engines.run(tmp_path / "net.onnx", inputs([(1, 9, 11)]))


# pool, rounding, kernel, stride, pad
POOLINGS = [
    *itertools.product(("MAX", "AVE"), ("CEIL", "FLOOR"), (3,), (2,), (0, 1)),
    *itertools.product(("MAX", "AVE"), ("CEIL",), (2,), (2,), (0, 1)),  # with a pad the last window may be left out
    *itertools.product(("MAX", "AVE"), ("CEIL",), (3,), (1,), (1,)),
    *itertools.product(("MAX", "AVE"), ("CEIL",), (3,), (3,), (2,)),
    *itertools.product(("MAX", "AVE"), ("CEIL",), (1,), (2,), (0,)),  # the last window may begin behind the map
    *itertools.product(("MAX", "AVE"), ("CEIL",), (2,), (4,), (0,)),
]


def test_pooling_rounds_as_caffe(engines: Engines, tmp_path: Path) -> None:
    layers = {
        f"{pool} {rounding} {kernel} {stride} {pad}": f'type: "Pooling" pooling_param {{ pool: {pool} '
        f"round_mode: {rounding} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        for pool, rounding, kernel, stride, pad in POOLINGS
    }
    layers["oblong"] = (
        'type: "Pooling" pooling_param { pool: AVE kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0 }'
    )
    sizes = [(1, 8, 11), (2, 7, 6), (1, 9, 10), (1, 5, 12)]
    compare(engines, network(tmp_path, side_by_side(layers)), tmp_path, inputs(sizes))


SEVERAL = {
    "eltwise": 'layer { name: "it" bottom: "a" bottom: "b" bottom: "data" top: "out" type: "Eltwise" '
    "eltwise_param { coeff: 1 coeff: -0.5 coeff: 1 } }",
    "product": 'layer { name: "it" bottom: "a" bottom: "b" bottom: "data" top: "out" type: "Eltwise" '
    "eltwise_param { operation: PROD } }",
    "maximum": 'layer { name: "it" bottom: "a" bottom: "b" top: "out" type: "Eltwise" '
    "eltwise_param { operation: MAX } }",
    "concat": 'layer { name: "it" bottom: "a" bottom: "b" top: "out" type: "Concat" }',
    "concat of rows": 'layer { name: "it" bottom: "a" bottom: "b" top: "out" type: "Concat" '
    "concat_param { axis: -1 } }",
    "slice": 'layer { name: "it" bottom: "a" top: "out" top: "more" type: "Slice" }',
    "slice at points": 'layer { name: "it" bottom: "a" top: "out" top: "more" top: "last" type: "Slice" '
    "slice_param { slice_point: 1 slice_point: 2 } }",
    "silence": 'layer { name: "it" bottom: "a" top: "out" type: "TanH" } '
    'layer { name: "s" bottom: "b" type: "Silence" }',
    "scale by a gate": 'layer { name: "gate" bottom: "a" top: "gate" type: "Pooling" pooling_param { pool: AVE '
    'global_pooling: true } } layer { name: "flat" bottom: "gate" top: "flat" type: "Flatten" } '
    'layer { name: "it" bottom: "b" bottom: "flat" top: "out" type: "Scale" scale_param { axis: 0 } }',
    "bias of another": 'layer { name: "it" bottom: "b" bottom: "a" top: "out" type: "Bias" bias_param { axis: 0 } }',
    "in place": 'layer { name: "r" bottom: "a" top: "a" type: "ReLU" } layer { name: "s" bottom: "a" top: "a" '
    'type: "Sigmoid" } layer { name: "it" bottom: "a" bottom: "b" top: "out" type: "Eltwise" }',
    "one convolution of two": 'layer { name: "it" bottom: "a" bottom: "b" top: "out" top: "more" type: "Convolution" '
    "convolution_param { num_output: 3 kernel_size: 3 } }",
    "shared weights": 'layer { name: "it" bottom: "a" top: "out" type: "Convolution" param { name: "w" } '
    'param { name: "b" } convolution_param { num_output: 3 kernel_size: 3 } } '
    'layer { name: "other" bottom: "b" top: "more" type: "Convolution" param { name: "w" } param { name: "b" } '
    "convolution_param { num_output: 3 kernel_size: 3 } }",
    "crop": 'layer { name: "small" bottom: "b" top: "small" type: "Convolution" convolution_param { num_output: 4 '
    'kernel_size: 4 } } layer { name: "it" bottom: "a" bottom: "small" top: "out" type: "Crop" '
    "crop_param { axis: 2 offset: 1 offset: 2 } }",
    "crop from the end": 'layer { name: "small" bottom: "b" top: "small" type: "Convolution" convolution_param { '
    'num_output: 4 kernel_size: 4 } } layer { name: "it" bottom: "a" bottom: "small" top: "out" type: "Crop" '
    "crop_param { axis: -1 offset: 3 } }",
    "bilinear interpolation": 'layer { name: "small" bottom: "b" top: "small" type: "Convolution" convolution_param { '
    'num_output: 4 kernel_size: 5 stride: 3 } } layer { name: "it" bottom: "small" bottom: "a" top: "out" '
    'type: "BilinearInterpolation" }',
    "bilinear interpolation to less": 'layer { name: "small" bottom: "b" top: "small" type: "Convolution" '
    'convolution_param { num_output: 4 kernel_size: 5 stride: 3 } } layer { name: "it" bottom: "a" bottom: "small" '
    'top: "out" type: "BilinearInterpolation" }',
}


@pytest.mark.parametrize("layers", SEVERAL.values(), ids=SEVERAL.keys())
def test_layers_of_several_maps(layers: str, engines: Engines, tmp_path: Path) -> None:
    before = "".join(
        f'layer {{ name: "{name}" bottom: "data" top: "{name}" type: "Power" power_param {{ scale: {scale} '
        f"shift: {shift} }} }} "
        for name, scale, shift in (("a", 2, 0.1), ("b", -1, 0.2))
    )
    compare(engines, network(tmp_path, before + layers), tmp_path, inputs(SIZES))


POOLED = {
    "2 2 0": "kernel_size: 2 stride: 2",
    "3 3 0": "kernel_size: 3 stride: 3",
    "oblong": "kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 1",
}


@pytest.mark.parametrize("windows", POOLED.values(), ids=POOLED.keys())
def test_values_go_back_where_the_pooling_found_them(windows: str, engines: Engines, tmp_path: Path) -> None:
    """With zeros among the maxima, of which the first one counts; a size of its own fixes the image's."""
    layers = (
        'layer { name: "large" bottom: "data" top: "large" type: "Interp" interp_param { height: 8 width: 12 } } '
        'layer { name: "some" bottom: "large" top: "some" type: "ReLU" } '
        f'layer {{ name: "pool" bottom: "some" top: "pool" top: "mask" type: "Pooling" pooling_param {{ {windows} }} }}'
        ' layer { name: "other" bottom: "pool" top: "other" type: "Power" power_param { scale: -2 shift: 1 } } '
        'layer { name: "up" bottom: "other" bottom: "mask" top: "up" type: "Upsample" upsample_param '
        "{ upsample_h: 8 upsample_w: 12 } } "
        'layer { name: "back" bottom: "other" bottom: "mask" top: "back" type: "Unpooling" unpooling_param '
        f"{{ {windows} unpool_h: 8 unpool_w: 12 }} }}"
    )
    compare(engines, network(tmp_path, layers), tmp_path, inputs([(1, 8, 11), (3, 8, 11)]))


def test_mask_follows_the_image(engines: Engines, tmp_path: Path) -> None:
    layers = (
        'layer { name: "pool" bottom: "data" top: "pool" top: "mask" type: "Pooling" '
        "pooling_param { kernel_size: 2 stride: 2 } } "
        'layer { name: "up" bottom: "pool" bottom: "mask" top: "up" type: "Upsample" }'
        'layer { name: "copy" bottom: "mask" top: "place" type: "Power" }'
    )
    compare(engines, network(tmp_path, layers), tmp_path, inputs([(1, 8, 10), (3, 6, 12), (2, 14, 8)]))


@pytest.mark.parametrize("method", ["MAX", "AVE", "TILE"])
def test_windows_over_a_map_of_a_given_size(method: str, engines: Engines, tmp_path: Path) -> None:
    windows = {
        "larger": "kernel_size: 2 stride: 2 unpool_h: 19 unpool_w: 25",
        "smaller": "kernel_size: 3 stride: 2 unpool_h: 15 unpool_w: 22",
        "padded": "kernel_size: 3 stride: 2 pad: 1 unpool_h: 16 unpool_w: 21",
    }
    layers = {
        name: f'type: "Unpooling" unpooling_param {{ unpool: {method} {text} }}' for name, text in windows.items()
    }
    compare(engines, network(tmp_path, side_by_side(layers)), tmp_path, inputs([(1, 8, 11), (2, 8, 11)]))


def test_map_of_one_pixel_is_interpolated(engines: Engines, tmp_path: Path) -> None:
    layers = (
        'layer { name: "all" bottom: "data" top: "all" type: "Pooling" pooling_param { global_pooling: true } } '
        'layer { name: "it" bottom: "all" bottom: "data" top: "out" type: "BilinearInterpolation" }'
    )
    compare(engines, network(tmp_path, layers), tmp_path, inputs([*SIZES, (1, 1, 1)]))


def test_l2_normalization_of_zeros_is_zero(engines: Engines, tmp_path: Path) -> None:
    file = network(tmp_path, side_by_side({"out": 'type: "L2Normalization"'}))
    runs = inputs([(2, 8, 11)])
    runs[0]["image"][0] = 0
    compare(engines, file, tmp_path, runs)


UNITS = {
    "lstm": ("ReNetLSTM", ""),
    "peephole lstm": ("ReNetLSTM", "peephole: true"),
    "cells": ("ReNetLSTM", "output: CELL"),
    "peephole cells": ("ReNetLSTM", "peephole: true output: CELL"),
    "gru": ("ReNetGRU", ""),
    "irnn": ("ReNetIRNN", ""),
}


@pytest.mark.parametrize("unit", UNITS)
def test_renet_layer(unit: str, engines: Engines, tmp_path: Path) -> None:
    kind, more = UNITS[unit]
    layers = {
        f"{direction} {s} {t}": f'type: "{kind}" renet_param {{ num_output: 5 direction: {direction} '
        f"patch_height: {s} patch_width: {t} {more} }}"
        for direction, (s, t) in itertools.product(("VERTICAL", "HORIZONTAL"), ((1, 1), (2, 2), (3, 2)))
    }
    compare(engines, network(tmp_path, side_by_side(layers)), tmp_path, inputs([*SIZES, (2, 1, 1)]))
