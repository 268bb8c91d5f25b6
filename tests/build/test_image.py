"""The CPU image as its users run it: an ordinary user, no network. `make image-test` builds it and runs these tests.

RENET_IMAGE names an image that is built, RENET_ENGINE the program that runs it (default: docker, else podman).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

IMAGE = os.environ.get("RENET_IMAGE", "")
ENGINE = os.environ.get("RENET_ENGINE") or next(filter(shutil.which, ("docker", "podman")), "docker")
LIMIT_MB = 730
# root, as which continuous integration may run, is nobody's ordinary user
USER = (os.getuid(), os.getgid()) if os.getuid() else (12345, 12346)
MINUTES = 60
# With as few rights as docs/docker.md says that suffice: nothing but the mounts and /tmp can be written
RESTRICTED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")

pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="RENET_IMAGE names no image: make image-test builds and tests one"),
    pytest.mark.skipif(ENGINE == "buildah", reason="buildah builds images and runs none: install docker or podman"),
    pytest.mark.timeout(40 * MINUTES),
]


class Host:
    """A user's folder with data, models and runs, and the image called on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("data", "models", "runs"):
            (folder / name).mkdir()
            os.chown(folder / name, *USER)

    def command(self, *words: object, options: tuple[str, ...] = ()) -> list[str]:
        """`docker run` with the three mounts, as docs/docker.md has it."""
        mounts = [f"-v={self.folder / name}:/workspace/{name}" for name in ("data", "models", "runs")]
        user = f"--user={USER[0]}:{USER[1]}"
        return [ENGINE, "run", "--rm", "--network=none", user, *RESTRICTED, *mounts, *options, IMAGE, *map(str, words)]

    def run(self, *words: object, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command in the image to its end."""
        return subprocess.run(self.command(*words, options=options), capture_output=True, text=True)

    def runs(self, pattern: str) -> list[Path]:
        """The files in runs/ that match."""
        return sorted((self.folder / "runs").glob(pattern))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host with drawn scenes and a network for them that trains in seconds."""
    folder = tmp_path_factory.mktemp("host")
    # pytest's folders are closed to other users
    for place in [folder, *folder.parents][:3]:
        place.chmod(0o755)
    host = Host(folder)
    done = host.run("python", "data_prep/synthetic_scenes.py", "--out", "data/scenes", "--train", 12, "--test", 3)
    assert done.returncode == 0, done.stderr
    network = ("--model", "conv_small", "--dataset", "data/scenes", "--crop", "48x64", "--batch", 2)
    done = host.run("python", "prototxt/generate.py", *network, "--iterations", 6, "--out", "runs/net")
    assert done.returncode == 0, done.stderr
    solver = folder / "runs/net/solver.prototxt"
    # stock Caffe, which starts in /workspace here, takes paths from the current folder
    endless = solver.read_text().replace('net: "', 'net: "runs/net/')
    solver.write_text(endless)
    for pattern, line in ((r"(max_iter|snapshot): .*", r"\1: 1000000"), ("display: .*", "display: 1"), ("test_.*", "")):
        endless = re.sub(f"^{pattern}", line, endless, flags=re.M)
    (folder / "runs/net/endless.prototxt").write_text(endless)
    return host


def plain(*words: str, options: tuple[str, ...] = RESTRICTED) -> subprocess.CompletedProcess[str]:
    """The image without mounts and as its own user."""
    return subprocess.run(
        [ENGINE, "run", "--rm", "--network=none", *options, IMAGE, *words], capture_output=True, text=True
    )


def test_size_and_labels() -> None:
    said = subprocess.run([ENGINE, "image", "inspect", IMAGE], capture_output=True, text=True, check=True).stdout
    image = json.loads(said)[0]
    assert image["Size"] < LIMIT_MB * 1e6
    settings = image["Config"]
    assert settings["User"] == "1000:1000"
    assert settings["StopSignal"] in ("SIGINT", "2")
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in settings["Labels"].items()}
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["version"])
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", labels["revision"])
    assert labels["licenses"] == "BSD-2-Clause"
    done = plain("bash", "-c", "cat VERSION; ls /opt/renet-caffe/licences")
    assert f"commit {labels['revision']}" in done.stdout
    assert {"renet-caffe-LICENSE", "caffe-LICENSE"} <= set(done.stdout.split())


def test_without_a_command_it_tells_what_can_be_run() -> None:
    done = plain()
    assert done.returncode == 0, done.stderr
    assert "caffe train -solver solvers/n_renet_stanford_background.prototxt" in done.stdout
    named = re.findall(r"renet (?:python|caffe train -solver) ([\w/.]+)", done.stdout)
    assert len(named) > 5
    assert plain("ls", *named).returncode == 0


def test_a_command_that_is_not_there() -> None:
    done = plain("cafe")
    assert (done.returncode, done.stderr) == (127, "renet-caffe: cafe: no such command (--help tells what there is)\n")


def test_python_and_caffe_are_on_the_path(host: Host) -> None:
    code = "import caffe, os, renet; print(os.getuid(), os.path.expanduser('~'), caffe.__file__)"
    done = host.run("python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(USER[0]), "/home/renet", "/opt/renet-caffe/python/caffe/__init__.py"]
    assert host.run("caffe", "-version").stdout == "caffe version 1.0.0, oneDNN 2.6.0\n"
    assert plain("id", "-u").stdout == "1000\n"


def test_it_is_as_restricted_as_it_is_said_to_be(host: Host) -> None:
    done = host.run("grep", "-E", "^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs):", "/proc/self/status")
    assert done.returncode == 0, done.stderr
    rights = {name.rstrip(":"): int(value, 16) for name, value in map(str.split, done.stdout.splitlines())}
    assert rights == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1}
    for place in ("/workspace", "/home/renet", "/opt/renet-caffe"):
        done = host.run("touch", f"{place}/file")
        assert "Read-only file system" in done.stderr, (place, done)


def test_short_demo_and_its_scores(host: Host) -> None:
    done = host.run("python", "tools/demo.py", "--short", "runs/demo")
    assert done.returncode == 0, done.stderr
    assert "mean IoU where distant context decides" in done.stdout
    assert "matplotlib" not in done.stderr.lower()
    (page,) = host.runs("demo/index.html")
    assert (page.stat().st_uid, page.stat().st_gid) == USER
    scored = ("--predictions", "runs/demo/conv_small/predictions", "--labels", "runs/demo/scenes/test")
    done = host.run("python", "tools/evaluate.py", *scored, "--dataset", "runs/demo/scenes")
    assert done.returncode == 0, done.stderr
    assert "pixel accuracy" in done.stdout.lower()


def test_caffe_trains(host: Host) -> None:
    done = host.run("caffe", "train", "-solver", "runs/net/solver.prototxt")
    assert done.returncode == 0, done.stderr
    assert "will be lost" not in done.stderr
    weights = host.runs("*_iter_6.caffemodel")
    assert weights, done.stderr
    assert weights[0].stat().st_uid == USER[0]


@pytest.fixture
def name() -> Iterator[str]:
    """A container's name; it is removed at the end, whatever becomes of it."""
    name = f"renet-test-{uuid.uuid4().hex[:8]}"
    yield name
    subprocess.run([ENGINE, "rm", "-f", name], capture_output=True)


def wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Wait until a container has written some text."""
    deadline = time.monotonic() + 10 * MINUTES
    while text not in log.read_text(errors="replace"):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_ctrl_c_ends_stock_caffe_with_a_snapshot_to_go_on_from(host: Host, tmp_path: Path, name: str) -> None:
    for earlier in host.runs("*.solverstate"):
        earlier.unlink()
    train = ("caffe", "train", "-solver", "runs/net/endless.prototxt")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(host.command(*train, options=(f"--name={name}",)), stdout=log, stderr=log)
    wait_for(process, tmp_path / "log", "Iteration 3")
    process.send_signal(signal.SIGINT)
    assert process.wait(10 * MINUTES) == 0
    (state,) = host.runs("*.solverstate")
    done = int(re.search(r"_iter_(\d+)", state.name)[1])
    text = (host.folder / "runs/net/endless.prototxt").read_text()
    (host.folder / "runs/net/more.prototxt").write_text(re.sub(r"max_iter: \d+", f"max_iter: {done + 2}", text))
    resumed = host.run("caffe", "train", "-solver", "runs/net/more.prototxt", "-snapshot", f"runs/{state.name}")
    assert resumed.returncode == 0, resumed.stderr
    assert host.runs(f"*_iter_{done + 2}.solverstate")


def test_a_stopped_container_leaves_a_run_to_resume(host: Host, tmp_path: Path, name: str) -> None:
    train = ("python", "tools/train.py", "--solver", "runs/net/endless.prototxt", "--run", "runs/stopped")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(host.command(*train, options=(f"--name={name}",)), stdout=log, stderr=log)
    deadline = time.monotonic() + 10 * MINUTES
    while not any(file.stat().st_size for file in host.runs("stopped/metrics.jsonl")):
        assert process.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    subprocess.run([ENGINE, "stop", "-t", "600", name], check=True, capture_output=True)
    assert process.wait(10 * MINUTES) == 128 + signal.SIGINT
    (metadata,) = host.runs("stopped/run.json")
    stopped = json.loads(metadata.read_text())
    assert stopped["state"] == "interrupted"
    iterations = stopped["iteration"] + 2
    done = host.run("python", "tools/train.py", "--resume", "--run", "runs/stopped", "--iterations", iterations)
    assert done.returncode == 0, done.stderr
    metadata = json.loads(metadata.read_text())
    assert (metadata["state"], metadata["iteration"]) == ("finished", iterations)


def test_programs_that_know_no_signals_end_at_once(host: Host, name: str) -> None:
    options = (f"--name={name}",)
    process = subprocess.Popen(host.command("sleep", "1000", options=options))
    while subprocess.run([ENGINE, "exec", name, "true"], capture_output=True).returncode:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(MINUTES) == 128 + signal.SIGINT


# One line of what a user of the service does: ask until it answers, then send an image
ASK = """
import io, sys, time, urllib.error, urllib.request
import numpy as np
from PIL import Image
picture = io.BytesIO()
Image.fromarray(np.full((64, 48, 3), 90, np.uint8)).save(picture, "PNG")
while True:
    try:
        assert urllib.request.urlopen("http://127.0.0.1:8000/healthz").status == 200
        break
    except urllib.error.URLError:
        time.sleep(0.2)
request = urllib.request.Request("http://127.0.0.1:8000/predict", picture.getvalue(), {"Content-Type": "image/png"})
print(Image.open(io.BytesIO(urllib.request.urlopen(request).read())).size)
"""


def test_service_answers_and_stops(host: Host, tmp_path: Path, name: str) -> None:
    network = "runs/net/deploy.prototxt"
    draw = f"import caffe; caffe.Net({network!r}, caffe.TEST).save('models/drawn.caffemodel')"
    done = host.run("python", "-c", draw)
    assert done.returncode == 0, done.stderr
    serve = ("python", "tools/serve.py", "--host", "0.0.0.0", "--model", network)
    words = (*serve, "--weights", "models/drawn.caffemodel", "--dataset", "data/scenes")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(host.command(*words, options=(f"--name={name}",)), stdout=log, stderr=log)
    wait_for(process, tmp_path / "log", " is served at http://")
    # inside, for the container has no network but its own
    asked = subprocess.run(
        [ENGINE, "exec", name, "python", "-c", ASK], capture_output=True, text=True, timeout=10 * MINUTES
    )
    assert (asked.returncode, asked.stdout) == (0, "(48, 64)\n"), asked.stderr
    subprocess.run([ENGINE, "stop", "-t", "600", name], check=True, capture_output=True)
    assert process.wait(10 * MINUTES) == 0, (tmp_path / "log").read_text()


def test_a_training_without_a_mount_says_that_it_will_be_lost(host: Host) -> None:
    words = ("caffe", "train", "-solver", "nowhere.prototxt")
    done = plain(*words, options=())  # with a root file system that can be written
    assert done.stderr.startswith("renet-caffe: runs is no mounted folder: what is trained will be lost with this")
    assert "mounted" not in host.run(*words).stderr
    assert "mounted" not in plain("caffe", "time").stderr


def test_a_training_that_could_not_write_its_results_does_not_start(host: Host) -> None:
    options = (*RESTRICTED, f"-v={host.folder / 'runs'}:/workspace/runs", "--user=54321:54321")
    done = plain("caffe", "train", "-solver", "runs/net/solver.prototxt", options=options)
    assert done.returncode == 2
    assert done.stderr.startswith("renet-caffe: runs cannot be written by user 54321:54321: ")
    assert done.stderr.count("\n") == 1
    done = plain("caffe", "train", "-solver", "nowhere.prototxt")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("renet-caffe: runs cannot be written by user 1000:1000: ")
