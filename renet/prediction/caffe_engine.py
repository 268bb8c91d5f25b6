"""A deploy network in Caffe, as a function from a transformed image to probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renet.networks.deploy_network import DeployNetwork, DeployOptions
from renet.runtime.builds import check_gpu
from renet.weights.weight_files import load


class CaffeEngine:
    """A deploy network with its weights.

    Attributes:
        transform: of the image's values.
        classes: how many classes the network tells apart.
        output: the name of the probabilities.
    """

    def __init__(
        self,
        model: Path,
        weights: Path,
        gpu: int | None,
        allow_missing: bool,
        options: DeployOptions,
    ) -> None:
        """Load the network; arguments and errors are those of `renet.prediction.inference.Inference`."""
        self._network = DeployNetwork.read(model, options)
        self.transform = self._network.transform
        self._gpu = gpu
        if gpu is not None:
            check_gpu(gpu)
        self._choose_device()
        self._net = self._network.build()
        self.output = self._network.output(self._net)
        load(self._net, weights, not allow_missing, advice="--allow-missing keeps initial values")
        self.classes = int(self._net.blobs[self.output].shape[1])
        self._net.share_maps()
        if self.output not in self._net.outputs:
            _ = self._net.blobs[self.output].data  # what NumPy has asked for stays, though later layers read it

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            values: N x 3 x H x W float32, transformed.

        Returns:
            The output, N x C x H x W float32 where the network is one for segmentation; valid until the next call.
        """
        self._choose_device()
        given = self._net.blobs[self._network.input]
        given.reshape(*values.shape)
        given.data[...] = values
        self._net.forward()
        return self._net.blobs[self.output].data

    def _choose_device(self) -> None:
        """Caffe keeps mode and device for each thread."""
        import caffe

        if self._gpu is None:
            caffe.set_mode_cpu()
        else:
            caffe.set_device(self._gpu)
            caffe.set_mode_gpu()
