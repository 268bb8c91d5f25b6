"""The report page: one file, complete, readable by machines that read aloud, and honest where something is missing."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.training.run_record import RunRecord, series
from renet.visualization.network_drawing import draw_network
from renet.visualization.page import render
from renet.visualization.page_content import Source, gather
from renet.visualization.page_pictures import draw_gallery, spread, worst_first

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Collects elements, their texts, and whether the tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_run(folder: Path, name: str, **description: object) -> Path:
    run = folder / "runs" / name
    run.mkdir(parents=True)
    lines = []
    for iteration in range(1, 41):
        loss = 2 / iteration
        lines.append(
            {"kind": "train", "iteration": iteration, "loss": loss, "learning_rate": 0.1, "seconds": iteration}
        )
        if iteration % 10 == 0:
            lines.append({"kind": "test", "iteration": iteration, "loss": loss + 0.1, "pixel_accuracy": 1 - loss,
                          "class_accuracy": 0.9 - loss, "mean_iou": 0.8 - loss})  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metadata = {
        "name": name,
        "seed": 17,
        "command": "train <fast> & well",
        "versions": {"caffe": "1.0.0"},
        **description,
    }
    (run / "run.json").write_text(json.dumps(metadata))
    (run / "deploy.prototxt").write_text('name: "<b>net</b>"')
    return run


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A split of three images, and two runs: "far" is right except in one image, "near" takes lake for leaf."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(5)
    samples = {}
    for image_id, shape in (("one", (20, 30)), ("two", (30, 20)), ("three", (11, 7))):
        truth = rng.integers(0, 3, shape).astype(np.uint8)
        truth[0, 0] = 255
        samples[image_id] = (rng.integers(0, 256, (*shape, 3)).astype(np.uint8), truth)
    write_split(folder / "data/fold0/test", samples)
    write_dataset_json(folder / "data", distant_context_classes=["leaf", "lake"])
    for name in ("far", "near"):
        run = write_run(folder, name)
        for image_id, (_, truth) in samples.items():
            prediction = np.where(truth == 255, 0, truth)
            if name == "far" and image_id == "two":
                prediction[:10] = 0
            if name == "near":
                prediction[prediction == 2] = 1
            save_labels(run / "predictions" / f"{image_id}.png", prediction)
    return folder


def report(workshop: Path, out: Path, *arguments: object):
    return call_tool("report.py", *arguments, "--out", out, cwd=workshop)


@pytest.fixture(scope="module")
def comparison(workshop, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "deep/page.html"
    result = report(workshop, out, "--run", "runs/far", "--run", "runs/near", "--labels", "data/fold0/test")
    assert result.returncode == 0, result.stderr
    return out.read_text()


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def image_scores(text: str) -> dict:
    """What the page sorts and filters by."""
    return json.loads(text.split('id="image-scores">')[1].split("</script>")[0])


class TestComparison:
    def test_one_file_without_requests(self, comparison):
        page = Page(comparison)
        sources = [
            v for _, attributes in page.elements for k, v in attributes.items() if k in ("src", "href", "xlink:href")
        ]
        assert sources and all(value.startswith(("data:", "#")) for value in sources)
        without_data = re.sub(r"data:[^\"]*", "", comparison)
        without_data = without_data.replace("http-equiv=", "")
        assert "http" not in without_data and "@import" not in without_data and "url(//" not in without_data

    def test_accessible(self, comparison):
        page = Page(comparison)
        assert page.of("html")[0]["lang"] == "en"
        assert all(image["alt"] and image["loading"] == "lazy" and image["width"] for image in page.of("img"))
        assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.of("svg"))
        assert all(header["scope"] in ("col", "row", "rowgroup") for header in page.of("th"))
        headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert headings.count(1) == 1 and headings[0] == 1
        assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
        identities = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
        assert len(identities) == len(set(identities))
        targets = [link["href"][1:] for link in page.of("a")]
        assert set(targets) <= set(identities)
        assert "prefers-color-scheme: dark" in comparison

    def test_scores(self, comparison, workshop):
        entries = gather(
            [Source(workshop / "runs" / name, is_run=True) for name in ("far", "near")],
            workshop / "data/fold0/test",
            Dataset.open(workshop / "data"),
        )  # fmt: skip
        rows = Page(comparison).rows
        for entry in entries:
            own = entry.evaluation.scores
            expected = [f"{100 * value:.1f}" for value in (own.pixel_accuracy, own.class_accuracy, own.mean_iou)]
            assert [entry.name, "3 images of fold0/test", *expected] in [[c.strip() for c in row] for row in rows]
        assert entries[0].evaluation.scores.mean_iou > entries[1].evaluation.scores.mean_iou

    def test_intervals_stand_below_the_scores(self, comparison, workshop):
        split, dataset = workshop / "data/fold0/test", Dataset.open(workshop / "data")
        (entry,) = gather([Source(workshop / "runs/near", is_run=True)], split, dataset)
        intervals = entry.evaluation.intervals()
        bounds = [intervals[name] for name in ("pixel_accuracy", "class_accuracy", "mean_iou")]
        expected = [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in bounds]
        rows = [[cell.strip() for cell in row] for row in Page(comparison).rows]
        place = next(n for n, row in enumerate(rows) if row[0] == "near" and row[1].startswith("3 images"))
        assert rows[place + 1] == ["95% interval", "bootstrap over the images", *expected]

    def test_classes_of_distant_context_stand_first_in_a_group_of_their_own(self, comparison):
        names = [row[0].strip() for row in Page(comparison).rows]
        start = names.index("Told apart by distant context only")
        tail = ["leaf", "lake", "mean of these", "Other classes", "brick", "mean of these", "mean IoU"]
        assert names[start + 1 : start + 8] == tail
        assert 'class="highlight"' in comparison
        row = next(row for row in Page(comparison).rows if row[0].strip() == "lake")
        assert row[2].strip() == "0.0" and float(row[3]) == pytest.approx(float(row[1]), abs=0.11)

    def test_pictures_worst_first_with_the_right_pixels(self, comparison, workshop):
        page = Page(comparison)
        alts = [image["alt"] for image in page.of("img")]
        assert len(alts) == 3 * 6
        assert alts[0] == "Test image two"
        with Image.open(workshop / "runs/near/predictions/two.png") as file:
            assert np.array_equal(np.array(decoded(page.of("img")[4]["src"])), np.array(file))
        assert decoded(page.of("img")[0]["src"]).size == (20, 30)
        positions = [item["data-position"] for item in page.of("li") if "data-position" in item]
        accuracies = [image_scores(comparison)[position]["accuracy"][0] for position in positions]
        assert positions[0] == "1" and accuracies == sorted(accuracies)

    def test_errors_are_red_where_the_labels_differ_from_the_truth(self, comparison, workshop):
        page = Page(comparison)
        truth, far, errors = (np.array(decoded(page.of("img")[number]["src"])) for number in (1, 2, 3))
        wrong, unlabelled = (truth != far) & (truth != 255), truth == 255
        assert wrong.any() and unlabelled.any()
        marks = np.array(decoded(page.of("img")[3]["src"]).convert("RGBA"))
        assert errors.shape == truth.shape
        assert (marks[wrong] == (229, 23, 63, 255)).all()
        assert (marks[~wrong & ~unlabelled][:, 3] == 0).all()
        assert (marks[unlabelled] == (128, 128, 128, 140)).all()

    def test_confusions_are_told_in_numbers_and_words(self, comparison):
        page = Page(comparison)
        rows = [[cell.strip() for cell in row] for row in page.rows]
        lake = [row for row in rows if row[0] == "lake" and len(row) == 5]
        assert len(lake) == 2  # one matrix each; "near" takes all lake for leaf
        assert lake[1][1:4] == ["0", "100", "0"]
        assert "near: lake as leaf 100" in comparison.replace("&thinsp;", " ")

    def test_what_was_run_is_told_and_escaped(self, comparison):
        assert "train &lt;fast&gt; &amp; well" in comparison
        assert "&lt;b&gt;net&lt;/b&gt;" in comparison and "<b>net" not in comparison
        assert "caffe 1.0.0" in comparison

    def test_curves_follow_the_theme(self, comparison):
        assert len(Page(comparison).of("svg")) == 3
        assert "var(--series-2)" in comparison and "currentColor" in comparison
        assert "#0102" not in comparison and "#0708" not in comparison


class TestParts:
    def test_a_run_without_predictions(self, workshop, tmp_path):
        run = write_run(tmp_path, "alone")
        result = report(workshop, tmp_path / "page.html", "--run", run)
        assert result.returncode == 0, result.stderr
        page = Page((tmp_path / "page.html").read_text())
        assert len(page.of("svg")) == 3 and not page.of("img") and not page.of("table")

    def test_the_network_is_drawn(self, workshop, tmp_path):
        run = write_run(tmp_path, "drawn")
        layers = ('name: "input" type: "Input" top: "data"', 'name: "h<w>" type: "ReLU" bottom: "data" top: "r"')
        (run / "deploy.prototxt").write_text("".join(f"layer {{ {layer} }}" for layer in layers))
        assert report(workshop, tmp_path / "page.html", "--run", f"my net={run}").returncode == 0
        page = Page((tmp_path / "page.html").read_text())
        (drawing,) = [svg for svg in page.of("svg") if svg["aria-label"] == "Drawing of the network my net"]
        assert float(drawing["width"]) > 50 and float(drawing["height"]) > 100
        assert any("ReLU" in text for text in page.texts) and "my net" in page.texts
        identities = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
        assert len(identities) == len(set(identities))

    def test_a_network_of_an_older_caffe_is_drawn(self):
        text = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4 layers { name: "r" type: RELU '
        drawing = draw_network(text + 'bottom: "data" top: "r" }', "old")
        assert drawing is not None and "ReLU" in drawing and "Input" in drawing

    def test_what_is_no_network_is_told_in_place_of_its_drawing(self, workshop, tmp_path):
        run = write_run(tmp_path, "torn")
        (run / "deploy.prototxt").write_text("layer { nonsense }")
        assert report(workshop, tmp_path / "page.html", "--run", run).returncode == 0
        assert "The network is not drawn: not a network description" in (tmp_path / "page.html").read_text()

    def test_a_run_with_evaluation_only(self, workshop, tmp_path):
        run = write_run(tmp_path, "scored")
        result = call_tool(
            "evaluate.py", "--predictions", "runs/far/predictions", "--labels", "data/fold0/test",
            "--dataset", "data/dataset.json", "--json", run / "evaluation.json", cwd=workshop,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert report(workshop, tmp_path / "page.html", "--run", run).returncode == 0
        rows = Page((tmp_path / "page.html").read_text()).rows
        assert any(row[0].strip() == "scored" and row[1].strip() == "3 images" for row in rows)
        assert [name for name in CLASSES if any(row[0].strip() == name for row in rows)] == CLASSES

    def test_scores_along_boundaries(self, workshop, tmp_path):
        words = ("--predictions", "a=runs/far/predictions", "--predictions", "b=runs/near/predictions")
        words += ("--labels", "data/fold0/test", "--boundaries", 0.02)
        result = report(workshop, tmp_path / "page.html", *words)
        assert result.returncode == 0, result.stderr
        text = (tmp_path / "page.html").read_text()
        page = Page(text)
        (drawing,) = page.of("svg")
        assert drawing["aria-label"] == "Scores against the distance from boundaries"
        sources = [Source(workshop / f"runs/{name}/predictions", is_run=False) for name in ("far", "near")]
        entries = gather(sources[:1], workshop / "data/fold0/test", Dataset.open(workshop / "data"), 0.02)
        f = entries[0].evaluation.boundaries.scores()["boundary_f"]
        told = text.replace("&thinsp;", " ")
        assert f"Boundary F of a: {100 * f:.1f} %." in told and "Boundary F of b: " in told
        assert "with 95% intervals" in told
        line = only_line(report(workshop, tmp_path / "page.html", *words[:-1], 2), "report.py")
        assert "is not a number in [0, 1)" in line

    def test_predictions_without_a_run(self, workshop, tmp_path):
        result = report(
            workshop, tmp_path / "page.html", "--predictions", "mine & yours=runs/far/predictions",
            "--labels", "data/fold0/test", "--images", 2,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        text = (tmp_path / "page.html").read_text()
        page = Page(text)
        assert "mine &amp; yours" in text and len(page.of("img")) == 2 * 4
        assert "2 of the 3 test images" in text and not page.of("svg")

    def test_the_papers_figures_stand_beside(self, workshop):
        dataset = Dataset.open(workshop / "data")
        stanford = Dataset(**{**dataset.__dict__, "name": "stanford_background"})
        split = workshop / "data/fold0/test"
        rows = Page(render(gather([Source(workshop / "runs/far", is_run=True)], split, stanford), split, stanford)).rows
        cells = [[cell.strip() for cell in row] for row in rows]
        assert ["Paper: N-ReNet", "Table 1, mean of 5 folds", "80.4", "71.8", "–"] in cells
        assert any(row[0] == "Authors' notebook of 2015" and row[2:] == ["79.35", "69.36", "–"] for row in cells)

    def test_large_pictures_are_shrunk_alike(self, tmp_path):
        truth = np.repeat(np.arange(3, dtype=np.uint8), 400)[None].repeat(600, axis=0)
        write_split(tmp_path / "data/test", {"big": (np.zeros((600, 1200, 3), np.uint8), truth)})
        write_dataset_json(tmp_path / "data")
        save_labels(tmp_path / "p/big.png", truth)
        result = report(tmp_path, "page.html", "--predictions", "p", "--labels", "data/test")
        assert result.returncode == 0, result.stderr
        images = Page((tmp_path / "page.html").read_text()).of("img")
        assert [decoded(image["src"]).size for image in images] == [(480, 240)] * 4
        assert np.array_equal(np.array(decoded(images[1]["src"]))[0, ::160], [0, 1, 2])

    def test_bad_input_is_named(self, workshop, tmp_path):
        (workshop / "empty").mkdir(exist_ok=True)
        cases = [
            ((), "nothing to report"),
            (("--run", "nowhere"), "nowhere: no such run folder"),
            (("--run", "empty"), "empty: not a run folder"),
            (("--predictions", "runs/far/predictions"), "--labels is needed"),
            (("--run", "runs/far", "--predictions", "far=x", "--labels", "data/fold0/test"), "x: no such folder"),
            (("--run", "runs/far", "--run", "far=runs/near"), "two columns are called far"),
            (("--run", "runs/far", "--images", "-1"), "--images"),
            (("--predictions", "empty", "--labels", "data/fold0/test"), "empty: no label PNG in it"),
        ]
        for arguments, message in cases:
            assert message in only_line(report(workshop, tmp_path / "page.html", *arguments), "report.py")
        assert not (tmp_path / "page.html").exists()


class TestBudget:
    def test_beyond_it_the_pictures_lie_beside_the_page(self, workshop, tmp_path):
        arguments = ("--predictions", "runs/far/predictions", "--labels", "data/fold0/test")
        page = tmp_path / "my page.html"
        result = report(workshop, page, *arguments, "--budget", 0.001)
        assert result.returncode == 0 and "my page_files" in result.stdout, result.stderr
        images = Page(page.read_text()).of("img")
        sources = {image["src"] for image in images}
        assert len(sources) == 3 * 4 and all(source.startswith("my%20page_files/") for source in sources)
        assert {file.name for file in (tmp_path / "my page_files").iterdir()} == {s.split("/")[1] for s in sources}
        assert "move both together" in page.read_text()
        assert report(workshop, page, *arguments, "--budget", 0.001, "--images", 1).returncode == 0
        assert len(list((tmp_path / "my page_files").iterdir())) == 4
        assert report(workshop, page, *arguments).returncode == 0
        assert not (tmp_path / "my page_files").exists() and "data:image/png" in page.read_text()

    def test_what_is_not_the_pages_own_is_left_alone(self, workshop, tmp_path):
        (tmp_path / "page_files").mkdir()
        (tmp_path / "page_files/thesis.txt").write_text("mine")
        result = report(
            workshop, tmp_path / "page.html", "--predictions", "runs/far/predictions", "--labels", "data/fold0/test"
        )
        assert "thesis.txt is in the way" in only_line(result, "report.py")
        assert (tmp_path / "page_files/thesis.txt").read_text() == "mine"


class TestRunRecord:
    def test_a_torn_last_line_and_repeated_iterations(self, tmp_path):
        run = write_run(tmp_path, "torn")
        with (run / "metrics.jsonl").open("a") as metrics:
            metrics.write('{"kind": "train", "iteration": 40, "loss": 9.0}\n{"kind": "train", "iter')
        record = RunRecord.load(run)
        assert [line["iteration"] for line in record.training] == list(range(1, 41))
        assert record.training[-1]["loss"] == 9.0
        assert [line["iteration"] for line in record.testing] == [10, 20, 30, 40]

    def test_a_damaged_line_in_the_middle_is_named(self, tmp_path):
        run = write_run(tmp_path, "damaged")
        text = (run / "metrics.jsonl").read_text()
        (run / "metrics.jsonl").write_text("{\n" + text)
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 1 is damaged"):
            RunRecord.load(run)

    def test_what_is_not_finite_is_left_out_of_curves(self):
        lines = [{"iteration": 1, "loss": float("nan")}, {"iteration": 2, "loss": 3.0}, {"iteration": 3}]
        assert series(lines, "loss") == ([2.0], [3.0])


def test_spread_keeps_the_ends():
    assert spread("abcdefg", 3) == ["a", "d", "g"]
    assert spread("ab", 5) == ["a", "b"]


def test_images_that_cannot_be_scored_come_last(tmp_path):
    truth = {"blank": np.full((2, 2), 255, np.uint8), "wrong": np.zeros((2, 2), np.uint8)}
    write_split(tmp_path / "data/test", {name: (np.zeros((2, 2, 3), np.uint8), label) for name, label in truth.items()})
    write_dataset_json(tmp_path / "data")
    for name in truth:
        save_labels(tmp_path / "p" / f"{name}.png", np.ones((2, 2)))
    dataset = Dataset.open(tmp_path / "data")
    entries = gather([Source(tmp_path / "p", is_run=False)], tmp_path / "data/test", dataset)
    assert worst_first(entries[0]) == ["wrong", "blank"]
    gallery = draw_gallery(entries, tmp_path / "data/test", dataset)
    assert "Labels of blank predicted by p" in render(entries, tmp_path / "data/test", dataset, gallery)
