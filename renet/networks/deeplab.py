"""DeepLab-LargeFOV, a comparison system of the paper's Table 6."""

from __future__ import annotations

from dataclasses import replace

from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.protocol import Protocol
from renet.networks.spec import Network, Options, convolution, weights_and_free_bias
from renet.networks.vgg16 import STAGES, vgg16

PAPER = (
    "Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, arXiv 1412.7062"
)
CRF = {"max_iter": 10, "pos_w": 3, "pos_xy_std": 3, "bi_w": 4, "bi_xy_std": 121, "bi_rgb_std": 5}
STEP = 8
PROTOCOL = Protocol.of_others(
    data=f"Random crops of {STEP} N + 1 pixels, which pooling leaves N + 1, flipped left to right half of the time.",
    label_step=STEP,
    crop_step=STEP,
    crop_rest=1,
    loss_comment="Pixelwise cross entropy, all labels weighted alike (section 3.1); unlabelled pixels count nowhere.",
)
CLASSIFIER_RATE = 10
CHANNELS = 1024

_HALVES = {"kernel_size": 3, "stride": 2, "pad": 1}
_KEEPS_SIZE = {"kernel_size": 3, "stride": 1, "pad": 1}
_STAGES = (
    replace(
        STAGES[0],
        pooling=_HALVES,
        comments={
            "conv1_1": "VGG-16's convolutions and their weights. The poolings see 3 x 3, which keeps maps of\n"
            "8 N + 1 pixels aligned with the image."
        },
    ),
    *(replace(stage, pooling=_HALVES) for stage in STAGES[1:3]),
    replace(
        STAGES[3],
        pooling=_KEEPS_SIZE,
        comments={"pool4": "Section 3.1: pool4 and pool5 have stride 1, so that maps stay at 1/8 of the image, and"},
    ),
    replace(
        STAGES[4],
        dilation=2,
        pooling=_KEEPS_SIZE,
        comments={"conv5_1": "conv5 is dilated by 2 in return (the hole algorithm)."},
    ),
)


def deeplab_largefov(network: Network, options: Options) -> None:
    """Add DeepLab-LargeFOV: VGG-16 at an eighth of the image, and fully connected layers as dilated convolutions."""
    vgg16(network, _STAGES, options.frozen)
    average = {"pool": caffe_pb2.PoolingParameter.AVE, **_KEEPS_SIZE}
    network.add("pool5a", L.Pooling(network.last, pooling_param=average), "As in the authors' prototxt.")
    rates = weights_and_free_bias(options.new_rate)
    filler = {"type": "gaussian", "std": options.gaussian_std}
    comment = (
        "Section 4.2 and Table 3, LargeFOV: 3 x 3 of VGG-16's 7 x 7 positions, dilated by 12, and 1,024 of its 4,096\n"
        "maps. From weights that have them (tools/convert_weights.py --names vgg16_fc_reduced), else Gaussian."
    )
    convolution(network, "fc6", CHANNELS, 3, filler, comment, rates, pad=[12], dilation=[12])
    _relu_and_dropout(network, 6)
    convolution(network, "fc7", CHANNELS, 1, filler, "", rates)
    _relu_and_dropout(network, 7)
    comment = "The scores at 1/8 of the image: from Gaussian weights, at ten times the rate."
    rates = weights_and_free_bias(CLASSIFIER_RATE * options.new_rate)
    convolution(network, "fc8", network.classes, 1, {"type": "gaussian", "std": 0.01}, comment, rates)


def _relu_and_dropout(network: Network, number: int) -> None:
    network.add(f"relu{number}", L.ReLU(network.last, in_place=True))
    network.add(f"drop{number}", L.Dropout(network.last, in_place=True, dropout_param={"dropout_ratio": 0.5}))
