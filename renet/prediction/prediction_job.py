"""Predicting many images with a network."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from renet.common.errors import UserError
from renet.common.files import file_sha256
from renet.common.progress import progress
from renet.data.split_reader import SplitReader
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployOptions
from renet.prediction.image_job import Advanced, Finished, ImageJob, Started, read_image, write_outputs
from renet.prediction.inference import Inference, PredictionSettings
from renet.prediction.probabilities import Assembly
from renet.runtime.builds import import_gpu_build
from renet.runtime.worker_process import NativeCrash, run_native

ALLOW_BFLOAT16 = "CAFFE_ALLOW_BF16"  # as Caffe reads it


@dataclass(frozen=True, kw_only=True)
class PredictionJob(ImageJob):
    """Images for a network.

    Attributes:
        model: deploy prototxt, or an ONNX file.
        weights: .caffemodel; of an ONNX file, the same file.
        settings: how an image goes through the network.
        gpu: device number; None for the CPU.
        allow_missing: layers without weights keep their initial values.
        deploy: what the network does not say of itself.
    """

    model: Path
    weights: Path
    settings: PredictionSettings = field(default_factory=PredictionSettings)
    gpu: int | None = None
    allow_missing: bool = False
    deploy: DeployOptions = AS_THE_NETWORK_SAYS

    def origin(self) -> dict[str, Any]:
        """See `ImageJob.origin`."""
        settings = asdict(self.settings) | asdict(self.deploy)
        if self.gpu is None and os.environ.get(ALLOW_BFLOAT16) == "1":
            settings["precision"] = "BF16"
        return {
            "model": str(self.model),
            "model_sha256": file_sha256(self.model),
            "weights": str(self.weights),
            "weights_sha256": file_sha256(self.weights),
            "settings": json.loads(json.dumps(settings)),
        }


def perform(job: PredictionJob) -> Iterator[Started | Advanced | Finished]:
    """Predict every item; meant for a process of its own (see `worker_process`).

    Raises:
        UserError: network and dataset do not fit, or an image is broken; names the file.
    """
    inference = Inference(job.model, job.weights, job.gpu, job.allow_missing, job.deploy)
    if inference.classes != len(job.dataset.classes):
        raise UserError(
            f"{job.model}: tells {inference.classes} classes apart, the dataset {job.dataset.name} has "
            f"{len(job.dataset.classes)}"
        )
    with ExitStack() as stack:
        reader = stack.enter_context(SplitReader(job.split)) if job.split is not None else None
        for item in job.items:
            yield Started(item.image_id)
            image = read_image(item, reader)
            found = Assembly((image.shape[0], image.shape[1]), job.probabilities)
            start = time.perf_counter()
            with item.named():
                for rows in found.fill(inference.strips(image, job.settings)):
                    yield Advanced(item.image_id, rows, len(image))
            seconds = time.perf_counter() - start
            write_outputs(job, item, image, found.labels, found.probabilities)
            yield Finished(item.image_id, seconds)


def predict_all(job: PredictionJob) -> list[float]:
    """Predict the job's images with a progress bar.

    Returns:
        Seconds that the network took for each image.

    Raises:
        UserError: what went wrong with which file, also where Caffe aborted.
    """
    seconds: list[float] = []
    current: str | None = None
    if job.gpu is not None:
        import_gpu_build()
    try:
        with progress(total=len(job.items), description="predicting", unit="image") as bar:
            windows: tqdm[Any] | None = None  # a bar of its own where an image takes several strips
            for event in run_native(perform, job):
                if isinstance(event, Started):
                    current = event.image_id
                elif isinstance(event, Advanced) and (windows is not None or event.rows < event.height):
                    if windows is None:
                        windows = progress(total=event.height, description=event.image_id, unit="row", within=True)
                    windows.update(event.rows - windows.n)
                elif isinstance(event, Finished):
                    if windows is not None:
                        windows.close()
                        windows = None
                    seconds.append(event.seconds)
                    bar.update()
    except NativeCrash as crash:
        raise UserError(f"{_place(job, current, str(crash))}: {crash}") from None
    return seconds


def _place(job: PredictionJob, image_id: str | None, message: str) -> str:
    """What Caffe was at: finding the device, loading the network, or an image."""
    if image_id is not None:
        item = next(item for item in job.items if item.image_id == image_id)
        return f"{item.file or image_id}: Caffe stopped at this image"
    return f"{job.model}: Caffe cannot make this network"
