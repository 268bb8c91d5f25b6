"""predict.py and the Predictor with an ONNX file, which onnxruntime runs, beside the same network in Caffe."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_engines import installed_engines
from segmentation_helpers import CLASSES, call_tool, only_line, write_dataset_json, write_weights

import renet
from renet.data.dataset import Dataset
from renet.exchange.onnx_export import OnnxExport, perform
from renet.exchange.onnx_file import read_metadata

DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 5 } }
        transform_param { mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.02 } }
layer { name: "classify" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A folder with deploy.prototxt, net.caffemodel, net.onnx of them, dataset.json, and a folder of images."""
    random = np.random.default_rng(0)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    weights = write_weights(
        tmp_path / "net.caffemodel", {"classify": [random.normal(size=(3, 3, 3, 3)), random.normal(size=3)]}
    )
    dataset = Dataset.open(write_dataset_json(tmp_path))
    list(perform(OnnxExport(tmp_path / "deploy.prototxt", weights, tmp_path / "net.onnx", dataset)))
    (tmp_path / "images").mkdir()
    for name, (height, width) in {"odd": (7, 5), "wide": (6, 31)}.items():
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), random.integers(0, 256, (height, width, 3)))
    return tmp_path


def predict(folder: Path, model: str, out: str, *more: object) -> dict[str, np.ndarray]:
    """The probabilities that predict.py writes, by image id."""
    command = ("--model", model, "--input", "images", "--out", out, "--probabilities", *more)
    done = call_tool("predict.py", *command, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {file.stem: np.load(file)["probabilities"] for file in (folder / out / "probabilities").iterdir()}


@pytest.mark.parametrize("more", [(), ("--flip", "--scales", "0.5", "1"), ("--crf",)], ids=["plain", "scales", "crf"])
def test_onnx_and_caffe_predict_alike(more: tuple[str, ...], network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caffe = predict(network, "deploy.prototxt", "a", "--weights", "net.caffemodel", "--dataset", "dataset.json", *more)
    monkeypatch.setenv("PYTHONPATH", str(installed_engines()))
    other = predict(network, "net.onnx", "b", *more)
    assert caffe.keys() == other.keys() == {"odd", "wide"}
    for name, probabilities in caffe.items():
        assert np.ptp(probabilities) > 0.1
        np.testing.assert_allclose(other[name], probabilities, atol=1e-3)  # half precision
        labels = [cv2.imread(str(network / out / f"{name}.png")) for out in "ab"]
        np.testing.assert_array_equal(*labels)
    assert json.loads((network / "b" / "prediction.json").read_text())


def test_predictor_takes_it(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed_engines()))
    image = network / "images" / "odd.png"
    with (
        renet.Predictor(network / "net.onnx") as other,
        renet.Predictor(network / "deploy.prototxt", network / "net.caffemodel") as caffe,
    ):
        assert other.classes == tuple(CLASSES)
        ours, theirs = (each.predict(image, probabilities=True).probabilities for each in (caffe, other))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_the_classes_travel_with_the_file(network: Path) -> None:
    dataset = read_metadata(network / "net.onnx").dataset
    assert dataset is not None
    assert list(dataset.classes) == CLASSES


def write_foreign(file: Path) -> None:
    """A network of another program: two inputs' worth of nothing in its metadata, three classes."""
    nodes = [helper.make_node("Softmax", ["pixels"], ["out"], axis=1)]
    given, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("pixels", "out")
    )
    graph = helper.make_graph(nodes, "foreign", [given], [found])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def test_file_of_another_program(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed_engines()))
    write_foreign(network / "foreign.onnx")
    options = ("--dataset", "dataset.json", "--mean", "10,20,30", "--scale", "0.01")
    found = predict(network, "foreign.onnx", "out", *options)
    image = cv2.imread(str(network / "images" / "odd.png"))
    scores = np.exp(((image - np.array([10, 20, 30])) * 0.01).transpose(2, 0, 1))
    np.testing.assert_allclose(found["odd"], scores / scores.sum(axis=0), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("net.onnx", ("--weights", "net.caffemodel"), "has its own weights"),
        ("net.onnx", ("--gpu", "0"), "leave --gpu"),
        ("net.onnx", ("--output-blob", "scores"), r'has no output "scores" \(it has: prob\)'),
        ("net.onnx", ("--input-blob", "x"), r'has no input "x" \(it has: data\)'),
        ("no.onnx", (), "no.onnx: no such file"),
        ("broken.onnx", (), "broken.onnx: not ONNX"),
        ("foreign.onnx", ("--dataset", "dataset.json"), "say --mean B,G,R"),
        ("damaged.onnx", (), "metadata are not those"),
    ],
    ids=str,
)
def test_bad_input_is_told_in_a_line(
    model: str, words: tuple[str, ...], message: str, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed_engines()))
    (network / "broken.onnx").write_bytes((network / "net.onnx").read_bytes()[:100])
    write_foreign(network / "foreign.onnx")
    damaged = onnx.load(network / "net.onnx")
    next(each for each in damaged.metadata_props if each.key == "palette").value = "[[1, 2, 300]]"
    onnx.save(damaged, network / "damaged.onnx")
    command = ("--model", model, "--input", "images", "--out", "out", *words)
    line = only_line(call_tool("predict.py", *command, cwd=network), "predict.py")
    assert re.search(message, line), line


def test_without_onnxruntime_it_says_what_to_install(network: Path) -> None:
    done = call_tool("predict.py", "--model", "net.onnx", "--input", "images", "--out", "out", cwd=network)
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        assert "pip install onnxruntime" in only_line(done, "predict.py")
    else:
        assert done.returncode == 0
