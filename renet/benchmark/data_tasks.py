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
    """data_prep/folder.py, from images and label PNGs to a split, verified."""

    version = platform.python_version()

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._folder = Path(job["folder"])

    def run(self) -> dict[str, np.ndarray]:
        """All images, into a folder of its own; how many there were."""
        with tempfile.TemporaryDirectory() as scratch:
            return {"images": np.array([convert(self._folder, Path(scratch) / "data")])}


class CaffeLoading:
    """A SegmentationData layer: batches decoded, augmented if asked, the mean taken off, by threads of its own."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import caffe

        self.version, self._batches = caffe.__version__, job["batches"]
        height, width = job["size"]
        fields = [*(("mean_value", value) for value in job["mean"]), *job["augmentation"].items()]
        more = " ".join(f"{name}: {value}" for name, value in fields)
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
            file.write(
                'layer { name: "data" type: "SegmentationData" top: "data" top: "label" segmentation_data_param { '
                f'source: "{job["split"]}" batch_size: {job["batch"]} crop_height: {height} crop_width: {width} '
                f"{more} prefetch_threads: {job['threads']} }} }}\n"
            )
            file.flush()
            self._net = caffe.Net(file.name, caffe.TRAIN)

    def run(self) -> dict[str, np.ndarray]:
        """Some batches; the last one."""
        for _ in range(self._batches):
            self._net.forward()
        return {name: self._net.blobs[name].data for name in ("data", "label")}


class PyTorchLoading:
    """A DataLoader over the same images and label PNGs, read by Pillow in processes of its own."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import torch

        torch.set_num_threads(job["threads"])
        self.version, self._batches = torch.__version__, job["batches"]
        loader = torch.utils.data.DataLoader(
            ImageFolder(Path(job["folder"]), job["names"], job["mean"]),
            batch_size=job["batch"],
            sampler=list(range(len(job["names"]))) * 10_000,  # no epoch ends, so that the processes never wait
            num_workers=job["threads"],
        )
        self._loader = iter(loader)

    def run(self) -> dict[str, np.ndarray]:
        """Some batches; the last one."""
        for _ in range(self._batches):
            data, label = next(self._loader)
        return {"data": data.numpy(), "label": label.numpy()}


class ImageFolder:
    """A data set as PyTorch's users write it: an image's and a label's file by name."""

    def __init__(self, folder: Path, names: list[str], mean: list[float]) -> None:
        self._folder, self._names, self._mean = folder, names, np.array(mean, np.float32)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        from PIL import Image

        name = self._names[index]
        image = np.asarray(Image.open(self._folder / "images" / f"{name}.jpg").convert("RGB"))
        classes = np.asarray(Image.open(self._folder / "labels" / f"{name}.png"))
        pixels = image[:, :, ::-1] - self._mean  # BGR, as Caffe has it
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), classes[None].astype(np.float32)


class Evaluation:
    """tools/evaluate.py, with as many processes as threads."""

    version = platform.python_version()

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job

    def run(self) -> dict[str, np.ndarray]:
        """Score the set; the confusion matrix."""
        job = self._job
        with tempfile.TemporaryDirectory() as scratch:
            scores = Path(scratch) / "scores.json"
            options = ["--predictions", f"{job['folder']}/predictions", "--labels", f"{job['folder']}/labels"]
            options += ["--dataset", job["dataset"], "--processes", str(job["threads"]), "--json", str(scores)]
            _tool(ROOT / "tools" / "evaluate.py", *options)
            return {"confusion": np.array(json.loads(scores.read_text())["confusion"], np.float64)}


class NumPyEvaluation:
    """The same as the loop that goes round: a histogram of truth and prediction, image by image, in one process."""

    version = np.__version__

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._folder, self._classes = Path(job["folder"]), job["class_count"]

    def run(self) -> dict[str, np.ndarray]:
        """As Evaluation.run."""
        from PIL import Image

        confusion = np.zeros((self._classes, self._classes), np.int64)
        for file in sorted((self._folder / "labels").glob("*.png")):
            truth = np.asarray(Image.open(file)).ravel().astype(int)
            prediction = np.asarray(Image.open(self._folder / "predictions" / file.name)).ravel()
            counted = truth < self._classes
            pairs = self._classes * truth[counted] + prediction[counted]
            confusion += np.bincount(pairs, minlength=self._classes**2).reshape(confusion.shape)
        return {"confusion": confusion.astype(np.float64)}
