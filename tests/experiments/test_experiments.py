"""tools/experiments.py: what each experiment needs, what is told, and a whole one as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from experiment_helpers import Scripts, settings, write_voc
from google.protobuf import text_format
from hold import Hold
from PIL import Image
from segmentation_helpers import REPOSITORY, only_line, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.data.dataset import Dataset
from renet.evaluation.paper_results import paper_experiment, paper_results
from renet.evaluation.voc_submission import ARCHIVE, SUBFOLDER
from renet.experiments.figures import FigureOptions
from renet.experiments.listing import check_everything, commands, count_runs, listing
from renet.experiments.perform import perform
from renet.experiments.plan import DATASETS, EXPERIMENTS, SIZES, expected_dataset
from renet.experiments.runs import Runs
from renet.experiments.training import difference
from renet.networks.models import COMPARISONS, MODELS
from renet.networks.recipe import RECIPE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
FIRST = FigureOptions()
TOOL = [sys.executable, str(REPOSITORY / "tools/experiments.py")]


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*TOOL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "voc2012")


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("coco") / "coco", {"train": 2}) / "train"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "vgg16.caffemodel"
    file.write_text("of VGG-16")
    return file


def performed(name: str, runs: Runs, options: FigureOptions = FIRST) -> dict:
    """The experiment's JSON once all of it is done."""
    perform(runs, EXPERIMENTS[name](runs.settings), options)
    return json.loads((runs.settings.out / f"{name}.json").read_text())


def page(name: str, runs: Runs) -> str:
    return (runs.settings.out / f"{name}.md").read_text()


# ------------------------------------------------------------------------------------------------------------- plan


EXPECTED = {
    "table1": [f"{model}_fold{fold}" for model in ("n_renet", "multi_scale_convnet") for fold in range(5)],
    "recipe_folds": [f"n_renet_recipe_fold{fold}" for fold in range(5)],
    "recipe_parts": [
        "n_renet_recipe_fold0",
        *(f"n_renet_recipe_without_{part}_fold0" for part in ("augmentation", "dropout", "weight_decay", "average")),
        *(f"n_renet_recipe_without_{part}_fold0" for part in ("cosine", "all", "scale_and_rotation", "colour")),
    ],
    "table4": ["fcn", "h_renet", "h_renet_bn", "h_renet_bn_mlfb"],
    "table5": [
        *("h_renet_bn_from_pool4", "h_renet_bn_from_pool5", "h_renet_bn", "h_renet_bn_conv7_pool5", "h_renet_bn_mlfb"),
    ],
    "table6": ["deeplab_largefov", "fcn32s", "fcn16s", "fcn8s", "crf_as_rnn", "fcn", "h_renet_bn_mlfb"],
    "table7a": ["h_renet_bn_mlfb_trainval"],
    "table7b": ["h_renet_bn_mlfb_coco", "h_renet_bn_mlfb_after_coco"],
    "l2_scale": [*(f"h_renet_l2_mlfb_scale{scale}_held_out" for scale in (100, 1000, 10000)), "h_renet_bn_mlfb"],
    "training_size": [
        *("fcn_256x320", "fcn_320x400", "fcn"),
        *("h_renet_bn_mlfb_256x320", "h_renet_bn_mlfb_320x400", "h_renet_bn_mlfb"),
    ],
    "irnn": ["h_renet_bn", "h_renet_bn_irnn", "h_renet_bn_gru"],
    "capacity": ["fcn", "fcn_deeper", "h_renet", "fcn_deeper_bn", "h_renet_bn"],
    "figure2": ["n_renet_fold0"],
    "figure4": ["fcn", "h_renet_bn_mlfb"],
    "figure5": ["h_renet_bn_mlfb"],
}


def full_size(name: str, **more: object) -> object:
    """The experiment with nothing chosen, on the dataset that the paper has."""
    folder = ROOT / "data" / DATASETS[name]
    chosen = settings_without_data(folder, **more)
    return EXPERIMENTS[name](chosen)


def settings_without_data(folder: Path, **more: object) -> object:
    from renet.experiments.training import Settings

    return Settings(expected_dataset(folder), ROOT / "runs/experiments", coco=(ROOT / "data/coco/train",), **more)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_experiment_has_the_papers_runs(name: str) -> None:
    assert list(full_size(name).trainings()) == EXPECTED[name]


def test_iterations_and_splits_are_the_papers() -> None:
    found = {}
    for name in EXPECTED:
        found |= {training.name: training for training in full_size(name).trainings().values()}
    iterations = {name: training.iterations for name, training in found.items()}
    assert iterations["n_renet_fold3"] == 36_000
    assert iterations["fcn"] == iterations["fcn_256x320"] == 12_000
    assert iterations["h_renet"] == iterations["h_renet_bn_irnn"] == iterations["h_renet_bn_mlfb_after_coco"] == 30_000
    assert iterations["h_renet_bn_mlfb"] == iterations["h_renet_l2_mlfb_scale100_held_out"] == 40_000
    assert iterations["h_renet_bn_mlfb_coco"] == 120_000
    assert found["h_renet_bn_mlfb_coco"].schedule.rule["stepsize"] == 50_000
    assert found["h_renet_bn_mlfb_coco"].data.train == ("data/voc2012/trainvalaug", "data/coco/train")
    assert found["h_renet_bn_mlfb_after_coco"].start.name == "h_renet_bn_mlfb_coco"
    assert found["fcn"].data.train == ("data/voc2012/trainaug",)
    assert found["fcn"].data.test == "data/voc2012/val"
    assert found["n_renet_fold3"].data.train == ("data/stanford_background/fold3/train",)
    sizes = [found[name].options.crop for name in ("fcn_256x320", "fcn_320x400", "fcn")]
    assert sizes == list(SIZES)
    own = [training for training in found.values() if training.model not in COMPARISONS]
    assert {training.options.batch for training in own} == {10}
    assert (found["deeplab_largefov"].iterations, found["deeplab_largefov"].options.batch) == (6000, 30)
    assert found["fcn8s"].start.start.name == "fcn32s" and found["fcn8s"].options.whole_images
    assert found["multi_scale_convnet_fold3"].data.train == ("data/stanford_background/fold3/train",)


def test_recipe_is_the_shipped_solvers_and_goes_without_each_part() -> None:
    rows = full_size("recipe_parts", n_renet="n_renet_quarter", seeds=(0, 1)).rows
    of_seed = {row.name: row.inferences[1][0].training for row in rows}
    whole, alone = of_seed.pop("the whole recipe"), of_seed["without all"]
    assert whole.name == "n_renet_quarter_recipe_fold0_seed1"
    shipped = ROOT / "solvers/n_renet_quarter_stanford_background_augmented.prototxt"
    solver = text_format.Parse(whole.files(Path("out"))["solver.prototxt"], caffe_pb2.SolverParameter())
    expected = text_format.Parse(shipped.read_text(), caffe_pb2.SolverParameter())
    for message in (solver, expected):
        for name in ("net", "snapshot_prefix", "test_iter"):
            message.ClearField(name)
    assert solver == expected
    changed = {name: (training.options, training.schedule) for name, training in of_seed.items()}
    for name, (options, schedule) in changed.items():
        assert (options != whole.options) != (schedule != whole.schedule) or name == "without all", name
    assert len({repr(pair) for pair in changed.values()}) == len(changed)
    assert not (alone.options.augment or alone.options.dropout)
    assert alone.schedule.rule == MODELS["n_renet_quarter"].schedule("adam", 12_000).rule
    assert changed["without weight decay"][1].rule["type"] == "Adam"
    assert "average_decay" not in changed["without average"][1].rule


def test_short_recipe_has_a_short_warm_up_and_average() -> None:
    rules = [RECIPE.schedule(iterations).rule for iterations in (1, 120, 1200, 12_000)]
    assert [rule.get("warmup_iter") for rule in rules] == [None, 12, 120, 200]
    assert [rule.get("average_decay") for rule in rules] == [None, 0.9, 0.99, 0.999]


def test_recipe_is_for_n_renets_and_has_its_own_solver(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recipe is for n_renet and n_renet_quarter, not for conv_small"):
        EXPERIMENTS["recipe_folds"](settings(voc, tmp_path, n_renet="conv_small"))
    with pytest.raises(UserError, match="--solver sgd: the recipe has a solver of its own"):
        EXPERIMENTS["recipe_parts"](settings(voc, tmp_path, solver="sgd"))


def test_recipe_and_precision_are_told(voc: Path, tmp_path: Path) -> None:
    runs = Runs(settings(voc, tmp_path, precision="BF16", n_renet="n_renet_quarter"), Scripts())
    performed("recipe_folds", runs)
    text = page("recipe_folds", runs)
    assert "AdamW, the rate climbing at first" in text and "Dropout between the recurrent groups" in text
    assert "have factors of precision BF16" in text
    assert "| N-ReNet | 100.0 | 80.4 | 100.0 | 71.8 |" in text
    assert (tmp_path / "n_renet_quarter_recipe/train_val.prototxt").read_text().count("precision: BF16") == 6


def test_table7_is_tested_on_val_and_predicts_test(voc: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["table7a"](settings(voc, tmp_path))
    (training,) = experiment.trainings().values()
    assert training.data.train == (str(voc / "trainvalaug"),)
    assert (training.data.test, training.data.test_images) == (str(voc / "val"), 3)
    assert {inference.split for inference in experiment.inferences()} == {voc / "test"}


def test_folds_that_are_there(tmp_path: Path) -> None:
    splits = {f"fold{number}/{part}": {"count": 2, "sha256": ""} for number in (0, 3) for part in ("train", "test")}
    file = write_dataset_json(tmp_path, splits={**splits, "fold4/train": {"count": 2, "sha256": ""}})
    experiment = EXPERIMENTS["table1"](settings(file, tmp_path, seeds=(0, 2)))
    names = [f"{model}_fold{fold}" for model in ("n_renet", "multi_scale_convnet") for fold in (0, 3)]
    assert sorted(experiment.trainings()) == sorted([*names, *(f"{name}_seed2" for name in names)])
    assert "fold0 and fold3 alone" in experiment.notes[0]
    chosen = EXPERIMENTS["table1"](settings(file, tmp_path, train_split=("fold0/train",), test_split="fold0/test"))
    assert list(chosen.trainings()) == ["n_renet", "multi_scale_convnet"]


def test_sizes_follow_a_smaller_crop(voc: Path, tmp_path: Path) -> None:
    experiment = EXPERIMENTS["training_size"](settings(voc, tmp_path, crop=(100, 125)))
    crops = [training.options.crop for training in experiment.trainings().values()]
    assert crops == [(64, 80), (80, 100), (100, 125)] * 2
    assert "fcn_64x80" in experiment.trainings()


def test_budget_scales_the_whole_schedule(voc: Path, coco: Path, tmp_path: Path) -> None:
    chosen = settings(voc, tmp_path, budget=0.01, coco=(coco,), solver=None)
    first, second = EXPERIMENTS["table7b"](chosen).trainings().values()
    assert (first.iterations, first.schedule.rule["stepsize"], second.iterations) == (1200, 500, 300)
    adam = EXPERIMENTS["table7b"](settings(voc, tmp_path, budget=1e-9, coco=(coco,), solver="adam", rate=0.5))
    for training in adam.trainings().values():
        assert (training.iterations, training.schedule.rule["type"], training.schedule.rule["base_lr"]) == (
            1,
            "Adam",
            0.5,
        )


def test_all_runs_may_have_as_many_iterations(voc: Path, coco: Path, tmp_path: Path) -> None:
    chosen = settings(voc, tmp_path, equal_iterations=60, coco=(coco,), solver=None)
    for name in ("table4", "table5"):
        trainings = EXPERIMENTS[name](chosen).trainings().values()
        assert {training.iterations for training in trainings} == {60}
        assert {training.schedule.rule["stepsize"] for training in trainings} == {30}
    first, second = EXPERIMENTS["table7b"](chosen).trainings().values()
    assert (first.iterations, first.schedule.rule["stepsize"], second.iterations) == (60, 25, 60)


def test_every_option_reaches_the_files(voc: Path, weights: Path, tmp_path: Path) -> None:
    chosen = settings(
        voc, tmp_path, weights=weights, iter_size=5, frozen=4, new_rate=10, batch_norm_memory=0.95, mean=(1, 2, 3),
        interval=7, test_images=2,
    )  # fmt: skip
    files = EXPERIMENTS["irnn"](chosen).trainings()["h_renet_bn"].files(tmp_path)
    network, solver = files["train_val.prototxt"], files["solver.prototxt"]
    for text in ("batch_size: 2", "crop_height: 40", "lr_mult: 10", "moving_average_fraction: 0.95", "mean_value: 3"):
        assert text in network
    for text in (f'weights: "{weights}"', "iter_size: 5", "test_iter: 2", "snapshot: 7", "max_iter: 30"):
        assert text in solver
    assert "deploy_crf.prototxt" in files
    assert "the first 2 of the test split's 3." in solver
    unaided = EXPERIMENTS["irnn"](settings(voc, tmp_path)).trainings()["h_renet_bn"].files(tmp_path)
    assert "weights:" not in unaided["solver.prototxt"]


def test_papers_figures_agree_with_what_evaluate_shows() -> None:
    shown = [row.mean_iou for row in paper_results("voc2012").rows]
    assert [figures[0] for figures in paper_experiment("table4").rows.values()] == shown
    assert paper_experiment("table7a").class_iou["H-ReNet"] == paper_results("voc2012").class_iou
    for name in ("table4", "table5", "table6", "table7a", "table7b", "irnn", "training_size", "l2_scale"):
        paper, experiment = paper_experiment(name), full_size(name)
        assert {row.paper for row in experiment.rows} - {""} <= paper.rows.keys()
    assert {name: rows[0] for name, rows in paper_experiment("table6").rows.items() if name.startswith("H-")} == {
        "H-ReNet": 71.1,
        "H-ReNet + DenseCRF (2 iterations)": 72.6,
    }


# ------------------------------------------------------------------------------------------------------------- runs


def test_shared_runs_are_trained_once_and_crf_rows_not_at_all(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    runs = Runs(settings(voc, tmp_path), scripts)
    result = performed("table4", runs)
    assert len(scripts.of("train")) == 4
    assert len(scripts.of("predict")) == 7
    assert sum("--crf" in words for words in scripts.of("predict")) == 3
    assert [row["paper"]["mean_iou"] for row in result["rows"]] == [63.4, 70.0, 70.4, 71.1, 67.5, 71.9, 72.6]
    assert all(row["figures"]["mean_iou"]["mean"] == pytest.approx(100) for row in result["rows"])
    scripts.calls.clear()
    performed("table6", runs)
    trained = [Path(words[words.index("--run") + 1]).name for words in scripts.of("train")]
    assert trained == ["deeplab_largefov", "fcn32s", "fcn16s", "fcn8s", "crf_as_rnn"]
    with_crf = [words for words in scripts.of("predict") if "--crf" in words]
    assert [words[-1] for words in with_crf] == [str(tmp_path / "deeplab_largefov/network/deploy_crf.prototxt")]
    assert (
        f"{tmp_path}/fcn16s/snapshots/fcn16s_iter_100.caffemodel"
        in (tmp_path / "fcn8s/network/solver.prototxt").read_text()
    )
    assert "| DeepLab-CRF-LargeFOV | 100.0 | 67.6 | 0.250 | 2.13 |" in page("table6", runs)
    assert "fcn8s: an iteration learns from 2 crops of 40 x 50, its authors' from whole images, one at a time." in page(
        "table6", runs
    )
    assert "| H-ReNet | 100.0 | 71.1 | 0.250 | 0.24 |" in page("table6", runs)
    assert "| *Piecewise* |  | 70.3 |  | 1.5 |" in page("table6", runs)


def test_table_tells_what_was_run(voc: Path, tmp_path: Path) -> None:
    runs = Runs(settings(voc, tmp_path, flip=True, iter_size=2), Scripts())
    result = performed("irnn", runs)
    text = page("irnn", runs)
    assert "The paper's figures: section 4.2" in text
    assert "other images" not in text
    assert "| h_renet_bn_gru | trainaug | 30 | 30,000 | 2 x 2 passes | 40 x 50 | 120 | 1,000 | 1.5 |" in text
    for line in (
        "Budget 0.001",
        "crops of 40 x 50; the paper's are 400 x 500",
        "Images of an iteration: 4, where the paper has 10",
    ):
        assert line in text
    for line in ("sees a pass's 2 images", "Nothing was pretrained", "mirrored", "Trained with CAFFE_ALLOW_BF16=1."):
        assert line in text
    (run,) = (run for run in result["runs"] if run["name"] == "h_renet_bn_irnn")
    assert (run["iterations"], run["paper_iterations"], run["images_seen"], run["seed"]) == (30, 30000, 120, 0)
    assert result["rows"][2]["paper"] is None
    assert result["commit"] or not (ROOT / ".git").exists()
    other = write_dataset_json(tmp_path / "other", splits={"train": {"count": 1, "sha256": ""}})
    assert Dataset.open(other).name != "voc2012"


def test_other_data_than_the_papers_is_told(tmp_path: Path) -> None:
    splits = {name: {"count": 2, "sha256": ""} for name in ("train", "test")}
    for name in splits:
        labels = np.array([[0, 1], [2, 2]], np.uint8)
        write_split(tmp_path / "data" / name, {f"{name}{i}": (np.zeros((2, 2, 3), np.uint8), labels) for i in range(2)})
    write_dataset_json(tmp_path / "data", splits=splits)
    runs = Runs(settings(tmp_path / "data", tmp_path / "out"), Scripts())
    result = performed("table5", runs)
    assert result["paper"]["same_images"] is False
    assert "measured on three_things (test)" in page("table5", runs)
    assert "compare the order of the rows, not their height" in page("table5", runs)


def test_seeds_give_mean_and_spread(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    scripts.wrong = {"h_renet_bn_seed1": 30}
    runs = Runs(settings(voc, tmp_path, seeds=(0, 1)), scripts)
    result = performed("irnn", runs)
    assert len(scripts.of("train")) == 6
    assert sum("--seed" in words for words in scripts.of("train")) == 3
    figures = result["rows"][0]["figures"]["mean_iou"]
    assert figures["highest"] == pytest.approx(100)
    assert figures["mean"] == pytest.approx((100 + figures["lowest"]) / 2)
    assert f"{figures['mean']:.1f} ({figures['lowest']:.1f} to 100.0)" in page("irnn", runs)
    assert result["rows"][1]["figures"]["mean_iou"]["seeds"] == 2
    for training in EXPERIMENTS["irnn"](runs.settings).trainings().values():
        assert difference(training, tmp_path) is None


def test_folds_give_mean_and_deviation(tmp_path: Path) -> None:
    """By hand: of 40 pixels of each fold's image, a tenth of the second fold's are wrong."""
    labels = np.repeat([[0, 1]], 20, axis=0).astype(np.uint8)
    splits = {f"fold{number}/{part}": {"count": 1, "sha256": ""} for number in range(5) for part in ("train", "test")}
    for name in splits:
        write_split(tmp_path / "data" / name, {"one": (np.zeros((20, 2, 3), np.uint8), labels)})
    write_dataset_json(tmp_path / "data", splits=splits)
    scripts = Scripts()
    scripts.wrong = {"n_renet_fold1": 4}
    runs = Runs(settings(tmp_path / "data", tmp_path / "out"), scripts)
    result = performed("table1", runs)
    assert len(scripts.of("train")) == 10
    text = page("table1", runs)
    assert "Each figure is the mean of five folds" in text
    assert "| fold1 | 90.0 | 90.0 | 0.250 |\n| fold2 | 100.0 |" in text
    assert "| mean of the folds | 98.0 | 98.0 | 0.250 |" in text
    assert "| standard deviation of the folds | 4.5 | 4.5 | 0.000 |" in text
    spread = result["rows"][0]["folds"]["pixel_accuracy"]
    assert spread == pytest.approx({"lowest": 90, "highest": 100, "deviation": 20**0.5})


def test_sizes_stand_beside_where_they_are_asked_for(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    scripts.wrong = {"fcn_deeper": 30}
    runs = Runs(settings(voc, tmp_path), scripts)
    result = performed("capacity", runs)
    assert "| mean IoU % of regions, by share of the image | below 1% | 1 to 4% | 4 to 16% | 16% and more |" in page(
        "capacity", runs
    )
    assert "| H-ReNet | – | – | – | 100.0 |" in page("capacity", runs)
    assert "The paper's figures" not in page("capacity", runs)
    assert "|  | pixel accuracy % | class accuracy % | mean IoU % |\n" in page("capacity", runs)
    assert "| H-ReNet | 100.0 | 100.0 | 100.0 |\n" in page("capacity", runs)
    wrong = result["rows"][1]["mean_iou_by_size"]
    assert wrong[:3] == [None] * 3 and wrong[3]["mean"] < 100
    shown = page("irnn", runs) if performed("irnn", runs) else ""
    assert "regions" not in shown


def test_submission_tree_without_scores(voc: Path, coco: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    runs = Runs(settings(voc, tmp_path, coco=(coco,)), scripts)
    result = performed("table7b", runs)
    trained = [Path(words[words.index("--run") + 1]).name for words in scripts.of("train")]
    assert trained == ["h_renet_bn_mlfb_coco", "h_renet_bn_mlfb_after_coco"]
    solver = (tmp_path / "h_renet_bn_mlfb_after_coco/network/solver.prototxt").read_text()
    assert f"{tmp_path}/h_renet_bn_mlfb_coco/snapshots/h_renet_bn_mlfb_coco_iter_120.caffemodel" in solver
    for folder in ("comp6", "comp6_crf"):
        tree = tmp_path / "h_renet_bn_mlfb_after_coco" / folder / SUBFOLDER
        assert sorted(file.name for file in tree.iterdir()) == ["test_0.png", "test_1.png"]
        assert str(tree) in page("table7b", runs)
        assert str(tmp_path / "h_renet_bn_mlfb_after_coco" / folder / ARCHIVE) in page("table7b", runs)
    assert result["rows"][0]["figures"]["mean_iou"] is None
    assert "there is no score" in page("table7b", runs)
    assert "| H-ReNet | – | 75.3 |" in page("table7b", runs)
    assert "| aeroplane | – | 90.4 | – | 93.1 |" in page("table7b", runs)


def test_scale_is_chosen_on_held_out_images(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    scripts.wrong = {"h_renet_l2_mlfb_scale100_held_out": 9, "h_renet_l2_mlfb_scale10000_held_out": 5}
    runs = Runs(settings(voc, tmp_path), scripts, total=5)
    result = performed("l2_scale", runs)
    assert result["chosen"] == "1000"
    assert runs.seen[-2:] == ["h_renet_l2_mlfb_scale1000", "h_renet_bn_mlfb"]
    assert len(scripts.of("train")) == count_runs([EXPERIMENTS["l2_scale"](runs.settings)]) == 5
    held_out = Dataset.open(tmp_path / "held_out")
    assert {name: split.count for name, split in held_out.splits.items()} == {"train": 11, "held_out": 1}
    network = (tmp_path / "h_renet_l2_mlfb_scale1000_held_out/train_val.prototxt").read_text()
    assert f'source: "{tmp_path}/held_out/train"' in network
    assert re.search(r"l2_normalization_param \{\s*scale: 1000.0 \}", network)
    assert str(voc / "trainaug") in (tmp_path / "h_renet_l2_mlfb_scale1000/train_val.prototxt").read_text()
    text = page("l2_scale", runs)
    assert "| h_renet_l2_mlfb_scale100_held_out | held_out/train | 40 |" in text
    assert "| scale 1000 | 100.0 |" in text
    assert "| L2 normalisation, scale 1000 | 100.0 | – |" in text
    scripts.calls.clear()
    performed("l2_scale", runs)
    assert scripts.calls == []


def test_predictions_of_older_weights_are_made_anew(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    runs = Runs(settings(voc, tmp_path), scripts)
    performed("figure4", runs)
    scripts.calls.clear()
    (weights,) = (tmp_path / "fcn/snapshots").iterdir()
    weights.write_text("newer")
    scripts.wrong = {"fcn": 20}
    performed("figure4", runs)
    (again,) = scripts.of("predict")
    assert "--overwrite" in again
    assert json.loads((tmp_path / "fcn/evaluation.json").read_text())["pixel_accuracy"] < 1
    (tmp_path / "fcn/predictions/val_0.png").unlink()
    performed("figure4", runs)
    assert "--overwrite" not in scripts.of("predict")[-1]
    (tmp_path / "fcn/evaluation.json").unlink()
    scripts.calls.clear()
    performed("figure4", runs)
    assert scripts.of("predict") == []
    assert (tmp_path / "fcn/evaluation.json").is_file()


def test_scores_of_one_split_are_not_taken_for_anothers(voc: Path, tmp_path: Path) -> None:
    for split, score in (("val", True), ("test", False), ("val", True)):
        runs = Runs(settings(voc, tmp_path, test_split=split), Scripts())
        result = performed("table7a", runs)
        assert (result["rows"][0]["figures"]["mean_iou"] is not None) == score
        found = result["rows"][0]["seeds"]["0"][0]
        assert found["images"] == len(list(Path(found["tree"]).iterdir())) == {"val": 3, "test": 2}[split]
    assert len(list((tmp_path / "h_renet_bn_mlfb_trainval/snapshots").iterdir())) == 1


def test_figures_have_the_papers_columns(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    runs = Runs(settings(voc, tmp_path), scripts)
    performed("figure4", runs)
    performed("figure5", runs, FigureOptions(ids=("val_1",), others=(("CRFasRNN", tmp_path / "theirs"),)))
    fourth, fifth = scripts.of("picture_sheet")
    assert fourth[fourth.index("--names") + 1 :][:2] == ["baseline FCN", "H-ReNet"]
    assert fifth[fifth.index("--names") + 1 :][:2] == ["CRFasRNN", "H-ReNet + DenseCRF"]
    assert fifth[fifth.index("--predictions") + 2] == str(tmp_path / "h_renet_bn_mlfb/predictions_crf")
    assert fifth[fifth.index("--ids") + 1] == "val_1"
    assert "--truth-last" in fifth
    assert "figure5.png" in page("figure5", runs)


# ---------------------------------------------------------------------------------------------------------- changes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"budget": 2e-3}, "max_iter was 12, and would be 24"),
        ({"crop": (40, 48)}, "layer 'data': segmentation_data_param.crop_width was 50, and would be 48"),
        ({"batch": 3}, "batch_size was 2, and would be 3"),
        ({"frozen": 3}, "layer 'conv3_1': param"),
        ({"new_rate": 10.0}, "layer 'conv6': param"),
        ({"solver": "adam"}, "was"),
        ({"rate": 0.5}, "base_lr was 0.001, and would be 0.5"),
        ({"iter_size": 2}, "iter_size was unset, and would be 2"),
        ({"mean": (1.0, 2.0, 3.0)}, "mean_value"),
        ({"test_split": "trainaug"}, "source"),
    ],
)
def test_other_options_than_a_runs_own_are_told(voc: Path, tmp_path: Path, more: dict, message: str) -> None:
    runs = Runs(settings(voc, tmp_path), Scripts())
    runs.train(EXPERIMENTS["table6"](runs.settings).trainings()["fcn"])
    changed = Runs(settings(voc, tmp_path, **more), Scripts())
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/fcn: this run was begun with other options")) as told:
        check_everything(changed, [EXPERIMENTS["table6"](changed.settings)])
    assert message in str(told.value)
    check_everything(runs, [EXPERIMENTS["table6"](runs.settings)])


def test_other_content_of_weights_and_data_is_told(voc: Path, weights: Path, tmp_path: Path) -> None:
    mine = tmp_path / "vgg16.caffemodel"
    shutil.copy(weights, mine)
    runs = Runs(settings(voc, tmp_path / "out", weights=mine), Scripts())
    (training, *_) = EXPERIMENTS["table6"](runs.settings).trainings().values()
    runs.train(training)
    assert difference(training, runs.settings.out) is None
    mine.write_text("other weights")
    assert "vgg16.caffemodel has other content" in difference(training, runs.settings.out)
    mine.unlink()  # a run that was begun does not need them any more
    runs.check(training)


def test_run_that_never_came_to_anything_is_written_anew(voc: Path, tmp_path: Path) -> None:
    runs = Runs(settings(voc, tmp_path), Scripts())
    training = EXPERIMENTS["table6"](runs.settings).trainings()["fcn"]
    runs.train(training)
    shutil.rmtree(tmp_path / "fcn/snapshots")
    changed = Runs(settings(voc, tmp_path, budget=2e-3), Scripts())
    changed.train(EXPERIMENTS["table6"](changed.settings).trainings()["fcn"])
    assert "max_iter: 24" in (tmp_path / "fcn/solver.prototxt").read_text()


def test_a_network_that_was_edited_before_its_run_began_is_kept(voc: Path, tmp_path: Path) -> None:
    runs = Runs(settings(voc, tmp_path), Scripts())
    training = EXPERIMENTS["table6"](runs.settings).trainings()["fcn"]
    runs.train(training)
    shutil.rmtree(tmp_path / "fcn/snapshots")
    network = tmp_path / "fcn/network/train_val.prototxt"
    network.write_text(network.read_text() + "# mine\n")
    with pytest.raises(UserError, match=re.escape(f"{network}: edited since")):
        Runs(runs.settings, Scripts()).train(training)
    assert network.read_text().endswith("# mine\n")


def test_stopped_run_is_resumed(voc: Path, tmp_path: Path) -> None:
    scripts = Scripts()
    runs = Runs(settings(voc, tmp_path, seeds=(3,)), scripts)
    experiment = EXPERIMENTS["table6"](runs.settings)
    training = experiment.trainings()["fcn_seed3"]
    runs.train(training)
    (tmp_path / "fcn_seed3/run.json").write_text(json.dumps({"state": "interrupted", "iteration": 5}))
    assert any("at iteration 5" in line for line in listing(runs, experiment))
    again = Runs(runs.settings, scripts)
    again.train(training)
    assert "--resume" in scripts.calls[-1]
    assert "--seed" not in scripts.calls[-1]


# ---------------------------------------------------------------------------------------------- as a user runs it


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three things in small images, two folds of them."""
    folder = tmp_path_factory.mktemp("folds") / "data"
    random = np.random.default_rng(0)
    labels = np.zeros((40, 48), np.uint8)
    labels[:, 20:], labels[25:] = 1, 2
    splits = {}
    for name, count in (("fold0/train", 6), ("fold0/test", 3), ("fold1/train", 6), ("fold1/test", 2)):
        images = [
            (random.integers(0, 60, (40, 48, 3)) + 60 * labels[:, :, None]).astype(np.uint8) for _ in range(count)
        ]
        write_split(folder / name, {f"{name[4]}{name[6:]}{i}": (image, labels) for i, image in enumerate(images)})
        splits[name] = {"count": count, "sha256": name}
    write_dataset_json(folder, splits=splits)
    return folder


SMALL = ("--n-renet", "n_renet_small", "--crop", "32x32", "--batch", 2, "--interval", 20)


def test_whole_experiment_stopped_half_way_and_gone_on_with(folds: Path, tmp_path: Path) -> None:
    arguments = ["table1", "figure2", "--dataset", folds, "--out", "out", "--budget", 0.003, "--count", 2, *SMALL]
    command = [*TOOL, *map(str, arguments)]
    run = tmp_path / "out/n_renet_small_fold0"
    hold = Hold.make(tmp_path, rf"open {run}/metrics\.jsonl$", number=3)  # after a snapshot
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT | hold.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    hold.wait(process)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "run 1 of 4: n_renet_small_fold0" in out
    assert error.splitlines()[-1] == (
        f"experiments.py: stopped there; go on with: .venv/bin/python tools/experiments.py {' '.join(command[2:])}"
    )
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"

    listed = call(*arguments, "--list", cwd=tmp_path)
    assert re.search(r"n_renet_small_fold0 +108 +at iteration \d+ +without CRF: missing", listed.stdout)
    planned = call(*arguments, "--dry-run", cwd=tmp_path)
    assert f"tools/train.py --run {run} --keep 1 --resume" in planned.stdout
    assert not (tmp_path / "out/n_renet_small_fold1").exists()

    done = call(*arguments, "--tensorboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--resume --tensorboard" in done.stdout
    assert any((tmp_path / "out/n_renet_small_fold1/tensorboard").glob("events.out.tfevents.*"))
    result = json.loads((tmp_path / "out/table1.json").read_text())
    row, other = result["rows"]
    assert other["figures"]["pixel_accuracy"]["mean"] > 0
    both = [fold["pixel_accuracy"] for fold in row["seeds"]["0"]]
    assert row["figures"]["pixel_accuracy"]["mean"] == pytest.approx(sum(both) / 2)
    assert row["figures"]["seconds"]["mean"] > 0
    assert [run["iterations"] for run in result["runs"]] == [108] * 4
    assert all(run["machine"] and run["seconds"] > 0 for run in result["runs"])
    text = (tmp_path / "out/table1.md").read_text()
    assert text in done.stdout
    assert re.search(r"\| N-ReNet \| [\d.]+ \| 80\.4 \| [\d.]+ \| 71\.8 \| [\d.]+ \| 0\.07 \|", text)
    maps = sorted(file.name for file in (tmp_path / "out/figure2").iterdir())
    layers = ("renet1_vertical", "renet2_horizontal")
    ids = ("0test0", "0test1")
    assert maps == sorted(f"{i}_{layer}_{n}.png" for i in ids for layer in layers for n in range(1, 5))
    with Image.open(tmp_path / "out/figure2" / maps[0]) as picture:
        assert (picture.mode, picture.size) == ("L", (24, 20))
    assert (tmp_path / "out/figure2.png").is_file()

    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("n_renet*/**/*") if file.is_file()}
    again = call(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("trained already") == 4
    assert "$ " not in again.stdout
    assert {file: file.stat().st_mtime_ns for file in files} == files
    changed = call(*arguments, "--batch", 3, cwd=tmp_path)
    assert "n_renet_small_fold0: this run was begun with other options" in only_line(changed, "experiments.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an experiment: table1, table4"),
        (["table3"], "'table3' is no experiment"),
        (["table4", "--dataset", "nowhere"], "nowhere/?.*no such file"),
        (["table4", "--dataset", "DATA", "--test-split", "val"], "has no split val"),
        (["table4", "--dataset", "DATA", "--weights", "lost.caffemodel"], r"lost.caffemodel: .*data_prep/vgg16\.py"),
        (["table7b", "--dataset", "DATA", "--coco", "lost", "--weights", "none"], "lost: no such prepared split"),
        (["table4", "--budget", "0"], "'0' is not a number over 0"),
        (["table4", "--budget", "0.1", "--iterations", "5"], "not allowed with argument --budget"),
        (["figure5", "--other", "theirs"], "'theirs' is not NAME=DIR"),
    ],
)
def test_bad_input_is_told_in_one_line(folds: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    words = [str(folds) if word == "DATA" else word for word in arguments]
    assert re.search(message, only_line(call(*words, "--out", "out", cwd=tmp_path), "experiments.py"))
    assert not (tmp_path / "out").exists()


def test_list_needs_no_data(tmp_path: Path) -> None:
    listed = call("--list", "--dataset", "voc2012", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    for name in EXPERIMENTS:
        assert f"{name}: " in listed.stdout
    assert "is not prepared yet (data_prep/voc2012.py)" in listed.stdout
    assert not list(tmp_path.iterdir())


def test_dry_run_writes_nothing(folds: Path, tmp_path: Path) -> None:
    done = call("l2_scale", "--dataset", folds, "--out", "out", "--weights", "none", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("tools/train.py --run" in line for line in lines) == 4
    assert sum("tools/evaluate.py" in line for line in lines) == 4
    assert lines[-1].startswith("# then, after the choice, the same for one of h_renet_l2_mlfb_scale100,")
    assert not (tmp_path / "out").exists()
    runs = Runs(settings(folds, tmp_path / "out"), Scripts())
    experiments = [EXPERIMENTS[name](runs.settings) for name in ("table4", "table6")]
    trainings = [line for line in commands(runs, experiments) if "tools/train.py" in line]
    assert len(trainings) == len(set(trainings)) == count_runs(experiments) == 9


def test_every_model_of_the_plan_is_known() -> None:
    for name in EXPECTED:
        assert all(training.model in MODELS for training in full_size(name).trainings().values())
