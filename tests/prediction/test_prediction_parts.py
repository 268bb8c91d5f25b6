"""Predictions and the CRF's search in parts: what the parts leave is what one call leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from segmentation_helpers import CLASSES, PALETTE, call_tool, only_line, write_dataset_json, write_split, write_weights

from renet.common.errors import UserError
from renet.common.parts import Part
from renet.data.dataset import Dataset
from renet.prediction import crf_search, image_job
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.crf_search import Result, ResultFile, SearchJob, search
from renet.prediction.image_job import Item, open_folder
from renet.prediction.prediction_job import PredictionJob

caffe = pytest.importorskip("caffe", reason="pycaffe is not built")

DEPLOY = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 scale: 0.02 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "classify" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""
COUNT = 5


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, and a folder and a split of the same images."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(3)
    (folder / "deploy.prototxt").write_text(DEPLOY)
    for name in ("net", "other"):
        blobs = [rng.normal(size=(3, 3, 3, 3)), rng.normal(size=3)]
        write_weights(folder / f"{name}.caffemodel", {"classify": blobs})
    write_dataset_json(folder / "data")
    (folder / "images").mkdir()
    samples = {}
    for number in range(COUNT):
        image = rng.integers(0, 256, (5 + number, 12, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"images/p{number}.png"), image)
        samples[f"p{number}"] = (image, rng.integers(0, 3, image.shape[:2]).astype(np.uint8))
    write_split(folder / "data/test", samples)
    return folder


def predict(
    workshop: Path, out: Path, *more: object, weights: str = "net", source: Sequence[str] = ("--split", "data/test")
):
    model = ["--model", "deploy.prototxt", "--weights", f"{weights}.caffemodel", "--dataset", "data"]
    return call_tool("predict.py", *model, *source, "--out", out, *more, cwd=workshop)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if name != "prediction.json"}


@pytest.mark.parametrize("source", [("--split", "data/test"), ("--input", "images")])
def test_parts_predict_what_one_call_does(workshop: Path, tmp_path: Path, source: tuple[str, str]) -> None:
    assert predict(workshop, tmp_path / "whole", "--probabilities", source=source).returncode == 0
    for number, images in ((3, 2), (1, 1), (2, 2)):
        done = predict(workshop, tmp_path / "x", "--probabilities", "--part", f"{number}/3", source=source)
        assert done.returncode == 0, done.stderr
        assert f"part {number}/3: {images} images" in done.stdout and f"{images} images predicted" in done.stdout
    assert files(tmp_path / "x") == files(tmp_path / "whole")
    records = [json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("x", "whole")]
    assert image_job.identity(records[0]) == image_job.identity(records[1])
    done = predict(workshop, tmp_path / "x", "--probabilities", source=source)
    assert "nothing left to do" in done.stdout
    (tmp_path / "x/p3.png").unlink()
    done = predict(workshop, tmp_path / "x", "--probabilities", "--part", "3/3", source=source)
    assert "1 of 2 images are done already" in done.stdout and files(tmp_path / "x") == files(tmp_path / "whole")


def test_more_parts_than_images_and_what_does_not_go_in_parts(workshop: Path, tmp_path: Path) -> None:
    done = predict(workshop, tmp_path / "x", "--part", "1/9")
    assert done.returncode == 0 and "part 1/9: 0 images" in done.stdout and "nothing left to do" in done.stdout
    # another network is refused even where no image is predicted yet
    said = only_line(predict(workshop, tmp_path / "x", "--part", "2/9", weights="other"), "predict.py")
    assert "holds predictions of another network" in said
    said = only_line(predict(workshop, tmp_path / "x", "--part", "2/9", "--overwrite"), "predict.py")
    assert "--part does not go with --overwrite" in said
    said = only_line(predict(workshop, tmp_path / "x", "--part", "2/9", "--comp6", tmp_path / "y"), "predict.py")
    assert "--comp6 needs all parts" in said


@pytest.mark.parametrize("quicker", ["net", "other"])
def test_of_two_parts_that_begin_at_once_one_says_what_predicts(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quicker: str
) -> None:
    def job(weights: str) -> PredictionJob:
        return PredictionJob(
            model=workshop / "deploy.prototxt",
            weights=workshop / f"{weights}.caffemodel",
            dataset=Dataset.open(workshop / "data"),
            out=tmp_path / "x",
            items=(Item("p0", index=0),),
            split=workshop / "data/test",
        )

    write_new = image_job.write_new

    def late(file: Path, content: bytes) -> bool:
        monkeypatch.setattr(image_job, "write_new", write_new)
        open_folder(job(quicker), overwrite=False, shared=True)
        return write_new(file, content)

    monkeypatch.setattr(image_job, "write_new", late)
    if quicker == "net":
        assert len(open_folder(job("net"), overwrite=False, shared=True)) == 1
    else:
        with pytest.raises(UserError, match="holds predictions of another network"):
            open_folder(job("net"), overwrite=False, shared=True)
    record = json.loads((tmp_path / "x/prediction.json").read_text())
    assert Path(record["weights"]).stem == quicker
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["prediction.json"]


# --------------------------------------------------------------------------------------------------------- crf search


class Stopped(Exception):
    pass


@pytest.fixture
def job(tmp_path: Path) -> SearchJob:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/prediction.json").write_text(json.dumps({"settings": {}, "model_sha256": "m"}))
    dataset = Dataset("x", tuple(CLASSES), np.array(PALETTE, np.uint8), (0, 0, 0), 255, {}, tmp_path)
    return SearchJob(tmp_path / "predictions", tmp_path / "split", dataset, (Item("a", index=0),), 1)


def score(parameters: CrfParameters | None) -> float:
    """Best at values that no coarse grid has."""
    if parameters is None:
        return 0.1
    wanted = {"bi_w": 7, "bi_xy_std": 45, "bi_rgb_std": 4.5, "pos_w": 2, "pos_xy_std": 4, "max_iter": 4}
    return 1 / (1 + sum(abs(np.log((getattr(parameters, name) + 1) / (value + 1))) for name, value in wanted.items()))


def test_parts_of_a_search_find_what_one_search_finds(
    job: SearchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[CrfParameters | None] = []
    limit = 10**6

    def measure(_: SearchJob, candidates: Sequence[CrfParameters | None]) -> Iterator[Result]:
        for candidate in candidates:
            if len(measured) >= limit:
                raise Stopped
            measured.append(candidate)
            yield Result(candidate, 0.5, 0.5, score(candidate))

    monkeypatch.setattr(crf_search, "measure", measure)

    def searched(folder: str, part: Part) -> Result:
        (tmp_path / folder).mkdir(exist_ok=True)
        return search(job, ResultFile(tmp_path / folder, job, part), CrfParameters(), 3, "mean_iou")

    best = searched("whole", Part())
    whole = set(measured)
    assert len(whole) == len(measured) > 60

    # each stops again and again, in turn; so each does its share first, and the others' where they do not come
    turns, ended = 0, {}
    while len(ended) < 3:
        for number in (2, 3, 1):
            part = Part(number, 3)
            measured.clear()
            limit = 7
            try:
                ended[number] = searched("x", part)
            except Stopped:
                turns += 1
    assert turns > 5 and all(result == best for result in ended.values())
    lines = {number: (tmp_path / f"x/results.{number}_of_3.jsonl").read_text().splitlines() for number in (1, 2, 3)}
    assert len({len(each) > 10 for each in lines.values()}) == 1
    assert len({line for each in lines.values() for line in each[1:]}) == len(whole)
    measured.clear()
    assert searched("x", Part()) == best and not measured

    # one alone goes to the end
    limit = 10**6
    assert searched("alone", Part(5, 8)) == best and set(measured) == whole and len(measured) == len(whole)


def test_results_of_others_are_refused_and_a_line_in_the_making_is_left_alone(job: SearchJob, tmp_path: Path) -> None:
    first, second = ResultFile(tmp_path, job, Part(1, 2)), ResultFile(tmp_path, job, Part(2, 2))
    first.add(Result(None, 0.5, 0.5, 0.5))
    file = tmp_path / "results.1_of_2.jsonl"
    cut = file.read_text() + '{"parameters": null, "pix'
    file.write_text(cut)
    second.refresh()
    assert list(second.results) == [None] and file.read_text() == cut
    other = replace(job, items=(Item("b", index=1),))
    with pytest.raises(UserError, match=r"results.1_of_2.jsonl: holds results of other predictions or images"):
        ResultFile(tmp_path, other, Part(3, 3))


def test_the_command_searches_and_runs_in_parts(workshop: Path, tmp_path: Path) -> None:
    shutil.copytree(workshop, tmp_path / "w")
    place = tmp_path / "w"
    assert predict(place, Path("plain"), "--probabilities").returncode == 0
    start = ["--predictions", "plain", "--split", "data/test", "--dataset", "data"]
    for number in (2, 1):
        done = call_tool("crf.py", "run", *start, "--out", "crf", "--part", f"{number}/2", cwd=place)
        assert done.returncode == 0, done.stderr
    assert len(list((place / "crf").glob("*.png"))) == COUNT
    search = ["search", *start, "--limit", 1, "--rounds", 1, "--processes", 1, "--out"]
    bests = []
    for folder, part in (("one", "1/1"), ("two", "2/2"), ("two", "1/2")):
        done = call_tool("crf.py", *search, folder, "--part", part, cwd=place)
        assert done.returncode == 0, done.stderr
        bests.append((place / folder / "best.prototxt").read_bytes())
    assert len(set(bests)) == 1
