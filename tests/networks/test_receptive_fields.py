"""Receptive fields through layers of other forks."""

from __future__ import annotations

import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.networks.analysis import WHOLE_IMAGE, ReceptiveField, receptive_fields

# Before the layer: a convolution of 3x3 and a pooling of 2x2, so squares of 4 that lie 2 apart
BEFORE = """
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 1 kernel_size: 3 } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }
"""


@pytest.mark.parametrize(
    ("layer", "size", "jump"),
    [
        ('type: "Interp" interp_param { zoom_factor: 2 }', 4, 1),
        ('type: "Interp" interp_param { shrink_factor: 4 zoom_factor: 3 }', 4, 8 / 3),
        ('type: "Interp" bottom: "data"', 4, 1),
        ('type: "Upsample" bottom: "m"', 4, 1),
        ('type: "Upsample" upsample_param { scale_h: 4 scale_w: 4 }', 4, 0.5),
        ('type: "Unpooling" bottom: "m" unpooling_param { kernel_size: 2 stride: 2 }', 4, 1),
        ('type: "Unpooling" unpooling_param { unpool: TILE kernel_size: 3 stride: 2 }', 6, 1),
        ('type: "Normalize" norm_param { across_spatial: false }', 4, 2),
        ('type: "BN" bn_param { bn_mode: LEARN }', 4, 2),
        ('type: "Normalize"', WHOLE_IMAGE, 2),
        ('type: "Permute" permute_param { order: 0 order: 2 }', 4, 2),
    ],
)
def test_layer(layer: str, size: float, jump: float) -> None:
    text = BEFORE + f'layer {{ name: "it" bottom: "p" top: "it" {layer} }}'
    fields = receptive_fields(text_format.Parse(text, caffe_pb2.NetParameter()))
    assert fields["it"] == ReceptiveField(size, jump)
