"""A served network for the tests of the service: a process of tools/serve.py with a tiny network."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from segmentation_helpers import REPOSITORY, write_dataset_json, write_weights

SECONDS = 120  # more than anything here takes on a busy machine
KERNEL = np.random.default_rng(3).normal(size=(3, 3, 1, 1)).astype(np.float32)  # classes x channels (BGR)
DEPLOY = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 scale: 0.01 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""
# A 3 x 3 convolution without padding cannot take 1 x 1: Caffe aborts
ABORTING = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "back" type: "Deconvolution" bottom: "scores" top: "back"
        convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "prob" type: "Softmax" bottom: "back" top: "prob" }
"""


def write_network(folder: Path) -> Path:
    """deploy.prototxt and aborting.prototxt, their weights, dataset.json."""
    (folder / "deploy.prototxt").write_text(DEPLOY)
    write_weights(folder / "net.caffemodel", {"scores": [KERNEL, np.zeros(3, np.float32)]})
    (folder / "aborting.prototxt").write_text(ABORTING)
    layers = {name: [np.zeros((3, 3, 3, 3), np.float32), np.zeros(3, np.float32)] for name in ("scores", "back")}
    write_weights(folder / "aborting.caffemodel", layers)
    write_dataset_json(folder)
    return folder


def picture(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    """H x W x 3 uint8, RGB."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(rgb: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format=kind, **options)
    return buffer.getvalue()


def expected(rgb: np.ndarray) -> np.ndarray:
    """C x H x W probabilities of DEPLOY."""
    scores = np.einsum("hwc,kc->khw", (rgb[:, :, ::-1] - 100.0) * 0.01, KERNEL[:, :, 0, 0])
    exponential = np.exp(scores)
    return exponential / exponential.sum(axis=0)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a state."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Served:
    """A running service.

    Attributes:
        url: where it is.
        process: of the server.
        said: its first lines on stdout.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.said = process.stdout.readline()
        assert " is served at http://" in self.said, (self.said, process.stderr and process.stderr.read())
        self.url = self.said.split(" is served at ")[1].split()[0]

    def predict(
        self, image: bytes, accept: str = "image/png", kind: str = "image/png", **parameters: Any
    ) -> requests.Response:
        """Ask for a prediction."""
        return requests.post(
            f"{self.url}/predict",
            data=image,
            headers={"Content-Type": kind, "Accept": accept},
            params=parameters,
            timeout=SECONDS,
        )

    def get(self, path: str) -> requests.Response:
        """Ask for something else."""
        return requests.get(self.url + path, timeout=SECONDS)

    def count(self, name: str) -> float:
        """A value of /metrics."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def network(self) -> int:
        """The process that has the network."""
        process = self.process.pid
        tasks = Path(f"/proc/{process}/task").iterdir()
        (child,) = [int(word) for task in tasks for word in (task / "children").read_text().split()]
        return child


@contextmanager
def served(folder: Path, *arguments: object, model: str = "deploy", weights: str = "net") -> Iterator[Served]:
    """Serve a network of `write_network`."""
    network = ["--model", f"{model}.prototxt", "--weights", f"{weights}.caffemodel"]
    if "--dataset" not in arguments:
        network += ["--dataset", "dataset.json"]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tools/serve.py"), *network, "--port", "0", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Served(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
