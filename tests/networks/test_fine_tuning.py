"""Other classes from trained weights: `generate.py --weights-from`, from eleven classes to three and back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from segmentation_helpers import call_tool, write_dataset_json, write_split

import renet
from renet.common.errors import UserError
from renet.networks.files import deploy_text
from renet.networks.models import MODELS

REPOSITORY = Path(__file__).resolve().parents[2]
GROUPS = ["renet1_vertical", "renet1_horizontal", "renet2_vertical", "renet2_horizontal"]
ELEVEN = [f"class {number}" for number in range(11)]
THREE = ["low", "middle", "high"]


def prepared(folder: Path, classes: Sequence[str], **more: object) -> Path:
    """A dataset of these classes with splits train and test, whose labels are what the image's brightness says."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        samples = {}
        for number in range(3):
            label = np.kron(random.integers(0, len(classes), (6, 8)), np.ones((4, 4))).astype(np.uint8)
            image = np.repeat((label * 250.0 / len(classes)).astype(np.uint8)[..., None], 3, axis=2)
            samples[f"s{number}"] = (image, label)
        write_split(folder / split, samples)
    palette = random.integers(0, 255, (len(classes), 3)).tolist()
    splits = {split: {"count": 3, "sha256": "0"} for split in ("train", "test")}
    write_dataset_json(folder, list(classes), palette, name=folder.name, splits=splits, **more)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of eleven and of three classes, and a run on the eleven."""
    place = tmp_path_factory.mktemp("tuning")
    prepared(place / "eleven", ELEVEN)
    prepared(place / "three", THREE)
    renet.train(written(place, "eleven", mean=(90.0, 100.0, 110.0)).solver, place / "run")
    return place


def written(place: Path, dataset: str, out: str | None = None, **choices: object) -> renet.networks.WrittenNetwork:
    choices = {"crop": (16, 24), "batch": 2, "iterations": 6, "interval": 6, **choices}
    return renet.networks.write("n_renet_small", place / dataset, place / "nets" / (out or dataset), **choices)


def layers(
    network: renet.networks.WrittenNetwork, file: str = "train_val.prototxt"
) -> dict[str, caffe_pb2.LayerParameter]:
    parameter = text_format.Parse(network.solver.with_name(file).read_text(), caffe_pb2.NetParameter())
    return {layer.name: layer for layer in parameter.layer}


def solver(network: renet.networks.WrittenNetwork) -> caffe_pb2.SolverParameter:
    return text_format.Parse(network.solver.read_text(), caffe_pb2.SolverParameter())


def blobs(file: Path) -> dict[str, list[np.ndarray]]:
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    return {layer.name: [np.array(blob.data) for blob in layer.blobs] for layer in network.layer if layer.blobs}


def test_from_eleven_classes_to_three(place: Path) -> None:
    script = [sys.executable, str(REPOSITORY / "prototxt/generate.py"), "--model", "n_renet_small"]
    words = ["--dataset", "three", "--crop", "16x24", "--batch", "2", "--iterations", "6", "--out", "tuned"]
    done = subprocess.run([*script, *words, "--weights-from", "run"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights = place / "run/snapshots/run_iter_6.caffemodel"
    assert done.stdout.splitlines()[-3:] == [
        "weights: run/snapshots/run_iter_6.caffemodel of 11 classes, for 3 classes",
        f"kept, 4 layers: {', '.join(GROUPS)}",
        "starts anew at 3 times the rate: score, as score_three "
        "(score has 11 x 48 x 1 x 1 and 11 there, 3 x 48 x 1 x 1 and 3 here)",
    ]
    text = (place / "tuned/solver.prototxt").read_text()
    assert f'weights: "{weights}"' in text and "base_lr: 0.0007" in text and "# kept, 4 layers" in text
    # the mean is the one that the weights know
    assert "mean_value: 90.0" in (place / "tuned/train_val.prototxt").read_text()
    # a training fills what is kept and says the same
    still = place / "tuned/still.prototxt"
    still.write_text(text.replace("base_lr: 0.0007", "base_lr: 1e-12"))
    done = call_tool(
        "train.py", "--solver", "tuned/still.prototxt", "--run", "runs/still", "--iterations", 1, cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert f"weights: 4 layers filled from {weights}: {GROUPS[0]} ... {GROUPS[-1]}; 1 in the file unused" in done.stderr
    assert "weights: 1 layer from scratch: score_three" in done.stderr
    before, after = blobs(weights), blobs(place / "runs/still/snapshots/still_iter_1.caffemodel")
    assert set(after) == {*GROUPS, "score_three"}
    for name in GROUPS:
        for old, new in zip(before[name], after[name]):
            np.testing.assert_allclose(new, old, atol=1e-9)
    # and the deploy network takes what such a training writes
    done = call_tool("train.py", "--solver", "tuned/solver.prototxt", "--run", "runs/tuned", cwd=place)
    assert done.returncode == 0, done.stderr
    words = ("--model", "runs/tuned", "--split", "three/test", "--out", "predicted")
    done = call_tool("predict.py", *words, cwd=place)
    assert done.returncode == 0, done.stderr


def test_rates(place: Path) -> None:
    network = written(place, "three", "usual", weights_from=place / "run")
    found = layers(network)
    assert [param.lr_mult for param in found["score_three"].param] == [3, 6]
    assert not found["renet1_vertical"].param
    assert list(found["score_three"].top) == ["score"] and found["upsample"].bottom[0] == "score"
    assert layers(network, "deploy.prototxt").keys() >= {"score_three", "prob"}
    network = written(place, "three", "chosen", weights_from=place / "run", rate=0.003, new_rate=2)
    assert [param.lr_mult for param in layers(network)["score_three"].param] == [2, 4]
    assert solver(network).base_lr == pytest.approx(0.003)
    network = written(place, "three", "sgd", weights_from=place / "run", solver="sgd", mean=(1.0, 2.0, 3.0))
    assert solver(network).base_lr == pytest.approx(0.02)
    assert list(layers(network, "deploy.prototxt")["data"].transform_param.mean_value) == [1, 2, 3]


def test_the_same_classes_keep_their_scores(place: Path, tmp_path: Path) -> None:
    network = written(place, "eleven", "again", weights_from=place / "run")
    assert network.notes[1:] == (f"kept, 5 layers: {GROUPS[0]} ... score",)
    assert not any("starts anew" in note for note in network.notes) and "score" in layers(network)
    # as many others start anew
    others = prepared(tmp_path / "others", ELEVEN[1:] + ["class 11"])
    network = written(place, str(others), "others", weights_from=place / "run")
    assert (
        network.notes[-1] == "starts anew at 3 times the rate: score, as score_others (score is of other classes there)"
    )
    # of weights alone nobody knows the classes, nor the mean
    weights = shutil.copy(place / "run/snapshots/run_iter_6.caffemodel", tmp_path / "alone.caffemodel")
    network = written(place, str(others), "alone", weights_from=weights)
    assert network.notes == (
        f"weights: {weights}, for 11 classes",
        f"kept, 5 layers: {GROUPS[0]} ... score",
        "the mean that these weights learnt with is not known; --mean says it",
    )


def test_what_was_tuned_is_tuned_again(place: Path, tmp_path: Path) -> None:
    tuned = written(place, "three", "first", weights_from=place / "run")
    renet.train(tuned.solver, tmp_path / "first")
    renet.pack(tmp_path / "first", tmp_path / "model")
    # on the same classes: all that it learnt is kept, by the names that it has there
    again = written(place, "three", "second", weights_from=tmp_path / "model")
    assert again.notes[1] == f"kept, 5 layers: {GROUPS[0]} ... score_three"
    assert [param.lr_mult for param in layers(again)["score_three"].param] == [1, 2]
    # on others of the same name: another name still
    other = prepared(tmp_path / "three", ["a", "b", "c", "d"])
    third = written(place, str(other), "third", weights_from=tmp_path / "model")
    assert "starts anew at 3 times the rate: score (score is not there)" in third.notes
    back = written(place, "eleven", "back", weights_from=tmp_path / "model")
    assert "starts anew at 3 times the rate: score (score is not there)" in back.notes
    assert "score" in layers(back)


def test_layers_of_vgg_and_of_batch_normalisation(place: Path, tmp_path: Path) -> None:
    model = "h_renet_bn_from_pool4"
    (tmp_path / "deploy.prototxt").write_text(deploy_text(MODELS[model], model, 11, MODELS[model].options((32, 32))))
    weights = tmp_path / "trained.caffemodel"
    caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST).save(str(weights))
    network = renet.networks.write(model, place / "three", tmp_path / "net", crop=(32, 32), weights_from=weights)
    found = layers(network)
    assert network.notes[1] == "kept, 14 layers: conv1_1 ... renet1_horizontal"
    assert [param.lr_mult for param in found["conv8_three"].param] == [3, 6]
    assert [param.lr_mult for param in found["conv4_1"].param] == [1, 2]
    assert solver(network).base_lr == pytest.approx(3e-4)
    # without the normalisation's statistics these start anew, and their rates are Caffe's
    part = caffe_pb2.NetParameter.FromString(weights.read_bytes())
    kept = [layer for layer in part.layer if not re.search("_bn|_scale|renet", layer.name)]
    del part.layer[:]
    part.layer.extend(kept)
    weights.write_bytes(part.SerializeToString())
    network = renet.networks.write(model, place / "three", tmp_path / "part", crop=(32, 32), weights_from=weights)
    found = layers(network, "deploy.prototxt")
    assert not found["pool4_bn"].param and [param.lr_mult for param in found["pool4_scale"].param] == [3, 6]
    assert [param.lr_mult for param in found["renet1_vertical"].param] == [3] * 6
    caffe.Net(str(network.solver.with_name("deploy.prototxt")), caffe.TEST).copy_from(str(weights))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"weights_from": "nowhere"}, "nowhere: no such file of weights"),
        ({"weights_from": "three"}, "three: not a model folder"),
        ({"weights_from": "run/run.json"}, r"run\.json: not a Caffe model"),
        ({"weights_from": "run", "weights": "x.caffemodel"}, "weights and weights_from both say what"),
        ({"weights_from": "empty"}, "empty/snapshots: no whole snapshot"),
        ({"weights_from": "conv/snapshots/conv_iter_1.caffemodel"}, r"no layer fits this model; it has conv1, .*; "
         r"renet1_vertical is not there"),
    ],
)  # fmt: skip
def test_what_cannot_be_started_from(
    place: Path, monkeypatch: pytest.MonkeyPatch, choices: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(place)
    if "conv" in choices["weights_from"] and not (place / "conv").exists():
        made = renet.networks.write("conv_small", "three", "nets/conv", crop=(16, 24), batch=2, iterations=1)
        renet.train(made.solver, "conv")
    if choices["weights_from"] == "empty":
        shutil.copytree(place / "run", place / "empty")
        shutil.rmtree(place / "empty/snapshots")
    with pytest.raises(UserError, match=message):
        written(place, "three", "refused", **choices)
    assert not (place / "nets/refused").exists()


def test_the_best_weights_of_a_run_are_taken(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    for kind in ("caffemodel", "solverstate"):
        shutil.copy(run / f"snapshots/run_iter_6.{kind}", run / f"snapshots/run_iter_8.{kind}")
    state = caffe_pb2.SolverState.FromString((run / "snapshots/run_iter_8.solverstate").read_bytes())
    state.iter = 8
    (run / "snapshots/run_iter_8.solverstate").write_bytes(state.SerializeToString())
    assert "run_iter_8.caffemodel" in written(place, "three", "newest", weights_from=run).notes[0]
    metadata = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(metadata | {"keep_best": "mean_iou"}))
    assert "run_iter_6.caffemodel" in written(place, "three", "best", weights_from=run).notes[0]
