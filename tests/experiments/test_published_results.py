"""docs/results.md and docs/results.json, and tools/results.py, which adds to both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json

from renet.common.errors import UserError
from renet.evaluation.scores import Evaluation, ImageResult
from renet.experiments.published_results import DOCUMENTS, FILE, PAGE, Results, figure_of_run

ROW = "ours"
DESCRIPTION = {
    "tables": {
        "first": {
            "columns": [{"measure": "mean_iou", "bold": True}, {"iou": ["leaf", "lake"], "title": "both"}],
            "published": {"theirs": "Paper: N-ReNet"},
            "published_dataset": "stanford_background",
            "paper": {ROW: ["table4", "b"]},
            "paper_title": "the paper's",
        },
        "gains": {"columns": [{"difference": "pixel_accuracy", "title": "gain"}, {"regions": "16% and more"}]},
        "second": {"columns": [{"measure": "loss"}, {"measure": "class_accuracy"}], "classes_down": True},
    },
    "figures": [
        {"table": "first", "row": "another", "seed": [0, 1], "mean_iou": 0.5555},
        {"table": "first", "row": "another", "seed": 0, "mean_iou": 0.551, "iou": {"leaf": 0.25, "lake": 0.5}},
        {"table": "first", "row": "another", "seed": 1, "mean_iou": 0.562},
        {"table": "second", "row": "low", "loss": 0.125},
        {"table": None, "row": "told in the text", "mean_iou": 0.1},
    ],
}
BLOCKS = """\
# Page

<!-- results: first -->
<!-- end of results -->

<!-- results: gains -->
<!-- end of results -->

Text.
<!-- results: second -->
<!-- end of results -->
"""
FIRST = """\
|  | mean IoU % | both | the paper's |
| --- | ---: | ---: | ---: |
| another | **55.5** (55.1, 56.2) | 37.5 | – |
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / FILE).write_text(json.dumps(DESCRIPTION))
    (folder / PAGE).write_text(BLOCKS)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a fold, scored without and with the CRF."""
    folder = tmp_path / "runs" / "fcn_seed3"
    metadata = {
        "name": "fcn_seed3", "model": "fcn_rf604_things", "seed": 3, "iteration": 40, "gpu": None, "seconds": 12.5,
        "commit": "abc", "machine": {"processor": "a processor"},
        "command": "python /somewhere/else/tools/train.py --solver /somewhere/else/runs/solver.prototxt",
    }  # fmt: skip
    for name, crf in (("predictions", None), ("predictions_crf", {"max_iter": 2})):
        settings = {"image_scale": 1.0, "flip": True, "scales": [0.5, 1.0], "crf": crf}
        record = {"weights": "runs/x_iter_20.caffemodel", "settings": settings, "seconds_per_image": 0.25}
        (folder / name).mkdir(parents=True)
        (folder / name / "prediction.json").write_text(json.dumps(record))
    (folder / "run.json").write_text(json.dumps(metadata))
    (folder / "train_val.prototxt").write_text('source: "data/things/fold2/train"\nsource: "data/things/fold2/test"\n')
    truth = np.array([[0, 0, 1, 1], [2, 2, 2, 255]], np.uint8)
    for name, prediction in (("evaluation", np.zeros_like(truth)), ("evaluation_crf", truth % 3)):
        result = ImageResult.of("one", Path(), (truth, prediction), 3, 255, None)
        content = {"dataset": "things", **Evaluation.of([result], CLASSES).as_json(with_images=True)}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def add(documents: Path, run: Path, *more: object) -> Any:
    return call_tool("results.py", "--documents", documents, "--add", run, *more, cwd=documents)


def test_the_page_is_what_its_json_says() -> None:
    results = Results.read(DOCUMENTS / FILE)
    page = (DOCUMENTS / PAGE).read_text(encoding="utf-8")
    assert results.filled(page) == page
    assert {figure.table for figure in results.figures} >= set(results.tables)


def test_the_json_is_written_as_it_lies_there(tmp_path: Path) -> None:
    Results.read(DOCUMENTS / FILE).write(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == (DOCUMENTS / FILE).read_bytes()


def test_tables(documents: Path) -> None:
    """A given mean goes before that of rounded figures; what is not known is a dash."""
    results = Results.read(documents / FILE)
    assert results.table_text("first") == FIRST + "| theirs | – | – | – |\n"
    assert results.table_text("second") == "|  | low |\n| --- | ---: |\n| loss | 0.12 |\n| class accuracy % | – |\n"


def test_a_run_is_collected(run: Path) -> None:
    figure = figure_of_run(run, "first", ROW)
    told = {
        "run": "fcn_seed3", "model": "fcn_rf604", "dataset": "things", "fold": "fold2", "seed": 3, "iteration": 20,
        "images": 1, "size": "full", "flip": True, "scales": [0.5, 1.0], "crf": None, "device": "cpu",
        "machine": "a processor", "seconds": 12.5, "seconds_an_image": 0.25, "commit": "abc",
        "command": "python tools/train.py --solver runs/solver.prototxt",
    }  # fmt: skip
    assert {name: getattr(figure, name) for name in told} == told
    assert (figure.pixel_accuracy, figure.mean_iou) == (pytest.approx(2 / 7), pytest.approx(2 / 21))
    assert figure.iou == {"brick": pytest.approx(2 / 7), "leaf": 0.0, "lake": 0.0}
    with_crf = figure_of_run(run, "first", ROW, run / "evaluation_crf.json")
    assert (with_crf.crf, with_crf.mean_iou) == ({"max_iter": 2}, 1.0)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("python tools/train.py --solver a/solver.prototxt --weights b.h5", None),
        (
            "python /home/me/renet/tools/train.py --run /disk/x/fcn/ --solver /disk/x/fcn/network/solver.prototxt",
            "python tools/train.py --run runs/fcn_seed3 --solver runs/fcn_seed3/network/solver.prototxt",
        ),
        (
            "/opt/venv/bin/renet-train --solver='/a b/solver.prototxt' --weights=/models/vgg16.caffemodel",
            "renet-train --solver=solver.prototxt --weights=vgg16.caffemodel",
        ),
    ],
)
def test_a_command_has_no_path_of_a_machine(run: Path, typed: str, kept: str | None) -> None:
    metadata = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(metadata | {"command": typed}))
    assert figure_of_run(run, "first", ROW).command == (kept or typed)


def test_a_command_has_the_switches_of_caffe(run: Path) -> None:
    metadata = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(metadata | {"switches": {"CAFFE_ALLOW_BF16": "1"}}))
    figure = figure_of_run(run, "first", ROW)
    assert figure.command == "CAFFE_ALLOW_BF16=1 python tools/train.py --solver runs/solver.prototxt"


def test_a_run_is_added_once(documents: Path, run: Path) -> None:
    for evaluation in ("evaluation.json", "evaluation_crf.json"):
        done = add(documents, run, "--table", "first", "--row", ROW, "--evaluation", run / evaluation)
        assert done.returncode == 0, done.stderr
    page = (documents / PAGE).read_text()
    assert "| another | 55.5 (55.1, 56.2) | 37.5 | – |\n| ours | **100.0** | 100.0 | 70.0 |\n| theirs |" in page
    results = Results.read(documents / FILE)
    assert len(results.figures) == len(DESCRIPTION["figures"]) + 1
    assert results.filled(page) == page and "Text." in page
    done = call_tool("results.py", "--documents", documents, cwd=documents)
    assert done.returncode == 0 and (documents / PAGE).read_text() == page


def test_folds_of_a_row_become_its_mean(documents: Path, run: Path) -> None:
    """All folds may have one seed; a fold that is there already is replaced."""
    results = Results.read(documents / FILE)
    for fold, score in (("fold0", 0.5), ("fold2", 0.25), ("fold2", 0.75)):
        results = results.with_figure(replace(figure_of_run(run, "first", ROW), fold=fold, mean_iou=score))
    assert f"| {ROW} | **62.5** (50.0, 75.0) | 0.0 (0.0, 0.0) | 70.0 |" in results.table_text("first")


def test_a_comparison_is_added_with_its_intervals(documents: Path, run: Path) -> None:
    """The second image is right in one run and wrong in the other; regions of 1/4 and of 3/4 of an image."""
    truth = np.zeros((8, 8), np.uint8)
    truth[:, :2] = 1
    other = run.with_name("fcn_deeper")
    predictions = run / "predictions", other / "predictions"
    for folder, second in zip((documents / "truth", *predictions), (truth, truth, np.zeros_like(truth))):
        folder.mkdir(parents=True, exist_ok=True)
        for name, labels in (("one", truth), ("two", second)):
            save_labels(folder / f"{name}.png", labels)
    evaluation = run / "evaluation_over_fcn_deeper.json"
    write_dataset_json(documents)
    words = ("--predictions", predictions[0], "--labels", documents / "truth", "--dataset", documents)
    words += ("--compare", predictions[1], "--by-size", "--json", evaluation)
    done = call_tool("evaluate.py", *words, cwd=documents)
    assert done.returncode == 0, done.stderr
    done = add(documents, run, "--table", "gains", "--row", ROW, "--evaluation", evaluation)
    assert done.returncode == 0, done.stderr
    figure = Results.read(documents / FILE).figures[-1]
    assert (figure.compared_with, figure.mean_iou) == ("fcn_deeper/predictions", 1.0)
    assert (figure.iteration, figure.flip, figure.seconds_an_image) == (20, True, 0.25)  # of the predictions
    assert figure.mean_iou_by_size == {"below 1%": None, "1 to 4%": None, "4 to 16%": None, "16% and more": 1.0}
    assert set(figure.differences) == {"pixel_accuracy", "class_accuracy", "mean_iou", "16% and more"}
    found = figure.differences["pixel_accuracy"]
    assert (found.value, found.low, found.high) == (pytest.approx(0.125), 0.0, 0.25)
    table = "|  | gain | 16% and more |\n| --- | ---: | ---: |\n| ours | +12.5 (+0.0 to +25.0) | 100.0 |\n"
    assert table in (documents / PAGE).read_text()


def test_bad_input_is_one_line_and_changes_nothing(documents: Path, run: Path) -> None:
    before = (documents / FILE).read_text(), (documents / PAGE).read_text()
    for words, message in (
        (("--table", "third", "--row", ROW), "no table 'third' in results.json; there are first, gains, second"),
        (("--table", "first"), "--add needs --row"),
        (("--row", ROW, "--evaluation", run / "none.json"), "none.json: no such file; tools/evaluate.py --json"),
    ):
        assert message in only_line(add(documents, run, *words), "results.py")
    assert "not a run folder" in only_line(add(documents, documents, "--row", ROW), "results.py")
    (run / "evaluation.json").write_text("{}")
    assert "evaluation.json: not an evaluation" in only_line(add(documents, run, "--row", ROW), "results.py")
    content = json.loads((run / "evaluation_crf.json").read_text()) | {"sizes": {"shares": [0.5]}}
    (run / "evaluation.json").write_text(json.dumps(content))
    assert "evaluation.json: not an evaluation: 'size_mean_iou' is missing" in only_line(
        add(documents, run, "--row", ROW), "results.py"
    )
    alone = call_tool("results.py", "--documents", documents, "--row", ROW, cwd=documents)
    assert "go with --add" in only_line(alone, "results.py")
    assert ((documents / FILE).read_text(), (documents / PAGE).read_text()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": {}}, "a figure of the table 'first', which is not described"),
        ({"figures": [{"table": None, "row": "a", "score": 1}]}, "no tables and figures of results"),
        ({"figures": 3}, "no tables and figures of results"),
    ],
)
def test_damaged_json_is_told(documents: Path, change: dict[str, Any], message: str) -> None:
    (documents / FILE).write_text(json.dumps(DESCRIPTION | change))
    with pytest.raises(UserError, match=message):
        Results.read(documents / FILE)


def test_a_page_without_a_table_is_told(documents: Path) -> None:
    (documents / PAGE).write_text(BLOCKS.replace("results: second", "results: secnd"))
    done = call_tool("results.py", "--documents", documents, cwd=documents)
    assert "results.md: one block each of first, gains, second expected; look at secnd, second" in only_line(
        done, "results.py"
    )
