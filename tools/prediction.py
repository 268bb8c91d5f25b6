"""A trained network as a function from a picture to class probabilities (import Caffe only where one is made)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.command_line import UserError
from data_prep.images import shrink_image
from tools.crf_inference import DenseCrf
from tools.crf_parameters import CrfParameters
from tools.gpu_build import check_gpu

INPUT = "data"
PROBABILITIES = "prob"


@dataclass(frozen=True)
class PredictionSettings:
    """How a picture goes through the network.

    Attributes:
        image_scale: the picture is shrunk by this factor first and the probabilities are resampled back, for networks
            trained on shrunk pictures.
        min_size: height and width below which the (shrunk) picture is padded by reflection at the bottom and the
            right, as in training; the prediction is cut back.
        flip: average with the prediction of the mirrored picture.
        crf: sharpen the result with a dense CRF of these parameters, at the picture's own size.
    """

    image_scale: float = 1.0
    min_size: tuple[int, int] = (1, 1)
    flip: bool = False
    crf: CrfParameters | None = None


@dataclass(frozen=True)
class InputTransform:
    """What a picture's values (B, G, R, 0..255) become: (value - mean) * scale."""

    mean: tuple[float, ...]
    scale: float

    def apply(self, image: np.ndarray) -> np.ndarray:
        """H x W x 3 uint8 to 3 x H x W float32."""
        return ((image.astype(np.float32) - np.float32(self.mean)) * np.float32(self.scale)).transpose(2, 0, 1)


def read_deploy(model: Path) -> Any:
    """Parse a deploy prototxt.

    Returns:
        A caffe_pb2.NetParameter.

    Raises:
        UserError: missing or not a network; names the file and the place.
    """
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    try:
        text = model.read_text(encoding="utf-8")
        return text_format.Parse(text, caffe_pb2.NetParameter())
    except FileNotFoundError:
        raise UserError(f"{model}: no such file") from None
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise UserError(f"{model}: not a network description: {error}") from None


def input_transform(network: Any, model: Path) -> InputTransform:
    """What the deploy network's first layer says about its input.

    Raises:
        UserError: there is no Input layer `data` with a `transform_param`, so the mean is not known.
    """
    layer = next((layer for layer in network.layer if layer.type == "Input" and INPUT in layer.top), None)
    if layer is None:
        raise UserError(
            f'{model}: not a deploy network: it has no layer of type "Input" with the top "{INPUT}"'
            " (a train_val.prototxt cannot predict)"
        )
    if not layer.HasField("transform_param"):
        raise UserError(
            f'{model}: layer "{layer.name}" has no transform_param, so mean and scale of the input are not known; '
            "add transform_param { mean_value: B mean_value: G mean_value: R scale: S }"
        )
    parameter = layer.transform_param
    mean = tuple(parameter.mean_value) or (0.0, 0.0, 0.0)
    if parameter.mean_file or len(mean) not in (1, 3):
        raise UserError(
            f'{model}: layer "{layer.name}": transform_param needs mean_value three times (B, G, R) or once'
        )
    return InputTransform(mean * 3 if len(mean) == 1 else mean, parameter.scale)


def check_weights(weights: Path, parameters: dict[str, Sequence[tuple[int, ...]]], allow_missing: bool = False) -> None:
    """Make sure that a caffemodel fits a network, since Caffe would end the process or leave layers untrained.

    Args:
        weights: the .caffemodel (an HDF5 file, .h5, is left to Caffe's own checks).
        parameters: shapes of the parameter blobs of every layer of the network that has any.
        allow_missing: let layers that the file does not hold keep their initial values.

    Raises:
        UserError: missing, broken, of another network; names the file and the layer.
    """
    from caffe.proto import caffe_pb2
    from google.protobuf.message import DecodeError

    if not weights.is_file():
        raise UserError(f"{weights}: no such file")
    if weights.suffix == ".h5":
        return
    try:
        stored = caffe_pb2.NetParameter.FromString(weights.read_bytes())
    except DecodeError:
        raise UserError(f"{weights}: not a caffemodel, or a damaged one") from None
    # `layers` is how files of before 2015 hold theirs.
    held = {layer.name: layer for layer in (*stored.layers, *stored.layer) if layer.blobs}
    if not held:
        raise UserError(f"{weights}: holds no weights")
    missing = [name for name in parameters if name not in held]
    if missing and not allow_missing:
        raise UserError(
            f'{weights}: no weights for layer "{missing[0]}" ({len(missing)} of {len(parameters)} layers are missing); '
            "it belongs to another network (--allow-missing keeps initial values)"
        )
    for name, shapes in parameters.items():
        if name not in held:
            continue
        blobs = held[name].blobs
        if len(blobs) != len(shapes):
            raise UserError(
                f'{weights}: layer "{name}" has {len(blobs)} parameter blobs, the network expects {len(shapes)}; '
                "it belongs to another network"
            )
        for index, (blob, shape) in enumerate(zip(blobs, shapes)):
            if not _same_shape(blob, shape):
                raise UserError(
                    f'{weights}: layer "{name}", blob {index} is {_shape_text(_stored_shape(blob))}, '
                    f"the network expects {_shape_text(shape)}; it belongs to another network"
                )


def _stored_shape(blob: Any) -> tuple[int, ...]:
    if blob.HasField("shape"):
        return tuple(blob.shape.dim)
    return (blob.num, blob.channels, blob.height, blob.width)


def _same_shape(blob: Any, shape: tuple[int, ...]) -> bool:
    stored = _stored_shape(blob)
    if not blob.HasField("shape"):  # the old four numbers: leading ones stand for dimensions that are not there
        shape = (1,) * (4 - len(shape)) + tuple(shape)
    return stored == tuple(shape)


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


class Predictor:
    """A deploy network with its weights.

    Attributes:
        classes: how many classes the network tells apart.
    """

    def __init__(
        self,
        model: Path,
        weights: Path,
        gpu: int | None = None,
        allow_missing: bool = False,
        save_memory: bool = False,
    ) -> None:
        """Load the network; Caffe aborts the process where the prototxt does not make a network.

        Args:
            model: deploy prototxt; its input is `data`, its output `prob`.
            weights: .caffemodel.
            gpu: device number; None computes on the CPU.
            allow_missing: layers without weights in the file keep their initial values.
            save_memory: on the CPU, let each map go when the last layer that reads it has run.

        Raises:
            UserError: the model or the weights do not serve; names the file.
        """
        network = read_deploy(model)
        self._transform = input_transform(network, model)
        import caffe

        if gpu is None:
            caffe.set_mode_cpu()
        else:
            check_gpu(gpu)
            caffe.set_device(gpu)
            caffe.set_mode_gpu()
        self._model = model
        self._net = caffe.Net(str(model), caffe.TEST)
        if PROBABILITIES not in self._net.outputs:
            has = ", ".join(self._net.outputs) or "none"
            raise UserError(f'{model}: the network has no output "{PROBABILITIES}" (it has: {has})')
        shapes = {name: [tuple(blob.shape) for blob in blobs] for name, blobs in self._net.params.items()}
        check_weights(weights, shapes, allow_missing)
        self._net.copy_from(str(weights))
        self.classes = int(self._net.blobs[PROBABILITIES].shape[1])
        if save_memory:
            self._net.release_maps()
        self._crf: DenseCrf | None = None

    def probabilities(self, image: np.ndarray, settings: PredictionSettings) -> np.ndarray:
        """Class probabilities of one picture at its own size.

        Args:
            image: H x W x 3 uint8, BGR.
            settings: how it goes through the network.

        Returns:
            C x H x W float32.

        Raises:
            UserError: the network's output has another size than its input.
        """
        height, width = image.shape[:2]
        seen = image if settings.image_scale == 1 else shrink_image(image, settings.image_scale)
        result = self._padded(seen, settings.min_size)
        if settings.flip:
            mirrored = self._padded(np.ascontiguousarray(seen[:, ::-1]), settings.min_size)
            result = (result + mirrored[:, :, ::-1]) / 2
        if result.shape[1:] != (height, width):
            # One class at a time: OpenCV takes no picture of many channels.
            result = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in result])
        if settings.crf is None:
            return result
        if self._crf is None or self._crf.parameters != settings.crf:
            self._crf = DenseCrf(self.classes, settings.crf)
        return self._crf.apply(result, image)

    def _padded(self, image: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
        height, width = image.shape[:2]
        below, right = max(0, min_size[0] - height), max(0, min_size[1] - width)
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        return self._forward(image)[:, :height, :width]

    def _forward(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        self._net.blobs[INPUT].reshape(1, 3, height, width)
        self._net.blobs[INPUT].data[0] = self._transform.apply(image)
        result = self._net.forward()[PROBABILITIES]
        if result.shape != (1, self.classes, height, width):
            raise UserError(
                f'{self._model}: for an input of {width} x {height} the output "{PROBABILITIES}" is '
                f"{_shape_text(result.shape)}, expected 1 x {self.classes} x {height} x {width}"
            )
        return result[0].copy()
