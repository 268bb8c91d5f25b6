"""The dense CRF through the tools: predict.py --crf, crf.py run and search, and bad parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import call_tool, only_line, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.prediction.crf_parameters import NORMALIZATIONS, CrfParameters, parameters_of, read_crf_parameters
from renet.prediction.crf_search import COARSE_BILATERAL, best_of, count_pixels, grid, open_job, spread, stages
from renet.prediction.crf_search_chart import readable_ticks

caffe = pytest.importorskip("caffe", reason="pycaffe is not built")

COUNT = 4
DEPLOY = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 scale: 0.02 }
        input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 1 } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three flat coloured regions with noise over them, so that a pixel's own colour often misleads."""
    rng = np.random.default_rng(seed)
    height, width = 37 + seed, 53 - seed
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 3 :] = 1
    labels[height // 2 :, width // 2 :] = 2
    image = np.eye(3)[labels] * 60 + 90 + rng.normal(0, 22, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A network that labels each pixel by its colour, and its probabilities of a labelled split."""
    folder = tmp_path_factory.mktemp("crf")
    (folder / "deploy.prototxt").write_text(DEPLOY)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    net.params["scores"][0].data[...] = np.eye(3).reshape(3, 3, 1, 1)
    net.params["scores"][1].data[...] = 0
    net.save(str(folder / "net.caffemodel"))
    write_dataset_json(folder / "data")
    samples = {f"scene{seed}": scene(seed) for seed in range(COUNT)}
    write_split(folder / "data/val", samples)
    (folder / "pictures").mkdir()
    for image_id, (image, _) in samples.items():
        cv2.imwrite(str(folder / f"pictures/{image_id}.png"), image)
    assert predict(folder, "plain", "--probabilities").returncode == 0
    (folder / "strong.prototxt").write_text(
        "dense_crf_param { max_iter: 3 pos_w: 2 pos_xy_std: 2 bi_w: 4 bi_xy_std: 20 bi_rgb_std: 40 }"
    )
    return folder


def predict(workshop: Path, out: str | Path, *more: object):
    return call_tool(
        "predict.py", "--model", "deploy.prototxt", "--weights", "net.caffemodel", "--split", "data/val",
        "--out", out, *more, cwd=workshop,
    )  # fmt: skip


def crf(workshop: Path, command: str, out: Path, *more: object, predictions: object = "plain"):
    return call_tool(
        "crf.py", command, "--predictions", predictions, "--split", "data/val", "--out", out, *more, cwd=workshop
    )


def accuracy(folder: Path) -> float:
    right = [np.array(Image.open(folder / f"scene{seed}.png")) == scene(seed)[1] for seed in range(COUNT)]
    return float(np.mean(np.concatenate([each.ravel() for each in right])))


def test_predict_with_a_crf_and_crf_run_agree_and_are_better(workshop, tmp_path):
    result = predict(workshop, tmp_path / "direct", "--crf", "strong.prototxt", "--probabilities")
    assert result.returncode == 0, result.stderr
    result = crf(workshop, "run", tmp_path / "later", "--crf", "strong.prototxt", "--probabilities", "--overlay")
    assert result.returncode == 0, result.stderr
    assert "4 images predicted" in result.stdout and "3 iterations" in result.stdout
    for seed in range(COUNT):
        direct, later = (
            np.load(tmp_path / f"{name}/probabilities/scene{seed}.npz")["probabilities"].astype(np.float32)
            for name in ("direct", "later")
        )
        assert direct.shape == (3, *scene(seed)[1].shape)
        assert np.abs(direct.sum(axis=0) - 1).max() < 2e-3
        assert np.abs(direct - later).max() < 2e-2  # the saved probabilities are float16
        assert (tmp_path / f"later/overlay/scene{seed}.jpg").is_file()
    assert accuracy(tmp_path / "later") > accuracy(workshop / "plain") + 0.03
    for name in ("direct", "later"):
        record = json.loads((tmp_path / name / "prediction.json").read_text())
        assert record["settings"]["crf"]["bi_rgb_std"] == 40 and record["timed_images"] == COUNT


def test_the_layer_sees_the_picture_as_pixels(workshop, tmp_path):
    """DenseCrf equals the layer at the end of the network, which gets the transformed picture."""
    from renet.prediction.crf_inference import DenseCrf

    image = scene(1)[0]
    parameters = CrfParameters(bi_rgb_std=30)
    text = DEPLOY[: DEPLOY.index('layer { name: "prob"')] + (
        'layer { name: "crf" type: "DenseCRF" bottom: "scores" bottom: "data" top: "prob" '
        + parameters.as_prototxt().replace("max_iter", "mean_value: 100 scale: 0.02 max_iter")
        + "}"
    )
    (tmp_path / "deploy_crf.prototxt").write_text(text)
    net = caffe.Net(str(tmp_path / "deploy_crf.prototxt"), caffe.TEST)
    net.copy_from(str(workshop / "net.caffemodel"))
    net.blobs["data"].reshape(1, 3, *image.shape[:2])
    net.blobs["data"].data[0] = ((image.astype(np.float32) - 100) * np.float32(0.02)).transpose(2, 0, 1)
    expected = net.forward()["prob"][0].copy()
    scores = net.blobs["scores"].data[0]
    probabilities = np.exp(scores - scores.max(axis=0))
    probabilities /= probabilities.sum(axis=0)
    assert np.abs(DenseCrf(3, parameters).apply(probabilities, image) - expected).max() < 1e-3
    result = call_tool(
        "predict.py", "--model", tmp_path / "deploy_crf.prototxt", "--weights", "net.caffemodel", "--split",
        "data/val", "--out", tmp_path / "out", cwd=workshop,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_run_goes_on_and_keeps_settings_apart(workshop, tmp_path):
    out = tmp_path / "out"
    assert crf(workshop, "run", out, "--bi-rgb-std", 30).returncode == 0
    (out / "scene2.png").unlink()
    result = crf(workshop, "run", out, "--bi-rgb-std", 30)
    assert "3 of 4 images are done already" in result.stdout and "1 images predicted" in result.stdout
    assert "nothing left to do" in crf(workshop, "run", out, "--bi-rgb-std", 30).stdout
    message = only_line(crf(workshop, "run", out, "--bi-rgb-std", 31), "crf.py")
    assert "with other settings" in message
    assert crf(workshop, "run", out, "--bi-rgb-std", 31, "--overwrite", "--processes", 1).returncode == 0
    message = only_line(crf(workshop, "run", tmp_path / "twice", predictions=out), "crf.py")
    assert "after a CRF already" in message
    files = call_tool(
        "crf.py", "run", "--predictions", "plain", "--input", "pictures", "--dataset", "data/dataset.json",
        "--bi-rgb-std", 31, "--out", tmp_path / "files", cwd=workshop,
    )  # fmt: skip
    assert files.returncode == 0, files.stderr
    assert (tmp_path / "files/scene1.png").read_bytes() == (out / "scene1.png").read_bytes()


def test_search_on_images_that_were_learnt_is_told(workshop, tmp_path):
    """The weights in a run's folder, which has learnt from two of the four images and was tested on all."""
    run = tmp_path / "run"
    (run / "snapshots").mkdir(parents=True)
    weights = run / "snapshots" / "net_iter_1.caffemodel"
    weights.write_bytes((workshop / "net.caffemodel").read_bytes())
    write_split(tmp_path / "learnt", {f"scene{seed}": scene(seed) for seed in (1, 3)})
    layer = 'layer {{ name: "data" type: "SegmentationData" top: "data" top: "label" include {{ phase: {} }} ' \
        'segmentation_data_param {{ source: "{}" }} }}\n'  # fmt: skip
    sources = {"TRAIN": tmp_path / "learnt", "TEST": workshop / "data/val"}
    (run / "train_val.prototxt").write_text("".join(layer.format(*each) for each in sources.items()))
    predicted = call_tool(
        "predict.py", "--model", "deploy.prototxt", "--weights", weights, "--split", "data/val", "--probabilities",
        "--out", run / "predictions", cwd=workshop,
    )  # fmt: skip
    assert predicted.returncode == 0, predicted.stderr
    result = crf(workshop, "search", tmp_path / "search", "--rounds", 1, predictions=run / "predictions")
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("crf.py: ")]
    assert len(told) == 1 and told[0].startswith(f"crf.py: {run} has learnt from 2 of these 4 images")
    sources["TRAIN"] = tmp_path / "gone"
    (run / "train_val.prototxt").write_text("".join(layer.format(*each) for each in sources.items()))
    result = crf(workshop, "search", tmp_path / "search", "--rounds", 1, predictions=run / "predictions")
    assert result.returncode == 0 and "has learnt" not in result.stderr


def test_search_finds_a_better_setting_and_goes_on(workshop, tmp_path):
    out = tmp_path / "search"
    result = crf(workshop, "search", out, "--rounds", 2, "--limit", 3)
    assert result.returncode == 0, result.stderr
    lines = (out / "results.jsonl").read_text().splitlines()
    first, *results = map(json.loads, lines)
    assert first["images"] == 3 and results[0]["parameters"] is None
    best = max(results[1:], key=lambda r: r["mean_iou"])
    assert best["mean_iou"] > results[0]["mean_iou"] + 0.02 and best["mean_iou"] > results[1]["mean_iou"]
    found = read_crf_parameters(out / "best.prototxt")
    of_found = next(r for r in results if r["parameters"] is not None and CrfParameters(**r["parameters"]) == found)
    assert of_found["mean_iou"] == best["mean_iou"]
    assert "# without CRF" in (out / "best.prototxt").read_text()
    with Image.open(out / "search.png") as picture:
        assert picture.width > 500
    # killed in the midst of a line: that candidate alone is measured again
    kept = "\n".join(lines[:-1]) + "\n"
    (out / "results.jsonl").write_text(kept + lines[-1][:20])
    before = (out / "best.prototxt").read_bytes()
    result = crf(workshop, "search", out, "--rounds", 2, "--limit", 3)
    assert result.returncode == 0, result.stderr
    assert f"{len(results) - 1} candidates are measured already" in result.stdout
    assert (out / "results.jsonl").read_text().splitlines() == lines
    assert (out / "best.prototxt").read_bytes() == before
    message = only_line(crf(workshop, "search", out, "--limit", 2), "crf.py")
    assert "results of other predictions or images" in message
    # the scores are those of evaluate.py over the labels that crf.py run writes
    assert crf(workshop, "search", tmp_path / "all", "--rounds", 1, "--measure", "pixel_accuracy").returncode == 0
    chosen = ("--crf", tmp_path / "all/best.prototxt")
    assert crf(workshop, "run", tmp_path / "labels", *chosen).returncode == 0
    assert call_tool(
        "evaluate.py", "--predictions", tmp_path / "labels", "--labels", "data/val", "--dataset", "data/dataset.json",
        "--json", tmp_path / "scores.json", cwd=workshop,
    ).returncode == 0  # fmt: skip
    measured = [json.loads(line) for line in (tmp_path / "all/results.jsonl").read_text().splitlines()[1:]]
    reached = json.loads((tmp_path / "scores.json").read_text())["pixel_accuracy"]
    assert abs(reached - max(r["pixel_accuracy"] for r in measured[1:])) < 1e-9


def test_stages_go_from_coarse_to_fine_around_the_best():
    start = CrfParameters()
    coarse = dict(stages(1))
    assert len(coarse["coarse, bilateral"](start)) == 27
    assert {c.bi_xy_std for c in coarse["coarse, bilateral"](start)} == set(COARSE_BILATERAL["bi_xy_std"])
    positional = coarse["coarse, positional"](start)
    assert len(positional) == 3 * 3 + 1  # without weight the deviation says nothing
    fine = dict(stages(3))
    assert {c.bi_w for c in fine["fine 1, bilateral"](start)} == {3.33, 5.0, 7.5}
    assert all(2.4 < c.bi_rgb_std < 3.7 for c in fine["fine 2, bilateral"](start))
    assert [c.max_iter for c in fine["fine 1, iterations"](CrfParameters(max_iter=1))] == [1, 2]
    assert grid(start, {"max_iter": (1, 1)}) == [CrfParameters(max_iter=1)]
    assert spread(range(10), 3) == (0, 3, 6) and spread(range(2), 3) == (0, 1)


def test_ticks_of_the_chart_keep_their_distance():
    assert readable_ticks([0, 1, 1.2, 2, 2.5, 10]) == [0, 1, 2, 10]


def test_of_equal_scores_the_fewest_iterations_are_best():
    from renet.prediction.crf_search import Result

    results = [Result(CrfParameters(max_iter=n), 0.5, 0.5, 0.5) for n in (5, 1, 2)]
    assert best_of(results, "mean_iou").parameters.max_iter == 1


@pytest.mark.parametrize(
    "options, message",
    [
        (("--pos-xy-std", -3), "--pos-xy-std: pos_xy_std is a standard deviation and must be above 0, not -3"),
        (("--bi-rgb-std", 0), "--bi-rgb-std: bi_rgb_std is a standard deviation and must be above 0, not 0"),
        (("--bi-w", -1), "--bi-w: bi_w is a kernel's weight and must be 0 or more, not -1"),
        (("--bi-xy-std", "nan"), "must be above 0, not nan"),
        (("--bi-rgb-std", "1e-300"), "must be above 0, not 1e-300"),
        (("--pos-w", "1e39"), "must be 0 or more, not 1e+39"),
        (("--max-iter", -1), "--max-iter: max_iter is an iteration count and must be 0 or more, not -1"),
        (("--crf", "none.prototxt"), "none.prototxt: no such file"),
        (("--crf", "deploy.prototxt"), "deploy.prototxt: has no dense_crf_param, expected one"),
        (("--crf", "net.caffemodel"), "net.caffemodel: not a text file"),
        (("--processes", 0), "argument --processes"),
        (("--normalization", "both"), "argument --normalization: invalid choice: 'BOTH'"),
    ],
)
def test_bad_parameters_end_in_one_line(workshop, tmp_path, options, message):
    assert message in only_line(crf(workshop, "run", tmp_path / "out", *options), "crf.py")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("dense_crf_param { bi_xy_std: -80 }", "bi_xy_std is a standard deviation and must be above 0, not -80"),
        ("dense_crf_param { bi_std: 80 }", 'no field named "bi_std"'),
        ("dense_crf_param { learn: true }", "learn: the weights of this CRF are in the network's caffemodel"),
        ("dense_crf_param { kernel_weights: MATRIX }", "kernel_weights: the weights of this CRF"),
        ("dense_crf_param { compatibility: MATRIX }", "compatibility: the weights of this CRF"),
        ("dense_crf_param { normalization: BOTH }", "no value named BOTH"),
        ("dense_crf_param {", "neither dense_crf_param { ... } nor a network"),
        ("", "has no dense_crf_param"),
    ],
)
def test_bad_files_of_parameters(workshop, tmp_path, text, message):
    file = tmp_path / "crf.prototxt"
    file.write_text(text)
    line = only_line(predict(workshop, tmp_path / "out", "--crf", file), "predict.py")
    assert str(file) in line and message in line


def test_parameters_of_networks_snippets_and_options(tmp_path):
    file = tmp_path / "net.prototxt"
    file.write_text('layer { name: "c" type: "DenseCRF" dense_crf_param { bi_w: 0.1 } }')
    assert read_crf_parameters(file) == CrfParameters(10, 3, 3, 0.1, 50, 3)  # the layer's own defaults
    assert parameters_of(file, {"bi_w": None, "max_iter": 1, "other": 5}).max_iter == 1
    assert parameters_of(None, {}) == CrfParameters()
    assert parameters_of(file, {"normalization": "AFTER"}).normalization == "AFTER"
    for normalization in NORMALIZATIONS:
        parameters = CrfParameters(7, 1.5, 2.25, 0, 61.2, 4.1, normalization)
        file.write_text(parameters.as_prototxt("how\nfound"))
        assert read_crf_parameters(file) == parameters
    assert file.read_text().startswith("# how\n# found\ndense_crf_param {\n  max_iter: 7\n")
    with pytest.raises(UserError, match="max_iter"):
        CrfParameters(max_iter=-1)
    with pytest.raises(UserError, match="normalization is one of SYMMETRIC, AFTER, BEFORE, NONE, not both"):
        CrfParameters(normalization="both")


def test_predict_crf_without_a_file_takes_the_released_settings(workshop, tmp_path):
    assert predict(workshop, tmp_path / "out", "--crf").returncode == 0
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert CrfParameters(**record["settings"]["crf"]) == CrfParameters(2, 3, 3, 5, 80, 3)
    message = only_line(predict(workshop, tmp_path / "out"), "predict.py")
    assert "with other settings" in message
    # a record of before there was a choice of normalisation
    del record["settings"]["crf"]["normalization"]
    (tmp_path / "out/prediction.json").write_text(json.dumps(record))
    assert "nothing left to do" in predict(workshop, tmp_path / "out", "--crf").stdout


def test_the_normalisation_reaches_the_layer(workshop, tmp_path):
    labels = []
    for name in ("symmetric", "after"):
        assert crf(workshop, "run", tmp_path / name, "--bi-rgb-std", 40, "--normalization", name).returncode == 0
        record = json.loads((tmp_path / name / "prediction.json").read_text())
        assert record["settings"]["crf"]["normalization"] == name.upper()
        labels.append(
            np.array([np.array(Image.open(tmp_path / name / f"scene{seed}.png")).sum() for seed in range(COUNT)])
        )
    assert (labels[0] != labels[1]).any()


def test_broken_and_missing_probabilities_are_named(workshop, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(workshop / "plain", folder)
    file = folder / "probabilities/scene2.npz"
    file.unlink()
    message = only_line(crf(workshop, "run", tmp_path / "out", predictions=folder), "crf.py")
    assert str(file) in message and "1 of 4 images" in message
    file.write_bytes((workshop / "plain/probabilities/scene2.npz").read_bytes()[:100])
    message = only_line(crf(workshop, "run", tmp_path / "out", predictions=folder), "crf.py")
    assert str(file) in message and "damaged" in message
    np.savez(file, probabilities=np.full((3, 4, 5), 0.3, np.float16))
    message = only_line(crf(workshop, "run", tmp_path / "out", predictions=folder), "crf.py")
    assert f"{file}: probabilities are 3 x 4 x 5, the image with its classes is 3 x 39 x 51" in message
    np.savez(file, probabilities=np.full((3, 39, 51), np.nan, np.float16))
    message = only_line(crf(workshop, "search", tmp_path / "search", predictions=folder), "crf.py")
    assert f"{file}: has values that are infinite or no numbers" in message
    np.savez(file, probabilities=np.full((3, 39, 51), 3, np.float16))
    message = only_line(crf(workshop, "search", tmp_path / "search", predictions=folder), "crf.py")
    assert f"{file}: holds no probabilities: the values of one pixel sum to 9" in message
    message = only_line(crf(workshop, "run", tmp_path / "none", predictions=tmp_path), "crf.py")
    assert "not a folder of predict.py's" in message or "missing" in message


def test_parameters_beyond_the_numbers_range_are_told(workshop, tmp_path):
    """They are in the range of float32, and what the CRF makes of them is not."""
    line = only_line(crf(workshop, "run", tmp_path / "out", "--bi-w", "3e38", "--processes", 1), "crf.py")
    assert "scene" in line
    assert not list((tmp_path / "out").glob("*.png"))


def test_an_ignored_label_among_the_classes_counts_nowhere(workshop, tmp_path):
    """The search's scores are those of the same labels with 255 in its place."""
    dataset = Dataset.open(workshop / "data")
    samples = {f"scene{seed}": scene(seed) for seed in range(COUNT)}
    beyond = {name: (image, np.where(labels == 2, 255, labels)) for name, (image, labels) in samples.items()}
    write_split(
        tmp_path / "beyond", {name: (image, labels.astype(np.uint8)) for name, (image, labels) in beyond.items()}
    )
    found = []
    for split, ignored in ((workshop / "data/val", 2), (tmp_path / "beyond", 255)):
        job = open_job(workshop / "plain", split, replace(dataset, ignore_label=ignored), COUNT, 1)
        found.append([confusion for _, confusion in count_pixels(job, [None, CrfParameters(bi_rgb_std=40)])])
    assert np.array_equal(found[0], found[1]) and not np.array(found)[:, :, 2].any()
