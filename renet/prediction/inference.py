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
        save_memory: bool = False,
        options: DeployOptions = AS_THE_NETWORK_SAYS,
    ) -> None:
        """Load the network; Caffe aborts the process where the prototxt does not make a network.

        Args:
            model: deploy prototxt, or an ONNX file, which onnxruntime runs.
            weights: .caffemodel, or Caffe's HDF5 file; an ONNX file has its own.
            gpu: device number; None computes on the CPU.
            allow_missing: layers without weights in the file keep their initial values.
            save_memory: on the CPU, let each map go when the last layer that reads it has run.
            options: what the network does not say of itself.

        Raises:
            UserError: the model or the weights do not serve; names the file.
        """
        self._model = model
        self._engine: CaffeEngine | OnnxEngine
        if model.suffix == SUFFIX:
            if gpu is not None or allow_missing or save_memory:
                raise UserError(
                    f"{model}: onnxruntime runs it on the CPU as it is; leave --gpu, --allow-missing and --save-memory "
                    "out"
                )
            self._engine = OnnxEngine(model, options)
        else:
            self._engine = CaffeEngine(model, weights, gpu, allow_missing, save_memory, options)
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
        result = self._at_scale(image, settings, settings.scales[0])
        for scale in settings.scales[1:]:
            result += self._at_scale(image, settings, scale)
        if len(settings.scales) > 1:
            result /= len(settings.scales)
        if settings.crf is None:
            return result
        if self._crf is None or self._crf.parameters != settings.crf:
            self._crf = DenseCrf(self.classes, settings.crf)
        return self._crf.apply(result, image)

    def _at_scale(self, image: np.ndarray, settings: PredictionSettings, scale: float) -> np.ndarray:
        """C x H x W at the image's own size, of the image at one of the scales."""
        height, width = image.shape[:2]
        seen = resize_image(image, settings.image_scale * scale)
        result = self._padded(seen, settings.min_size)
        if settings.flip:
            mirrored = self._padded(np.ascontiguousarray(seen[:, ::-1]), settings.min_size)
            result = (result + mirrored[:, :, ::-1]) / 2
        if result.shape[1:] != (height, width):
            # One class at a time: OpenCV takes no image of many channels.
            result = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in result])
        return result

    def _padded(self, image: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
        height, width = image.shape[:2]
        below, right = max(0, min_size[0] - height), max(0, min_size[1] - width)
        if below or right:
            self._check_memory(height + below, width + right)
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        return self._forward(image)[:, :height, :width]

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

    def _forward(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        result = self._engine.forward(self._engine.transform.apply(image))
        where = f'{self._model}: the output "{self._engine.output}"'
        if result.shape != (1, self.classes, height, width):
            raise UserError(
                f"{where} is {' x '.join(map(str, result.shape))} for an input of {width} x {height}, expected "
                f"1 x {self.classes} x {height} x {width}"
            )
        check_probabilities(result[0], where)
        return result[0].copy()
