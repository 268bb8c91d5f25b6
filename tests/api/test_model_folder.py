"""A packed run, moved elsewhere and used with nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import call_tool, only_line

import renet

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, a run of conv_small whose snapshots are of iterations 4, 6 and 8, and its folder, packed and moved."""
    folder = tmp_path_factory.mktemp("packing")
    scenes = ["--train", "6", "--test", "2", "--size", "48x64", "--out", "scenes"]
    script = REPOSITORY / "data_prep/synthetic_scenes.py"
    subprocess.run([sys.executable, script, *scenes], cwd=folder, check=True, capture_output=True)
    written = renet.networks.write(
        "conv_small", folder / "scenes", folder / "net", crop=(24, 24), batch=2, iterations=8, interval=2
    )
    renet.train(written.solver, folder / "run", seed=5)
    packed = call_tool("pack.py", "--run", "run", "--out", "packed/here", cwd=folder)
    assert packed.returncode == 0, packed.stderr
    assert packed.stdout.startswith("packed/here: ")
    (folder / "elsewhere").mkdir()
    (folder / "packed/here").rename(folder / "elsewhere/my_model")
    shutil.copytree(folder / "elsewhere/my_model", folder / "alone")
    return folder


@pytest.fixture
def model(workshop: Path, tmp_path: Path) -> Path:
    """A copy of the packed folder, to be damaged."""
    return shutil.copytree(workshop / "alone", tmp_path / "my_model")


def newest(workshop: Path) -> Path:
    return workshop / "run/snapshots/run_iter_8.caffemodel"


def test_what_is_in_the_folder(workshop: Path) -> None:
    folder = workshop / "alone"
    description = json.loads((folder / "model.json").read_text())
    names = {"deploy.prototxt", "deploy_crf.prototxt", "weights.caffemodel", "dataset.json", "README.md"}
    assert {file.name for file in folder.iterdir()} == {*names, "model.json"}
    assert set(description["files"]) == names
    training = description["training"]
    assert (training["seed"], training["iteration"], training["iterations"]) == (5, 8, 8)
    assert training["dataset"] == "synthetic_scenes" and "max_iter: 8" in training["solver"]
    dataset = renet.Dataset.open(workshop / "scenes")
    for use, split in (("trained_on", "train"), ("tested_on", "test")):
        (told,) = training[use]
        assert told == {
            "dataset": "synthetic_scenes",
            "split": split,
            "count": dataset.splits[split].count,
            "sha256": dataset.splits[split].sha256,
        }
    assert {"caffe", "python", "numpy"} <= set(training["versions"]) and "commit" in training
    assert description["scores"]["while_training"]["iteration"] == 8 and description["scores"]["evaluation"] is None
    packed = renet.Dataset.open(folder)
    assert packed.classes == dataset.classes and packed.splits == {} and packed.mean == dataset.mean
    np.testing.assert_array_equal(packed.palette, dataset.palette)
    assert str(workshop) not in "".join((folder / name).read_text() for name in ("model.json", "README.md"))
    assert "mean IoU" in (folder / "README.md").read_text()


def test_it_is_the_runs_network_for_python_and_for_the_command(workshop: Path, tmp_path: Path) -> None:
    dataset = renet.Dataset.open(workshop / "scenes")
    images = [sample.image for sample in dataset.split("test")]
    with renet.Predictor(workshop / "net/deploy.prototxt", newest(workshop)) as of_files:
        expected = of_files.predict(images)
    folder = shutil.copytree(workshop / "alone", tmp_path / "copy")
    with renet.Predictor(folder) as predictor, renet.Predictor(folder, crf=True) as sharper:
        assert predictor.classes == dataset.classes
        found = predictor.predict(images)
        differences = [np.count_nonzero(a != b) for a, b in zip(sharper.predict(images), found)]
    np.testing.assert_array_equal(found, expected)
    assert sum(differences) > 0
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"images/{number}.png"), image[:, :, ::-1])
    done = call_tool("predict.py", "--model", "copy", "--input", "images", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for number, labels in enumerate(expected):
        with Image.open(tmp_path / f"out/{number}.png") as written:
            np.testing.assert_array_equal(np.array(written), labels)
            assert written.getpalette()[:3] == list(dataset.palette[0])
    scores = renet.evaluate(found, dataset.split("test"), folder)
    assert scores.images == 2


@pytest.mark.parametrize(
    "words",
    [
        ("predict.py", "--model", "MODEL", "--input", "image.png", "--out", "out", "--crf", "--probabilities"),
        ("crf.py", "run", "--model", "MODEL", "--predictions", "saved", "--input", "image.png", "--out", "crf"),
        ("visualize.py", "probabilities", "--model", "MODEL", "--image", "image.png", "--out", "p.png"),
        ("visualize.py", "maps", "--model", "MODEL", "--image", "image.png", "--layer", "conv1", "--out", "m.png"),
        ("visualize.py", "receptive", "--network", "A=MODEL", "--image", "image.png", "--out", "r.png"),
        ("network_cost.py", "--model", "MODEL", "--size", "32x32"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_every_tool_takes_the_folder_alone(workshop: Path, model: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    image = renet.Dataset.open(workshop / "scenes").split("test")[0].image
    cv2.imwrite(str(tmp_path / "image.png"), image)
    if "saved" in words:
        first = ("--model", model, "--input", "image.png", "--out", "saved", "--probabilities")
        assert call_tool("predict.py", *first, cwd=tmp_path).returncode == 0
    done = call_tool(
        *(str(model) if word == "MODEL" else word.replace("=MODEL", f"={model}") for word in words), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def spoil(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["weights.caffemodel", "deploy.prototxt", "deploy_crf.prototxt", "dataset.json"])
def test_damaged_and_missing_files_are_named(model: Path, name: str) -> None:
    spoil(model / name)
    with pytest.raises(renet.UserError, match=rf"my_model/{name}: is not the file that was packed"):
        renet.Predictor(model)
    (model / name).unlink()
    with pytest.raises(renet.UserError, match=rf"my_model/{name}: missing from the model folder"):
        renet.Predictor(model)


def test_a_card_may_be_edited(model: Path) -> None:
    (model / "README.md").write_text("mine")
    renet.Predictor(model).close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"my_model: not a model folder \(no model\.json in it\); tools/pack\.py makes one"),
        ("{", r"model\.json: not JSON"),
        ("[]", r"model\.json: should be a valid dictionary, not \[\]"),
        ('{"format": "1"}', r"model\.json: format should be a valid integer, not '1'"),
        ('{"format": 9}', r"model\.json: has the format 9, and 1 is known here"),
        ('{"format": 1, "files": {"deploy.prototxt": "x"}}', r"model\.json: damaged: files must list"),
        (
            '{"format": 1, "files": {"deploy.prototxt": "", "weights.caffemodel": "", "dataset.json": "", "../x": ""}}',
            r"model\.json: damaged: '\.\./x' is no name of a file",
        ),
    ],
)
def test_what_is_no_model_folder(model: Path, content: str | None, message: str) -> None:
    (model / "model.json").unlink()
    if content is not None:
        (model / "model.json").write_text(content)
    with pytest.raises(renet.UserError, match=message):
        renet.Predictor(model)


def test_a_folder_goes_without_weights_and_a_prototxt_not(workshop: Path, model: Path, tmp_path: Path) -> None:
    words = ("--input", "x.png", "--out", "out")
    done = call_tool("predict.py", "--model", model, "--weights", newest(workshop), *words, cwd=tmp_path)
    assert "a model folder has its own weights" in only_line(done, "predict.py")
    done = call_tool("predict.py", "--model", model / "deploy.prototxt", *words, cwd=tmp_path)
    assert "deploy.prototxt: needs its weights" in only_line(done, "predict.py")


def test_which_weights_and_scores(workshop: Path, tmp_path: Path) -> None:
    run = shutil.copytree(workshop / "run", tmp_path / "run")
    tests = {line["iteration"]: line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
             if line["kind"] == "test"}  # fmt: skip
    kept = {int(file.stem.rpartition("_")[2]) for file in (run / "snapshots").glob("*.caffemodel")}
    assert kept == {4, 6, 8}
    lines = [dict(line, mean_iou=1.0 if line["iteration"] == 2 else 0.9 if line["iteration"] == 6 else 0.1)
             for line in tests.values()]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def iteration(out: str, **choices: object) -> tuple[int, dict]:
        description = json.loads((renet.pack(run, tmp_path / out, **choices) / "model.json").read_text())
        return description["training"]["iteration"], description["scores"]

    assert iteration("best", weights="best")[0] == 6, "the best of those that are kept"
    spoil_tail = run / "snapshots/run_iter_8.caffemodel"
    spoil_tail.write_bytes(spoil_tail.read_bytes()[:-100])
    assert iteration("whole")[0] == 6
    named, scores = iteration("named", weights=run / "snapshots/run_iter_4.caffemodel")
    assert named == 4 and scores["while_training"]["mean_iou"] == 0.1 and scores["evaluation"] is None
    # scores of the run's own predictions are taken where these are of the packed weights
    labels = workshop / "scenes/test"
    for number in (4, 6):
        shutil.rmtree(run / "predictions", ignore_errors=True)
        weights = run / f"snapshots/run_iter_{number}.caffemodel"
        words = [
            "--model",
            run / "deploy.prototxt",
            "--weights",
            weights,
            "--split",
            labels,
            "--out",
            run / "predictions",
        ]
        assert call_tool("predict.py", *words, cwd=tmp_path).returncode == 0
        words = ["--predictions", run / "predictions", "--labels", labels, "--dataset", workshop / "scenes"]
        assert call_tool("evaluate.py", *words, "--json", run / "evaluation.json", cwd=tmp_path).returncode == 0
        _, scores = iteration(f"scored{number}", weights=run / "snapshots/run_iter_6.caffemodel")
        assert (scores["evaluation"] is not None) == (number == 6)
    _, scores = iteration("given", scores=run / "evaluation.json")
    assert scores["evaluation"]["images"] == 2
    card = (tmp_path / "given/README.md").read_text()
    assert "| scores | mean IoU " in card and "2 images |" in card


@pytest.mark.parametrize(
    ("change", "choices", "message"),
    [
        (None, {"out": "run"}, "run: exists already; name another folder"),
        (None, {"run": "nowhere"}, r"nowhere: not a run's folder \(no run\.json in it\)"),
        (None, {"weights": "lost.caffemodel"}, r"lost\.caffemodel: no such file of weights"),
        (None, {"weights": "run/run.json"}, r"run\.json: weights to pack are a \.caffemodel"),
        (None, {"scores": "lost.json"}, r"lost\.json: no such file"),
        (None, {"scores": "run/run.json"}, r"run\.json: not an evaluation"),
        (None, {"dataset": "nowhere"}, r"nowhere.*no such file"),
        ("deploy.prototxt", {}, r"run/deploy\.prototxt: missing: the training had no"),
        ("snapshots", {}, r"run/snapshots: no whole snapshot"),
        (
            "metrics.jsonl",
            {"weights": "best"},
            r"none of the snapshots that are kept \(iterations 4, 6, 8\) was tested",
        ),
    ],
)
def test_what_cannot_be_packed_leaves_nothing(
    workshop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str | None,
    choices: dict[str, str],
    message: str,
) -> None:
    run = shutil.copytree(workshop / "run", tmp_path / "run")
    if change is not None:
        target = run / change
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(renet.UserError, match=message):
        renet.pack(**{"run": "run", "out": "packed", **choices})
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_weights_and_dataset_of_another_network(workshop: Path, tmp_path: Path) -> None:
    from segmentation_helpers import write_dataset_json, write_weights

    other = write_weights(tmp_path / "other.caffemodel", {"strange": [np.zeros((1, 1, 1, 1), np.float32)]})
    with pytest.raises(renet.UserError, match=r"other\.caffemodel: fills no layer"):
        renet.pack(workshop / "run", tmp_path / "out", weights=other)
    write_dataset_json(tmp_path / "three")
    with pytest.raises(renet.UserError, match="tells 10 classes apart, the dataset three_things has 3"):
        renet.pack(workshop / "run", tmp_path / "out", dataset=tmp_path / "three")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_data_has_gone(workshop: Path, tmp_path: Path) -> None:
    """Its dataset.json is enough, and the splits' checksums come from there."""
    run = shutil.copytree(workshop / "run", tmp_path / "run")
    for file in run.glob("*.prototxt"):
        file.write_text(file.read_text().replace(str(workshop), "/gone"))
    metadata = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(metadata | {"dataset": "/gone/scenes"}))
    with pytest.raises(renet.UserError, match="/gone/scenes: the run's dataset is not there any more; name it with"):
        renet.pack(run, tmp_path / "out")
    shutil.copy(workshop / "scenes/dataset.json", tmp_path)
    folder = renet.pack(run, tmp_path / "out", dataset=tmp_path / "dataset.json")
    (told,) = json.loads((folder / "model.json").read_text())["training"]["trained_on"]
    assert told["split"] == "train" and told["sha256"] and told["count"] == 6
