"""Scores: hand-computed, against the definition pixel by pixel, and every bad input by its name."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import CLASSES, call_tool, only_line, save_labels, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.data.catalog import VOC2012, bit_interleaved_palette, load_dataset
from renet.data.label_maps import read_label_map
from renet.evaluation import voc_submission
from renet.evaluation.paper_results import paper_results
from renet.evaluation.scores import Evaluation, LabelSource, confusion_matrix, evaluate_images, scores
from renet.evaluation.voc_submission import SUBFOLDER, check_comp6, pack_comp6, write_comp6

TRUTH = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
PREDICTION = np.array([[0, 1, 1, 1], [0, 2, 0, 2]], np.uint8)


def reference_scores(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> tuple[float, float, float, list]:
    """The development kit's definition, one pixel at a time and without a confusion matrix."""
    right = total = 0
    intersection = [0] * classes
    truth_count = [0] * classes
    prediction_count = [0] * classes
    for truth, prediction in pairs:
        for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist()):
            if t == 255:
                continue
            total += 1
            right += t == p
            truth_count[t] += 1
            prediction_count[p] += 1
            intersection[t] += t == p
    iou, recall = [], []
    for c in range(classes):
        union = truth_count[c] + prediction_count[c] - intersection[c]
        iou.append(intersection[c] / union if union else None)
        if truth_count[c]:
            recall.append(intersection[c] / truth_count[c])
    present = [value for value in iou if value is not None]
    return right / total, sum(recall) / len(recall), sum(present) / len(present), iou


class TestConfusionMatrix:
    def test_by_hand(self):
        # truth 0: predicted 0, 1, 0; truth 1: 1, 1, 0; truth 2: 2; one pixel is ignored
        assert confusion_matrix(TRUTH, PREDICTION, 3).tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 1]]

    def test_scores_by_hand(self):
        result = scores(np.array([[2, 1, 0], [1, 2, 0], [0, 0, 1]]))
        assert result.pixel_accuracy == pytest.approx(5 / 7)
        assert result.class_accuracy == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
        assert result.iou == pytest.approx((2 / 4, 2 / 4, 1))
        assert result.mean_iou == pytest.approx(2 / 3)

    def test_class_in_neither_has_no_iou(self):
        result = scores(np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]]))
        assert result.iou[2] is None and result.recall[2] is None
        assert result.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)

    def test_class_predicted_only_counts_in_the_mean_iou_but_not_in_class_accuracy(self):
        result = scores(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]))
        assert result.iou[2] == 0 and result.recall[2] is None
        assert result.mean_iou == pytest.approx((3 / 4 + 1 + 0) / 3)
        assert result.class_accuracy == pytest.approx((3 / 4 + 1) / 2)

    @pytest.mark.parametrize("seed", range(4))
    def test_equals_the_definition_pixel_by_pixel(self, seed):
        rng = np.random.default_rng(seed)
        classes = 21
        pairs = []
        for _ in range(5):
            shape = tuple(rng.integers(1, 40, 2))
            truth = rng.choice([*range(0, 18), 255], shape).astype(np.uint8)
            prediction = np.where(rng.random(shape) < 0.6, np.minimum(truth, 19), rng.integers(0, 20, shape))
            pairs.append((truth, prediction.astype(np.uint8)))
        confusion = sum(confusion_matrix(t, p, classes) for t, p in pairs)
        pixel, klass, mean, iou = reference_scores(pairs, classes)
        result = scores(confusion)
        assert (result.pixel_accuracy, result.class_accuracy, result.mean_iou) == pytest.approx((pixel, klass, mean))
        assert result.iou[20] is None and iou[20] is None
        assert result.iou[:20] == pytest.approx(iou[:20])

    def test_values_out_of_range(self):
        with pytest.raises(ValueError, match="prediction has the value 255 at 1 pixels; classes are 0 to 2"):
            confusion_matrix(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 255]], np.uint8), 3)
        # also where the truth is ignored, as in the kit
        with pytest.raises(ValueError, match="prediction has the value 3"):
            confusion_matrix(np.full((1, 1), 255, np.uint8), np.full((1, 1), 3, np.uint8), 3)
        with pytest.raises(ValueError, match="truth has the value 7 at 4 pixels"):
            confusion_matrix(np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8), 3)

    def test_sizes_differ(self):
        with pytest.raises(ValueError, match="prediction is 3 x 2, the truth 2 x 3"):
            confusion_matrix(np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8), 3)

    def test_255_classes_and_another_ignored_label(self):
        truth = np.arange(256, dtype=np.uint8).reshape(16, 16)
        prediction = np.minimum(truth, 254)
        assert np.array_equal(confusion_matrix(truth, prediction, 255), np.eye(255))
        assert confusion_matrix(np.array([[9]], np.uint8), np.array([[1]], np.uint8), 3, ignore_label=9).sum() == 0

    @pytest.mark.parametrize("ignored", range(4))
    def test_an_ignored_label_among_the_classes_counts_nowhere(self, ignored):
        rng = np.random.default_rng(ignored)
        truth, prediction = rng.integers(0, 4, (2, 30, 40)).astype(np.uint8)
        beyond = np.where(truth == ignored, 255, truth).astype(np.uint8)
        found = confusion_matrix(truth, prediction, 4, ignored)
        assert np.array_equal(found, confusion_matrix(beyond, prediction, 4))
        assert found.sum() == (truth != ignored).sum() and not found[ignored].any()

    def test_no_label_is_ignored_where_none_is_named(self):
        truth = np.array([[0, 1, 254, 255]], np.uint8)
        with pytest.raises(ValueError, match="truth has the value 255 at 1 pixels"):
            confusion_matrix(truth[:, [0, 1, 3]], np.zeros((1, 3), np.uint8), 2, ignore_label=-1)

    @pytest.mark.parametrize("seed", range(3))
    def test_frequency_weighted_iou_is_that_of_fcn(self, seed):
        rng = np.random.default_rng(seed)
        confusion = rng.integers(0, 50, (6, 6))
        confusion[seed] = 0  # a class that the truth lacks
        frequency = confusion.sum(1) / confusion.sum()
        iou = np.diag(confusion) / (confusion.sum(1) + confusion.sum(0) - np.diag(confusion))
        expected = (frequency[frequency > 0] * iou[frequency > 0]).sum()
        assert scores(confusion).frequency_weighted_iou == pytest.approx(expected)
        assert scores(np.array([[2, 1], [1, 4]])).frequency_weighted_iou == pytest.approx(3 / 8 * 2 / 4 + 5 / 8 * 4 / 6)

    def test_nothing_labelled(self):
        with pytest.raises(ValueError, match="no labelled pixel"):
            scores(np.zeros((3, 3), np.int64))


class TestKnownDatasets:
    def test_voc_colours(self):
        palette = bit_interleaved_palette(256)
        assert palette[[1, 2, 20, 255]].tolist() == [[128, 0, 0], [0, 128, 0], [0, 64, 128], [224, 224, 192]]
        assert len(VOC2012.classes) == 21 and VOC2012.classes[20] == "tvmonitor"

    def test_stanford_background(self):
        dataset = load_dataset("stanford_background")
        assert dataset.classes[0] == "sky" and dataset.classes[7] == "foreground object"
        assert len({tuple(colour) for colour in dataset.palette.tolist()}) == 8

    def test_the_papers_figures(self):
        stanford = paper_results("stanford_background")
        assert [(r.pixel_accuracy, r.class_accuracy) for r in stanford.rows[:2]] == [(80.4, 71.8), (79.35, 69.36)]
        voc = paper_results("voc2012")
        assert set(voc.class_iou) == set(VOC2012.classes) - {"background"}
        assert [row.mean_iou for row in voc.rows if row.headline] == [63.4, 71.1, 72.6]
        assert paper_results("three_things") is None


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """Two images, their labels in a folder and in a split, and good predictions."""
    rng = np.random.default_rng(0)
    samples = {}
    for image_id, shape in (("a", (5, 7)), ("b", (6, 4))):
        truth = rng.choice([0, 1, 255], shape).astype(np.uint8)
        save_labels(tmp_path / "labels" / f"{image_id}.png", truth)
        save_labels(tmp_path / "predictions" / f"{image_id}.png", np.where(truth == 255, 2, 1 - truth // 2), "L")
        samples[image_id] = (np.zeros((*shape, 3), np.uint8), truth)
    write_split(tmp_path / "data" / "test", samples)
    write_dataset_json(tmp_path / "data")
    return tmp_path


def evaluate(case: Path, *more: object, labels: str = "labels", dataset: str = "data/dataset.json"):
    return call_tool(
        "evaluate.py", "--predictions", "predictions", "--labels", labels, "--dataset", dataset, *more, cwd=case
    )


def replace_prediction(case: Path, pixels: np.ndarray, **options: object) -> None:
    Image.fromarray(pixels).save(case / "predictions/b.png", **options)


class TestTool:
    def test_folder_and_split_give_the_same_and_the_right_json(self, case):
        for labels, name in (("labels", "one.json"), ("data/test", "deep/two.json")):
            result = evaluate(case, "--json", name, labels=labels)
            assert result.returncode == 0, result.stderr
        one, two = (json.loads((case / name).read_text()) for name in ("one.json", "deep/two.json"))
        assert one == two
        pairs = [
            (
                np.array(Image.open(case / "labels" / f"{i}.png")),
                np.array(Image.open(case / "predictions" / f"{i}.png")),
            )
            for i in "ab"
        ]
        pixel, klass, mean, iou = reference_scores(pairs, 3)
        assert (one["pixel_accuracy"], one["class_accuracy"], one["mean_iou"]) == pytest.approx((pixel, klass, mean))
        assert one["iou"] == {name: pytest.approx(value) for name, value in zip(CLASSES, iou)}
        assert one["iou"]["lake"] is None
        frequency = [sum(int((truth == c).sum()) for truth, _ in pairs) for c in range(2)]
        weighted = sum(f * i for f, i in zip(frequency, iou)) / sum(frequency)
        assert one["frequency_weighted_iou"] == pytest.approx(weighted)
        assert one["images"] == 2
        assert one["ignored_pixels"] == sum(int((truth == 255).sum()) for truth, _ in pairs)
        assert np.array(one["confusion"]).sum() == sum(int((truth != 255).sum()) for truth, _ in pairs)
        assert Evaluation.from_json(one).scores.mean_iou == one["mean_iou"]

    def test_table(self, case):
        result = evaluate(case)
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["class", "IoU", "%", "recall", "%", "share", "of", "truth", "%"]
        assert [line.split()[0] for line in lines[2:5]] == CLASSES
        assert lines[4].split()[1:] == ["-", "-", "0.0"]
        assert "in neither truth nor prediction, so left out of the mean IoU: lake" in lines
        assert len({len(line) for line in lines[:5]}) == 1

    def test_the_papers_figures_stand_beside(self, case):
        table = evaluate(case, dataset="stanford_background").stdout
        assert "Paper: N-ReNet (Table 1, mean of 5 folds)" in table and "80.4" in table and "69.36" in table

    def test_missing_prediction(self, case):
        (case / "predictions/b.png").unlink()
        assert "predictions/b.png: missing; 1 of 2 images" in only_line(evaluate(case), "evaluate.py")

    def test_other_size(self, case):
        save_labels(case / "predictions/b.png", np.zeros((4, 6)))
        message = only_line(evaluate(case, labels="data/test"), "evaluate.py")
        assert "predictions/b.png: the prediction is 6 x 4, the truth 4 x 6" in message

    def test_colour_coded_prediction(self, case):
        replace_prediction(case, np.zeros((6, 4, 3), np.uint8))
        assert "predictions/b.png: has colours (RGB)" in only_line(evaluate(case), "evaluate.py")

    def test_colour_coded_label(self, case):
        Image.fromarray(np.zeros((6, 4, 4), np.uint8)).save(case / "labels/b.png")
        assert "labels/b.png: has colours (RGBA)" in only_line(evaluate(case), "evaluate.py")

    def test_prediction_out_of_range(self, case):
        save_labels(case / "predictions/b.png", np.full((6, 4), 3))
        assert "predictions/b.png: the prediction has the value 3" in only_line(evaluate(case), "evaluate.py")

    def test_prediction_of_the_ignored_label(self, case):
        save_labels(case / "predictions/b.png", np.full((6, 4), 255))
        assert "predictions/b.png: the prediction has the value 255" in only_line(evaluate(case), "evaluate.py")

    def test_prediction_of_16_bits(self, case):
        replace_prediction(case, np.full((6, 4), 300, np.uint16))
        assert "predictions/b.png: holds the value 300" in only_line(evaluate(case), "evaluate.py")

    def test_truth_out_of_range(self, case):
        save_labels(case / "labels/b.png", np.full((6, 4), 9))
        message = only_line(evaluate(case), "evaluate.py")
        assert "labels/b.png: the truth has the value 9 at 24 pixels" in message

    def test_broken_and_wrong_files(self, case):
        file = case / "predictions/b.png"
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        assert "predictions/b.png: not a PNG that can be read" in only_line(evaluate(case), "evaluate.py")
        file.write_bytes(b"label")
        assert "predictions/b.png: a label must be a PNG" in only_line(evaluate(case), "evaluate.py")

    def test_missing_folders_and_datasets(self, case):
        assert "nowhere: no such folder of labels" in only_line(evaluate(case, labels="nowhere"), "evaluate.py")
        assert "coco: no such dataset.json" in only_line(evaluate(case, dataset="coco"), "evaluate.py")
        (case / "empty").mkdir()
        assert "empty: no label PNG in it" in only_line(evaluate(case, labels="empty"), "evaluate.py")

    def test_nothing_labelled(self, case):
        for image_id, shape in (("a", (5, 7)), ("b", (6, 4))):
            save_labels(case / "labels" / f"{image_id}.png", np.full(shape, 255))
        assert "labels: no labelled pixel" in only_line(evaluate(case), "evaluate.py")

    def test_list_of_ids(self, case):
        (case / "predictions/b.png").unlink()
        (case / "val.txt").write_text("a\n")
        result = evaluate(case, "--list", "val.txt", "--json", "one.json")
        assert result.returncode == 0, result.stderr
        assert json.loads((case / "one.json").read_text())["images"] == 1
        (case / "val.txt").write_text("a\nc\n")
        assert "labels: no label of 'c'" in only_line(evaluate(case, "--list", "val.txt"), "evaluate.py")

    def test_files_and_lists_as_people_have_them(self, case):
        """Endings in capitals, suffixes, images beside the labels, lists of pairs from another system."""
        plain = evaluate(case, "--json", "plain.json")
        assert plain.returncode == 0, plain.stderr
        (case / "val.txt").write_bytes("\ufeffphotos/a.JPG labels/a.png\r\nphotos/b.JPG labels/b.png\r\n".encode())
        (case / "names.txt").write_text("a_truth.PNG\n# not c\n b_truth.PNG \n")
        for image_id in "ab":
            (case / f"labels/{image_id}.png").rename(case / f"labels/{image_id}.PNG")
            (case / f"predictions/{image_id}.png").rename(case / f"predictions/{image_id}.Png")
        result = evaluate(case, "--list", "val.txt", "--json", "capitals.json")
        assert result.returncode == 0, result.stderr
        for image_id in "ab":
            (case / f"labels/{image_id}.PNG").rename(case / f"labels/{image_id}_truth.PNG")
            (case / f"labels/{image_id}.png").write_bytes(b"the image")
            (case / f"predictions/{image_id}.Png").rename(case / f"predictions/{image_id}_net.png")
        suffixes = ("--label-suffix", "_truth.png", "--prediction-suffix", "_net")
        result = evaluate(case, *suffixes, "--list", "names.txt", "--json", "suffixes.json")
        assert result.returncode == 0, result.stderr
        assert len({(case / f"{name}.json").read_text() for name in ("plain", "capitals", "suffixes")}) == 1
        line = only_line(evaluate(case, "--label-suffix", "_gt"), "evaluate.py")
        assert "labels: no label PNG in it whose name ends in _gt; it has a.png, a_truth.PNG" in line
        line = only_line(evaluate(case, *suffixes[:2], labels="data/test"), "evaluate.py")
        assert "data/test: a prepared split, whose labels have no suffix" in line

    def test_unscored_predictions_are_told(self, case):
        save_labels(case / "predictions/c.png", np.zeros((2, 2)))
        result = evaluate(case)
        assert result.returncode == 0
        assert "1 predictions are of images that are not scored" in result.stderr

    def test_help_has_an_example(self, case):
        result = call_tool("evaluate.py", "--help", cwd=case)
        assert result.returncode == 0 and "tools/evaluate.py --predictions" in result.stdout


def test_several_processes_give_what_one_gives(tmp_path):
    rng = np.random.default_rng(3)
    for index in range(120):
        truth = rng.choice([0, 1, 2, 255], (8, 9)).astype(np.uint8)
        save_labels(tmp_path / "labels" / f"{index:03d}.png", truth)
        save_labels(tmp_path / "predictions" / f"{index:03d}.png", rng.integers(0, 3, (8, 9)))
    source = LabelSource.open(tmp_path / "labels")
    one, two = (list(evaluate_images(tmp_path / "predictions", source, 3, processes=n)) for n in (1, 2))
    assert [result.image_id for result in two] == [f"{index:03d}" for index in range(120)]
    assert all(np.array_equal(a.confusion, b.confusion) and a.image_id == b.image_id for a, b in zip(one, two))
    save_labels(tmp_path / "predictions/077.png", np.full((8, 9), 4))
    with pytest.raises(UserError, match=r"077\.png: the prediction has the value 4"):
        list(evaluate_images(tmp_path / "predictions", source, 3, processes=2))


class TestRealLabels:
    def test_voc_labels_score_perfectly_against_themselves(self, shared_data, tmp_path):
        voc = shared_data / "voc_samples/VOC2012"
        for file in (voc / "SegmentationClass").glob("*.png"):
            labels = read_label_map(file)
            assert labels.max() == 255
            save_labels(tmp_path / "predictions" / file.name, np.where(labels == 255, 0, labels), "L")
        result = call_tool(
            "evaluate.py", "--predictions", "predictions", "--labels", voc / "SegmentationClass",
            "--dataset", "voc2012", "--json", "voc.json", cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        content = json.loads((tmp_path / "voc.json").read_text())
        assert content["mean_iou"] == content["pixel_accuracy"] == 1
        assert content["iou"]["aeroplane"] == 1 and content["iou"]["cat"] is None


class TestComp6:
    def predictions(self, folder: Path) -> Path:
        for image_id, value in (("2008_000001", 20), ("2008_000002", 0)):
            save_labels(folder / "predictions" / f"{image_id}.png", np.full((3, 4), value), "L")
        return folder / "predictions"

    def test_tree(self, tmp_path):
        self.predictions(tmp_path)
        (tmp_path / "test.txt").write_text("2008_000001\n2008_000002\n")
        arguments = ("--predictions", "predictions", "--dataset", "voc2012", "--comp6", "out", "--list", "test.txt")
        for _ in range(2):
            result = call_tool("evaluate.py", *arguments, cwd=tmp_path)
            assert result.returncode == 0, result.stderr
        file = tmp_path / "out/results/VOC2012/Segmentation/comp6_test_cls/2008_000001.png"
        with Image.open(file) as image:
            assert image.mode == "P" and image.getpalette()[60:63] == [0, 64, 128]
            assert np.array_equal(np.array(image), np.full((3, 4), 20))
        assert sorted(f.name for f in file.parent.iterdir()) == ["2008_000001.png", "2008_000002.png"]
        assert sorted(f.name for f in file.parent.parent.iterdir()) == ["comp6_test_cls"]
        assert "VOC's evaluation server expects all 1456 images" in result.stdout
        assert "packed for upload: out/results.tgz" in result.stdout
        with tarfile.open(tmp_path / "out/results.tgz", "r:gz") as tar:
            names = tar.getnames()
            assert tar.extractfile(f"{SUBFOLDER}/{file.name}").read() == file.read_bytes()
        assert names[0] == "results" and names[3] == str(SUBFOLDER)
        assert names[4:] == [f"{SUBFOLDER}/2008_00000{n}.png" for n in (1, 2)]

    def test_archive_depends_on_the_predictions_alone(self, tmp_path):
        ids = ["2008_000001", "2008_000002"]
        archives = []
        for name, order in (("a", ids), ("b", ids[::-1])):
            target = write_comp6(self.predictions(tmp_path), order, load_dataset("voc2012"), tmp_path / name)
            for age, file in enumerate(target.iterdir()):
                os.utime(file, (age, age))
                file.chmod(0o600 + age)
            archives.append(pack_comp6(tmp_path / name).read_bytes())
        assert archives[0] == archives[1]
        with tarfile.open(tmp_path / "a/results.tgz") as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.mode == (0o755 if member.isdir() else 0o644)

    def test_archive_is_read_back(self, tmp_path, monkeypatch):
        write_comp6(self.predictions(tmp_path), ["2008_000001"], load_dataset("voc2012"), tmp_path / "out")
        write = voc_submission.write_atomically
        monkeypatch.setattr(voc_submission, "write_atomically", lambda file, content: write(file, content[:-30]))
        with pytest.raises(UserError, match=r"results\.tgz: cannot be read back"):
            pack_comp6(tmp_path / "out")
        empty = tmp_path / "empty.tgz"
        tarfile.open(empty, "w:gz").close()
        monkeypatch.setattr(voc_submission, "write_atomically", lambda file, _: write(file, empty.read_bytes()))
        with pytest.raises(UserError, match=r"results\.tgz: does not hold what was packed"):
            pack_comp6(tmp_path / "out")

    def test_an_earlier_archive_does_not_outlive_its_tree(self, tmp_path):
        self.predictions(tmp_path)
        arguments = ("--predictions", "predictions", "--dataset", "voc2012", "--comp6", "out")
        assert call_tool("evaluate.py", *arguments, cwd=tmp_path).returncode == 0
        save_labels(tmp_path / "predictions/2008_000001.png", np.full((3, 4), 21))
        only_line(call_tool("evaluate.py", *arguments, cwd=tmp_path), "evaluate.py")
        assert not (tmp_path / "out/results.tgz").exists()

    def test_bad_predictions(self, tmp_path):
        folder = self.predictions(tmp_path)
        dataset = load_dataset("voc2012")
        with pytest.raises(UserError, match=r"2008_000003\.png: missing"):
            write_comp6(folder, ["2008_000003"], dataset, tmp_path / "out")
        with pytest.raises(UserError, match=r"2008_000001\.png: 4 x 3, the image is 5 x 3"):
            write_comp6(folder, ["2008_000001"], dataset, tmp_path / "out", {"2008_000001": (3, 5)})
        save_labels(folder / "2008_000001.png", np.full((3, 4), 21))
        with pytest.raises(UserError, match=r"2008_000001\.png: the value 21 is no class"):
            write_comp6(folder, ["2008_000001"], dataset, tmp_path / "out")
        assert not (tmp_path / "out" / SUBFOLDER).exists()

    def test_check_finds_a_spoilt_tree(self, tmp_path):
        ids = ["2008_000001", "2008_000002"]
        target = write_comp6(self.predictions(tmp_path), ids, load_dataset("voc2012"), tmp_path / "out")
        check_comp6(tmp_path / "out", ids, 21)
        with pytest.raises(UserError, match="not an image of this submission"):
            check_comp6(tmp_path / "out", ids[:1], 21)
        save_labels(target / "2008_000002.png", np.zeros((3, 4)))
        with pytest.raises(UserError, match=r"2008_000002\.png: not a palette PNG in VOC's colours"):
            check_comp6(tmp_path / "out", ids, 21)

    def test_other_datasets_cannot(self, case):
        message = only_line(evaluate(case, "--comp6", "out"), "evaluate.py")
        assert "--comp6 is a VOC2012 submission; the dataset is three_things" in message

    def test_images_of_a_split_without_labels_give_ids_and_sizes(self, tmp_path):
        self.predictions(tmp_path)
        write_split(tmp_path / "test", {"2008_000001": (np.zeros((3, 4, 3), np.uint8), None)})
        arguments = ["--predictions", "predictions", "--dataset", "voc2012", "--labels", "test"]
        assert "test: this split has no labels" in only_line(
            call_tool("evaluate.py", *arguments, cwd=tmp_path), "evaluate.py"
        )
        result = call_tool("evaluate.py", *arguments, "--comp6", "out", cwd=tmp_path)
        assert result.returncode == 0 and "1 images written and checked" in result.stdout
        write_dataset_json(tmp_path, image_scale=0.5)
        message = only_line(call_tool("evaluate.py", *arguments, "--comp6", "out", cwd=tmp_path), "evaluate.py")
        assert "test: prepared with --image-scale 0.5, but a submission has the images' own size" in message
