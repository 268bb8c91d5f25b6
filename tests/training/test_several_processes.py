"""Training by several processes under mpirun, `caffe train` and tools/train.py, on drawn scenes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from caffe.proto import caffe_pb2

from renet.runtime.watched_process import Work
from renet.training.loop import Training

REPOSITORY = Path(__file__).resolve().parents[2]
CAFFE = REPOSITORY / "build" / "cpu" / "bin" / "caffe"
MPIRUN = shutil.which("mpirun") or REPOSITORY / ".venv" / "bin" / "mpirun"
TRAIN = [sys.executable, str(REPOSITORY / "tools" / "train.py")]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # as in a container
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
FAILED = 2  # the status of all processes, and mpirun's
NO_SPACE = Path("/dev/full")
ITERATIONS = 12
BATCH = 6

pytestmark = pytest.mark.skipif(
    not (REPOSITORY / "build" / "cpu" / "lib" / "libcaffe_mpi.so").exists() or not Path(MPIRUN).exists(),
    reason="no MPI: `make mpi` builds what it needs",
)


def together(size: int, *command: object) -> list[str]:
    """The command as so many processes, more than there may be processors; 0: without mpirun."""
    launcher = [str(MPIRUN), "--oversubscribe", "--bind-to", "none", "-n", str(size)] if size else []
    return [*launcher, *map(str, command)]


def call(size: int, *command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        together(size, *command),
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        timeout=240,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes, a small network, and its solver: 12 iterations, a test of 5 images every 6."""
    folder = tmp_path_factory.mktemp("several")
    for command in (
        ["data_prep/synthetic_scenes.py", "--train", "9", "--test", "5", "--size", "48x64", "--out", "scenes"],
        [
            *("prototxt/generate.py", "--model", "n_renet_small", "--dataset", "scenes", "--out", "net"),
            *("--crop", "17x23", "--batch", str(BATCH), "--iterations", str(ITERATIONS)),
        ],
    ):
        script, *arguments = command
        subprocess.run([sys.executable, REPOSITORY / script, *arguments], cwd=folder, check=True, capture_output=True)
    solver = folder / "net" / "solver.prototxt"
    text = re.sub(r"(display|snapshot|test_interval): \d+", r"\1: 6", solver.read_text())
    solver.write_text(re.sub(r"test_iter: \d+", "test_iter: 5", text))
    return folder


def with_settings(scenes: Path, name: str, **settings: str) -> Path:
    """A folder with a copy of the solver, its snapshots in there."""
    folder = scenes / name
    folder.mkdir()
    text = (scenes / "net" / "solver.prototxt").read_text()
    for key, value in {"snapshot_prefix": f'"{name}/a"', "net": '"net/train_val.prototxt"', **settings}.items():
        text, count = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.MULTILINE)
        text += "" if count else f"{key}: {value}\n"
    (folder / "solver.prototxt").write_text(text)
    return folder


def weights(file: Path) -> np.ndarray:
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    return np.concatenate([np.array(blob.data, np.float32) for layer in network.layer for blob in layer.blobs])


def told(log: str) -> list[float]:
    """Losses and scores that Caffe tells."""
    return [float(number) for number in re.findall(r"(?:output #\d+: \w+|, loss) = (\S+)", log)]


def test_caffe_train_computes_what_one_process_does(scenes: Path) -> None:
    results = {}
    for size in (0, 1, 2, 3):
        folder = with_settings(scenes, f"caffe_{size}")
        done = call(size, CAFFE, "train", "-solver", folder / "solver.prototxt", cwd=scenes)
        assert done.returncode == 0, done.stderr
        assert sorted(file.name for file in folder.iterdir()) == [
            *("a_iter_12.caffemodel", "a_iter_12.solverstate", "a_iter_6.caffemodel", "a_iter_6.solverstate"),
            "solver.prototxt",
        ]
        results[size] = told(done.stderr), weights(folder / f"a_iter_{ITERATIONS}.caffemodel")
    assert len(results[0][0]) == 9
    assert results[1][0] == results[0][0]
    assert np.array_equal(results[1][1], results[0][1])
    start = weights(scenes / "caffe_0" / "a_iter_6.caffemodel")
    way = np.linalg.norm(results[0][1] - start)
    for size in (2, 3):
        np.testing.assert_allclose(results[size][0], results[0][0], rtol=2e-4)
        assert np.linalg.norm(results[size][1] - results[0][1]) < 1e-3 * way

    # the same number again, on the way resumed: the same bits
    folder = with_settings(scenes, "caffe_again")
    state = scenes / "caffe_3" / "a_iter_6.solverstate"
    done = call(3, CAFFE, "train", "-solver", folder / "solver.prototxt", "-snapshot", state, cwd=scenes)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(weights(folder / f"a_iter_{ITERATIONS}.caffemodel"), results[3][1])


def test_each_process_alone_is_a_pass_of_iter_size(scenes: Path) -> None:
    """With `scope: LOCAL`, two and three processes compute what one does in two and three passes."""
    text = (scenes / "net" / "train_val.prototxt").read_text()
    normalization = 'layer { name: "bn" type: "BatchNorm" bottom: "renet1_horizontal" top: "bn"'
    normalization += " batch_norm_param { scope: LOCAL } }\n"
    for old, new in (
        ("loss_param { ignore_label: 255 }", "loss_param { ignore_label: 255 scope: LOCAL }"),
        ('bottom: "renet1_horizontal"', 'bottom: "bn"'),
        ('layer {\n  name: "renet2_vertical"', normalization + 'layer {\n  name: "renet2_vertical"'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    for size in (2, 3):
        found = []
        for processes, batch, passes in ((0, BATCH // size, size), (size, BATCH, 1)):
            network = scenes / "net" / f"local_{size}_{processes}.prototxt"
            network.write_text(text.replace(f"batch_size: {BATCH}", f"batch_size: {batch}", 1))
            # Caffe clips the sum of iter_size's gradients, not their mean
            settings = {"net": f'"{network}"', "iter_size": str(passes), "clip_gradients": str(0.5 * passes)}
            folder = with_settings(scenes, f"local_{size}_{processes}", **settings)
            done = call(processes, CAFFE, "train", "-solver", folder / "solver.prototxt", cwd=scenes)
            assert done.returncode == 0, done.stderr
            # neither of one pass alone nor of what Caffe tells at the end, which is after one more
            losses = re.findall(r"(?:Test net output #\d+: \w+|, loss) = (\S+)", done.stderr)[:4]
            models = (weights(folder / f"a_iter_{count}.caffemodel") for count in (6, 12))
            found.append(([float(loss) for loss in losses], *models))
        (losses, middle, last), (losses_together, _, last_together) = found
        np.testing.assert_allclose(losses_together, losses, rtol=2e-4)
        assert np.linalg.norm(last_together - last) < 1e-3 * np.linalg.norm(last - middle)


def test_caffe_train_stops_all_at_one_iteration(scenes: Path) -> None:
    folder = with_settings(scenes, "stopped", max_iter="1000000", display="1", snapshot="0")
    with subprocess.Popen(
        together(2, CAFFE, "train", "-solver", folder / "solver.prototxt"),
        cwd=scenes,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Iteration 3 " in line:
                break
        process.send_signal(signal.SIGUSR1)  # mpirun passes it on
        rest = process.stderr.read()
    assert process.returncode == 0, rest
    assert rest.count("Optimization stopped early") == 1, rest
    (state,) = folder.glob("*.solverstate")
    assert state.with_suffix(".caffemodel").exists()


DOES_NOT_ANSWER = r"caffe: rank 0 \(.*\): iteration \d+: .*; rank 1 \(.*\) does not answer"


@pytest.mark.parametrize(
    ("number", "fault", "status"),
    [(signal.SIGSTOP, DOES_NOT_ANSWER, FAILED), (signal.SIGKILL, "rank 1", 128 + signal.SIGKILL)],
)
def test_a_process_that_is_lost_ends_all(scenes: Path, number: signal.Signals, fault: str, status: int) -> None:
    folder = with_settings(scenes, f"lost_{number.name}", max_iter="1000000", display="1", snapshot="0")
    # each process says which it is, so that one can be chosen
    script = 'echo "rank $OMPI_COMM_WORLD_RANK is $$" >&2; exec "$0" "$@"'
    with subprocess.Popen(
        together(2, "bash", "-c", script, CAFFE, "train", "-solver", folder / "solver.prototxt"),
        cwd=scenes,
        env=ENVIRONMENT | {"CAFFE_MPI_SECONDS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        second = 0
        for line in process.stdout:
            found = re.search(r"rank 1 is (\d+)", line)
            second = int(found[1]) if found else second
            if "Iteration 3 " in line:
                break
        os.kill(second, number)
        rest = process.stdout.read()
    assert process.returncode == status, rest  # mpirun's own where a signal kills a process
    assert re.search(fault, rest), rest
    await_end(second)


def await_end(process: int) -> None:
    """Wait for a process to end for which mpirun does not wait."""
    end = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_train_computes_what_one_process_does_and_resumes(scenes: Path) -> None:
    runs = {}
    for size in (0, 1, 2, 3):
        done = call(size, *TRAIN, "--solver", "net/solver.prototxt", "--run", f"run_{size}", cwd=scenes)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("finished 12 iterations") == 1
        runs[size] = scenes / f"run_{size}"
    last = f"snapshots/run_{{}}_iter_{ITERATIONS}.caffemodel"
    alone = weights(runs[0] / last.format(0))
    assert np.array_equal(weights(runs[1] / last.format(1)), alone)
    for size in (2, 3):
        np.testing.assert_allclose(weights(runs[size] / last.format(size)), alone, atol=1e-4)
        for one, other in zip(metrics(runs[size]), metrics(runs[0]), strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
            if one["kind"] == "test":
                assert one["mean_iou"] == pytest.approx(other["mean_iou"], abs=2e-3)
            else:
                assert 0 <= one["exposed_communication"] <= 1
        told_of = json.loads((runs[size] / "run.json").read_text())
        assert len(told_of["processes"]) == size
        assert told_of["state"] == "finished"

    # from the middle by another number of processes
    folder = scenes / "run_2"
    for file in (folder / "snapshots").glob(f"*_iter_{ITERATIONS}.*"):
        file.unlink()
    done = call(3, *TRAIN, "--resume", "--run", "run_2", cwd=scenes)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(folder / last.format(2)), alone, atol=1e-4)


def test_scores_of_a_test_are_equal(scenes: Path) -> None:
    """Without an update the weights are the same: so is every count of the test."""
    folder = with_settings(scenes, "still", base_lr="0.0", clip_gradients="-1", test_interval="1", max_iter="1")
    found = []
    for size in (0, 2, 3):
        done = call(size, *TRAIN, "--solver", folder / "solver.prototxt", "--run", f"still_{size}", cwd=scenes)
        assert done.returncode == 0, done.stderr
        (test,) = [line for line in metrics(scenes / f"still_{size}") if line["kind"] == "test"]
        found.append({key: test[key] for key in ("pixel_accuracy", "class_accuracy", "mean_iou")})
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_errors_are_one_line(scenes: Path) -> None:
    done = call(4, *TRAIN, "--solver", "net/solver.prototxt", "--run", "odd", cwd=scenes)
    assert done.returncode == FAILED
    told_of = [line for line in done.stderr.splitlines() if line.startswith("train.py")]
    assert told_of == [
        "train.py: layer 'data': a batch of 6 cannot be divided among 4 processes; these numbers of processes can:"
        " 1, 2, 3, 6"
    ], done.stderr
    done = call(2, *TRAIN, "--solver", "missing.prototxt", cwd=scenes)
    assert done.stderr.count("missing.prototxt") == 1, done.stderr
    assert done.returncode == FAILED
    done = call(2, CAFFE, "train", "-solver", "net/solver.prototxt", cwd=scenes, CAFFE_MPI_SECONDS="soon")
    assert "CAFFE_MPI_SECONDS=soon: expected a number of seconds" in done.stderr
    assert done.returncode == FAILED


ASKS = """
import ctypes, sys
import caffe
ranks = caffe.join_ranks()
getenv = ctypes.CDLL(None).getenv  # os.environ is older
getenv.restype = ctypes.c_char_p
sys.stdout.write(f"<{getenv(b'OMPI_MCA_coll_libnbc_iallreduce_algorithm').decode()}>")
"""


def test_sums_go_in_a_ring_unless_a_user_chooses(tmp_path: Path) -> None:
    for chosen in ("ring", "recursive_doubling"):
        variables = {} if chosen == "ring" else {"OMPI_MCA_coll_libnbc_iallreduce_algorithm": chosen}
        done = call(2, sys.executable, "-c", ASKS, cwd=tmp_path, **variables)
        assert done.stdout.count(f"<{chosen}>") == 2, done.stdout + done.stderr


def test_a_busy_launcher_tells_the_reason_before_it_ends_all(tmp_path: Path) -> None:
    """A launcher that sleeps while a rank says why and ends all finds both when it wakes."""
    (tmp_path / "rank.py").write_text(
        """
import os, signal, subprocess, sys, time
import caffe

group = caffe.join_ranks()
if group.rank == 0:
    launcher = os.getppid()
    os.kill(launcher, signal.SIGSTOP)
    subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {launcher}"], start_new_session=True)
    print("the reason", file=sys.stderr, flush=True)
    group.abort(2)
time.sleep(240)
"""
    )
    done = call(2, sys.executable, "rank.py", cwd=tmp_path)
    assert done.returncode == FAILED
    assert done.stderr.splitlines()[0] == "the reason", done.stderr


def test_caffe_train_names_the_rank_whose_disk_is_full(scenes: Path) -> None:
    folder = with_settings(scenes, "caffe_full")
    (folder / "a_iter_6.caffemodel").symlink_to(NO_SPACE)
    done = call(2, CAFFE, "train", "-solver", folder / "solver.prototxt", cwd=scenes)
    assert done.returncode == FAILED, done.stderr
    assert f"{folder.name}/a_iter_6.caffemodel: cannot be written (is the disk full?)" in done.stderr
    assert re.search(r"caffe: rank 0 \(.*\): iteration 5: ended by what is said above", done.stderr)


@contextmanager
def under_way(scenes: Path, run: Path, *command: object) -> Iterator[subprocess.Popen[str]]:
    """A command of train.py by two processes, from the run's second record on."""
    arguments = together(2, *command)
    with subprocess.Popen(arguments, cwd=scenes, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 2:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        yield process


@pytest.mark.parametrize(
    ("room", "snapshot", "fault"),
    [(0, 0, r".*metrics\.jsonl: No space left on device"), (8192, 6, r".*_iter_\d+.*is the disk full\?.*")],
    ids=["metrics", "snapshot"],
)
def test_train_names_the_rank_whose_disk_is_full(
    scenes: Path, room: int, snapshot: int, fault: str, small_disk: Path
) -> None:
    """A run's folder that has so many bytes left, and no more."""
    settings = {"max_iter": "1000000", "display": "1", "snapshot": str(snapshot), "test_interval": "1000000"}
    folder = with_settings(scenes, f"full_{room}", **settings)
    run = small_disk / "run"
    with under_way(scenes, run, *TRAIN, "--solver", folder / "solver.prototxt", "--run", run) as process:
        fill(small_disk / "filler", room)
        assert process.stderr is not None
        said = process.stderr.read()
    (line,) = [line for line in said.splitlines() if line.startswith("train.py: ")]
    assert re.fullmatch(rf"train\.py: rank 0 \(.*\): iteration \d+: {fault}", line)
    assert process.returncode == FAILED


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, where this user may make one."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(file: Path, room: int) -> None:
    """Leave so many bytes of the file's file system."""
    with suppress(OSError), open(file, "wb", buffering=0) as stream:
        while stream.write(bytes(4096)) == 4096:
            pass
    if room:
        os.truncate(file, file.stat().st_size - room)


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (signal.SIGSTOP, DOES_NOT_ANSWER),
        (signal.SIGKILL, r"train\.py: rank 1 \(.*\): iteration \d+: killed \(signal 9\), perhaps for want of memory"),
    ],
)
def test_train_ends_all_where_a_process_is_lost(scenes: Path, number: signal.Signals, fault: str) -> None:
    """The working one of the second rank's two; the other one waits for it."""
    settings = {"max_iter": "1000000", "display": "1", "snapshot": "0", "test_interval": "1000000"}
    folder = with_settings(scenes, f"lost_train_{number.name}", **settings)
    run = scenes / f"lost_run_{number.name}"
    script = 'echo $$ >"$OMPI_COMM_WORLD_RANK.pid"; exec "$0" "$@"'
    with subprocess.Popen(
        together(2, "bash", "-c", script, *TRAIN, "--solver", folder / "solver.prototxt", "--run", run),
        cwd=scenes,
        env=ENVIRONMENT | ({"CAFFE_MPI_SECONDS": "10"} if number == signal.SIGSTOP else {}),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (run / "metrics.jsonl").exists() or len(metrics(run)) < 2:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        waiting = int((scenes / "1.pid").read_text())
        working = int(Path(f"/proc/{waiting}/task/{waiting}/children").read_text())
        os.kill(working, number)
        assert process.stderr is not None
        said = process.stderr.read()
    assert re.search(fault, said), said
    assert process.returncode == FAILED
    for each in (waiting, working):
        await_end(each)


def unlike(scenes: Path, second: list[object], *command: object) -> str:
    """The one line that says how two processes differ of which mpirun starts the second with these options."""
    launcher = [MPIRUN, "--oversubscribe", "--bind-to", "none"]
    contexts = [*launcher, "-n", "1", *command, ":", "-n", "1", *second, *command]
    done = subprocess.run(
        list(map(str, contexts)), capture_output=True, text=True, cwd=scenes, env=ENVIRONMENT, timeout=240
    )
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "differs" in line]
    assert "Check failed" not in done.stderr
    return line.strip("\0").replace(f" ({socket.gethostname()})", "")  # mpirun begins some lines so


@pytest.fixture(scope="module")
def copy(scenes: Path) -> Path:
    """Network, solver and data on a machine of its own."""
    folder = scenes / "other_machine"
    folder.mkdir()
    for place in (scenes, folder):
        (place / "runs").mkdir()  # of the solver's snapshot_prefix
    for name in ("net", "scenes"):
        shutil.copytree(scenes / name, folder / name)
    return folder


THREADS = 'rank 1: differs in its number of threads (OMP_NUM_THREADS) from rank 0: "2", not "1"'


def test_caffe_train_tells_ranks_apart(scenes: Path, copy: Path) -> None:
    train = [CAFFE, "train", "-solver", "net/solver.prototxt"]
    there = ["--wdir", copy]
    assert unlike(scenes, ["-x", "OMP_NUM_THREADS=2"], *train) == f"caffe: {THREADS}"

    solver = copy / "net" / "solver.prototxt"
    text = solver.read_text()
    solver.write_text(text.replace("clip_gradients: 5", "clip_gradients: 7"))
    assert unlike(scenes, there, *train).startswith("caffe: rank 1: differs in its solver from rank 0: ")
    solver.write_text(text)

    network = copy / "net" / "train_val.prototxt"
    text = network.read_text()
    network.write_text(text.replace("crop_width: 23", "crop_width: 25", 1))
    told_of = 'differs in its network from rank 0: "data: crop_width: 25", not "data: crop_width: 23"'
    assert unlike(scenes, there, *train) == f"caffe: rank 1: {told_of}"
    network.write_text(text)

    script = [sys.executable, REPOSITORY / "data_prep/synthetic_scenes.py", "--train", "9", "--test", "5"]
    shutil.rmtree(copy / "scenes")
    subprocess.run(
        [*script, "--size", "48x64", "--seed", "8", "--out", "scenes"], cwd=copy, check=True, capture_output=True
    )
    for place in (scenes, copy):  # each reads its own
        (place / "net" / "own.prototxt").write_text(text.replace(str(scenes / "scenes"), "scenes"))
        (place / "net" / "own_solver.prototxt").write_text(
            (place / "net" / "solver.prototxt").read_text().replace("train_val", "own")
        )
    train[-1] = "net/own_solver.prototxt"
    told_of = r"caffe: rank 1: differs in its data of layer 'data' from rank 0: \"\S+images.lmdb: 9 entries on .*\""
    assert re.fullmatch(told_of, unlike(scenes, there, *train))


def test_caffe_train_tells_builds_apart(scenes: Path, copy: Path, tmp_path: Path) -> None:
    for file in (REPOSITORY / "build/cpu/lib").iterdir():
        shutil.copy(file, tmp_path)
    with open(tmp_path / "libcaffe.so.1.0.0", "ab") as library:
        library.write(b"another")
    (tmp_path / "libcaffe.so").unlink()
    (tmp_path / "libcaffe.so").symlink_to("libcaffe.so.1.0.0")
    told_of = unlike(scenes, ["-x", f"LD_LIBRARY_PATH={tmp_path}"], CAFFE, "train", "-solver", "net/solver.prototxt")
    assert told_of.startswith("caffe: rank 1: differs in its library libcaffe.so from rank 0: ")


def test_train_tells_ranks_apart(scenes: Path, tmp_path: Path) -> None:
    train = [*TRAIN, "--solver", "net/solver.prototxt", "--run"]
    assert unlike(scenes, ["-x", "OMP_NUM_THREADS=2"], *train, tmp_path / "run") == f"train.py: {THREADS}"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"
    shutil.copytree(REPOSITORY / "renet", tmp_path / "code" / "renet")
    with open(tmp_path / "code" / "renet" / "training" / "loop.py", "a") as file:
        file.write("# another")
    told_of = unlike(scenes, ["-x", f"PYTHONPATH={tmp_path / 'code'}"], *train, tmp_path / "other_run")
    assert told_of.startswith('train.py: rank 1: differs in its library renet from rank 0: "training/loop.py: ')
    assert not (tmp_path / "other_run").exists()


def test_processes_that_mpi_does_not_know(scenes: Path) -> None:
    """As where another MPI has started them."""
    done = call(0, CAFFE, "train", "-solver", "net/solver.prototxt", cwd=scenes, PMI_SIZE="2")
    assert done.returncode == 2
    assert "2 processes were started together, and MPI knows of 1" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_train_stops_all_with_a_snapshot(scenes: Path, number: signal.Signals) -> None:
    """SIGUSR1 to mpirun, which passes it on and waits; SIGTERM to the second process."""
    # an iteration is longer than what mpirun leaves after a SIGTERM of its own, a quarter of a second
    settings = {"max_iter": "1000000", "display": "1", "snapshot": "0", "test_interval": "1000000", "iter_size": "40"}
    folder = with_settings(scenes, f"long_{number.name}", **settings)
    run = scenes / f"long_run_{number.name}"
    script = 'echo $$ >"$OMPI_COMM_WORLD_RANK.pid"; exec "$0" "$@"'
    command = ["bash", "-c", script, *TRAIN, "--solver", folder / "solver.prototxt", "--run", run]
    with under_way(scenes, run, *command) as process:
        of_second = int((scenes / "1.pid").read_text())
        os.kill(process.pid if number == signal.SIGUSR1 else of_second, number)
    assert process.returncode == 128 + number
    told_of = json.loads((run / "run.json").read_text())
    assert told_of["state"] == "interrupted"
    (state,) = (run / "snapshots").glob("*.solverstate")
    assert state.name == f"{run.name}_iter_{told_of['iteration']}.solverstate"


def test_a_signal_while_the_processes_agree_counts_the_next_time() -> None:
    class Interrupted:
        """Ranks of which none was asked to stop, and this one is, meanwhile."""

        def greatest(self, number: int) -> int:
            work.stop = signal.SIGTERM
            return number

    work = Work()
    training = SimpleNamespace(work=work, ranks=Interrupted())
    assert not Training.is_stopped(training)
    assert Training.is_stopped(training)
    assert work.stop == signal.SIGTERM


def test_a_gpu_that_no_process_has(scenes: Path) -> None:
    folder = with_settings(scenes, "no_gpu")
    cases = {
        "caffe: rank": [CAFFE, "train", "-solver", folder / "solver.prototxt", "-gpu", "all"],
        "train.py: GPU 0 cannot be used": [*TRAIN, "--solver", folder / "solver.prototxt", "--gpu", "all"],
    }
    for start, command in cases.items():
        # the builds for a GPU are where there may be one
        done = call(2, *command, cwd=scenes, CUDA_VISIBLE_DEVICES="", PYTHONPATH=str(CAFFE.parents[1] / "python"))
        assert done.returncode == FAILED, done.stderr
        lines = [line for line in done.stderr.splitlines() if "GPU 0" in line]
        assert lines and lines[0].startswith(start), done.stderr
        assert "Traceback" not in done.stderr


def test_all_gpus_are_for_several_processes(scenes: Path) -> None:
    done = call(0, *TRAIN, "--solver", scenes / "net" / "solver.prototxt", "--gpu", "all", cwd=scenes)
    assert done.returncode == FAILED
    (line,) = done.stderr.splitlines()
    assert line.startswith("train.py: --gpu all is for several processes, which take a GPU each: mpirun -n 4")
