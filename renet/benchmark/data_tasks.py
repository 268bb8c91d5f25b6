"""Work on data as tasks of renet.benchmark.worker: converting, loading and scoring, and what others do instead.

What a job holds is in renet.benchmark.data_parts.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.repository import ROOT


def _tool(*arguments: str | Path) -> None:
    """Run one of the project's tools; its complaint is raised where it fails."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])


def convert(source: Path, out: Path) -> int:
    """Convert `source`'s images/ and labels/ (classes.txt beside them) to `out`; the number of images."""
    options = ["--images", source / "images", "--labels", source / "labels", "--classes", source / "classes.txt"]
    _tool(ROOT / "data_prep" / "folder.py", *options, "--out", out)
    return sum(split["count"] for split in json.loads((out / "dataset.json").read_text())["splits"].values())


class Conversion:
    """data_prep/folder.py, from pictures and label PNGs to a split, verified."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.version = platform.python_version()
        self._job = job
        self._converted = 0

    def run(self) -> None:
        """All images, into a folder of its own."""
        with tempfile.TemporaryDirectory() as scratch:
            self._converted = convert(Path(self._job["folder"]), Path(scratch) / "data")

    def results(self) -> dict[str, np.ndarray]:
        """How many images there were."""
        return {"images": np.array([self._converted])}


class CaffeLoading:
    """A SegmentationData layer: batches decoded, the mean taken off, by threads of its own."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import caffe

        self.version = caffe.__version__
        height, width = job["size"]
        means = " ".join(f"mean_value: {value}" for value in job["mean"])
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(
                'layer { name: "data" type: "SegmentationData" top: "data" top: "label" segmentation_data_param { '
                f'source: "{job["split"]}" batch_size: {job["batch"]} crop_height: {height} crop_width: {width} '
                f"{means} prefetch_threads: {job['threads']} }} }}\n"
            )
            file.flush()
            self._net = caffe.Net(file.name, caffe.TRAIN)
        self._batches = job["batches"]

    def run(self) -> None:
        """Some batches."""
        for _ in range(self._batches):
            self._net.forward()

    def results(self) -> dict[str, np.ndarray]:
        """The last batch."""
        return {"data": self._net.blobs["data"].data, "label": self._net.blobs["label"].data}


class PyTorchLoading:
    """A DataLoader over the same pictures and label PNGs, read by Pillow in processes of its own."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import torch

        torch.set_num_threads(job["threads"])
        self.version = torch.__version__
        loader = torch.utils.data.DataLoader(
            PictureFolder(Path(job["folder"]), job["names"], job["mean"]),
            batch_size=job["batch"],
            sampler=list(range(len(job["names"]))) * 10_000,  # no epoch ends, so that the processes never wait
            num_workers=job["threads"],
        )
        self._loader, self._batches = iter(loader), job["batches"]

    def run(self) -> None:
        """Some batches."""
        for _ in range(self._batches):
            self._data, self._label = next(self._loader)

    def results(self) -> dict[str, np.ndarray]:
        """The last batch."""
        return {"data": self._data.numpy(), "label": self._label.numpy()}


class PictureFolder:
    """A data set as PyTorch's users write it: pairs of a picture's and a label's file."""

    def __init__(self, folder: Path, names: list[str], mean: list[float]) -> None:
        self._folder, self._names, self._mean = folder, names, np.array(mean, np.float32)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        import torch
        from PIL import Image

        name = self._names[index]
        pixels = (
            np.asarray(Image.open(self._folder / "images" / f"{name}.jpg").convert("RGB"))[:, :, ::-1] - self._mean
        )  # BGR, as Caffe has it
        classes = np.asarray(Image.open(self._folder / "labels" / f"{name}.png"))
        return (
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            torch.from_numpy(classes[None].astype(np.float32)),
        )


class Evaluation:
    """tools/evaluate.py, with as many processes as threads."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.version = platform.python_version()
        self._job = job
        self._confusion: list[list[int]] = []

    def run(self) -> None:
        """Score the set."""
        job = self._job
        with tempfile.TemporaryDirectory() as scratch:
            scores = Path(scratch) / "scores.json"
            options = ["--predictions", f"{job['folder']}/predictions", "--labels", f"{job['folder']}/labels"]
            options += ["--dataset", job["dataset"], "--processes", str(job["threads"]), "--json", str(scores)]
            _tool(ROOT / "tools" / "evaluate.py", *options)
            self._confusion = json.loads(scores.read_text())["confusion"]

    def results(self) -> dict[str, np.ndarray]:
        """The confusion matrix."""
        return {"confusion": np.array(self._confusion, np.float64)}


class NumPyEvaluation:
    """The same as the loop that goes round: a histogram of truth and prediction, image by image, in one process."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.version = np.__version__
        self._job = job

    def run(self) -> None:
        """Score the set."""
        from PIL import Image

        folder, classes = Path(self._job["folder"]), self._job["class_count"]
        confusion = np.zeros((classes, classes), np.int64)
        for file in sorted((folder / "labels").glob("*.png")):
            truth = np.asarray(Image.open(file)).ravel().astype(int)
            prediction = np.asarray(Image.open(folder / "predictions" / file.name)).ravel()
            counted = truth < classes
            pairs = classes * truth[counted] + prediction[counted]
            confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        self._confusion = confusion

    def results(self) -> dict[str, np.ndarray]:
        """As Evaluation.results."""
        return {"confusion": self._confusion.astype(np.float64)}
