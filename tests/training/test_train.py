"""tools/train.py as a user runs it: on drawn scenes, with a tiny network."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from hold import Hold
from segmentation_helpers import call_tool, only_line

from renet.common.errors import UserError
from renet.prediction.predictor import Predictor
from renet.runtime.watched_process import _SECONDS_OF_ONE_PRESS
from renet.training.run_folder import is_held
from renet.training.run_state import RunState
from renet.weights import snapshots
from renet.weights.checksums import checksum_file

ITERATIONS = 80
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
REPOSITORY = Path(__file__).resolve().parents[2]
TRAIN = [sys.executable, str(REPOSITORY / "tools" / "train.py")]


def train(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*TRAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    for command in (
        ["data_prep/synthetic_scenes.py", "--train", "9", "--test", "2", "--size", "48x64", "--out", "scenes"],
        [
            *("prototxt/generate.py", "--model", "n_renet_small", "--dataset", "scenes", "--out", "net"),
            *("--crop", "17x23", "--batch", "2", "--iterations", ITERATIONS),
        ],
        ["prototxt/generate.py", "--model", "conv_small", "--dataset", "scenes", "--out", "conv", "--crop", "24x24"],
    ):
        script, *arguments = map(str, command)
        subprocess.run([sys.executable, REPOSITORY / script, *arguments], cwd=folder, check=True, capture_output=True)
    solver = folder / "net" / "solver.prototxt"
    text = re.sub(r"(display|snapshot|test_interval): \d+", r"\1: 10", solver.read_text())
    solver.write_text(re.sub(r"test_interval: 10", "test_interval: 40", text))
    return folder


@pytest.fixture(scope="module")
def unbroken(scenes: Path) -> Path:
    """The run folder of a training that nobody interrupted."""
    done = train("--solver", "net/solver.prototxt", "--run", "unbroken", "--keep", 2, cwd=scenes)
    assert done.returncode == 0, done.stderr
    return scenes / "unbroken"


def lines(run: Path, kind: str) -> list[dict]:
    return [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]


def weights(file: Path) -> dict[str, list[bytes]]:
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    return {
        layer.name: [np.array(blob.data, np.float32).tobytes() for blob in layer.blobs]
        for layer in network.layer
        if layer.blobs
    }


def final_weights(run: Path) -> dict[str, list[bytes]]:
    (file,) = (run / "snapshots").glob(f"*_iter_{ITERATIONS}.caffemodel")
    return weights(file)


def newest_whole(run: Path) -> int:
    found, _ = snapshots.newest_whole(run / "snapshots", "Adam")
    return found.iteration


def held_at_line(folder: Path, number: int) -> Hold:
    """Where a training is about to write this line of its metrics."""
    return Hold.make(folder, r"open .*/metrics\.jsonl$", number)


def start_held(run: Path, hold: Hold, scenes: Path) -> subprocess.Popen[str]:
    """Start a training and wait until it holds."""
    command = [*TRAIN, "--solver", "net/solver.prototxt", "--run", str(run)]
    environment = ENVIRONMENT | hold.environment
    process = subprocess.Popen(command, cwd=scenes, env=environment, stderr=subprocess.PIPE, text=True)
    hold.wait(process)
    return process


def test_run_folder(unbroken: Path, scenes: Path) -> None:
    assert (unbroken / "train_val.prototxt").read_text() == (scenes / "net/train_val.prototxt").read_text()
    assert (unbroken / "deploy.prototxt").read_text() == (scenes / "net/deploy.prototxt").read_text()
    assert f'snapshot_prefix: "{unbroken}/snapshots/unbroken"' in (unbroken / "solver.prototxt").read_text()
    metadata = json.loads((unbroken / "run.json").read_text())
    assert metadata["name"] == "unbroken"
    assert metadata["model"] == "n_renet_small_scenes"
    assert metadata["dataset"] == str(scenes / "scenes")
    assert (metadata["state"], metadata["iteration"], metadata["seed"], metadata["threads"]) == (
        "finished",
        ITERATIONS,
        0,
        2,
    )
    assert metadata["processor_seconds"] > 0
    assert metadata["seconds"] > 0
    assert metadata["started"] <= metadata["finished"]
    command = shlex.split(metadata["command"])
    assert Path(command[1]).name == "train.py" and command[2:4] == ["--solver", "net/solver.prototxt"]
    assert {"caffe", "python", "numpy"} <= metadata["versions"].keys()
    found = sorted(file.name for file in (unbroken / "snapshots").iterdir())
    assert found == [f"unbroken_iter_{i}.{kind}" for i in (70, 80) for kind in ("caffemodel", "sha256", "solverstate")]
    checked = subprocess.run(["sha256sum", "-c", *found[1::3]], cwd=unbroken / "snapshots", capture_output=True)
    assert checked.returncode == 0, checked.stderr
    assert "Solving" in (unbroken / "train.log").read_text() or "Initializing" in (unbroken / "train.log").read_text()


def test_metrics(unbroken: Path) -> None:
    learned = lines(unbroken, "train")
    assert [line["iteration"] for line in learned] == list(range(10, ITERATIONS + 1, 10))
    assert learned[-1]["loss"] < learned[0]["loss"]
    # Adam's rate falls linearly; iteration 10 was done with the rate after nine others.
    assert learned[0]["learning_rate"] == pytest.approx(0.002 * (1 - 9 / ITERATIONS))
    assert all(line["images_per_second"] > 0 for line in learned)
    tested = lines(unbroken, "test")
    assert [line["iteration"] for line in tested] == [40, ITERATIONS]
    for line in tested:
        assert 0 < line["mean_iou"] < line["pixel_accuracy"] < 1
        assert 0 < line["class_accuracy"] < 1


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_interrupted_equals_unbroken(
    unbroken: Path, scenes: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    run = tmp_path / "run"
    process = start_held(run, held_at_line(tmp_path, 3), scenes)
    assert RunState.of(run).state == "running"
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status
    while is_held(run):  # a killed one's working process goes a moment later
        time.sleep(0.01)
    assert (RunState.of(run).state, RunState.of(run).iterations) == ("stopped", ITERATIONS)
    stopped = snapshots.find(run / "snapshots")[0].iteration
    assert stopped == (20 if number == signal.SIGKILL else 30)
    if number != signal.SIGKILL:
        assert f"stopped at iteration {stopped}" in said
        assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    resumed = train("--resume", "--run", run, cwd=scenes)
    assert resumed.returncode == 0, resumed.stderr
    assert (RunState.of(run).state, RunState.of(run).iteration) == ("finished", ITERATIONS)
    assert final_weights(run) == final_weights(unbroken)
    assert lines(run, "test") == lines(unbroken, "test")
    assert [line["iteration"] for line in lines(run, "train")] == [
        line["iteration"] for line in lines(unbroken, "train")
    ]


def test_other_switches_are_told_at_the_resumption(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    run = shutil.copytree(unbroken, tmp_path / "run")
    for switches, told in (({"CAFFE_WINOGRAD": "0"}, True), ({"CAFFE_WINOGRAD": "0"}, False), ({}, True)):
        iterations = RunState.of(run).iterations + 1
        resumed = subprocess.run(
            [*TRAIN, "--resume", "--run", str(run), "--iterations", str(iterations)],
            capture_output=True, text=True, cwd=scenes, env=ENVIRONMENT | switches, timeout=120,
        )  # fmt: skip
        assert resumed.returncode == 0, resumed.stderr
        assert ("not bit for bit as without the interruption" in resumed.stderr) == told
        assert ("CAFFE_WINOGRAD=0 in the environment, no CAFFE_ variable before" in resumed.stderr) == (
            told and bool(switches)
        )
        assert json.loads((run / "run.json").read_text())["switches"] == switches


def train_in_a_terminal(
    *arguments: object, cwd: Path, press_at: Hold | None = None, columns: int = 160, **environment: str
) -> tuple[bytes, int]:
    """What a training shows in a terminal, and its status; Ctrl-C where it holds."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        more = press_at.environment if press_at is not None else {}
        os.execve(TRAIN[0], [*TRAIN, *map(str, arguments)], ENVIRONMENT | environment | more)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    shown, stopped = b"", False
    while not stopped:
        if press_at is not None and press_at.is_reached():
            os.write(terminal, b"\x03")
            press_at = None
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the terminal is closed
                stopped = True
    os.close(terminal)
    return shown, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.usefixtures("terminals")
def test_ctrl_c_in_a_terminal(scenes: Path, tmp_path: Path) -> None:
    """The terminal sends the signal to both processes of the tool; once is still once, and the bar is drawn."""
    run = tmp_path / "run"
    arguments = ("--solver", "net/solver.prototxt", "--run", run)
    shown, status = train_in_a_terminal(*arguments, cwd=scenes, press_at=held_at_line(tmp_path, 6), TERM="xterm")
    assert status == 130
    assert b"by SIGINT; go on with: tools/train.py --resume" in shown
    bar = rb"run: .*%.*/80 \[\d\d:\d\d<\d\d:\d\d, loss \d\.\d+, test mean IoU \d+\.\d%, [\d.]+ images/s, rate 0\.\d+\]"
    assert re.search(bar, shown)
    assert newest_whole(run) == 50


@pytest.mark.usefixtures("terminals")
def test_narrow_terminal_has_room_for_the_score(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run_with_a_very_long_name_of_its_own"
    shown, status = train_in_a_terminal(
        "--solver", "net/solver.prototxt", "--run", run, cwd=scenes, columns=80, TERM="xterm"
    )
    assert status == 0
    bars = [line for line in re.split(rb"[\r\n]", shown) if b"/80 [" in line]
    assert all(len(line.decode()) <= 80 for line in bars)
    assert re.search(rb"100%\|.*\[\d\d:\d\d<00:00, loss \d\.\d+, test mean IoU \d+\.\d%, [\d.]+ im", bars[-1])


@pytest.mark.usefixtures("terminals")
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}])
def test_plain_lines_in_a_terminal_without_colours(scenes: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    arguments = ("--solver", "net/solver.prototxt", "--run", tmp_path / "run")
    shown, status = train_in_a_terminal(*arguments, cwd=scenes, **environment)
    assert status == 0
    assert b"\x1b" not in shown
    assert b"\r" not in shown.replace(b"\r\n", b"\n")
    lines_shown = shown.decode().splitlines()
    told = [line for line in lines_shown[1:-2] if not re.match(r"run: \d+/80 iteration", line)]  # of a slow machine
    start, first, second, end, finished = lines_shown[0], *told, *lines_shown[-2:]
    assert start == "run: 0/80 iteration [00:00<?]"
    assert first.startswith("iteration 40: test loss ")
    assert re.fullmatch(
        r"iteration 80: test loss [\d.]+, pixel accuracy [\d.]+, class accuracy [\d.]+, mean IoU [\d.]+", second
    )
    pattern = (
        r"run: 80/80 iteration \[00:\d\d<00:00, loss [\d.]+, test mean IoU ([\d.]+)%, [\d.]+ images/s, rate [\d.e-]+\]"
    )
    match = re.fullmatch(pattern, end)
    assert match, end
    assert float(match[1]) == pytest.approx(float(second.split()[-1]), abs=0.051)
    assert finished.startswith("finished 80 iterations; weights: ")


def test_a_run_is_held_by_one_process(unbroken: Path, scenes: Path) -> None:
    with open(unbroken / "train.log", "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = train("--resume", "--run", "unbroken", cwd=scenes)
    assert done.returncode == 2
    assert done.stderr == "train.py: unbroken: another process is training there\n"


def test_broken_snapshots_are_named_and_skipped(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"
    shutil.copytree(unbroken, run)
    newest, older = snapshots.find(run / "snapshots")
    whole = newest.state.read_bytes()
    network = caffe_pb2.NetParameter.FromString(newest.weights.read_bytes())
    for broken in (whole[:-2], whole[: len(whole) // 2], b""):
        newest.state.write_bytes(broken)
        assert "only a part" in str(newest.fault("Adam"))
    newest.state.write_bytes(whole)
    assert newest.fault("Adam") is None
    del network.layer[-6:]  # cut where one layer ends: still a network that parses
    assert any(layer.blobs for layer in network.layer)
    newest.weights.write_bytes(network.SerializeToString())
    assert newest.fault("Adam") == f"{newest.weights}: only a part of a snapshot"
    for iterations in (75, ITERATIONS):  # first stop short of the broken one
        resumed = train("--resume", "--run", run, "--iterations", iterations, cwd=scenes)
        assert resumed.returncode == 0, resumed.stderr
        assert f"skipped {newest.weights}: only a part of a snapshot" in resumed.stderr
        assert newest_whole(run) == iterations
    assert older.iteration == 70


def flip_a_bit(file: Path) -> None:
    """In a value of the last blob, which stays a number."""
    content = bytearray(file.read_bytes())
    content[-200] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("ending", [".caffemodel", ".solverstate"])
def test_a_flipped_bit_of_a_snapshot_is_told(unbroken: Path, scenes: Path, tmp_path: Path, ending: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    newest, _ = snapshots.find(run / "snapshots")
    assert newest.fault("Adam") is None
    flip_a_bit(newest.state.with_suffix(ending))
    told = f"{newest.state.with_suffix(ending)}: is not the file that was written: damaged or changed since"
    assert newest.fault("Adam").startswith(told)
    resumed = train("--resume", "--run", run, cwd=scenes)
    assert resumed.returncode == 0, resumed.stderr
    assert f"skipped {told}" in resumed.stderr
    assert final_weights(run) == final_weights(unbroken)
    assert newest.fault("Adam") is None, "written anew"


def test_a_flipped_bit_of_weights_is_told_by_all_that_read_them(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    weights = snapshots.find(run / "snapshots")[0].weights
    flip_a_bit(weights)
    told = f"{weights}: is not the file that was written"
    more = ["--weights", weights, "--out"]
    split = scenes / "scenes/test"
    calls = {
        "predict.py": [
            "--model",
            run / "deploy.prototxt",
            "--dataset",
            split.parent,
            "--split",
            split,
            *more,
            tmp_path / "predicted",
        ],
        "pack.py": ["--run", run, *more, tmp_path / "packed"],
        "train.py": ["--solver", scenes / "net/solver.prototxt", "--weights", weights, "--run", tmp_path / "new"],
    }
    for tool, arguments in calls.items():
        assert told in only_line(call_tool(tool, *arguments, cwd=scenes), tool)
    with pytest.raises(UserError, match="is not the file that was written"), Predictor(run, weights):
        pass
    checksum_file(weights).unlink()
    assert call_tool("pack.py", *calls["pack.py"], cwd=scenes).returncode == 0


def test_killed_before_the_first_snapshot(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    for snapshot in snapshots.find(run / "snapshots"):
        snapshot.remove()
    resumed = train("--resume", "--run", run, cwd=scenes)
    assert "starting from the beginning" in resumed.stderr
    assert final_weights(run) == final_weights(unbroken)
    assert len(lines(run, "train")) == ITERATIONS // 10


def test_stock_caffe_gives_the_same_and_resumes_alike(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    program = str(REPOSITORY / "build" / "cpu" / "bin" / "caffe")
    solver = tmp_path / "solver.prototxt"
    text = (scenes / "net/solver.prototxt").read_text()
    solver.write_text(re.sub("snapshot_prefix: .*", f'snapshot_prefix: "{tmp_path}/stock"', text))
    place = scenes / "net"  # the solver's `net` leads from there
    subprocess.run([program, "train", "-solver", solver], check=True, capture_output=True, env=ENVIRONMENT, cwd=place)
    final = tmp_path / f"stock_iter_{ITERATIONS}.caffemodel"
    assert weights(final) == final_weights(unbroken)
    final.unlink()
    state = tmp_path / "stock_iter_30.solverstate"
    command = [program, "train", "-solver", solver, "-snapshot", state]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, cwd=place)
    assert weights(final) == final_weights(unbroken)


def read_events(folder: Path) -> list[Any]:
    """All records of TensorBoard's event files, checked: length, its checksum, event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    events = []
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        while content:
            length, length_checksum = struct.unpack("<QI", content[:12])
            record, checksum = struct.unpack(f"<{length}sI", content[12 : 16 + length])
            assert (length_checksum, checksum) == (masked_crc32c(content[:8]), masked_crc32c(record))
            events.append(Event.FromString(record))
            content = content[16 + length :]
    return events


def curves(events: list[Any]) -> dict[str, dict[int, float]]:
    """The scalars by tag and step, as TensorBoard shows them: a restart voids later steps of before."""
    found: dict[str, dict[int, float]] = {}
    for event in events:
        if event.HasField("session_log"):
            for tag, values in found.items():
                found[tag] = {step: value for step, value in values.items() if step < event.step}
        for value in event.summary.value:
            assert event.step not in found.setdefault(value.tag, {}), "one point for each iteration"
            found[value.tag][event.step] = value.simple_value
    return found


@pytest.mark.parametrize("begun_with_events", [True, False])
def test_tensorboard_has_the_metrics(scenes: Path, tmp_path: Path, begun_with_events: bool) -> None:
    run = tmp_path / "run"
    first = ("--tensorboard",) if begun_with_events else ()
    done = train("--solver", "net/solver.prototxt", "--run", run, "--iterations", 50, *first, cwd=scenes)
    assert done.returncode == 0, done.stderr
    assert (run / "tensorboard").exists() == begun_with_events
    # killed, say: what was noted after the last snapshot is done again
    for snapshot in snapshots.find(run / "snapshots")[:1]:
        snapshot.remove()
    done = train("--resume", "--run", run, "--iterations", 60, "--tensorboard", cwd=scenes)
    assert done.returncode == 0, done.stderr
    expected: dict[str, dict[int, float]] = {}
    for kind, names in {
        "train": ("loss", "learning_rate", "images_per_second"),
        "test": ("loss", "pixel_accuracy", "class_accuracy", "mean_iou"),
    }.items():
        for name in names:
            expected[f"{kind}/{name}"] = {line["iteration"]: pytest.approx(line[name]) for line in lines(run, kind)}
    assert list(expected["train/loss"]) == [10, 20, 30, 40, 50, 60]
    assert list(expected["test/mean_iou"]) == [40, 60]
    assert curves(read_events(run / "tensorboard")) == expected


def test_finished_run_stays_as_it_is(unbroken: Path, scenes: Path) -> None:
    before = (unbroken / "metrics.jsonl").read_text()
    again = train("--resume", "--run", "unbroken", cwd=scenes)
    assert again.returncode == 0
    assert (unbroken / "metrics.jsonl").read_text() == before


def test_seed_and_weights(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    start = next((unbroken / "snapshots").glob(f"*_iter_{ITERATIONS}.caffemodel"))
    for name, arguments in {"seed": ("--seed", 5), "tuned": ("--weights", start)}.items():
        done = train(
            "--solver", "net/solver.prototxt", "--run", tmp_path / name, "--iterations", 10, *arguments, cwd=scenes
        )
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "seed/run.json").read_text())["seed"] == 5
    assert "seed: 5" in (tmp_path / "seed/train_val.prototxt").read_text()
    first, other, tuned = (lines(run, "train")[0]["loss"] for run in (unbroken, tmp_path / "seed", tmp_path / "tuned"))
    assert other != first
    assert tuned < 0.9 * first


def renamed(start: Path, out: Path, **names: str) -> Path:
    """A copy of a model in which layers have other names."""
    network = caffe_pb2.NetParameter.FromString(start.read_bytes())
    for layer in network.layer:
        layer.name = names.get(layer.name, layer.name)
    out.write_bytes(network.SerializeToString())
    return out


def test_which_layers_the_weights_fill(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    start = next((unbroken / "snapshots").glob(f"*_iter_{ITERATIONS}.caffemodel"))
    layers = list(weights(start))
    part = renamed(start, tmp_path / "part.caffemodel", **{layers[0]: "stem", layers[1]: "stem2"})
    run = tmp_path / "run"
    common = ("--solver", "net/solver.prototxt", "--iterations", 1)
    done = train(*common, "--weights", part, "--run", run, cwd=scenes)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("weights: ")]
    assert said == [
        f"weights: {len(layers) - 2} layers filled from {part}: {layers[2]} ... {layers[-1]};"
        " 2 in the file unused: stem, stem2",
        f"weights: 2 layers from scratch: {layers[0]}, {layers[1]}",
    ]
    metadata = json.loads((run / "run.json").read_text())
    assert metadata["weights"] == [{"file": str(part), "filled": layers[2:], "unused": ["stem", "stem2"]}]
    assert metadata["layers_from_scratch"] == layers[:2]

    # a solver may name them, too, and several; what the solver says, stock Caffe does as well
    solver = tmp_path / "solver.prototxt"
    text = (scenes / "net/solver.prototxt").read_text().replace('"train_val', f'"{scenes}/net/train_val')
    solver.write_text(f'{text}\nweights: "{part}, {start}"\n')
    done = train("--solver", solver, "--iterations", 1, "--run", tmp_path / "both", cwd=scenes)
    assert done.returncode == 0, done.stderr
    assert "weights: 0 layers from scratch\n" in done.stderr
    assert f'weights: "{start}"' in (tmp_path / "both/solver.prototxt").read_text()
    program = str(REPOSITORY / "build" / "cpu" / "bin" / "caffe")
    stock = re.sub("snapshot_prefix: .*", f'snapshot_prefix: "{tmp_path}/stock"', solver.read_text())
    solver.write_text(re.sub("max_iter: .*", "max_iter: 1", stock))
    subprocess.run([program, "train", "-solver", solver], check=True, capture_output=True, env=ENVIRONMENT, cwd=scenes)
    assert weights(tmp_path / "stock_iter_1.caffemodel") == weights(tmp_path / "both/snapshots/both_iter_1.caffemodel")


def test_weights_that_do_not_fit_are_told_in_one_line(unbroken: Path, scenes: Path, tmp_path: Path) -> None:
    start = next((unbroken / "snapshots").glob(f"*_iter_{ITERATIONS}.caffemodel"))
    first, second = list(weights(start))[:2]
    crossed = renamed(start, tmp_path / "crossed.caffemodel", **{first: second, second: first})
    run = tmp_path / "run"
    done = train("--solver", "conv/solver.prototxt", "--weights", start, "--run", run, cwd=scenes)
    assert done.returncode == 2
    assert re.fullmatch(r"train\.py: .*: (fills no layer|the layer 'score' has) [^\n]*\n", done.stderr), done.stderr
    for _ in range(2):  # the folder of the failed start is no obstacle to the next
        done = train("--solver", "net/solver.prototxt", "--weights", crossed, "--run", run, cwd=scenes)
        assert done.returncode == 2
        pattern = (
            rf"train\.py: {crossed}: the layer '\w+' has [\d x]+ and .* there and [\d x]+ and .* in the network; .*\n"
        )
        assert re.fullmatch(pattern, done.stderr), done.stderr
        metadata = json.loads((run / "run.json").read_text())
        assert metadata["state"] == "failed"
        assert "in the network" in metadata["message"]


def test_divergence_stops_and_keeps_the_last_good_snapshot(scenes: Path, tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{scenes}/conv/train_val.prototxt"\nbase_lr: 1e-6 lr_policy: "multistep" stepvalue: 6 gamma: 1e30\n'
        f'max_iter: 50 snapshot: 3 display: 1 snapshot_prefix: "unused"\n'
    )
    run = tmp_path / "run"
    done = train("--solver", solver, "--run", run, cwd=scenes)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    match = re.search(r"^train\.py: iteration (\d+): .*diverged; the last good snapshot is (\S+)\. Try a lower", last)
    assert match, done.stderr
    assert 7 <= int(match[1]) <= 12
    assert match[2] == str(run / "snapshots/run_iter_6.solverstate")
    assert snapshots.find(run / "snapshots")[0].fault() is None
    metadata = json.loads((run / "run.json").read_text())
    assert metadata["state"] == "failed"
    assert "diverged" in metadata["message"]


def test_what_caffe_cannot_build_is_told_in_one_line(scenes: Path, tmp_path: Path) -> None:
    text = (scenes / "net/train_val.prototxt").read_text()
    (tmp_path / "net.prototxt").write_text(text.replace('bottom: "score"', 'bottom: "nothing"'))
    solver = tmp_path / "odd.prototxt"
    solver.write_text(f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1\n')
    for _ in range(2):  # the folder of the failed start is no obstacle to the next
        done = train("--solver", solver, "--run", tmp_path / "run", cwd=scenes)
        assert done.returncode == 2
        assert re.fullmatch(r"train\.py: Unknown bottom blob 'nothing' .*\(log: .*train\.log\)\n", done.stderr)
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--solver is missing"),
        (["--solver", "nowhere.prototxt"], "nowhere.prototxt: no such file"),
        (["--solver", "misspelt.prototxt"], "misspelt.prototxt:2:1: .* has no field 'base_lrr'; did you mean base_lr?"),
        (
            ["--solver", "no_net.prototxt"],
            "needs one network to train, as net, net_param, train_net or train_net_param",
        ),
        (["--solver", "no_rate.prototxt"], "needs base_lr"),
        (["--solver", "lost_net.prototxt"], "'lost/net.prototxt' leads to nothing"),
        (["--solver", "lost_data.prototxt"], "layer 'data': no prepared split '.*/lost/train'"),
        (["--solver", "net/solver.prototxt", "--run", "unbroken"], "exists already; go on with it by --resume"),
        (["--resume", "--run", "nowhere"], "there is no training to resume"),
        (["--resume", "--run", "unbroken", "--seed", "1"], "leave out --seed"),
        (["--solver", "net/solver.prototxt", "--run", "new", "--weights", "lost.caffemodel"], "lost.caffemodel"),
        (["--solver", "net/solver.prototxt", "--iterations", "0"], "'0' is not a whole number"),
    ],
)
def test_bad_input_is_told_in_one_line(unbroken: Path, scenes: Path, arguments: list[str], message: str) -> None:
    rate = 'base_lr: 1 lr_policy: "fixed" max_iter: 1'
    (scenes / "misspelt.prototxt").write_text('net: "net/train_val.prototxt"\nbase_lrr: 1')
    (scenes / "no_net.prototxt").write_text(rate)
    (scenes / "no_rate.prototxt").write_text('net: "net/train_val.prototxt" max_iter: 1')
    (scenes / "lost_net.prototxt").write_text(f'net: "lost/net.prototxt" {rate}')
    network = (scenes / "net/train_val.prototxt").read_text()
    (scenes / "lost_data.net").write_text(network.replace("/scenes/train", "/lost/train"))
    (scenes / "lost_data.prototxt").write_text(f'net: "lost_data.net" {rate}')
    done = train(*arguments, cwd=scenes)
    assert done.returncode == 2
    assert re.fullmatch(r"train\.py: [^\n]+\n", done.stderr), done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert not (scenes / "new").exists()


def test_a_death_that_cannot_be_noted_is_told_in_one_line(tmp_path: Path) -> None:
    """On a full disk, run.json takes no word either."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from renet.runtime.watched_process import watched\n"
        "def work(environment):\n"
        "    environment.log_to(Path(sys.argv[1]))\n"
        "    os.kill(os.getpid(), 9)\n"
        "def note(*of_death):\n"
        "    Path('/dev/full').write_text('of the death')\n"
        "raise SystemExit(watched(work, note))\n"
    )
    done = subprocess.run([sys.executable, program, tmp_path / "log"], capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert "killed (signal 9)" in line
    assert done.returncode == 137


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from renet.runtime.watched_process import watched\n"
        "def work(environment):\n"
        "    environment.log_to(Path(sys.argv[1]))\n"
        "    print('ready', flush=True)\n"
        "    while environment.stop is None:\n"
        "        time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "raise SystemExit(watched(work))\n"
    )
    command = [sys.executable, program, tmp_path / "log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    time.sleep(1.1 * _SECONDS_OF_ONE_PRESS)  # after which another one counts
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "stopped at once" in process.communicate(timeout=20)[1]
    assert process.returncode == 130
