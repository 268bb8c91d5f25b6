"""Deploy network: the input that takes the image, the output that holds probabilities, and the input's transform.

The networks here call them `data` and `prob` and say mean and scale in the input's transform_param. Others' do not, and
then a person says it. (Import Caffe only where a network is read.)
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.argument_types import factor, mean_bgr
from renet.common.errors import UserError
from renet.common.scratch import scratch_file

PROBABILITIES = "prob"
COLOURS = 3


@dataclass(frozen=True)
class InputTransform:
    """Transform of an image's values (B, G, R, 0..255): (value - mean) * scale."""

    mean: tuple[float, ...]
    scale: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Transform H x W x 3 uint8 to 3 x H x W float32."""
        return ((image.astype(np.float32) - np.float32(self.mean)) * np.float32(self.scale)).transpose(2, 0, 1)


@dataclass(frozen=True)
class DeployOptions:
    """Options of a deploy network that a person gives; each goes before what the network says itself.

    Attributes:
        input_blob: the input that takes the image.
        output_blob: the blob that holds the probabilities.
        mean: to be taken off B, G and R.
        scale: what the rest is multiplied with.
    """

    input_blob: str | None = None
    output_blob: str | None = None
    mean: tuple[float, ...] | None = None
    scale: float | None = None


AS_THE_NETWORK_SAYS = DeployOptions()


def add_deploy_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that become `DeployOptions`."""
    group = parser.add_argument_group("networks that do not say it themselves")
    group.add_argument("--mean", type=mean_bgr, metavar="B,G,R", help="what is taken off the image, of 0..255")
    group.add_argument("--scale", type=factor, metavar="S", help="what the rest is multiplied with (default: 1)")
    group.add_argument(
        "--input-blob", metavar="NAME", help="the input that takes the image, where there are several; others stay 0"
    )
    group.add_argument(
        "--output-blob",
        metavar="NAME",
        help=f'where the probabilities are (default: "{PROBABILITIES}", or the only output)',
    )


def deploy_options(arguments: argparse.Namespace) -> DeployOptions:
    """Read what `add_deploy_options` added."""
    return DeployOptions(arguments.input_blob, arguments.output_blob, arguments.mean, arguments.scale)


@dataclass(frozen=True)
class DeployNetwork:
    """Description of a network with its input and output found.

    Attributes:
        file: the prototxt.
        description: a caffe_pb2.NetParameter in today's form; what is changed in it is built.
        input: the blob that takes the image.
        options: as a person gave them.
    """

    file: Path
    description: Any
    input: str
    options: DeployOptions
    _layer: Any

    @classmethod
    def read(
        cls, file: Path, options: DeployOptions = AS_THE_NETWORK_SAYS, any_channels: bool = False
    ) -> DeployNetwork:
        """Read a prototxt of any age.

        Args:
            file: the prototxt.
            options: what it does not say of itself.
            any_channels: the input may have other channels than an image's three.

        Raises:
            UserError: no network, or none for images, or it is not known which input takes them. Names the file.
        """
        from renet.runtime.prototxt import read_network

        description = read_network(file)
        layer, place = _input(description, file, options.input_blob)
        shapes = layer.input_param.shape
        shape = shapes[min(place, len(shapes) - 1)].dim if shapes else ()
        if len(shape) > 1 and shape[1] != COLOURS and not any_channels:
            raise UserError(f'{file}: the input "{layer.top[place]}" has {shape[1]} channels; an image has {COLOURS}')
        return cls(file, description, layer.top[place], options, layer)

    @property
    def transform(self) -> InputTransform:
        """Find the transform of the image's values.

        Raises:
            UserError: neither the network nor a person says it.
        """
        return _transform(self._layer, self.file, self.options)

    def build(self) -> Any:
        """Build the caffe.Net of the TEST phase, in the mode that Caffe is in; Caffe aborts where there is a
        mistake."""
        import caffe
        from google.protobuf import text_format

        with scratch_file(text_format.MessageToString(self.description), ".prototxt") as file:
            # Files for training and use alike mark what is for use so.
            return caffe.Net(str(file), caffe.TEST, stages=["deploy"])

    def output(self, built: Any) -> str:
        """Find the blob of the built network that holds the probabilities, N x C x H x W.

        Raises:
            UserError: it is not known which, there is none of that name, or it has not four dimensions.
        """
        outputs = list(built.outputs)
        name = self.options.output_blob
        if name is None:
            name = PROBABILITIES if PROBABILITIES in outputs else outputs[0] if len(outputs) == 1 else None
        if name is None:
            raise UserError(
                f'{self.file}: the network has no output "{PROBABILITIES}" (it has: {", ".join(outputs) or "none"}); '
                "say with --output-blob which holds the probabilities"
            )
        if name not in built.blobs:
            raise UserError(f'{self.file}: the network has no blob "{name}" (its outputs: {", ".join(outputs)})')
        if len(built.blobs[name].shape) != 4:
            raise UserError(f'{self.file}: "{name}" has no map for each class, but {len(built.blobs[name].shape)} axes')
        return name


def _input(description: Any, file: Path, name: str | None) -> tuple[Any, int]:
    """The Input layer that takes the image, and which of its tops."""
    layers = [layer for layer in description.layer if layer.type == "Input"]
    tops = {top: (layer, place) for layer in layers for place, top in enumerate(layer.top)}
    if not tops:
        raise UserError(
            f'{file}: not a deploy network: it has no layer of type "Input" and no input (a train_val.prototxt cannot '
            "predict)"
        )
    if name is not None and name not in tops:
        raise UserError(f'{file}: the network has no input "{name}" (it has: {", ".join(tops)})')
    if name is None and len(tops) > 1:
        has = ", ".join(tops)
        raise UserError(f"{file}: the network has the inputs {has}; say with --input-blob which one the image is")
    return tops[name or next(iter(tops))]


def _transform(layer: Any, file: Path, options: DeployOptions) -> InputTransform:
    parameter = layer.transform_param
    scale = parameter.scale if options.scale is None else options.scale
    if options.mean is not None:
        return InputTransform(options.mean, scale)
    if not layer.HasField("transform_param"):
        raise UserError(
            f'{file}: layer "{layer.name}" has no transform_param, so mean and scale of the input are not known; '
            "say --mean B,G,R (and --scale S), or add transform_param { mean_value: B (G, R, too) scale: S } to it"
        )
    mean = tuple(parameter.mean_value) or (0.0,) * COLOURS
    if parameter.mean_file or len(mean) not in (1, COLOURS):
        raise UserError(
            f'{file}: layer "{layer.name}": transform_param needs mean_value three times (B, G, R) or once; '
            "--mean B,G,R says it, too"
        )
    return InputTransform(mean * (COLOURS // len(mean)), scale)
