"""A loaded network that answers requests; the predictor and the service have it in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from renet.common.errors import UserError
from renet.data.images import normalise
from renet.data.split_reader import decode_image
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployOptions
from renet.networks.model_folder import TrainedNetwork
from renet.prediction.crf_parameters import CrfParameters, read_crf_parameters
from renet.prediction.inference import Inference, PredictionSettings
from renet.prediction.probabilities import Assembly
from renet.runtime.builds import import_gpu_build

Order = Literal["RGB", "BGR"]


class Prediction(NamedTuple):
    """What a network says of an image.

    Attributes:
        labels: H x W uint8, the class of each pixel.
        probabilities: C x H x W float32.
    """

    labels: np.ndarray
    probabilities: np.ndarray


Answer = np.ndarray | Prediction


@dataclass(frozen=True)
class Setup:
    """What the process that computes needs to know.

    Attributes:
        network: its files.
        gpu: device number; None for the CPU.
        crf: its parameters, or a prototxt that holds them, in the place of those of `settings`.
        settings: how an image goes through the network, where its request does not say.
        deploy: what the network does not say of itself.
        allow_missing: layers without weights keep their initial values.
    """

    network: TrainedNetwork
    gpu: int | None = None
    crf: CrfParameters | Path | None = None
    settings: PredictionSettings = field(default_factory=PredictionSettings)
    deploy: DeployOptions = AS_THE_NETWORK_SAYS
    allow_missing: bool = False


@dataclass(frozen=True)
class Request:
    """An image.

    Attributes:
        content: H x W x 3 uint8, or the bytes of an image file.
        name: for messages.
        order: of an array's channels.
        probabilities: answer with a `Prediction`; else with the labels alone.
        settings: how the image goes through the network; None: as the setup says.
    """

    content: np.ndarray | bytes
    name: str
    order: Order
    probabilities: bool
    settings: PredictionSettings | None = None


class Computation:
    """A loaded network that answers requests, in the caller's process or in a child."""

    def __init__(self, setup: Setup) -> None:
        """Load the network.

        Raises:
            UserError: as `Inference` does; or network and dataset have not as many classes.
        """
        if setup.gpu is not None:
            import_gpu_build()
        crf = read_crf_parameters(setup.crf) if isinstance(setup.crf, Path) else setup.crf
        self._settings = replace(setup.settings, crf=crf)
        network = setup.network
        self._inference = Inference(network.deploy, network.weights, setup.gpu, setup.allow_missing, setup.deploy)
        if network.dataset is not None and self._inference.classes != len(network.dataset.classes):
            raise UserError(
                f"{network.deploy}: tells {self._inference.classes} classes apart, the dataset beside it has "
                f"{len(network.dataset.classes)}"
            )

    def __call__(self, request: Request | Sequence[Request]) -> Answer | list[Answer]:
        """The labels, or with the probabilities; of several requests, whose images are seen at once, a list.

        Several have one size and one settings, without windows.
        """
        if isinstance(request, Request):
            image = _image(request)
            try:
                return _answer(request, image, self._inference.strips(image, request.settings or self._settings))
            except UserError as error:
                raise UserError(f"{request.name}: {error}") from None
        images = [_image(each) for each in request]
        found = self._inference.together(np.stack(images), request[0].settings or self._settings)
        return [_answer(*each, iter([of_one])) for *each, of_one in zip(request, images, found, strict=True)]


def _image(request: Request) -> np.ndarray:
    """H x W x 3 uint8, BGR."""
    if isinstance(request.content, bytes):
        return decode_image(normalise(request.content, request.name).data)
    return request.content if request.order == "BGR" else request.content[:, :, ::-1]


def _answer(request: Request, image: np.ndarray, strips: Iterator[np.ndarray]) -> Answer:
    found = Assembly((image.shape[0], image.shape[1]), request.probabilities)
    for _ in found.fill(strips):
        pass
    return found.labels if found.probabilities is None else Prediction(found.labels, found.probabilities)
