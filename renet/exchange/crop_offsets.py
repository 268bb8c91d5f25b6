"""Offsets of Crop layers that do not say them: of a Caffe whose Crop finds them by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from renet.exchange.convolution_layers import along_axes


class _Place(NamedTuple):
    """Where position i of a blob lies in the image: scale * i + shift."""

    scale: float
    shift: float


def set_crop_offsets(description: Any, image: str) -> list[str]:
    """Give each Crop without a crop_param the offset that lays both its bottoms on the same place of the image.

    Long's first Caffe for FCN, which CRF-as-RNN is built on, computes them so; Caffe's own files always say them.

    Args:
        description: a caffe_pb2.NetParameter in today's form, changed in place.
        image: the blob of the image.

    Returns:
        A line on each offset that is not 0.
    """
    places = {image: _Place(1, 0)}
    notes = []
    for layer in description.layer:
        if not layer.bottom or layer.bottom[0] not in places:
            continue
        place = places[layer.bottom[0]]
        if layer.type == "Convolution" or (layer.type == "Pooling" and not layer.pooling_param.global_pooling):
            reach, stride, pad = _window(layer)
            place = _Place(place.scale * stride, place.shift + place.scale * (reach / 2 - pad))
        elif layer.type == "Deconvolution":
            reach, stride, pad = _window(layer)
            place = _Place(place.scale / stride, place.shift + place.scale * (pad - reach / 2) / stride)
        elif layer.type == "Crop":
            other = places.get(layer.bottom[1]) if len(layer.bottom) > 1 else None
            if other is not None and not layer.HasField("crop_param") and other.scale == place.scale:
                offset = (other.shift - place.shift) / place.scale
                if offset > 0 and offset == int(offset):
                    layer.crop_param.offset.append(int(offset))
                    notes.append(f'"{layer.name}": offset {int(offset)}, which puts both maps on the same place')
            offset = layer.crop_param.offset[0] if layer.crop_param.offset else 0
            place = _Place(place.scale, place.shift + place.scale * offset)
        places |= dict.fromkeys(layer.top, place)
    return notes


def _window(layer: Any) -> tuple[int, int, int]:
    """How far a window reaches from its first position to its last, its stride, and its padding."""
    if layer.type == "Pooling":
        parameter = layer.pooling_param
        return (parameter.kernel_size or parameter.kernel_h) - 1, parameter.stride, parameter.pad
    parameter = layer.convolution_param
    kernel = along_axes(parameter, "kernel_size", 2, 1)[0]
    dilation = parameter.dilation[0] if parameter.dilation else 1
    return dilation * (kernel - 1), along_axes(parameter, "stride", 2, 1)[0], along_axes(parameter, "pad", 2, 0)[0]
