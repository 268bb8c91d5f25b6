"""A trained network as a function from an image to class probabilities, in the process that calls it.

Caffe, or onnxruntime, is imported only where a network is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from renet.common.errors import UserError
from renet.common.machine import memory_bytes
from renet.data.images import resize_image
from renet.exchange.onnx_file import SUFFIX
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployOptions
from renet.prediction.caffe_engine import CaffeEngine
from renet.prediction.crf_inference import DenseCrf
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.onnx_engine import OnnxEngine
from renet.prediction.probabilities import check_probabilities
from renet.prediction.windows import Window, blended

_MOST_VALUES = 2**31 - 1  # of a map of Caffe's


@dataclass(frozen=True)
class PredictionSettings:
    """How an image goes through the network.

    Attributes:
        image_scale: the image is shrunk by this factor first and the probabilities are resampled back, for networks
            trained on shrunk images.
        min_size: height and width below which the (shrunk) image is padded by reflection at the bottom and the
            right, as in training; the prediction is cut back.
        flip: average with the prediction of the mirrored image.
        crf: sharpen the result with a dense CRF of these parameters, at the image's own size.
        scales: the image is also predicted at these sizes, of that which `image_scale` gives, and the probabilities
            of all are averaged at the image's own size.
        window: predict the image window by window, each as an image of its own; None: in one pass.
    """

    image_scale: float = 1.0
    min_size: tuple[int, int] = (1, 1)
    flip: bool = False
    crf: CrfParameters | None = None
    scales: tuple[float, ...] = (1.0,)
    window: Window | None = None

    def __post_init__(self) -> None:
        """Check the scales.

        Raises:
            UserError: no scale, or one that is no number over 0.
        """
        if not 0 < self.image_scale <= 1:
            raise UserError(f"image_scale is over 0 and up to 1, not {self.image_scale}")
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise UserError(f"scales are one or more numbers over 0, not {list(self.scales)}")


class Inference:
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
        options: DeployOptions = AS_THE_NETWORK_SAYS,
    ) -> None:
        """Load the network; Caffe aborts the process where the prototxt does not make a network.

        Args:
            model: deploy prototxt, or an ONNX file, which onnxruntime runs.
            weights: .caffemodel, or Caffe's HDF5 file; an ONNX file has its own.
            gpu: device number; None computes on the CPU.
            allow_missing: layers without weights in the file keep their initial values.
            options: what the network does not say of itself.

        Raises:
            UserError: the model or the weights do not serve; names the file.
        """
        self._model = model
        self._engine: CaffeEngine | OnnxEngine
        if model.suffix == SUFFIX:
            if gpu is not None or allow_missing:
                raise UserError(
                    f"{model}: onnxruntime runs it on the CPU as it is; leave --gpu and --allow-missing out"
                )
            self._engine = OnnxEngine(model, options)
        else:
            self._engine = CaffeEngine(model, weights, gpu, allow_missing, options)
        self.classes = self._engine.classes
        self._crf: DenseCrf | None = None

    def strips(self, image: np.ndarray, settings: PredictionSettings) -> Iterator[np.ndarray]:
        """Yield the class probabilities of one image from top to bottom.

        Without windows that is one strip, the whole image. With windows no more than a band of their height is held.

        Args:
            image: H x W x 3 uint8, BGR.
            settings: how it goes through the network.

        Yields:
            C x rows x W float32, valid until the next is asked for.

        Raises:
            UserError: as `probabilities`.
        """
        if settings.window is None:
            yield self.probabilities(image, settings)
            return

        def predict(rows: slice, columns: slice) -> np.ndarray:
            return self.probabilities(np.ascontiguousarray(image[rows, columns]), settings)

        yield from blended((image.shape[0], image.shape[1]), settings.window, predict)

    def probabilities(self, image: np.ndarray, settings: PredictionSettings) -> np.ndarray:
        """Compute the class probabilities of one image, or of a window of one, at its own size in one pass.

        Args:
            image: H x W x 3 uint8, BGR.
            settings: how it goes through the network; `window` plays no part.

        Returns:
            C x H x W float32.

        Raises:
            UserError: the network's output has another size than its input, or holds no probabilities.
        """
        return self.together(image[np.newaxis], settings)[0]

    def together(self, images: np.ndarray, settings: PredictionSettings) -> np.ndarray:
        """As `probabilities`, of several images of one size, which the network sees at once.

        Args:
            images: N x H x W x 3 uint8, BGR; an ONNX file takes one.
            settings: how they go through the network; `window` plays no part.

        Returns:
            N x C x H x W float32.

        Raises:
            UserError: as `probabilities`.
        """
        result = self._at_scale(images, settings, settings.scales[0])
        for scale in settings.scales[1:]:
            result += self._at_scale(images, settings, scale)
        if len(settings.scales) > 1:
            result /= len(settings.scales)
        if settings.crf is None:
            return result
        if self._crf is None or self._crf.parameters != settings.crf:
            self._crf = DenseCrf(self.classes, settings.crf)
        return np.stack([self._crf.apply(found, image) for found, image in zip(result, images, strict=True)])

    def _at_scale(self, images: np.ndarray, settings: PredictionSettings, scale: float) -> np.ndarray:
        """N x C x H x W at the images' own size, of the images at one of the scales."""
        height, width = images.shape[1:3]
        seen = np.stack([resize_image(image, settings.image_scale * scale) for image in images])
        result = self._padded(seen, settings.min_size)
        if settings.flip:
            result = (result + self._padded(seen[:, :, ::-1], settings.min_size)[..., ::-1]) / 2
        if result.shape[2:] != (height, width):
            # One class at a time: OpenCV takes no image of many channels.
            planes = result.reshape(-1, *result.shape[2:])
            resized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes]
            result = np.stack(resized).reshape(*result.shape[:2], height, width)
        return result

    def _padded(self, images: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
        height, width = images.shape[1:3]
        below, right = max(0, min_size[0] - height), max(0, min_size[1] - width)
        if below or right:
            self._check_memory(height + below, width + right)
            sides = (0, below, 0, right, cv2.BORDER_REFLECT_101)
            images = np.stack([cv2.copyMakeBorder(np.ascontiguousarray(image), *sides) for image in images])
        return self._forward(images)[:, :, :height, :width]

    def _check_memory(self, height: int, width: int) -> None:
        """Make sure that an image of this size can be padded to, before anything is allocated.

        Raises:
            UserError: its input and its probabilities alone take more than the machine or a map of Caffe's has.
        """
        values = (3 + self.classes) * height * width
        needed = np.dtype(np.float32).itemsize * values
        if needed > memory_bytes() or max(3, self.classes) * height * width > _MOST_VALUES:
            raise UserError(
                f"a min_size of {height} x {width} takes {needed / 1e9:,.1f} GB for the network's input and output "
                f"alone; the machine has {memory_bytes() / 1e9:,.1f} GB, and a map at most {_MOST_VALUES:,} values"
            )

    def _forward(self, images: np.ndarray) -> np.ndarray:
        number, height, width = images.shape[:3]
        result = self._engine.forward(np.stack([self._engine.transform.apply(image) for image in images]))
        where = f'{self._model}: the output "{self._engine.output}"'
        if result.shape != (number, self.classes, height, width):
            raise UserError(
                f"{where} is {' x '.join(map(str, result.shape))} for an input of {width} x {height}, expected "
                f"{number} x {self.classes} x {height} x {width}"
            )
        for found in result:
            check_probabilities(found, where)
        return result.copy()
