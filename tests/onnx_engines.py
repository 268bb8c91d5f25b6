"""onnxruntime and OpenVINO for tests, in a folder of their own, and networks run by both."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import caffe
import numpy as np
import onnx
import pytest

from renet.common.files import write_atomically
from renet.exchange.onnx_export import OnnxExport, perform
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, DeployOptions

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "build" / "onnx-engines"  # no part of the product, so they stay out of .venv
# Without what .venv has: numpy, packaging, protobuf
PACKAGES = ("onnxruntime==1.32.0", "openvino==2026.4.1", "flatbuffers==25.12.19", "openvino-telemetry==2025.2.0")
ENGINES = ("onnxruntime", "openvino")
TOLERANCE = 1e-4  # of a probability; of other values, relative to the largest
EMPTY = 1e30  # the maximum of an empty window is below -EMPTY
Inputs = Mapping[str, np.ndarray]


def installed_engines() -> Path:
    """The folder that has both engines, for PYTHONPATH; where pip cannot get them the test skips."""
    complete = FOLDER / "installed.txt"
    wanted = f"{sys.version}\n" + "\n".join(PACKAGES)
    if not complete.is_file() or complete.read_text() != wanted:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        done = subprocess.run([*command, "--target", FOLDER, *PACKAGES], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["pip says nothing"]
            pytest.skip(f"{', '.join(PACKAGES[:2])} cannot be installed into {FOLDER}: {said[-1]}")
        write_atomically(complete, wanted.encode())
    return FOLDER


class Engines:
    """A process that runs ONNX files in both engines."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self._process = process
        self._scratch = scratch

    def run(self, model: Path, runs: Sequence[Inputs]) -> dict[str, list[dict[str, np.ndarray]]]:
        """The outputs of each engine for each of the runs."""
        given, results = self._scratch / "given.npz", self._scratch / "results.npz"
        np.savez(given, **{f"{number}/{name}": v for number, run in enumerate(runs) for name, v in run.items()})
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(model), str(given), str(results)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the engines' process has died"
        assert json.loads(answer) == "done", json.loads(answer)
        found: dict[str, list[dict[str, np.ndarray]]] = {engine: [{} for _ in runs] for engine in ENGINES}
        with np.load(results) as arrays:
            for key in arrays:
                engine, number, name = key.split("/", 2)
                found[engine][int(number)][name] = arrays[key]
        return found


@contextmanager
def started_engines(scratch: Path) -> Iterator[Engines]:
    """Both engines in a process of their own."""
    environment = os.environ | {"PYTHONPATH": str(installed_engines())}
    command = [sys.executable, str(Path(__file__).with_name("onnx_worker.py"))]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Engines(process, scratch)
        finally:
            process.kill()


def fill(net: caffe.Net, seed: int = 0) -> None:
    """Give the parameters random values that keep what goes through at about its size."""
    random = np.random.default_rng(seed)
    types = dict(zip(net._layer_names, (layer.type for layer in net.layers), strict=True))
    for name, blobs in net.params.items():
        for number, blob in enumerate(blobs):
            shape = blob.data.shape
            if types[name] == "BatchNorm":
                values = [random.normal(0, 1, shape), random.uniform(1, 3, shape), np.full(shape, 2.0)][number]
            elif types[name] == "BN":  # scale, shift, mean, variance
                values = random.uniform(0.5, 2, shape)
            elif types[name] == "Scale" and number == 0:
                values = random.uniform(0.5, 1.5, shape)
            elif types[name].startswith("ReNet") and len(shape) == 2 and shape[1] > 3:
                values = random.normal(0, 0.5 / np.sqrt(shape[1]), shape)
            elif len(shape) > 1:
                values = random.normal(0, 1.4 / np.sqrt(np.prod(shape[1:])), shape)
            else:
                values = random.uniform(-0.3, 0.3, shape)
            blob.data[...] = values


def compare(
    engines: Engines, deploy: Path, folder: Path, runs: Sequence[Inputs], options: DeployOptions = AS_THE_NETWORK_SAYS
) -> None:
    """Export a network with random weights, and hold both engines to Caffe's outputs within TOLERANCE.

    Args:
        engines: to run it.
        deploy: the prototxt.
        folder: for files.
        runs: the inputs of each comparison.
        options: what the network does not say of itself.
    """
    net = caffe.Net(str(deploy), caffe.TEST)
    fill(net)
    weights, out = folder / "net.caffemodel", folder / "net.onnx"
    net.save(str(weights))
    (exported,) = perform(OnnxExport(deploy, weights, out, deploy=options))
    onnx.checker.check_model(out, full_check=True)
    names = list(net.outputs)
    assert len(exported.outputs) == len(names)
    found = engines.run(out, runs)
    for number, run in enumerate(runs):
        for name, values in run.items():
            net.blobs[name].reshape(*values.shape)
            net.blobs[name].data[...] = values
        net.forward()
        for engine, name in itertools.product(ENGINES, names):
            ours, theirs = net.blobs[name].data, found[engine][number][name]
            assert ours.shape == theirs.shape, (engine, name)
            finite = ours[np.isfinite(ours) & (np.abs(ours) < EMPTY)]
            assert finite.size, "there is nothing to compare"
            assert np.ptp(finite) > 0 or finite.size == 1, "one value everywhere tells nothing"
            limit = TOLERANCE * max(1, np.abs(finite).max())
            np.testing.assert_allclose(theirs, ours, 1e-6, limit, err_msg=f"{engine}, {name}, run {number}")
