"""SegNet and DeconvNet: VGG-16 as an encoder, and a decoder that puts values back where its poolings found them."""

from __future__ import annotations

from caffe import layers as L

from renet.networks.protocol import Protocol
from renet.networks.spec import ZERO, Network, Options, convolution, weights_and_free_bias
from renet.networks.vgg16 import FROM_VGG, STAGES, vgg16

SEGNET_PAPER = (
    "Badrinarayanan, Kendall, Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image\n"
    "Segmentation, arXiv 1511.00561"
)
DECONVNET_PAPER = "Noh, Hong, Han, Learning Deconvolution Network for Semantic Segmentation, arXiv 1505.04366"
STRIDE = 32
SEGNET_PROTOCOL = Protocol.of_others(
    data="Whole images, all of one size, as they are.",
    test="Of the size that it learns from.",
    mirror=False,
    fixed_size=True,
    interpolated=False,
)
DECONVNET_PROTOCOL = Protocol.of_others(
    test="Crops, as the network takes sizes that are multiples of 32.",
    fixed_size=True,
    crop_step=STRIDE,
    smallest_crop=7 * STRIDE,
    interpolated=False,
)
CHANNELS = 4096
GAUSSIAN = {"type": "gaussian", "std": 0.01}
SCALE_RATES = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 1, "decay_mult": 0}]
NORMALISATION = (
    "Batch normalisation with a learned scale and shift, which is one layer, BN, in the authors' own Caffe. Here the\n"
    "running mean and variance are kept while it learns; there a script computes them afterwards."
)


def normalised_relu(network: Network, options: Options, name: str, relu: str) -> None:
    """Add BatchNorm, a learned Scale and a ReLU over the last layer, all in its place."""
    memory = options.batch_norm_memory
    parameter = {} if memory == 0.999 else {"batch_norm_param": {"moving_average_fraction": memory}}
    comment = NORMALISATION if name == "conv1_1" else ""
    network.add(f"{name}_bn", L.BatchNorm(network.last, in_place=True, **parameter), comment)
    shift = {"bias_term": True, "bias_filler": {"type": "constant", "value": 0.001}}
    scale = L.Scale(network.last, in_place=True, param=SCALE_RATES, scale_param=shift)
    network.add(f"{name}_scale", scale)
    network.add(relu, L.ReLU(network.last, in_place=True))


def pooled_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Compute the sizes of the image and of what each pooling leaves of it."""
    sizes = [size]
    for _ in STAGES:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return sizes


def _encoder(network: Network, options: Options, comment: str) -> None:
    stages = (STAGES[0].with_comment("conv1_1", comment), *STAGES[1:])

    def after(network: Network, name: str) -> None:
        normalised_relu(network, options, name, name.replace("conv", "relu"))

    vgg16(network, stages, options.frozen, after=after, masks=True)


def segnet(network: Network, options: Options) -> None:
    """Add SegNet: its decoder mirrors VGG-16's convolutions."""
    comment = "The encoder: VGG-16's convolutions and their weights. Each pooling also says where its maxima were."
    _encoder(network, options, comment)
    sizes = pooled_sizes(options.crop)
    fits = all(side % STRIDE == 0 for side in options.crop)
    for stage in reversed(STAGES):
        height, width = sizes[stage.number - 1]
        explicit = {} if fits else {"upsample_h": height, "upsample_w": width}
        text = "The decoder (section 3): values go back to where the encoder's pooling found them, the rest is 0."
        if not fits:
            text += "\nThe sizes are those of images of {} x {} pixels, the only ones that it takes.".format(
                *options.crop
            )
        mask = network.spec[f"pool{stage.number}_mask"]
        layer = L.Upsample(network.last, mask, upsample_param={"scale": 2, **explicit})
        network.add(f"upsample{stage.number}", layer, text if stage.number == len(STAGES) else "")
        for index in range(stage.depth, 0, -1):
            name = f"conv{stage.number}_{index}_D"
            if (stage.number, index) == (1, 1):
                convolution(network, name, network.classes, 3, FROM_VGG, "The scores of the labels.", pad=[1])
                return
            channels = stage.channels if index > 1 else STAGES[stage.number - 2].channels
            convolution(network, name, channels, 3, FROM_VGG, pad=[1])
            normalised_relu(network, options, name, name.replace("conv", "relu"))


def deconvnet(network: Network, options: Options) -> None:
    """Add DeconvNet: fully connected layers over 7 x 7 positions between an encoder and a decoder."""
    comment = (
        "VGG-16's convolutions and their weights. Each pooling also says where its maxima were. Images have at least\n"
        "224 x 224 pixels, in multiples of 32."
    )
    _encoder(network, options, comment)
    comment = (
        "VGG-16's fully connected layers as convolutions: from weights that have them\n"
        "(tools/convert_weights.py --names vgg16_fc), else Gaussian."
    )
    for number, kernel in ((6, 7), (7, 1)):
        name = f"fc{number}"
        convolution(network, name, CHANNELS, kernel, GAUSSIAN, comment if number == 6 else "")
        normalised_relu(network, options, name, f"relu{number}")
    _deconvolution(network, options, "fc6-deconv", STAGES[-1].channels, 7, "fc6-deconv-relu", pad=0)
    for stage in reversed(STAGES):
        text = "The decoder (section 3.2): values go back to where the pooling found them, the rest is 0."
        unpooling = {"kernel_size": 2, "stride": 2}
        layer = L.Unpooling(network.last, network.spec[f"pool{stage.number}_mask"], unpooling_param=unpooling)
        network.add(f"unpool{stage.number}", layer, text if stage.number == len(STAGES) else "")
        for index in range(1, stage.depth + 1):
            last = index == stage.depth and stage.number > 1
            channels = STAGES[stage.number - 2].channels if last else stage.channels
            name = f"deconv{stage.number}_{index}"
            _deconvolution(network, options, name, channels, 3, name.replace("deconv", "derelu"), pad=1)
    convolution(network, "seg-score", network.classes, 1, GAUSSIAN, "The scores of the labels.")


def _deconvolution(
    network: Network, options: Options, name: str, channels: int, kernel: int, relu: str, pad: int
) -> None:
    parameter = {"num_output": channels, "kernel_size": [kernel], "weight_filler": GAUSSIAN, "bias_filler": ZERO}
    parameter |= {"pad": [pad]} if pad else {}
    layer = L.Deconvolution(network.last, param=weights_and_free_bias(), convolution_param=parameter)
    network.add(name, layer)
    normalised_relu(network, options, name, relu)
