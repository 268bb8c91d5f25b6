"""Batch normalisation as part of the convolution before it, and BatchNorm of five blobs taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from renet.common.text_layout import listed

Blobs = dict[str, list[np.ndarray]]
_WITH_SCALE = 5  # blobs of a BatchNorm that has scale and bias, too: mean, variance, count, scale, bias
_FOLDED_INTO = ("Convolution", "Deconvolution", "InnerProduct")


def split_scaled_batch_norm(description: Any, blobs: Blobs) -> list[str]:
    """Make two layers of each BatchNorm that has five blobs: Caffe's BatchNorm, and a Scale in place behind it.

    Args:
        description: a caffe_pb2.NetParameter in today's form, changed in place.
        blobs: weights by layer, changed in place.

    Returns:
        A line on what was split.
    """
    split = [
        layer.name for layer in description.layer if layer.type == "BatchNorm" and len(blobs[layer.name]) == _WITH_SCALE
    ]
    layers = list(description.layer)
    copies = []
    for layer in layers:
        copies.append(type(layer).FromString(layer.SerializeToString()))
        if layer.name in split:
            del copies[-1].param[:]
            name = f"{layer.name}_scale"
            scale = type(layer)(name=name, type="Scale", bottom=layer.top, top=layer.top)
            scale.scale_param.bias_term = True
            copies.append(scale)
            blobs[layer.name], blobs[name] = blobs[layer.name][:3], [blob.ravel() for blob in blobs[layer.name][3:]]
    del description.layer[:]
    description.layer.extend(copies)
    return [f"BatchNorm with scale and bias became BatchNorm and Scale: {listed(split)}"] if split else []


def fold_batch_norm(description: Any, blobs: Blobs) -> list[str]:
    """Compute BatchNorm, Scale and BN into the weights of the layer right before them, where it has any.

    Args:
        description: a caffe_pb2.NetParameter in today's form, changed in place.
        blobs: weights by layer, of the network's own shapes, changed in place.

    Returns:
        A line on what was folded, and one on what could not be.
    """
    folded: list[str] = []
    for layer in list(description.layer):
        if layer.type not in _FOLDED_INTO or not blobs.get(layer.name):
            continue
        while (behind := _behind(description, layer)) is not None:
            change = _change(behind, blobs.get(behind.name, []))
            if change is None:
                break
            blobs[layer.name] = _with_change(layer, blobs[layer.name], *change)
            layer.top[0] = behind.top[0]
            folded.append(behind.name)
            del blobs[behind.name]
            place = next(place for place, other in enumerate(description.layer) if other is behind)
            del description.layer[place]
    left = [layer.name for layer in description.layer if layer.type in ("BatchNorm", "BN")]
    notes = [f"folded into the layers before them: {listed(folded)}"] if folded else []
    return notes + ([f"normalisation that no convolution stands before stays: {listed(left)}"] if left else [])


def _behind(description: Any, layer: Any) -> Any:
    """The one layer that reads what a layer writes, where it is alone with it."""
    blob = layer.top[0]
    place = next(place for place, other in enumerate(description.layer) if other is layer)
    readers = []
    for other in description.layer[place + 1 :]:
        if blob in other.bottom:
            readers.append(other)
            if blob in other.top:
                break
    if not readers or (len(readers) > 1 and blob not in readers[0].top) or len(readers[0].bottom) > 1:
        return None
    return readers[0]


def _change(layer: Any, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Factor and shift of each channel, or None where the layer is none of the kind."""
    if not weights:
        return None
    if layer.type == "BatchNorm":
        mean, variance, count = (blob.ravel().astype(np.float64) for blob in weights)
        factor = 0 if count[0] == 0 else 1 / count[0]
        slope = 1 / np.sqrt(variance * factor + layer.batch_norm_param.eps)
        return slope, -mean * factor * slope
    if layer.type == "Scale" and layer.scale_param.axis == 1 and layer.scale_param.num_axes == 1:
        slope = weights[0].ravel().astype(np.float64)
        return slope, weights[1].ravel() if len(weights) > 1 else np.zeros_like(slope)
    if layer.type == "BN":
        slope, bias, *statistics = (blob.ravel().astype(np.float64) for blob in weights)
        if not statistics:
            return (slope, bias) if layer.bn_param.bn_mode == layer.bn_param.INFERENCE else None
        slope = slope / np.sqrt(statistics[1] + layer.bn_param.eps)
        return slope, bias - statistics[0] * slope
    return None


def _with_change(layer: Any, weights: list[np.ndarray], slope: np.ndarray, shift: np.ndarray) -> list[np.ndarray]:
    parameter = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    kernel = weights[0].astype(np.float64)
    if layer.type == "Deconvolution":  # inputs x outputs of a group
        groups = kernel.reshape(parameter.group, -1, *kernel.shape[1:])
        kernel = (groups * slope.reshape(parameter.group, 1, -1, 1, 1)).reshape(kernel.shape)
    elif layer.type == "InnerProduct" and parameter.transpose:
        kernel = kernel * slope
    else:
        kernel = kernel * slope.reshape(-1, *(1,) * (kernel.ndim - 1))
    bias = weights[1] if len(weights) > 1 else np.zeros_like(slope)
    parameter.bias_term = True
    return [kernel.astype(np.float32), (bias * slope + shift).astype(np.float32)]
