"""The predictor that other programs embed: a trained network as an object that labels images."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.data.image_formats import read_image_bytes
from renet.exchange.onnx_file import find_network
from renet.networks.deploy_network import DeployOptions
from renet.networks.model_folder import DEPLOY_CRF, TrainedNetwork
from renet.prediction.computation import Computation, Order, Prediction, Request, Setup
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.inference import PredictionSettings
from renet.prediction.windows import Window
from renet.runtime.caffe_log import quiet
from renet.runtime.worker_process import Conversation, NativeCrash

Image = np.ndarray | str | os.PathLike[str]


class Predictor:
    """A trained network that labels images, one call after another.

    Caffe runs in a child process of the predictor's own: where it aborts, the call raises `UserError`, and the next
    call starts another child. Threads may share a predictor; a lock lets one image through at a time, and several
    predictors compute side by side. A context manager.

    Attributes:
        dataset: names and colours of the classes; None where a prototxt was named, which does not say them.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        gpu: int | None = None,
        crf: CrfParameters | str | os.PathLike[str] | bool | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        image_scale: float = 1.0,
        min_size: tuple[int, int] = (1, 1),
        window: tuple[int, int] | None = None,
        overlap: int | None = None,
        input_blob: str | None = None,
        output_blob: str | None = None,
        mean: tuple[float, float, float] | None = None,
        scale: float | None = None,
        allow_missing: bool = False,
        isolated: bool = True,
        verbose: bool = False,
    ) -> None:
        """Load the network.

        Args:
            model: a model folder (see `renet.pack`), a run's folder, a deploy prototxt, or an ONNX file, which
                onnxruntime runs.
            weights: of a prototxt: .caffemodel, or Caffe's HDF5 file; of a run also `newest` or `best`, and None: the
                best where the training kept it (`keep_best`), else the newest.
            gpu: device number; None computes on the CPU.
            crf: sharpen the result with a dense CRF: its parameters, a prototxt that holds them, or True for the model
                folder's own.
            flip: average with the prediction of the mirrored image.
            scales: average the predictions of the image at these sizes of it, such as (0.75, 1, 1.25).
            image_scale: over 0 and up to 1: the image is shrunk by this factor for the network, and the result is
                resampled to the image's size.
            min_size: height and width below which the shrunk image is padded by reflection.
            window: height and width: predict the image in windows of it, each as an image of its own (its CRF, too),
                and blend them. The memory is then that of a window, and 4 bytes for each class and pixel of a band
                of the window's height and the image's width; all probabilities are held only where they are asked for.
            overlap: pixels that neighbouring windows share at least; None: a quarter of the window's shorter side.
            input_blob: the network's input that takes the image, where there are several.
            output_blob: the blob of the probabilities, where the network does not show it.
            mean: taken off B, G and R of 0..255, in place of what the network says.
            scale: multiplies the rest, in place of what the network says.
            allow_missing: layers without weights in the file keep their initial values.
            isolated: compute in a child process. In the caller's own, Caffe's failed checks end the caller.
            verbose: let Caffe's messages through to stderr.

        Raises:
            UserError: a setting is out of its range, a file is missing, damaged or does not fit, or Caffe refuses the
                network; names it.
        """
        if window is None and overlap is not None:
            raise UserError("an overlap needs a window")
        settings = PredictionSettings(
            image_scale=image_scale,
            min_size=(min_size[0], min_size[1]),
            flip=flip,
            scales=tuple(scales),
            window=None if window is None else Window.of(window, overlap),
        )
        network = find_network(Path(model), None if weights is None else Path(weights))
        self.dataset: Dataset | None = network.dataset
        self._setup = Setup(
            network,
            gpu,
            _crf_of(crf, network),
            settings,
            DeployOptions(input_blob, output_blob, mean, scale),
            allow_missing,
        )
        self._verbose = verbose
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._is_closed = False
        self._computation: Computation | None = None
        self._conversation: Conversation | None = None
        self._end: Callable[[], object] = lambda: None
        if isolated:
            self._start()
        else:
            with self._heard():
                self._computation = Computation(self._setup)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes' names, where they are known."""
        return None if self.dataset is None else self.dataset.classes

    @overload
    def predict(self, image: Image, *, probabilities: Literal[False] = False, order: Order = "RGB") -> np.ndarray: ...

    @overload
    def predict(self, image: Image, *, probabilities: Literal[True], order: Order = "RGB") -> Prediction: ...

    @overload
    def predict(
        self, image: Iterable[Image], *, probabilities: Literal[False] = False, order: Order = "RGB"
    ) -> list[np.ndarray]: ...

    @overload
    def predict(
        self, image: Iterable[Image], *, probabilities: Literal[True], order: Order = "RGB"
    ) -> list[Prediction]: ...

    def predict(
        self, image: Image | Iterable[Image], *, probabilities: bool = False, order: Order = "RGB"
    ) -> np.ndarray | Prediction | list[np.ndarray] | list[Prediction]:
        """Label an image, or each of several.

        Args:
            image: H x W x 3 uint8, or the path of an image file; or an iterable of these (an N x H x W x 3 array is
                one).
            probabilities: give the probabilities of all classes, too.
            order: of an array's channels.

        Returns:
            H x W uint8 labels at the image's own size, or a `Prediction`; for several images, a list.

        Raises:
            UserError: an image is none or damaged, Caffe stopped at it, or the predictor is closed. Names the image;
                the predictor goes on with the next.
        """
        if order not in ("RGB", "BGR"):
            raise UserError(f'order is "RGB" or "BGR", not {order!r}')
        if isinstance(image, str | os.PathLike) or (isinstance(image, np.ndarray) and image.ndim != 4):
            return self._answer(_request(image, "the image", order, probabilities))
        return [
            self._answer(_request(each, f"image {number}", order, probabilities)) for number, each in enumerate(image)
        ]

    def close(self) -> None:
        """End the child process; nothing can be predicted after that. A second call does nothing."""
        with self._lock:
            self._is_closed = True
            self._computation = None
            self._drop()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: Request) -> Any:
        with self._lock:
            if self._is_closed:
                raise UserError("the predictor is closed")
            if self._process != os.getpid():
                raise UserError("the predictor was made in another process; make one in each process")
            if self._computation is not None:
                with self._heard():
                    return self._computation(request)
            conversation = self._conversation or self._start()
            try:
                return conversation.ask(request)
            except UserError:
                raise
            except NativeCrash as crash:
                self._drop()
                raise UserError(
                    f"{request.name}: Caffe stopped at this image: {crash}; the next call starts it anew"
                ) from None
            except BaseException:
                self._drop()
                raise

    def _start(self) -> Conversation:
        try:
            self._conversation = Conversation(Computation, self._setup, hears=_to_stderr if self._verbose else None)
        except NativeCrash as crash:
            raise UserError(f"{self._setup.network.deploy}: Caffe cannot make this network: {crash}") from None
        self._end = weakref.finalize(self, _end_of, os.getpid(), self._conversation)
        return self._conversation

    def _drop(self) -> None:
        self._conversation = None
        self._end()

    def _heard(self) -> Any:
        return nullcontext() if self._verbose else quiet()


def _end_of(process: int, conversation: Conversation) -> None:
    """Close a conversation, but in the process alone that began it."""
    if process == os.getpid():
        conversation.close()


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _crf_of(
    crf: CrfParameters | str | os.PathLike[str] | bool | None, network: TrainedNetwork
) -> CrfParameters | Path | None:
    if crf is True:
        if network.deploy_crf is None:
            raise UserError(f"{network.deploy}: has no {DEPLOY_CRF} beside it in a model folder; name its parameters")
        return network.deploy_crf
    if crf is None or crf is False or isinstance(crf, CrfParameters):
        return crf or None
    return Path(crf)


def _request(image: Image, name: str, order: Order, probabilities: bool) -> Request:
    """The request for one image.

    Raises:
        UserError: no such file, or an array that is no image.
    """
    if isinstance(image, str | os.PathLike):
        file = Path(image)
        return Request(read_image_bytes(file), str(file), order, probabilities)
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: is a {type(image).__name__}; an image is an H x W x 3 array of uint8, or a path")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        shape = " x ".join(map(str, image.shape))
        raise UserError(f"{name}: is {shape} {image.dtype}; an image is H x W x 3 uint8")
    return Request(image, name, order, probabilities)
