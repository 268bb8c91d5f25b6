"""N-ReNet, recurrent layer groups on raw pixels, and a small convolutional network to hold beside it."""

from __future__ import annotations

from caffe import layers as L

from renet.networks.recurrent_group import INITIALISATION, group_parameters, renet_group
from renet.networks.spec import Network, Options, convolution

INPUT_SCALE = 1 / 128
GAUSSIAN = {"type": "gaussian", "std": 0.1}
SCORE = "1x1 convolution that aligns the channels with the labels (section 3)."


def n_renet(network: Network, options: Options, units: tuple[int, ...] = (40, 60, 60), patch: int = 2) -> None:
    """Add N-ReNet of the paper's sections 3 and 4.1: groups of ReNet layers on raw pixels, stacked directly."""
    patches = {
        2: "The image is cut into 2x2 patches (section 4.1), so width and height are halved.",
        4: "The image is cut into 4x4 patches, where the paper has 2x2: a quarter of its positions.",
    }
    for number, d in enumerate(units, start=1):
        first = number == 1
        comment = f"Group {number}: d = {d} hidden units in each of the two scans, so {2 * d} channels"
        comment += f".\n{patches[patch]}\n{INITIALISATION}" if first else ", over single positions."
        sweep = "The orthogonal sweep: from here on each position has seen the whole image (section 3)."
        renet_group(
            network,
            number,
            d,
            patch if first else 1,
            options=options,
            comment=comment,
            sweep_comment=sweep if first else "",
        )
        if number < len(units):
            _dropout(network, options, number)
    convolution(network, "score", network.classes, 1, GAUSSIAN, SCORE)


def _dropout(network: Network, options: Options, number: int) -> None:
    """Add Dropout after group `number`, where it is asked for; not in place, as its backward pass needs its top."""
    if options.dropout:
        comment = (
            "Dropout between the groups, never within a sweep's recurrence (Zaremba et al., arXiv 1409.2329); a test\n"
            "and a deploy network pass everything on."
        )
        layer = L.Dropout(network.last, dropout_param={"dropout_ratio": options.dropout})
        network.add(f"dropout{number}", layer, comment if number == 1 else "")


def n_renet_quarter(network: Network, options: Options) -> None:
    """Add `n_renet` with 4x4 patches first: a quarter of the positions, for training on a CPU."""
    n_renet(network, options, patch=4)


def n_renet_released(network: Network, options: Options) -> None:
    """Add N-ReNet as in the authors' code of 2015: coarser patches, and a 1x1 convolution with tanh between the
    groups."""
    between = (80, 120, None)
    for number, (units, channels) in enumerate(zip((40, 60, 60), between), start=1):
        comment = f"Group {number}: d = {units} in each scan, so {2 * units} channels."
        if number == 1:
            comment += "\n3x3 patches, where the paper's text has 2x2.\n" + INITIALISATION
        renet_group(network, number, units, 3 if number == 1 else 1, options=options, comment=comment)
        if channels is not None:
            text = "The released network mixes the channels between two groups; the paper stacks them directly."
            convolution(network, f"transition{number}", channels, 1, GAUSSIAN, text if number == 1 else "")
            network.add(f"transition{number}_tanh", L.TanH(network.last, in_place=True))
            _dropout(network, options, number)
    convolution(network, "score", network.classes, 1, GAUSSIAN, SCORE)


SMALL_UNITS = (16, 24)


def n_renet_small(network: Network, options: Options) -> None:
    """Add N-ReNet with two small groups, for small images on a CPU."""
    n_renet(network, options, SMALL_UNITS)


CONV_SMALL_DEPTH = 7


def n_renet_parameters(units: tuple[int, ...], classes: int, patch: int = 2) -> int:
    """Count the parameters of `n_renet`: its groups and the score layer."""
    channels, total = 3, 0
    for d in units:
        total += group_parameters(channels, d, patch)
        channels, patch = 2 * d, 1
    return total + (channels + 1) * classes


def conv_small_parameters(channels: int, classes: int) -> int:
    """Count the parameters of `conv_small` with so many channels in every layer."""
    first = (3 * 9 + 1) * channels
    return first + CONV_SMALL_DEPTH * (channels * 9 + 1) * channels + (channels + 1) * classes


def conv_small_channels(classes: int) -> int:
    """Choose the number of channels that brings `conv_small` closest to `n_renet_small`'s count of parameters."""
    target = n_renet_parameters(SMALL_UNITS, classes)
    return min(range(1, 257), key=lambda channels: abs(conv_small_parameters(channels, classes) - target))


def conv_small(network: Network, options: Options) -> None:
    """Add a fully convolutional network of `n_renet_small`'s size that sees 31 x 31 pixels around each position."""
    channels = conv_small_channels(network.classes)
    count = conv_small_parameters(channels, network.classes)
    rival = n_renet_parameters(SMALL_UNITS, network.classes)
    text = (
        f"{channels} channels in every layer: {count} parameters, where n_renet_small has {rival}.\n"
        "Stride 2 halves width and height, as the 2x2 patches do there; the seven 3x3 layers after it make the\n"
        "receptive field 31 x 31 pixels."
    )
    for number in range(1, CONV_SMALL_DEPTH + 2):
        first = number == 1
        more = {"pad": [1], "stride": [2]} if first else {"pad": [1]}
        convolution(network, f"conv{number}", channels, 3, {"type": "msra"}, text if first else "", **more)
        network.add(f"relu{number}", L.ReLU(network.last, in_place=True))
    convolution(network, "score", network.classes, 1, {"type": "msra"}, "1x1 convolution to the labels.")
