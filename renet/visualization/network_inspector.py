"""Inspection of a network: its maps and filters, and the receptive field of one pixel by gradients."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployNetwork, DeployOptions
from renet.weights.weight_files import load


@dataclass(frozen=True)
class Sensitivity:
    """Gradient of one output pixel.

    Attributes:
        map: H x W float32, the gradient's norm over the three colours at each input pixel.
        label: the class whose score was followed.
    """

    map: np.ndarray
    label: int


class NetworkInspector:
    """Deploy network with its weights, whose every blob can be looked at. Caffe aborts where a prototxt is wrong."""

    def __init__(self, model: Path, weights: Path, options: DeployOptions = AS_THE_NETWORK_SAYS) -> None:
        """Load the network on the CPU.

        Args:
            model: deploy prototxt.
            weights: .caffemodel, or Caffe's HDF5 file.
            options: what the network does not say of itself.

        Raises:
            UserError: the model or the weights do not serve; names the file.
        """
        self._network = DeployNetwork.read(model, options)
        network = self._network.description
        # without it Caffe computes no gradient of an input
        network.force_backward = True
        import caffe
        from caffe.proto import caffe_pb2

        # Winograd's sums are rounded where the exact one is zero: a gradient would reach beyond the receptive field.
        # The layers say so, for CAFFE_WINOGRAD no longer counts in a process that has computed a convolution.
        for layer in network.layer:
            if layer.type == "Convolution":
                layer.convolution_param.engine = caffe_pb2.ConvolutionParameter.CAFFE
        caffe.set_mode_cpu()
        self._net: Any = self._network.build()
        self._model = model
        load(self._net, weights, every_layer=True)

    @property
    def output(self) -> str:
        """Find the blob of the probabilities.

        Raises:
            UserError: it is not known which.
        """
        return self._network.output(self._net)

    def forward(self, image: np.ndarray) -> None:
        """Run the network forward on an H x W x 3 BGR image of bytes."""
        self.forward_values(self._network.transform.apply(image))

    def forward_values(self, values: np.ndarray) -> None:
        """Run the network forward on 3 x H x W values, as its input blob takes them."""
        given = self._net.blobs[self._network.input]
        given.reshape(1, *values.shape)
        given.data[0] = values
        self._net.forward()

    def maps(self, layer: str) -> np.ndarray:
        """Copy a layer's output, or a blob's content, after `forward`.

        Returns:
            C x H x W float32.

        Raises:
            UserError: there is none of this name, with the nearest names; or it is no map, or not of numbers.
        """
        name = layer
        if name not in self._net.blobs:
            tops = dict(self._net.top_names)
            if layer not in tops:
                raise UserError(f'{self._model}: no layer "{layer}"; {near_matches(layer, [*tops, *self._net.blobs])}')
            name = tops[layer][0]
        values = self._net.blobs[name].data
        if values.ndim != 4:
            raise UserError(f'{self._model}: "{layer}" gives no maps but {values.ndim} dimensions')
        return self._numbers(values[0].copy(), f'"{layer}"')

    def filters(self, layer: str) -> np.ndarray:
        """Copy a layer's first weights, one row for each filter.

        Returns:
            The blob, 2 or more dimensions.

        Raises:
            UserError: no such layer, or it has no weights.
        """
        if layer not in self._net.params:
            raise UserError(
                f'{self._model}: no layer "{layer}" with weights; {near_matches(layer, list(self._net.params))}'
            )
        return self._net.params[layer][0].data.copy()

    def sensitivity(self, row: int, column: int, label: int | None = None) -> Sensitivity:
        """Compute the gradient of one output pixel's score (before the softmax) over the input, after `forward`.

        Args:
            row, column: of the output pixel.
            label: class index; None follows the class that the network names there.

        Raises:
            UserError: the pixel lies outside the image, or there is no such class.
        """
        gradient, label = self.gradient(row, column, label)
        return Sensitivity(np.sqrt((gradient**2).sum(axis=0)), label)

    def gradient(self, row: int, column: int, label: int | None = None) -> tuple[np.ndarray, int]:
        """Compute the same for each input value: 3 x H x W float32, and the class."""
        scores = self._net.blobs[self.score_name()].data
        classes, height, width = scores.shape[1:]
        if not (0 <= row < height and 0 <= column < width):
            raise UserError(f"pixel {column},{row} lies outside the image of {width} x {height}")
        if label is None:
            label = int(scores[0, :, row, column].argmax())
        if not 0 <= label < classes:
            raise UserError(f"no class {label}: the network tells {classes} apart")
        # the last of those that write them, as layers in place do, too
        layer = [name for name, tops in self._net.top_names.items() if self.score_name() in tops][-1]
        top = self._net.blobs[self.score_name()]
        top.diff[...] = 0
        top.diff[0, label, row, column] = 1
        self._net._backward(list(self._net._layer_names).index(layer), 0)
        return self._numbers(self._net.blobs[self._network.input].diff[0].copy(), "the gradient"), label

    def _numbers(self, values: np.ndarray, what: str) -> np.ndarray:
        """The values, where a picture can be made of them.

        Raises:
            UserError: one is infinite or no number.
        """
        if not np.isfinite(values).all():
            raise UserError(f"{self._model}: {what} has values that are infinite or no numbers for this image")
        return values

    def score_name(self) -> str:
        """Find the blob of the scores, which the softmax makes probabilities of.

        Raises:
            UserError: the network has no such output.
        """
        bottoms = dict(self._net.bottom_names)
        types = dict(zip(self._net._layer_names, (layer.type for layer in self._net.layers)))
        makers = [name for name, tops in self._net.top_names.items() if self.output in tops]
        if types[makers[-1]] != "Softmax":
            raise UserError(f'{self._model}: no softmax gives "{self.output}", so there is no score to follow')
        return bottoms[makers[-1]][0]


def near_matches(name: str, names: Sequence[str]) -> str:
    """Name those that are like `name`, or all of them, for a message."""
    unique = list(dict.fromkeys(names))
    found = difflib.get_close_matches(name, unique, 4, 0.5)
    return f"near matches: {', '.join(found)}" if found else f"it has {', '.join(unique)}"


def grey(values: np.ndarray) -> np.ndarray:
    """Scale values of any range to bytes: the least black, the greatest white; all alike is middle grey."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.full(values.shape, 128, np.uint8)
    return ((values - low) * (255 / (high - low))).round().astype(np.uint8)


def channel_numbers(channels: str, count: int) -> list[int]:
    """Read channel numbers of a list such as "0-3,8".

    Raises:
        UserError: it is no such list, or there are fewer channels.
    """
    ranges: list[range] = []
    try:
        for part in channels.split(","):
            first, _, last = part.partition("-")
            ranges.append(range(int(first), int(last or first) + 1))
    except ValueError:
        raise UserError(f'channels are numbers and ranges such as "0-3,8", not {channels!r}') from None
    # before the numbers are written out, for a range may be of any length
    for span in ranges:
        if not span:
            raise UserError(f"{channels!r}: a range is empty, as it ends before it begins")
        if span[-1] >= count:
            raise UserError(f"no channel {max(span[0], count)}: there are 0 to {count - 1}")
    return [number for span in ranges for number in span]


def heat_map(image: np.ndarray, sensitivity: np.ndarray, decades: float = 4.0) -> np.ndarray:
    """Lay a sensitivity over the greyed image, on a logarithmic scale: yellow most, violet least, none where it is
    zero.

    Args:
        image: H x W x 3 uint8, BGR.
        sensitivity: H x W, not negative.
        decades: powers of ten below the greatest value that colours tell apart.

    Returns:
        H x W x 3 uint8, RGB.
    """
    from matplotlib import colormaps

    light = image.mean(axis=2, keepdims=True) * 0.75
    greatest = float(sensitivity.max())
    if greatest == 0:
        return light.repeat(3, axis=2).astype(np.uint8)
    with np.errstate(divide="ignore"):
        level = 1 + np.log10(sensitivity / greatest) / decades
    colours = colormaps["plasma"](level.clip(0, 1))[:, :, :3] * 255
    opacity = np.where(sensitivity > 0, 0.75, 0.0)[:, :, None]
    return (light + opacity * (colours - light)).round().astype(np.uint8)


def receptive_share(sensitivity: np.ndarray) -> float:
    """Compute the share of the input's pixels on which the output depends at all."""
    return float((sensitivity > 0).mean())
