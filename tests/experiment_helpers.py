"""A dataset like VOC's for the tests of the experiments, and a stand-in for the scripts that they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from segmentation_helpers import write_dataset_json, write_split

from renet.data.catalog import VOC2012
from renet.data.dataset import Dataset
from renet.data.label_maps import write_label_map
from renet.data.split_reader import SplitReader
from renet.experiments.training import Settings
from renet.prediction.image_job import open_folder, record_time
from renet.training.files import TrainingFiles
from tools.predict import build_job, build_parser

COUNTS = {"trainaug": 12, "val": 3, "trainvalaug": 15, "test": 2}


def image_and_labels(classes: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((10, 12), np.uint8)
    labels[:, 6:], labels[7:] = 1, classes - 1
    return np.full((10, 12, 3), 90, np.uint8), labels


def write_voc(folder: Path, counts: dict[str, int] = COUNTS) -> Path:
    """A prepared dataset with VOC's classes; its split `test` has no labels."""
    for split, count in counts.items():
        pairs = {f"{split}_{number}": image_and_labels(20) for number in range(count)}
        if split == "test":
            pairs = {image_id: (image, None) for image_id, (image, _) in pairs.items()}
        write_split(folder / split, pairs)
    splits = {split: {"count": count, "sha256": split} for split, count in counts.items()}
    write_dataset_json(folder, list(VOC2012.classes), VOC2012.palette.tolist(), name="voc2012", splits=splits)
    return folder


def settings(dataset: Path, out: Path, **more: Any) -> Settings:
    return Settings(Dataset.open(dataset), out, **{"budget": 1e-3, "crop": (40, 50), "batch": 2, **more})


class Scripts:
    """Does in no time what train.py and predict.py do for those who look into their folders.

    Attributes:
        calls: the scripts with their arguments.
        wrong: pixels of each image that a run's predictions have wrong, by the run's name.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.wrong: dict[str, int] = {}

    def __call__(self, script: str, *arguments: object) -> None:
        words = list(map(str, arguments))
        self.calls.append([script, *words])
        {"tools/train.py": self.train, "tools/predict.py": self.predict, "tools/picture_sheet.py": self.draw}[script](
            words
        )

    def of(self, script: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == f"tools/{script}.py"]

    def train(self, words: list[str]) -> None:
        run = Path(words[words.index("--run") + 1])
        if "--resume" not in words:
            files = TrainingFiles.read(Path(words[words.index("--solver") + 1]))
            if "--seed" in words:
                files.set_seed(int(words[words.index("--seed") + 1]))
            files.write(run, run.name)
        else:
            files = TrainingFiles.read(run / "solver.prototxt", own=True)
        (run / "snapshots").mkdir(exist_ok=True)
        (run / "snapshots" / f"{run.name}_iter_{files.solver.max_iter}.caffemodel").write_text(f"weights of {run.name}")
        metadata = {"state": "finished", "seconds": 90.0, "parameters": 1000, "switches": {"CAFFE_ALLOW_BF16": "1"}}
        (run / "run.json").write_text(json.dumps(metadata))

    def predict(self, words: list[str]) -> None:
        job = build_job(build_parser().parse_args(words))
        left = open_folder(job, "--overwrite" in words)
        wrong = self.wrong.get(job.out.parent.name, 0)
        with SplitReader(job.split) as reader:
            for item in left:
                labels = reader.label(item.index)
                labels = np.zeros(reader.image(item.index).shape[:2], np.uint8) if labels is None else labels.copy()
                labels.reshape(-1)[:wrong] = 2
                write_label_map(job.out / f"{item.image_id}.png", labels, job.dataset)
        record_time(job.out, [0.25], "CPU")

    def draw(self, words: list[str]) -> None:
        Path(words[words.index("--out") + 1]).write_bytes(b"")
