"""Predicting many pictures with a network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from renet.common.command_line import UserError
from renet.data.split_reader import SplitReader
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployOptions
from renet.prediction.image_job import Finished, LabellingJob, Started, file_sha256, read_picture, write_outputs
from renet.prediction.predictor import PredictionSettings, Predictor


@dataclass(frozen=True, kw_only=True)
class PredictionJob(LabellingJob):
    """Pictures for a network.

    Attributes:
        model: deploy prototxt.
        weights: .caffemodel.
        settings: how a picture goes through the network.
        gpu: device number; None for the CPU.
        allow_missing: layers without weights keep their initial values.
        save_memory: on the CPU, let maps go that no later layer reads.
        deploy: what the network does not say of itself.
    """

    model: Path
    weights: Path
    settings: PredictionSettings = field(default_factory=PredictionSettings)
    gpu: int | None = None
    allow_missing: bool = False
    save_memory: bool = False
    deploy: DeployOptions = AS_THE_NETWORK_SAYS

    def origin(self) -> dict[str, Any]:
        """See `LabellingJob.origin`."""
        return {
            "model": str(self.model),
            "model_sha256": file_sha256(self.model),
            "weights": str(self.weights),
            "weights_sha256": file_sha256(self.weights),
            "settings": json.loads(json.dumps(asdict(self.settings) | asdict(self.deploy))),
        }


def perform(job: PredictionJob) -> Iterator[Started | Finished]:
    """Predict every item; meant for a process of its own (see `native_process`).

    Raises:
        UserError: network and dataset do not fit, or a picture is broken; names the file.
    """
    predictor = Predictor(job.model, job.weights, job.gpu, job.allow_missing, job.save_memory, job.deploy)
    if predictor.classes != len(job.dataset.classes):
        raise UserError(
            f"{job.model}: tells {predictor.classes} classes apart, the dataset {job.dataset.name} has "
            f"{len(job.dataset.classes)}"
        )
    with ExitStack() as stack:
        reader = stack.enter_context(SplitReader(job.split)) if job.split is not None else None
        for item in job.items:
            yield Started(item.image_id)
            image = read_picture(item, reader)
            start = time.perf_counter()
            with item.named():
                probabilities = predictor.probabilities(image, job.settings)
            seconds = time.perf_counter() - start
            write_outputs(job, item, image, probabilities)
            yield Finished(item.image_id, seconds)
