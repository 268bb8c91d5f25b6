"""Reaction of VGG-16's convolutions to photographs in Caffe, which tells a right conversion from a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import caffe
import cv2
import numpy as np
import skimage.data

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.common.scratch import scratch_folder
from renet.weights.vgg16_layers import CHANNELS, KERNEL, POOLED_AFTER

# Activations (after the ReLU) for `reference_photograph`: mean and standard deviation over a layer. Computed in
# float64 by PyTorch 2.13 from the arrays as they are distributed, in torchvision's convention (R, G, B of 0..1,
# normalised), so on another way than the converted weights'. tests/weights/test_vgg16.py computes them anew with NumPy.
TORCHVISION_REACTION = {
    "conv1_1": (0.287734, 0.46184),
    "conv1_2": (0.456994, 0.938356),
    "conv2_1": (0.696764, 1.35575),
    "conv2_2": (0.717396, 1.90653),
    "conv3_1": (1.27751, 2.82282),
    "conv3_2": (1.45625, 3.33648),
    "conv3_3": (0.957026, 3.41592),
    "conv4_1": (1.24361, 3.92565),
    "conv4_2": (1.02881, 3.31461),
    "conv4_3": (0.407862, 2.04139),
    "conv5_1": (0.851562, 2.81259),
    "conv5_2": (0.561056, 1.97575),
    "conv5_3": (0.104429, 0.669611),
}
# conv5_3's strongest channels and their means, from the same computation
TORCHVISION_CHANNELS = {492: 3.02002, 108: 1.05434, 439: 1.04677, 389: 1.01435, 259: 1.01433, 247: 0.909345}
TOLERANCE = 1e-3

JUDGING_LAYER = "conv5_1"
# With torchvision's weights the changes take 11%, 17% and 15% off, and a mirrored photograph 2%; with weights that are
# wrong in this way the change that mends it adds 8%, 20% and 18%.
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "red and blue exchanged": lambda photograph: photograph[:, :, ::-1],
    "turned upside down": lambda photograph: photograph[::-1, ::-1],
    "rows and columns exchanged": lambda photograph: photograph.transpose(1, 0, 2),
}


def reference_photograph() -> np.ndarray:
    """Load the photograph of TORCHVISION_REACTION: 224 x 224 x 3, BGR of 0..255, uint8."""
    return skimage.data.astronaut()[:224, 112:336, ::-1].copy()


def photographs() -> list[np.ndarray]:
    """Load five colour photographs that come with scikit-image, small and square: S x S x 3, BGR of 0..255, uint8."""
    images: Sequence[np.ndarray] = [
        skimage.data.astronaut(),
        skimage.data.chelsea(),
        skimage.data.coffee(),
        skimage.data.rocket(),
        skimage.data.stereo_motorcycle()[0],
    ]
    return [_small_square(image[:, :, ::-1]) for image in images]


def _small_square(image: np.ndarray) -> np.ndarray:
    """The middle of the image at about half the size, its side a multiple of 16 pixels."""
    factor = 4 if min(image.shape[:2]) > 480 and image.shape[1] > 700 else 2
    small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    side = min(height, width, 160) // 16 * 16
    top, left = (height - side) // 2, (width - side) // 2
    return small[top : top + side, left : left + side]


def network_text() -> str:
    """Write VGG-16's convolutions as a prototxt: the thirteen layers, each with its ReLU in place, and the four
    poolings."""
    text = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }\n'
    bottom = "data"
    for name, (outputs, _) in CHANNELS.items():
        text += (
            f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"'
            f" convolution_param {{ num_output: {outputs} kernel_size: {KERNEL} pad: {KERNEL // 2} }} }}\n"
            f'layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
        )
        bottom = name
        if name in POOLED_AFTER:
            bottom = f"pool_{name}"
            text += (
                f'layer {{ name: "{bottom}" type: "Pooling" bottom: "{name}" top: "{bottom}"'
                " pooling_param { pool: MAX kernel_size: 2 stride: 2 } }\n"
            )
    return text


class Reactions:
    """VGG-16's thirteen layers with a model's weights, on the CPU.

    Attributes:
        network: in Caffe.
        mean: what is taken off B, G and R.
    """

    def __init__(self, weights: Path, mean: Sequence[float]) -> None:
        """Load the weights as any network does.

        Args:
            weights: a .caffemodel with VGG-16's convolutions.
            mean: what is taken off B, G and R.
        """
        caffe.set_mode_cpu()
        with scratch_folder() as scratch:
            file = scratch / "vgg16.prototxt"
            file.write_text(network_text(), encoding="utf-8")
            self.network = caffe.Net(str(file), caffe.TEST)
        self.network.copy_from(str(weights))
        self.mean = np.array(mean, np.float32)

    def __call__(self, image: np.ndarray, last: str = "conv5_3") -> dict[str, np.ndarray]:
        """Compute the activations of all layers up to `last`, each C x h x w, for an H x W x 3 image (BGR of
        0..255)."""
        values = (image.astype(np.float32) - self.mean).transpose(2, 0, 1)[np.newaxis]
        self.network.blobs["data"].reshape(*values.shape)
        self.network.blobs["data"].data[...] = values
        # up to the ReLU, which works in the layer's own blob
        self.network.forward(end=f"relu_{last}")
        names = list(CHANNELS)
        return {name: self.network.blobs[name].data[0].copy() for name in names[: names.index(last) + 1]}


def check_torchvision(react: Reactions) -> None:
    """Compare the reaction to a photograph with what torchvision's weights give in their own convention.

    Raises:
        UserError: they differ; names the first layer that does.
    """
    reaction = react(reference_photograph())
    for name, (mean, deviation) in TORCHVISION_REACTION.items():
        for what, found, expected in (
            ("mean", float(reaction[name].mean(dtype=np.float64)), mean),
            ("standard deviation", float(reaction[name].std(dtype=np.float64)), deviation),
        ):
            if not abs(found - expected) <= TOLERANCE * expected:
                raise UserError(
                    f"the converted weights react wrongly to a photograph: {name}'s activations have the {what} "
                    f"{found:.5g} where {expected:.5g} is right"
                )
    for channel, expected in TORCHVISION_CHANNELS.items():
        found = float(reaction["conv5_3"][channel].mean(dtype=np.float64))
        if not abs(found - expected) <= TOLERANCE * expected:
            raise UserError(
                f"the converted weights react wrongly to a photograph: conv5_3's channel {channel} has the mean "
                f"{found:.5g} where {expected:.5g} is right"
            )


def losses_by_change(react: Reactions) -> Mapping[str, float]:
    """Measure what each of CHANGES takes off the reaction to photographs: fractions of the mean activation of
    JUDGING_LAYER.

    A network is trained on photographs as they are: with its weights in the right order it finds more in a photograph
    than in the same one with other colours or lying otherwise. Weights with exchanged colours or turned kernels do to
    the right photograph what right weights do to the changed one, so there a change makes the reaction stronger.
    """
    logarithms: dict[str, list[float]] = {change: [] for change in CHANGES}
    for photograph in progress(photographs(), description="reaction to photographs", unit="photograph"):
        right = _strength(react, photograph)
        for change, changed in CHANGES.items():
            logarithms[change].append(np.log(_strength(react, changed(photograph)) / right))
    return {change: 1 - float(np.exp(np.mean(values))) for change, values in logarithms.items()}


def check_order(react: Reactions, where: str) -> None:
    """Make sure that the weights' channels are in the order B, G, R and their kernels upright.

    This goes for any VGG-16 that was trained on upright colour photographs. It says nothing of the input's scale.

    Raises:
        UserError: a change of the photographs does not weaken the reaction; names the change.
    """
    for change, loss in losses_by_change(react).items():
        if not loss > 0:
            raise UserError(
                f"{where}: its {JUDGING_LAYER} reacts to photographs with {change} no less than to right ones "
                f"({-loss:+.0%}), as if its weights were for such photographs; --unchecked takes them nevertheless"
            )


def _strength(react: Reactions, photograph: np.ndarray) -> float:
    return float(react(photograph, JUDGING_LAYER)[JUDGING_LAYER].mean(dtype=np.float64)) + 1e-30
