"""ReNet-Caffe: segmentation networks with convolutional and recurrent layers.

What other programs use is named here (docs/python.md), and imported when it is first asked for: Caffe is loaded where
a network is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renet import networks
    from renet.common.errors import UserError
    from renet.data.dataset import Dataset
    from renet.evaluation.evaluate import evaluate
    from renet.evaluation.scores import Evaluation
    from renet.prediction.computation import Prediction
    from renet.prediction.crf_parameters import CrfParameters
    from renet.prediction.predictor import Predictor
    from renet.training.packing import pack
    from renet.training.run_state import TrainingResult
    from renet.training.training_process import train

__all__ = [
    "CrfParameters",
    "Dataset",
    "Evaluation",
    "Prediction",
    "Predictor",
    "TrainingResult",
    "UserError",
    "evaluate",
    "networks",
    "pack",
    "train",
]

_HOMES = {
    "CrfParameters": "renet.prediction.crf_parameters",
    "Dataset": "renet.data.dataset",
    "Evaluation": "renet.evaluation.scores",
    "Prediction": "renet.prediction.computation",
    "Predictor": "renet.prediction.predictor",
    "TrainingResult": "renet.training.run_state",
    "UserError": "renet.common.errors",
    "evaluate": "renet.evaluation.evaluate",
    "pack": "renet.training.packing",
    "train": "renet.training.training_process",
}


def __getattr__(name: str) -> object:
    if name == "networks":
        return import_module("renet.networks")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
