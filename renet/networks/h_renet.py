"""H-ReNet (Table 3), its variants (Tables 4 and 5) and the baseline FCN (Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from caffe import layers as L

from renet.networks import vgg16
from renet.networks.recurrent_group import GRU, IRNN, LSTM, Unit, group_parameters, renet_group, units_of_equal_size
from renet.networks.spec import Network, Options, convolution, weights_and_free_bias

UNITS = 120  # d of one scan: Table 3 has 240 channels
RELEASED_UNITS = 160
CHANNELS = {"pool4": 512, "pool5": 512, "conv7": 1024}

CLASSIFIER = {"type": "gaussian", "std": 0.1}


KEEPS_SIZE = {"kernel_size": 3, "stride": 1, "pad": 1}
TABLE_2 = "Table 2: VGG-16's convolutions and poolings, weights from VGG-16 (section 4.2)."
TABLE_2_POOLING = "Table 2: pool4 and pool5 have stride 1 and a 3x3 window here, so that maps stay at 1/8 of the image."
TABLE_2_DILATION = "Table 2: dilation 2 gives conv5 the view that it has in VGG-16 behind a pool4 of stride 2."
STAGES = (
    replace(vgg16.STAGES[0], comments={"conv1_1": TABLE_2}),
    *vgg16.STAGES[1:3],
    replace(vgg16.STAGES[3], pooling=KEEPS_SIZE, comments={"pool4": TABLE_2_POOLING}),
    replace(vgg16.STAGES[4], dilation=2, pooling=KEEPS_SIZE, comments={"conv5_1": TABLE_2_DILATION}),
)


def vgg16_of_table_2(network: Network, options: Options, stages: int = 5, last_relu: bool = True) -> None:
    """Add conv1_1 to pool4 or pool5: the part with pretrained weights; `last_relu`: whether conv5_3 has a ReLU."""
    chosen = list(STAGES[:stages])
    if not last_relu:
        chosen[-1] = chosen[-1].with_comment("pool5", "The authors' release has no ReLU between conv5_3 and this.")

    def relu(network: Network, name: str) -> None:
        if last_relu or name != "conv5_3":
            vgg16.add_relu(network, name)

    where = "\n(section 4.2 skips conv1 and conv2)"
    vgg16.vgg16(network, chosen, options.frozen, after=relu, frozen_where=where)


@dataclass(frozen=True)
class Head:
    """What Table 2, the text and the authors' release disagree about in conv6 and conv7.

    Attributes:
        kernel: height and width of conv7's.
        dilation: of conv7's kernel.
        comment: says why.
        dropout: share of conv6's values that Dropout lets go; 0: no such layer.
        last_relu: whether conv7 has a ReLU.
    """

    kernel: int = 3
    dilation: int = 1
    comment: str = "Table 2: 3x3, not dilated."
    dropout: float = 0
    last_relu: bool = True


def head(network: Network, options: Options, choice: Head) -> None:
    """Add conv6 and conv7 with their ReLUs, on top of pool5."""
    std = options.gaussian_std
    filler = {"type": "gaussian", "std": std}
    comment = "Table 2: 3x3, dilation 12, which widens the view without a loss of resolution.\n" + (
        "Weights start Gaussian, with the paper's deviation of 0.1 (section 4.2)."
        if std == 0.1
        else f"Weights start Gaussian with a deviation of {std:g}, as in the authors' release: with 4,608 inputs\n"
        "the paper's 0.1 lets the sums explode (generate.py --gaussian-std 0.1 writes it)."
    )
    rates = weights_and_free_bias(options.new_rate)
    convolution(network, "conv6", 1024, 3, filler, comment, rates, pad=[12], dilation=[12])
    network.add("relu6", L.ReLU(network.last, in_place=True))
    if choice.dropout:
        dropout = L.Dropout(network.last, in_place=True, dropout_param={"dropout_ratio": choice.dropout})
        network.add("drop6", dropout, "In the authors' release; the text does not mention it.")
    more = {"pad": [choice.dilation * (choice.kernel // 2)]} if choice.kernel > 1 else {}
    if choice.dilation > 1:
        more["dilation"] = [choice.dilation]
    convolution(network, "conv7", CHANNELS["conv7"], choice.kernel, filler, choice.comment, rates, **more)
    if choice.last_relu:
        network.add("relu7", L.ReLU(network.last, in_place=True))


def classifier(network: Network, options: Options) -> None:
    """Add conv8 on top of the last layer."""
    comment = "Tables 2 and 3: 1x1 to the labels, no activation. Weights start Gaussian, 0.1 (section 4.2)."
    convolution(network, "conv8", network.classes, 1, CLASSIFIER, comment, weights_and_free_bias(options.new_rate))


def fcn(network: Network, options: Options, choice: Head = Head()) -> None:
    """Add the baseline of Table 2."""
    vgg16_of_table_2(network, options)
    head(network, options, choice)
    classifier(network, options)


def fcn_rf604(network: Network, options: Options) -> None:
    """Add the baseline with conv7 dilated, too, so that its receptive field is the 604 pixels that the text states."""
    comment = (
        "Table 2 has no dilation here, and a receptive field of 428 x 428 pixels; with dilation 12 it is the\n"
        "604 x 604 of section 4.2."
    )
    fcn(network, options, Head(dilation=12, comment=comment))


def channels_of_equal_size(inputs: int, units: int) -> int:
    """Choose the channels that bring a 3x3 convolution closest to an LSTM group's count of parameters."""
    target = group_parameters(inputs, units)
    return min(range(1, 4 * units + 1), key=lambda channels: abs(convolution_parameters(inputs, channels) - target))


def convolution_parameters(inputs: int, channels: int) -> int:
    """Count the parameters of a 3x3 convolution."""
    return (9 * inputs + 1) * channels


def fcn_deeper(network: Network, options: Options, normalised: bool = False) -> None:
    """Add the baseline with one more convolution before conv8, as large as H-ReNet's group there: what H-ReNet gains
    over it is not for its size; `normalised`: nor for batch normalisation of conv7."""
    vgg16_of_table_2(network, options)
    head(network, options, Head())
    if normalised:
        batch_norm(network, options, "conv7")
    channels = channels_of_equal_size(CHANNELS["conv7"], UNITS)
    comment = (
        f"In the place of H-ReNet's recurrent layer group, and as large: {convolution_parameters(1024, channels):,}"
        f" parameters, the\ngroup's {group_parameters(1024, UNITS):,}. It sees 3x3 positions, where the group sees all."
    )
    filler = {"type": "gaussian", "std": options.gaussian_std}
    convolution(network, "conv7_2", channels, 3, filler, comment, weights_and_free_bias(options.new_rate), pad=[1])
    network.add("relu7_2", L.ReLU(network.last, in_place=True))
    classifier(network, options)


# ------------------------------------------------------------------------------------------------- normalisation


def batch_norm(network: Network, options: Options, name: str) -> None:
    """Add BatchNorm and a learned Scale over `name`."""
    batch_norm_layer(network, options, name)
    scale = L.Scale(
        network.last,
        param=weights_and_free_bias(options.new_rate),
        scale_param={"bias_term": True},
    )
    network.add(f"{name}_scale", scale)


def batch_norm_layer(network: Network, options: Options, name: str) -> None:
    """Add BatchNorm alone over `name`."""
    comment = (
        f"Batch normalisation (section 4.2) of {name}: every channel over the batch and all positions, in a test with\n"
        "the running mean and variance."
    )
    memory = options.batch_norm_memory
    parameter = {} if memory == 0.999 else {"batch_norm_param": {"moving_average_fraction": memory}}
    # Its three blobs (mean, variance, count) are no weights: Caffe itself gives them lr_mult 0.
    network.add(f"{name}_bn", L.BatchNorm(network.spec[name], **parameter), comment)


def batch_norm_relu(network: Network, options: Options, name: str) -> None:
    """Add BatchNorm without Scale, then a ReLU, as released."""
    batch_norm_layer(network, options, name)
    network.add(f"{name}_bn_relu", L.ReLU(network.last, in_place=True))


def l2_normalisation(network: Network, options: Options, name: str) -> None:
    """Bring the C x H x W map of each image to one norm."""
    comment = (
        f"L2 normalisation (section 4.2) of {name}: each image's C x H x W map to unit norm, times scale (the paper\n"
        "chooses it from 100, 1000, 10000 on held-out images)."
    )
    layer = L.L2Normalization(network.spec[name], l2_normalization_param={"scale": options.l2_scale})
    network.add(f"{name}_l2", layer, comment)


NORMALISATIONS = {
    "batch norm": batch_norm,
    "batch norm, ReLU": batch_norm_relu,
    "L2": l2_normalisation,
}


# ------------------------------------------------------------------------------------------------------- H-ReNet


@dataclass(frozen=True)
class HReNet:
    """Variant of H-ReNet: what the recurrent layer group sees, and of what it is made. Calling it adds its layers.

    Attributes:
        inputs: of pool4, pool5, conv7.
        normalisation: of each input, a key of NORMALISATIONS; empty: none.
        unit: kind of recurrent unit; other kinds than LSTM get the d that keeps the number of parameters.
        units: d of the LSTM.
        head: of conv6 and conv7.
        conv5_relu: whether conv5_3 has a ReLU.
    """

    inputs: Sequence[str] = ("conv7",)
    normalisation: str = ""
    unit: Unit = LSTM
    units: int = UNITS
    head: Head = Head()
    conv5_relu: bool = True

    def __call__(self, network: Network, options: Options) -> None:
        """Add the layers between `data` and the scores."""
        vgg16_of_table_2(network, options, 4 if tuple(self.inputs) == ("pool4",) else 5, self.conv5_relu)
        if "conv7" in self.inputs:
            head(network, options, self.head)
        tops = []
        for name in self.inputs:
            if self.normalisation:
                NORMALISATIONS[self.normalisation](network, options, name)
                tops.append(network.last)
            else:
                tops.append(network.spec[name])
        if len(tops) > 1:
            network.add("features", L.Concat(*tops), "Multi-layer feature combination (Figure 3).")
        self._group(network, options)
        classifier(network, options)

    @property
    def channels(self) -> int:
        """Count the channels that the group sees."""
        return sum(CHANNELS[name] for name in self.inputs)

    @property
    def group_units(self) -> int:
        """Compute the group's own d."""
        if self.unit is LSTM:
            return self.units
        return units_of_equal_size(self.channels, self.units, self.unit.gates)

    def group_text(self) -> str:
        """Describe the group, with its number of parameters."""
        d = self.group_units
        count = group_parameters(self.channels, d, 1, self.unit.gates)
        text = f"d = {d} in each of the two scans, so {2 * d} channels; the group has {count:,} parameters"
        if self.unit is not LSTM:
            rival = group_parameters(self.channels, self.units)
            text += f",\nas close as can be to the {rival:,} of the LSTM group with d = {self.units}"
        return text

    def _group(self, network: Network, options: Options) -> None:
        source = "conv7" if tuple(self.inputs) == ("conv7",) else " and ".join(self.inputs)
        renet_group(
            network,
            1,
            self.group_units,
            options=options,
            unit=self.unit,
            rate=options.new_rate,
            comment=f"Table 3: the recurrent layer group between {source} and conv8, over single positions.\n"
            f"{self.group_text()}.\n{self.unit.initialisation}",
            sweep_comment="The orthogonal sweep: from here on each position has seen the whole image (section 3).",
        )


MLFB = ("pool4", "pool5", "conv7")
BN = "batch norm"
VARIANTS = {
    "h_renet": HReNet(),
    "h_renet_bn": HReNet(normalisation=BN),
    "h_renet_bn_mlfb": HReNet(MLFB, BN),
    "h_renet_l2_mlfb": HReNet(MLFB, "L2"),
    "h_renet_bn_irnn": HReNet(normalisation=BN, unit=IRNN),
    "h_renet_bn_gru": HReNet(normalisation=BN, unit=GRU),
    "h_renet_bn_from_pool4": HReNet(("pool4",), BN),
    "h_renet_bn_from_pool5": HReNet(("pool5",), BN),
    "h_renet_bn_conv7_pool5": HReNet(("pool5", "conv7"), BN),
    "h_renet_released": HReNet(
        MLFB,
        "batch norm, ReLU",
        units=RELEASED_UNITS,
        head=Head(
            kernel=1,
            comment="1x1 in the authors' release, 3x3 in Table 2, and without a ReLU before its normalisation.",
            dropout=0.5,
            last_relu=False,
        ),
        conv5_relu=False,
    ),
}
