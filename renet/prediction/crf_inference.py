"""The dense CRF as a function from class probabilities and an image to sharper class probabilities."""

from __future__ import annotations

import numpy as np

from renet.common.errors import UserError
from renet.common.scratch import scratch_file
from renet.prediction.crf_parameters import CrfParameters

SMALLEST_PROBABILITY = 1e-5  # as pydensecrf's unary_from_softmax: the logarithm of 0 would outweigh every neighbour

_NETWORK = """
layer {{ name: "scores" type: "Input" top: "scores" input_param {{ shape {{ dim: 1 dim: {classes} dim: 1 dim: 1 }} }} }}
layer {{ name: "image" type: "Input" top: "image" input_param {{ shape {{ dim: 1 dim: 3 dim: 1 dim: 1 }} }} }}
layer {{
  name: "crf" type: "DenseCRF" bottom: "scores" bottom: "image" top: "prob"
  {parameters}
}}
"""


class DenseCrf:
    """A Caffe network of the DenseCRF layer alone, in the mode (CPU, GPU) that Caffe is in.

    Attributes:
        parameters: of the CRF.
    """

    def __init__(self, classes: int, parameters: CrfParameters) -> None:
        """Make the network for `classes` classes."""
        import caffe

        self.parameters = parameters
        text = _NETWORK.format(classes=classes, parameters=parameters.as_prototxt())
        with scratch_file(text, ".prototxt") as file:
            self._net = caffe.Net(str(file), caffe.TEST)

    def apply(self, probabilities: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Mean-field inference; the unary energy is -log(probability), probabilities below 1e-5 taken for that.

        Args:
            probabilities: C x H x W floating point.
            image: H x W x 3 uint8, BGR.

        Returns:
            C x H x W float32: the probabilities Q after the iterations.

        Raises:
            UserError: they are no numbers, as the CRF's parameters lead out of their range.
        """
        height, width = image.shape[:2]
        scores = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY, dtype=np.float32))
        self._net.blobs["scores"].reshape(1, *scores.shape)
        self._net.blobs["image"].reshape(1, 3, height, width)
        self._net.blobs["scores"].data[0] = scores
        self._net.blobs["image"].data[0] = image.transpose(2, 0, 1)
        result = self._net.forward()["prob"][0].copy()
        if not np.isfinite(result).all():
            raise UserError(f"the CRF's probabilities are no numbers with its parameters ({self.parameters})")
        return result
