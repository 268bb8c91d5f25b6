"""docs/troubleshooting.md: what it says of each symptom is provoked, and every message that it quotes is printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from hold import Hold
from PIL import Image
from segmentation_helpers import save_labels

from renet.data.label_maps import read_label_map
from renet.data.split_reader import SplitReader
from renet.weights.snapshots import find

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = [line for block in re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]
VARIES = re.compile(r"\b(FILE|DIR|NAMES?|SHAPE|N)\b")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}


def call(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    script, *arguments = map(str, words)
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT | more, capture_output=True, text=True, timeout=120)


def done(*words: object, cwd: Path, **more: str) -> str:
    result = call(*words, cwd=cwd, **more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def pattern(quoted: str) -> str:
    """A quoted message as a regular expression."""
    parts = VARIES.split(quoted)
    return "".join(".+" if number % 2 else re.escape(part) for number, part in enumerate(parts))


def squares(folder: Path) -> Path:
    """Pictures of a thing before a background, labels 0 and 1 in `ok`, and wrong ones."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in ("images", "ok", "mask", "colours", "sevens", "short"):
        (folder / name).mkdir()
    for number in range(24):
        label = np.zeros((48, 64), np.uint8)
        x, y = random.integers(4, (40, 28))
        label[y : y + 18, x : x + 20] = 1
        colours = np.where(label[..., None] == 1, (30, 30, 150), (40, 120, 40)) + random.integers(0, 60, (48, 64, 3))
        Image.fromarray(colours.astype(np.uint8)).save(folder / f"images/p{number:02}.png")
        for name, values in {"ok": label, "mask": 255 * label, "sevens": 7 * label, "short": label[:40]}.items():
            save_labels(folder / name / f"p{number:02}.png", values, "L")
        Image.fromarray(np.stack([200 * label, 0 * label, 0 * label], -1)).save(folder / f"colours/p{number:02}.png")
    (folder / "classes.txt").write_text("background\nthing\n")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The squares, prepared as `data` and trained into `run`, and drawn scenes as `scenes`."""
    folder = squares(tmp_path_factory.mktemp("troubleshooting") / "place")
    convert(folder, "ok", "data")
    generate(folder, "data", "net", 60)
    done("tools/train.py", "--solver", "net/solver.prototxt", "--run", "run", cwd=folder)
    return folder


def convert(place: Path, labels: str, out: str) -> subprocess.CompletedProcess[str]:
    words = ("--images", "images", "--labels", labels, "--classes", "classes.txt", "--out", out)
    return call("data_prep/folder.py", *words, cwd=place)


def generate(place: Path, dataset: str, out: str, iterations: int) -> None:
    words = ("--model", "conv_small", "--dataset", dataset, "--out", out, "--crop", "40x56", "--batch", 4)
    done("prototxt/generate.py", *words, "--iterations", iterations, "--interval", 20, cwd=place)


def predict(place: Path, out: str, *more: object, model: str = "net/deploy.prototxt", run: str = "run") -> list[str]:
    weights = next((place / run / "snapshots").glob("*.caffemodel"))
    source = () if "--input" in more else ("--split", "data/test")
    return ["tools/predict.py", "--model", model, "--weights", str(weights), "--out", out, *source, *map(str, more)]


def score(place: Path, predictions: str, dataset: str = "data") -> dict:
    words = ("--predictions", predictions, "--labels", f"{dataset}/test", "--dataset", dataset, "--json", "scores.json")
    done("tools/evaluate.py", *words, cwd=place)
    return json.loads((place / "scores.json").read_text())


# ----------------------------------------------------------------------------------------- what the tools print


def last_line(result: subprocess.CompletedProcess[str]) -> Iterator[str]:
    assert result.returncode, result.stderr
    yield result.stderr.splitlines()[-1]


def labels_refused(place: Path) -> Iterator[str]:
    yield from (line for line in convert(place, "mask", "data_mask").stdout.splitlines() if "no pixel" in line)
    for labels in ("colours", "sevens", "short"):
        yield from last_line(convert(place, labels, f"data_{labels}"))
    (place / "uncoloured.txt").write_text("ground #00ff00\nbox 200 0 0\n")
    words = ("--images", "images", "--labels", "colours", "--labels-as", "colours", "--classes", "uncoloured.txt")
    yield from last_line(call("data_prep/folder.py", *words, "--out", "data_uncoloured", cwd=place))
    shutil.rmtree(place / "lying", ignore_errors=True)
    for name in ("images", "labels"):
        (place / "lying" / name).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(place / "images/p00.png").save(place / "lying/images/p00.jpg", exif=exif)
    shutil.copy(place / "ok/p00.png", place / "lying/labels")
    words = ("--images", "lying/images", "--labels", "lying/labels", "--classes", "classes.txt", "--out", "lying/out")
    yield from last_line(call("data_prep/folder.py", *words, "--test-fraction", 0, cwd=place))


def edited(place: Path, old: str, new: str, file: str = "solver.prototxt", out: str = "edited.prototxt") -> str:
    text = (place / "net" / file).read_text()
    assert re.search(old, text)
    (place / "net" / out).write_text(re.sub(old, new, text))
    return f"net/{out}"


def trainings_refused(place: Path) -> Iterator[str]:
    def train(*words: object, cwd: Path = place) -> Iterator[str]:
        shutil.rmtree(place / "new", ignore_errors=True)
        run = () if "--run" in words or not words else ("--run", place / "new")
        yield from last_line(call("tools/train.py", *words, *run, cwd=cwd))

    yield from train()
    yield from train("--solver", edited(place, "base_lr: .*", "base_lr: 1e6"))
    yield from train("--solver", edited(place, "(net: .*)", r'\1\nweights: "models/lost.caffemodel"'))
    yield from train("--solver", edited(place, "base_lr", "base_lrr"))
    yield from train("--solver", "net/solver.prototxt", "--run", "run")
    yield from train("--resume", "--run", "run", "--seed", 3)
    if not (REPOSITORY / "build/gpu").exists():
        yield from train("--solver", "net/solver.prototxt", "--gpu", 0)
    edited(place, "data/train", "data/lost", "train_val.prototxt", "lost.prototxt")
    yield from train("--solver", edited(place, "net: .*", 'net: "net/lost.prototxt"'))
    edited(place, '"Convolution"', '"ReNetLSTN"', "train_val.prototxt", "misspelt.prototxt")
    yield from train("--solver", edited(place, "net: .*", 'net: "net/misspelt.prototxt"'))
    network = caffe_pb2.NetParameter(layer=[{"name": "other", "type": "Convolution"}])
    network.layer[0].blobs.add().shape.dim[:] = [1]
    network.layer[0].blobs[0].data[:] = [0.0]
    (place / "other.caffemodel").write_bytes(network.SerializeToString())
    yield from train("--solver", "net/solver.prototxt", "--weights", "other.caffemodel")


def networks_edited(place: Path) -> Iterator[str]:
    def train(file: str, solver: str | None = None) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(place / "new", ignore_errors=True)
        solver = solver or edited(place, "net: .*", f'net: "{file}"')
        return call("tools/train.py", "--solver", solver, "--run", "new", "--iterations", 1, cwd=place)

    edited(place, r"loss_param \{[^}]*\}", "", "train_val.prototxt", "unaware.prototxt")
    edited(place, "/data/", "/data_mask/", "unaware.prototxt", "unaware.prototxt")
    yield from last_line(train("unaware.prototxt"))
    layer = 'layer { type: "Python" name: "mine" bottom: "data" python_param { module: "lost" layer: "Lost" } }\n'
    edited(
        place, 'layer \\{\n  name: "loss"', layer + 'layer {\n  name: "loss"', "train_val.prototxt", "python.prototxt"
    )
    yield from last_line(train("python.prototxt"))

    shutil.rmtree(place / "copy", ignore_errors=True)
    shutil.copytree(place / "net", place / "copy")
    solver = place / "copy/solver.prototxt"
    solver.write_text(solver.read_text().replace('net: "', f'net: "{place}/net/'))
    trained = train("", "copy/solver.prototxt")
    assert trained.returncode == 0, trained.stderr
    yield trained.stderr.splitlines()[0]
    words = ("--model", "conv_small", "--dataset", "data", "--out", "copy")
    yield from last_line(call("prototxt/generate.py", *words, cwd=place))


def predictions_refused(place: Path) -> Iterator[str]:
    voc = ("--input", "images", "--dataset", "voc2012")
    edited(place, 'name: "conv1"', 'name: "conv_1"', "deploy.prototxt", "renamed.prototxt")
    yield from last_line(call(*predict(place, "refused", model="net/renamed.prototxt"), cwd=place))
    edited(place, "num_output: 23", "num_output: 24", "deploy.prototxt", "narrow.prototxt")
    yield from last_line(call(*predict(place, "refused", model="net/narrow.prototxt"), cwd=place))
    yield from last_line(call(*predict(place, "refused", *voc), cwd=place))
    done(*predict(place, "mixed"), cwd=place)
    yield from last_line(call(*predict(place, "mixed", "--flip"), cwd=place))


def stock_caffe(place: Path) -> Iterator[str]:
    solver = place / edited(place, "snapshot_prefix: .*", 'snapshot_prefix: "lost/x"')
    command = [REPOSITORY / "build/cpu/bin/caffe", "train", "-solver", solver.name]
    result = subprocess.run(command, cwd=solver.parent, capture_output=True, text=True)
    yield next(line for line in result.stderr.splitlines() if line.startswith("F")).partition("] ")[2]


def held(words: list[str], place: Path, at: str, number: int = 1) -> subprocess.Popen[str]:
    """A command that holds at a point of its work."""
    hold = Hold.make(place, at, number)
    command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
    environment = ENVIRONMENT | hold.environment
    process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)
    hold.wait(process)
    return process


def working_process(parent: int, words: str) -> int:
    children = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return next(child for child in children if words in Path(f"/proc/{child}/cmdline").read_text())


def killed(place: Path) -> Iterator[str]:
    generate(place, "data", "net_long", 100_000)
    run = place / "long"
    words = ["tools/train.py", "--solver", "net_long/solver.prototxt", "--run", "long"]
    process = held(words, place, r"open .*/metrics\.jsonl$")
    yield from last_line(call(*words[:-3], "net/solver.prototxt", "--resume", "--run", "long", cwd=place))
    process.send_signal(signal.SIGTERM)
    yield process.communicate(timeout=60)[1].splitlines()[-1]
    assert process.returncode == 143

    newest = find(run / "snapshots")[0].state
    newest.write_bytes(newest.read_bytes()[:-2])
    # once it notes the second time what it does, it has a log
    process = held(["tools/train.py", "--resume", "--run", "long"], place, r"os\.rename .*/run\.json", number=2)
    os.kill(working_process(process.pid, "train.py"), signal.SIGKILL)
    said = process.communicate(timeout=60)[1].splitlines()
    yield from (line for line in said if "skipped" in line)
    yield said[-1]

    big = place / "big"
    big.mkdir()
    Image.fromarray(np.zeros((1500, 2000, 3), np.uint8)).save(big / "b.png")
    words = predict(place, "killed", "--input", "big", "--dataset", "data")
    process = held(words, place, r"worker open .*b\.png")
    os.kill(working_process(process.pid, "worker_process"), signal.SIGKILL)
    yield process.communicate(timeout=60)[1].splitlines()[-1]


def test_every_message_is_printed_as_quoted(place: Path) -> None:
    provocations = (labels_refused, trainings_refused, networks_edited, predictions_refused, stock_caffe, killed)
    printed = [line for provoke in provocations for line in provoke(place)]
    if (REPOSITORY / "build/gpu").exists():
        printed.append(next(line for line in QUOTED if "built for the CPU only" in line).replace("N", "0"))
    missing = [line for line in QUOTED if not any(re.fullmatch(pattern(line), said) for said in printed)]
    assert missing == [], "\n".join(printed)
    strays = [said for said in printed if not any(re.fullmatch(pattern(line), said) for line in QUOTED)]
    assert strays == []


# ---------------------------------------------------------------------------------------- what the guide says of them


def test_masks_of_255_are_one_class(place: Path) -> None:
    assert convert(place, "mask", "data_mask").returncode == 0
    assert "no pixel" not in convert(place, "ok", "data").stdout
    generate(place, "data_mask", "net_mask", 20)
    done("tools/train.py", "--solver", "net_mask/solver.prototxt", "--run", "run_mask", cwd=place)
    words = predict(place, "predictions_mask", model="net_mask/deploy.prototxt", run="run_mask")
    words[words.index("data/test")] = "data_mask/test"
    done(*words, cwd=place)
    result = score(place, "predictions_mask", "data_mask")
    assert (result["pixel_accuracy"], result["class_accuracy"], result["mean_iou"]) == (1.0, 1.0, 1.0)
    assert all(not read_label_map(file).any() for file in (place / "predictions_mask").glob("*.png"))
    words = ("--predictions", "predictions_mask", "--labels", "data_mask/test", "--dataset", "data_mask")
    assert re.search(r"thing +- +- +0\.0\n", done("tools/evaluate.py", *words, cwd=place))


def test_young_training_says_one_class(place: Path) -> None:
    solver = edited(place, "base_lr: .*", "base_lr: 0.0005", out="slow.prototxt")
    done("tools/train.py", "--solver", solver, "--run", "young", "--iterations", 4, cwd=place)
    (test,) = [line for line in map(json.loads, (place / "young/metrics.jsonl").open()) if line["kind"] == "test"]
    assert test["class_accuracy"] == pytest.approx(0.5, abs=0.02)


def test_input_as_in_training(place: Path) -> None:
    done(*predict(place, "right"), cwd=place)
    right = score(place, "right")["mean_iou"]
    assert right > 0.9
    for old, new in (("mean_value: [0-9.]+", "mean_value: 0"), (" scale: [0-9.]+", " scale: 0.0001")):
        model = edited(place, old, new, "deploy.prototxt", "wrong.prototxt")
        done(*predict(place, "wrong", "--overwrite", model=model), cwd=place)
        assert score(place, "wrong")["mean_iou"] < right, old
    assert all(not read_label_map(file).any() for file in (place / "wrong").glob("*.png"))


def test_red_and_blue_exchanged(place: Path) -> None:
    for name in ("in_order", "exchanged"):
        (place / name).mkdir()
    with SplitReader(place / "data/test") as reader:
        for number, image_id in enumerate(reader.ids()):
            image = reader.image(number)
            Image.fromarray(image[:, :, ::-1]).save(place / f"in_order/{image_id}.png")
            Image.fromarray(image).save(place / f"exchanged/{image_id}.png")
    scores = {}
    for name in ("in_order", "exchanged"):
        done(*predict(place, f"out_{name}", "--input", name, "--dataset", "data"), cwd=place)
        scores[name] = score(place, f"out_{name}")["mean_iou"]
    assert scores["in_order"] > 0.9
    assert scores["exchanged"] < 0.6


def test_other_thread_counts_differ_in_last_bits(place: Path) -> None:
    files = {}
    for threads in ("1", "2", "2"):
        run = f"threads_{len(files)}_{threads}"
        words = ("--solver", "net/solver.prototxt", "--run", run, "--iterations", 20)
        done("tools/train.py", *words, cwd=place, OMP_NUM_THREADS=threads)
        assert json.loads((place / run / "run.json").read_text())["threads"] == int(threads)
        network = caffe_pb2.NetParameter.FromString(next((place / run).glob("snapshots/*.caffemodel")).read_bytes())
        files[run] = [np.array(blob.data, np.float32) for layer in network.layer for blob in layer.blobs]
    one, two, again = files.values()
    assert all(np.array_equal(a, b) for a, b in zip(two, again))
    assert not all(np.array_equal(a, b) for a, b in zip(one, two))
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(one, two))


def test_coloured_labels_are_read_by_the_class_file(place: Path) -> None:
    (place / "coloured.txt").write_text("ground #000000\nbox 200 0 0\n")
    words = ("--images", "images", "--labels", "colours", "--labels-as", "colours", "--classes", "coloured.txt")
    done("data_prep/folder.py", *words, "--out", "data_by_colour", "--test-fraction", 0, cwd=place)
    with SplitReader(place / "data_by_colour/train") as reader:
        for number, name in enumerate(reader.ids()):
            assert np.array_equal(reader.label(number), read_label_map(place / f"ok/{name}.png"))
