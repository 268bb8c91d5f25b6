"""Multi-scale ConvNet of Farabet et al., a comparison system of the paper's Table 1."""

from __future__ import annotations

from itertools import pairwise

from caffe import layers as L
from caffe.proto import caffe_pb2

from renet.networks.spec import Network, Options, convolution

PAPER = (
    "Farabet et al., Learning Hierarchical Features for Scene Labeling, IEEE Transactions on Pattern Analysis and\n"
    "Machine Intelligence 35 (8), 2013"
)
MAPS = (16, 64, 256)
KERNEL = 7
SCALES = ("full", "half", "quarter")
NEIGHBOURHOOD = 15
# Of B, G, R: ITU-R BT.601.
LUMA = (0.114, 0.587, 0.299)
BLUE_DIFFERENCE, RED_DIFFERENCE = 0.492, 0.877

AVERAGE, SUM = caffe_pb2.PoolingParameter.AVE, caffe_pb2.EltwiseParameter.SUM


def multi_scale_convnet(network: Network, options: Options) -> None:
    """Add one small network on three scales with the same weights, and a linear classifier of all their features."""
    _yuv(network)
    images = {"full": network.last}
    for larger, smaller in pairwise(SCALES):
        comment = "The pyramid: each scale is the mean over 2 x 2 of the one before." if smaller == "half" else ""
        halved = L.Pooling(images[larger], pooling_param={"pool": AVERAGE, "kernel_size": 2, "stride": 2})
        images[smaller] = network.add(f"yuv_{smaller}", halved, comment)
    features = [_features(network, scale, images[scale]) for scale in SCALES]
    tops = [features[0]]
    for scale, top in zip(SCALES[1:], features[1:]):
        comment = (
            "Coarser scales are brought to the size of the finest one's maps (section 3.1), a quarter of the image's."
        )
        layer = L.BilinearInterpolation(top, images["quarter"])
        tops.append(network.add(f"upsample_{scale}", layer, comment if scale == "half" else ""))
    network.add("features", L.Concat(*tops), f"The features of all scales: {len(SCALES)} x {MAPS[-1]}.")
    comment = "A linear classifier at each position (section 3.2), without the superpixels or trees of section 4."
    convolution(network, "score", network.classes, 1, {"type": "xavier"}, comment)


def _yuv(network: Network) -> None:
    """Add the colour transform; its top is `yuv_full`."""
    blue, _, red = tops = network.add_several(
        "bgr",
        ("blue", "green", "red"),
        L.Slice(network.spec.data, ntop=3, slice_param={"axis": 1}),
        "The image in Y, U and V (section 3.1), as in all of Farabet et al.'s networks. A mean is no matter here:\n"
        "what follows takes the local one off.",
    )

    def weighted(name: str, bottoms: list[L], factors: list[float]) -> L:
        return network.add(name, L.Eltwise(*bottoms, eltwise_param={"operation": SUM, "coeff": factors}))

    luma = weighted("luma", list(tops), list(LUMA))
    differences = [
        weighted("blue_difference", [blue, luma], [BLUE_DIFFERENCE, -BLUE_DIFFERENCE]),
        weighted("red_difference", [red, luma], [RED_DIFFERENCE, -RED_DIFFERENCE]),
    ]
    network.add("yuv_full", L.Concat(luma, *differences))


def _features(network: Network, scale: str, image: L) -> L:
    """Add the small network on one scale; its top is `conv3_<scale>`, at a quarter of the scale's size."""
    first = scale == SCALES[0]
    around = {"pool": AVERAGE, "kernel_size": NEIGHBOURHOOD, "stride": 1, "pad": NEIGHBOURHOOD // 2}
    comment = (
        f"Local normalisation (section 3.1): every {NEIGHBOURHOOD} x {NEIGHBOURHOOD} neighbourhood to mean 0 and\n"
        "variance 1, but that noise of less than a grey level is not raised."
    )
    mean = network.add(f"mean_{scale}", L.Pooling(image, pooling_param=around), comment if first else "")
    parameter = {"operation": SUM, "coeff": [1, -1]}
    network.add(f"detail_{scale}", L.Eltwise(image, mean, eltwise_param=parameter))
    parameter = {
        "norm_region": caffe_pb2.LRNParameter.WITHIN_CHANNEL,
        "local_size": NEIGHBOURHOOD,
        "alpha": 1,
        "beta": 0.5,
    }
    network.add(f"normal_{scale}", L.LRN(network.last, lrn_param=parameter))
    comment = (
        "One network for all scales: layers whose weights have one name share them. Every map sees all maps before\n"
        "it, where the authors connect each to a random part of them."
    )
    for number, maps in enumerate(MAPS, start=1):
        rates = [
            {"name": f"conv{number}_weights", "lr_mult": 1, "decay_mult": 1},
            {"name": f"conv{number}_bias", "lr_mult": 2, "decay_mult": 0},
        ]
        text = comment if first and number == 1 else ""
        name = f"conv{number}_{scale}"
        convolution(network, name, maps, KERNEL, {"type": "xavier"}, text, rates, pad=[KERNEL // 2])
        if number < len(MAPS):  # the last layer is linear
            network.add(f"tanh{number}_{scale}", L.TanH(network.last, in_place=True))
            window = {"pool": caffe_pb2.PoolingParameter.MAX, "kernel_size": 2, "stride": 2}
            network.add(f"pool{number}_{scale}", L.Pooling(network.last, pooling_param=window))
    return network.last
