"""tools/train.py on solvers and networks as people write them: every form trains, and every mistake is one line."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import caffe
import cv2
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from segmentation_helpers import only_line, png_of_zeros, write_dataset_json, write_split

from renet.data.datum import pack_encoded
from renet.training.run_state import RunState

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ITERATIONS = 6
COLOURS = np.array([[200, 30, 30], [30, 160, 30], [30, 60, 220], [90, 90, 90]], np.uint8)
SOLVER = """base_lr: 0.05
lr_policy: "fixed"
momentum: 0.9
max_iter: 6
display: 1
snapshot: 3
random_seed: 1
"""
NETWORK = """
layer { name: "data" type: "SegmentationData" top: "data" top: "label" include { phase: TRAIN }
  segmentation_data_param { source: "things/train" batch_size: 2 crop_height: 9 crop_width: 11 mirror: true
  shuffle: true mean_value: 90 mean_value: 90 mean_value: 90 scale: 0.02 seed: 3 } }
layer { name: "data" type: "SegmentationData" top: "data" top: "label" include { phase: TEST }
  segmentation_data_param { source: "things/test" batch_size: 1 mean_value: 90 mean_value: 90 mean_value: 90
  scale: 0.02 } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 } }
"""
TESTS = "test_iter: 2 test_interval: 3\n"


def sample(number: int, ignored: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy BGR picture of three things, and its labels with a strip of ignored ones."""
    random = np.random.default_rng(number)
    labels = (np.add.outer(np.arange(12) // 4, np.arange(16) // 5) + number) % 3
    labels[:2] = ignored
    noise = random.integers(0, 60, (12, 16, 3))
    return np.clip(COLOURS[np.where(labels == ignored, 3, labels)] + noise, 0, 255).astype(np.uint8), labels.astype(
        np.uint8
    )


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the prepared dataset `things`, and `four`, whose ignored label is a fourth class."""
    folder = tmp_path_factory.mktemp("cases")
    classes = ["brick", "leaf", "lake"]
    for name, ignored, names in (("things", 255, classes), ("four", 3, [*classes, "void"])):
        write_dataset_json(folder / name, classes=names, palette=COLOURS[: len(names)].tolist())
        for split, numbers in (("train", range(4)), ("test", range(4, 6))):
            write_split(folder / name / split, {f"p{number}": sample(number, ignored) for number in numbers})
    return folder


def train(cwd: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "tools" / "train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT | environment, timeout=300)


def write(folder: Path, network: str = NETWORK, solver: str = SOLVER, more: str = "") -> Path:
    """A network and its solver in a new folder."""
    folder.mkdir()
    (folder / "train_val.prototxt").write_text(network)
    (folder / "solver.prototxt").write_text(f'net: "train_val.prototxt"\n{solver}{more}')
    return folder / "solver.prototxt"


def trained(things: Path, run: Path, solver: Path, *arguments: object, **environment: str) -> str:
    """What a training says that comes to its end."""
    done = train(things, "--solver", solver, "--run", run, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stderr


def lines(run: Path, kind: str) -> list[dict]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def metadata(run: Path) -> Mapping[str, object]:
    return json.loads((run / "run.json").read_text())


def final(run: Path, iteration: int = ITERATIONS) -> list[bytes]:
    """The weights after the last iteration."""
    file = run / "snapshots" / f"{run.name}_iter_{iteration}.caffemodel"
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    return [np.array(blob.data, np.float32).tobytes() for layer in network.layer for blob in layer.blobs]


def failed(run: Path, message: str) -> None:
    """The run's record, and so runs.py, says that it failed and why."""
    state = RunState.of(run)
    assert state.state == "failed"
    assert re.search(message, state.message), state.message


def test_the_bar_shows_the_mean_of_the_last_average_loss_iterations(things: Path, tmp_path: Path) -> None:
    for number, more in ((1, ""), (3, "average_loss: 3")):
        run = tmp_path / f"run{number}"
        said = trained(things, run, write(tmp_path / f"net{number}", more=more))
        shown = re.search(r"6/6 iteration .*loss ([\d.]+),", said)[1]
        losses = [line["loss"] for line in lines(run, "train")]
        assert len(losses) == ITERATIONS
        assert float(shown) == pytest.approx(np.mean(losses[-number:]), abs=6e-5)


def test_an_iteration_of_several_passes_has_their_mean_loss(things: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    still = SOLVER.replace("base_lr: 0.05", "base_lr: 0")
    trained(things, one, write(tmp_path / "net1", solver=still))
    trained(things, two, write(tmp_path / "net2", solver=still, more="iter_size: 2"), "--iterations", 3)
    single = [line["loss"] for line in lines(one, "train")]
    double = [line["loss"] for line in lines(two, "train")]
    assert double == pytest.approx([np.mean(single[at : at + 2]) for at in (0, 2, 4)], rel=1e-5)


def test_the_old_solver_type(things: Path, tmp_path: Path) -> None:
    for name, kind in (("old", "solver_type: ADAM"), ("new", 'type: "Adam"')):
        trained(things, tmp_path / name, write(tmp_path / f"net_{name}", more=f"{kind} momentum2: 0.99\n"))
    assert final(tmp_path / "old") == final(tmp_path / "new")
    resumed = train(things, "--resume", "--run", tmp_path / "old", "--iterations", 8)
    assert resumed.returncode == 0, resumed.stderr
    assert "skipped" not in resumed.stderr


def test_an_ignored_label_among_the_classes(things: Path, tmp_path: Path) -> None:
    """The same data and network with 255 and with 3 as the ignored label have the same weights and scores."""
    network = NETWORK.replace("num_output: 3", "num_output: 4")
    other = network.replace("things/", "four/").replace("ignore_label: 255", "ignore_label: 3")
    other = other.replace("seed: 3", "seed: 3 ignore_label: 3").replace("0.02 } }", "0.02 ignore_label: 3 } }")
    for name, text in (("beyond", network), ("among", other)):
        trained(things, tmp_path / name, write(tmp_path / f"net_{name}", text, more=TESTS))
    assert final(tmp_path / "among") == final(tmp_path / "beyond")
    assert lines(tmp_path / "among", "test") == lines(tmp_path / "beyond", "test")
    assert len(lines(tmp_path / "among", "test")) == 3


STAGES = """
layer { name: "data" type: "SegmentationData" top: "data" top: "label" include { phase: TEST stage: "seen" }
  segmentation_data_param { source: "things/train" batch_size: 1 mean_value: 90 mean_value: 90 mean_value: 90
  scale: 0.02 } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
  input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
SHARED_LAYERS
layer { name: "worse" type: "Power" bottom: "score" top: "worse" include { stage: "train" } }
""".replace("SHARED_LAYERS", NETWORK.replace("include { phase: TEST }", 'include { phase: TEST stage: "val" }'))


def test_stages_and_several_tests(things: Path, tmp_path: Path) -> None:
    states = 'train_state { stage: "train" } test_state { stage: "val" } test_state { stage: "seen" }\n'
    tests = "test_iter: 2 test_iter: 4 test_interval: 3\n"
    run = tmp_path / "run"
    said = trained(things, run, write(tmp_path / "net", STAGES, more=states + tests))
    plain = tmp_path / "plain"
    trained(things, plain, write(tmp_path / "net_plain", more=TESTS))
    assert final(run) == final(plain)
    assert lines(run, "test") == lines(plain, "test"), "the first test's scores are the main ones"
    assert [line["iteration"] for line in lines(run, "test_1")] == [0, 3, 6]
    assert lines(run, "test_1")[-1]["loss"] != lines(run, "test")[-1]["loss"]
    assert re.search(r"^iteration 6: test \(val\) loss .*mean IoU [\d.]+$", said, re.MULTILINE)
    assert re.search(r"^iteration 6: test_1 \(seen\) loss .*mean IoU [\d.]+$", said, re.MULTILINE)
    assert RunState.of(run).best == RunState.of(plain).best
    # a resumption does what is missing, once
    kept = (run / "metrics.jsonl").read_text().splitlines()[:-1]
    assert '"test_1"' not in kept[-1]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    before = lines(run, "test")
    assert train(things, "--resume", "--run", run).returncode == 0
    assert [line["iteration"] for line in lines(run, "test_1")] == [0, 3, 6]
    assert lines(run, "test") == before


def test_networks_in_files_of_their_own(things: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    solver = write(folder, more="")
    layers = re.split(r"\n(?=layer)", NETWORK.strip())
    (folder / "mine.prototxt").write_text("\n".join([layers[0], *layers[2:]]))
    (folder / "val.prototxt").write_text("\n".join(layers[1:]))
    solver.write_text(f'train_net: "mine.prototxt"\ntest_net: "val.prototxt"\n{SOLVER}{TESTS}')
    run, plain = tmp_path / "run", tmp_path / "plain"
    trained(things, run, solver)
    trained(things, plain, write(tmp_path / "net_plain", more=TESTS))
    assert final(run) == final(plain)
    assert lines(run, "test") == lines(plain, "test")
    assert sorted(file.name for file in run.glob("*.prototxt")) == [
        "solver.prototxt",
        "test.prototxt",
        "train.prototxt",
    ]
    shutil.rmtree(folder)
    (tmp_path / "moved").mkdir()
    run = run.rename(tmp_path / "moved" / "run")
    resumed = train(things, "--resume", "--run", run, "--iterations", 8)
    assert resumed.returncode == 0, resumed.stderr
    assert [line["iteration"] for line in lines(run, "test")] == [0, 3, 6, 8]


def test_no_snapshot_after_the_training(things: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = trained(things, run, write(tmp_path / "net", more="snapshot_after_train: false\n"), "--iterations", 5)
    assert "finished 5 iterations; no snapshot (snapshot_after_train)" in said
    assert [file.name for file in (run / "snapshots").glob("*.caffemodel")] == ["run_iter_3.caffemodel"]


SCORES_IN_PYTHON = """import caffe
import numpy as np


class Loss(caffe.Layer):
    def setup(self, bottom, top):
        self.passes = 0

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.passes += 1
        if self.passes == 3:
            FAULT
        scores = bottom[0].data
        self.wanted = np.moveaxis(np.eye(256)[bottom[1].data[:, 0].astype(int)][..., :3], -1, 1)
        top[0].data[...] = ((scores - self.wanted) ** 2).mean()

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * (bottom[0].data - self.wanted) / self.wanted.size
"""
PYTHON = re.sub(
    r'type: "SoftmaxWithLoss"(.*\n).*',
    r'type: "Python"\1  python_param { module: "losses_of_mine" layer: "Loss" } loss_weight: 1 }',
    NETWORK,
)


def test_a_layer_in_python(things: Path, tmp_path: Path) -> None:
    solver = write(tmp_path / "net", PYTHON, more=TESTS)
    done = train(things, "--solver", solver, "--run", tmp_path / "run")
    assert only_line(done, "train.py") == (
        "train.py: layer 'loss': the module 'losses_of_mine' cannot be imported: put its folder on PYTHONPATH"
    )
    assert not (tmp_path / "run").exists()
    modules = tmp_path / "modules"
    modules.mkdir()
    for content, message in (
        ("import lost_module", "needs the module 'lost_module'"),
        ("class", "SyntaxError"),
        ("", "has no class 'Loss'"),
    ):
        (modules / "losses_of_mine.py").write_text(content)
        done = train(things, "--solver", solver, "--run", tmp_path / "run", PYTHONPATH=str(modules))
        assert message in only_line(done, "train.py")
    (modules / "losses_of_mine.py").write_text(SCORES_IN_PYTHON.replace("FAULT", "pass"))
    trained(things, tmp_path / "run", solver, PYTHONPATH=str(modules))
    assert lines(tmp_path / "run", "test")[-1]["mean_iou"] > 0


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        ("raise ValueError('of my own')", 1, "ValueError: of my own"),
        ("raise SystemExit(7)", 7, "SystemExit: 7"),
        ("raise MemoryError", 1, "MemoryError"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139, r"ended by signal 11 \(SIGSEGV\)"),
    ],
)
def test_a_run_that_dies_says_so_and_why(things: Path, tmp_path: Path, fault: str, status: int, message: str) -> None:
    (tmp_path / "losses_of_mine.py").write_text(SCORES_IN_PYTHON.replace("FAULT", fault))
    solver = write(tmp_path / "net", PYTHON)
    done = train(things, "--solver", solver, "--run", tmp_path / "run", PYTHONPATH=str(tmp_path))
    assert done.returncode == status, done.stderr
    failed(tmp_path / "run", message)


def test_labels_and_outputs_that_do_not_fit(things: Path, tmp_path: Path) -> None:
    solver = write(tmp_path / "two", NETWORK.replace("num_output: 3", "num_output: 2"))
    line = only_line(train(things, "--solver", solver, "--run", tmp_path / "run2"), "train.py")
    assert "layer 'loss' gets scores of 2 classes, and " in line
    assert f"{things}/things/dataset.json has 3" in line
    failed(tmp_path / "run2", "gets scores of 2 classes")
    solver = write(tmp_path / "four", NETWORK.replace("num_output: 3", "num_output: 4"))
    assert "the others will never be right" in trained(things, tmp_path / "run4", solver)
    solver = write(tmp_path / "not_ignored", NETWORK.replace("loss_param { ignore_label: 255 }", ""))
    line = only_line(train(things, "--solver", solver, "--run", tmp_path / "run"), "train.py")
    assert re.search(r"layer 'loss': label 255 .* \(log: .*train\.log\)$", line), line
    failed(tmp_path / "run", "255")


def test_a_small_file_of_a_huge_image_in_a_split(things: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "data/train", {f"p{number}": sample(number, 255) for number in range(2)})
    with lmdb.open(str(split / "images.lmdb")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"00000001_p1", pack_encoded(png_of_zeros(13_000, 14_000), 3, 12, 16))
    solver = write(tmp_path / "net", NETWORK.replace("things/train", str(split)))
    line = only_line(train(things, "--solver", solver, "--run", tmp_path / "run"), "train.py")
    assert (
        f"layer 'data': '00000001_p1' of source '{split}': the image has height 14000 and width 13000; "
        "expected at most 89478485 pixels" in line
    )


STOCK = """
layer {{ name: "data" type: "{kind}" top: "data" {top} include {{ phase: TRAIN }}
  {parameter} transform_param {{ mirror: true crop_size: 7 scale: 0.02 }} }}
layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param {{ num_output: 3 kernel_size: 7 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "score" top: "score" }}
layer {{ name: "loss" type: "{loss}" bottom: "score" {bottom} top: "loss" }}
"""
# As DeepLab's, SegNet's and PSPNet's files have it.
FOREIGN = """
layer {{ name: "data" type: "{kind}" top: "data" top: "label" {parameter} }}
layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param {{ num_output: 3 kernel_size: 3 pad: 2 hole: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BN" bottom: "score" top: "score" bn_param {{ {form} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" loss_param {{
  ignore_label: 255 weight_by_label_freqs: true class_weighting: 1 class_weighting: 0.5 class_weighting: 2 }} }}
layer {{ name: "accuracy" type: "SegAccuracy" bottom: "score" bottom: "label" top: "accuracy"
  seg_accuracy_param {{ ignore_label: 255 }} }}
"""
FOREIGN_DATA = {
    "ImageSegData": 'image_data_param { source: "pairs.txt" batch_size: 3 shuffle: true label_type: PIXEL } '
    "transform_param { mirror: true crop_size: 14 scale: 0.02 mean_value: 90 }",
    "DenseImageData": 'dense_image_data_param { source: "pairs.txt" batch_size: 3 shuffle: true mirror: true '
    "crop_height: 7 crop_width: 9 } transform_param { scale: 0.02 }",
}


def foreign_network(kind: str, things: Path) -> str:
    """A network of the forks' own layers, on a list of images and label maps."""
    for number in range(4):
        for name, pixels in zip((f"q{number}", f"q{number}_label"), sample(number, 255), strict=True):
            cv2.imwrite(str(things / f"{name}.png"), pixels)
    (things / "pairs.txt").write_text(
        "".join(f"{things}/q{number}.png {things}/q{number}_label.png\n" for number in range(4))
    )
    form = "slope_filler { value: 1 } momentum: 0.5" if kind == "ImageSegData" else "bn_mode: LEARN"
    return FOREIGN.format(kind=kind, parameter=FOREIGN_DATA[kind], form=form)


def network_of(kind: str, things: Path) -> str:
    """A network on a data layer with random crops, mirrors and order."""
    if kind in FOREIGN_DATA:
        return foreign_network(kind, things)
    if kind == "SegmentationData":
        dropout = 'layer { name: "drop" type: "Dropout" bottom: "score" top: "score" }\n'
        return NETWORK.replace('layer { name: "loss"', f'{dropout}layer {{ name: "loss"')
    if kind == "Data":
        parameter = f'data_param {{ source: "{things}/things/train/images.lmdb" backend: LMDB batch_size: 3 }}'
    else:
        pictures = [things / f"p{number}.png" for number in range(4)]
        for number, file in enumerate(pictures):
            cv2.imwrite(str(file), sample(number, 255)[0])
        (things / "list.txt").write_text("".join(f"{file} {number % 3}\n" for number, file in enumerate(pictures)))
        parameter = 'image_data_param { source: "list.txt" batch_size: 3 shuffle: true }'
    with_labels = kind == "ImageData"
    return STOCK.format(
        kind=kind,
        parameter=parameter,
        top='top: "label"' if with_labels else "",
        bottom='bottom: "label"' if with_labels else 'bottom: "score"',
        loss="SoftmaxWithLoss" if with_labels else "EuclideanLoss",
    ).replace('EuclideanLoss" bottom: "score" bottom: "score"', 'Reduction" loss_weight: 1 bottom: "score"')


@pytest.mark.parametrize("kind", ["SegmentationData", "Data", "ImageData", *FOREIGN_DATA])
def test_an_interrupted_training_goes_on_bit_for_bit(things: Path, tmp_path: Path, kind: str) -> None:
    solver = write(tmp_path / "net", network_of(kind, things))
    trained(things, tmp_path / "unbroken", solver)
    trained(things, tmp_path / "run", solver, "--iterations", 4)
    resumed = train(things, "--resume", "--run", tmp_path / "run", "--iterations", ITERATIONS)
    assert resumed.returncode == 0, resumed.stderr
    assert "not bit for bit" not in resumed.stderr
    assert final(tmp_path / "run") == final(tmp_path / "unbroken")


RULES = {
    "cosine and warm-up": 'lr_policy: "cosine" warmup_iter: 4 warmup_start_lr: 0.01',
    "AdamW": 'type: "AdamW" momentum2: 0.99 weight_decay: 0.1 base_lr: 0.01',
    "average": "average_decay: 0.9",
    "all": 'type: "AdamW" lr_policy: "cosine" warmup_iter: 4 weight_decay: 0.1 average_decay: 0.9',
}


def with_rule(rule: str) -> str:
    """The solver, with these fields in place of its own."""
    named = re.findall(r"(\w+):", rule)
    return "\n".join([*(line for line in SOLVER.splitlines() if line.partition(":")[0] not in named), rule, TESTS])


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_resumes_bit_for_bit_and_as_in_stock_caffe(things: Path, tmp_path: Path, rule: str) -> None:
    text = with_rule(RULES[rule])
    solver = write(tmp_path / "net", solver=text)
    trained(things, tmp_path / "unbroken", solver)
    run = tmp_path / "run"
    trained(things, run, solver)
    for file in (run / "snapshots").glob(f"*_iter_{ITERATIONS}.*"):
        file.unlink()  # as if it had been killed after iteration 3
    resumed = train(things, "--resume", "--run", run)
    assert resumed.returncode == 0, resumed.stderr
    assert final(run) == final(tmp_path / "unbroken")
    assert lines(run, "test") == lines(tmp_path / "unbroken", "test")
    assert [line["learning_rate"] for line in lines(run, "train")] == [
        line["learning_rate"] for line in lines(tmp_path / "unbroken", "train")
    ]

    stock = tmp_path / "stock"
    shutil.copytree(solver.parent, stock)
    (stock / "solver.prototxt").write_text(f'net: "{stock}/train_val.prototxt"\n{text}snapshot_prefix: "{stock}/x"\n')
    caffe_command = [REPOSITORY / "build/cpu/bin/caffe", "train", "-solver", stock / "solver.prototxt"]
    done = subprocess.run(caffe_command, cwd=things, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    network = caffe_pb2.NetParameter.FromString((stock / f"x_iter_{ITERATIONS}.caffemodel").read_bytes())
    assert [np.array(blob.data, np.float32).tobytes() for layer in network.layer for blob in layer.blobs] == final(run)


def test_rates_of_a_warm_up_before_a_cosine(things: Path, tmp_path: Path) -> None:
    trained(things, tmp_path / "run", write(tmp_path / "net", solver=with_rule(RULES["cosine and warm-up"])))
    policy = [0.05 * (1 + np.cos(np.pi * i / ITERATIONS)) / 2 for i in range(ITERATIONS)]
    expected = [0.01 + (policy[i] - 0.01) * i / 4 if i < 4 else policy[i] for i in range(ITERATIONS)]
    assert [line["learning_rate"] for line in lines(tmp_path / "run", "train")] == pytest.approx(expected, rel=1e-5)


def test_tests_and_snapshots_are_of_the_average(things: Path, tmp_path: Path) -> None:
    """The weights that are trained are those of a training without one, and are in the state."""
    runs = {}
    for name, rule in (("plain", ""), ("average", "average_decay: 0.9")):
        runs[name] = tmp_path / name
        trained(things, runs[name], write(tmp_path / f"net_{name}", solver=with_rule(rule)))
    state = caffe_pb2.SolverState.FromString(
        (runs["average"] / f"snapshots/average_iter_{ITERATIONS}.solverstate").read_bytes()
    )
    assert [np.array(blob.data, np.float32).tobytes() for blob in state.weights] == final(runs["plain"])
    assert final(runs["average"]) != final(runs["plain"])
    losses = {name: lines(run, "train") for name, run in runs.items()}
    assert [line["loss"] for line in losses["average"]] == [line["loss"] for line in losses["plain"]]

    # the last test, anew, with the .caffemodel
    network = caffe.Net(
        str(runs["average"] / "train_val.prototxt"),
        str(runs["average"] / f"snapshots/average_iter_{ITERATIONS}.caffemodel"),
        caffe.TEST,
    )
    loss = np.mean([float(network.forward()["loss"]) for _ in range(2)])
    assert lines(runs["average"], "test")[-1]["loss"] == pytest.approx(loss, rel=1e-6)
    assert lines(runs["average"], "test")[-1]["loss"] != lines(runs["plain"], "test")[-1]["loss"]


def test_a_state_with_broken_weights_is_no_snapshot_to_resume(things: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained(things, run, write(tmp_path / "net", solver=with_rule("average_decay: 0.9")))
    file = run / f"snapshots/run_iter_{ITERATIONS}.solverstate"
    state = caffe_pb2.SolverState.FromString(file.read_bytes())
    state.weights[0].data[0] = np.nan
    file.write_bytes(state.SerializeToString())
    resumed = train(things, "--resume", "--run", run)
    assert resumed.returncode == 0, resumed.stderr
    assert f"skipped {file}: has values that are infinite or no numbers" in resumed.stderr


def test_what_does_not_go_on_bit_for_bit_is_told(things: Path, tmp_path: Path) -> None:
    noise = """layer { name: "noise" type: "DummyData" top: "noise" dummy_data_param {
      shape { dim: 2 dim: 3 dim: 9 dim: 11 } data_filler { type: "gaussian" std: 0.1 } } include { phase: TRAIN } }
    layer { name: "add" type: "Eltwise" bottom: "noise" bottom: "score" top: "noisy" include { phase: TRAIN } }\n"""
    solver = write(tmp_path / "net", f"{NETWORK}{noise}")
    trained(things, tmp_path / "run", solver, "--iterations", 4)
    resumed = train(things, "--resume", "--run", tmp_path / "run", "--iterations", ITERATIONS)
    assert resumed.returncode == 0, resumed.stderr
    told = "not bit for bit as without the interruption (docs/training.md): noise (DummyData: draws its values anew)"
    assert f"train.py: {told}" in resumed.stderr.splitlines()


def limited(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def test_files_that_may_not_grow(things: Path, tmp_path: Path) -> None:
    """What a full disk is, too: one line that names the file, and what was written stays."""
    wide = NETWORK.replace("kernel_size: 1", "kernel_size: 41 pad: 20")  # a snapshot is larger than all other files
    run = tmp_path / "run"
    solver = write(tmp_path / "net", wide)
    trained(things, run, solver, "--iterations", 3)
    kept = final(run, 3)
    command = [
        sys.executable,
        str(REPOSITORY / "tools" / "train.py"),
        "--resume",
        "--run",
        str(run),
        "--iterations",
        "6",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=things,
        env=ENVIRONMENT | {"PYTHONDONTWRITEBYTECODE": "1"},  # which would be cut off, too
        timeout=300,
        preexec_fn=lambda: limited(resource.RLIMIT_FSIZE, 50_000),
    )
    line = only_line(done, "train.py")
    assert f"{run}/snapshots/run_iter_6" in line
    assert "is the disk full?" in line
    failed(run, "is the disk full")
    assert final(run, 3) == kept
    assert not list((run / "snapshots").glob("*_iter_6.*")), "what was half written is gone"
    assert len(list((run / "snapshots").iterdir())) == 3
    done = train(things, "--resume", "--run", run)
    assert done.returncode == 0, done.stderr
    assert RunState.of(run).state == "finished"


def test_weights_whose_last_bytes_have_no_room(tmp_path: Path) -> None:
    """They are fewer than a stream holds back, so that all of them are written when the file is closed."""
    file = tmp_path / "net.prototxt"
    file.write_text('layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 } } }')
    script = "import sys, caffe; caffe.Net(sys.argv[1], caffe.TEST).save('/dev/full')"
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGABRT
    assert "/dev/full: cannot be written (is the disk full?)" in done.stderr


@pytest.mark.parametrize("number", [12, 24, 40])
def test_few_open_files(things: Path, tmp_path: Path, number: int) -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / "train.py"), "--solver", str(write(tmp_path / "net"))]
    done = subprocess.run(
        [*command, "--run", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        cwd=things,
        env=ENVIRONMENT,
        timeout=300,
        preexec_fn=lambda: limited(resource.RLIMIT_NOFILE, number),
    )
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode:
        assert "Too many open files" in only_line(done, "train.py")


def test_events_that_cannot_be_written_end_the_training(tmp_path: Path) -> None:
    from renet.training.tensorboard_events import EventFiles  # its library sets a variable of the environment

    events = EventFiles(tmp_path / "events", 0, [])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited(resource.RLIMIT_FSIZE, 1000)
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            for iteration in range(100):
                events.add({"kind": "train", "iteration": iteration, "loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "events")
