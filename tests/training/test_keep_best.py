"""--keep-best and --patience of tools/train.py: a training that unlearns, stopped, killed and resumed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hold import Hold
from segmentation_helpers import call_tool, only_line

import renet
from renet.networks.trained_run import Best, best_test, weights_of_run
from renet.training.run_folder import is_held
from renet.training.run_state import RunState

REPOSITORY = Path(__file__).resolve().parents[2]
ITERATIONS = 60
KEPT = ("--keep", 1, "--keep-best", "mean_iou")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, and a solver whose rate grows so much at iteration 20 that it unlearns; it tests every 10 iterations and
    writes no snapshot by itself but the last."""
    folder = tmp_path_factory.mktemp("best")
    scenes = ["--train", "6", "--test", "2", "--size", "48x64", "--out", "scenes"]
    script = REPOSITORY / "data_prep/synthetic_scenes.py"
    subprocess.run([sys.executable, script, *scenes], cwd=folder, check=True, capture_output=True)
    solver = renet.networks.write("conv_small", folder / "scenes", folder / "net", crop=(24, 24), batch=2).solver
    solver.write_text(
        'net: "train_val.prototxt" type: "Adam" base_lr: 0.01 momentum: 0.9 lr_policy: "multistep" stepvalue: 20\n'
        f"gamma: 100 max_iter: {ITERATIONS} display: 10 test_iter: 2 test_interval: 10 random_seed: 1\n"
    )
    return folder


def train(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return call_tool("train.py", *arguments, cwd=folder)


def kept(run: Path) -> list[int]:
    """The iterations of the snapshots."""
    return sorted(int(file.stem.rpartition("_")[2]) for file in (run / "snapshots").glob("*.solverstate"))


def scores(run: Path, score: str = "mean_iou") -> dict[int, float]:
    """The tests' scores by iteration."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["iteration"]: line[score] for line in lines if line["kind"] == "test"}


def metadata(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    done = train(folder, "--solver", "net/solver.prototxt", "--run", "unbroken", *KEPT)
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stderr)
    return folder / "unbroken"


@pytest.fixture(scope="module")
def best(unbroken: Path) -> int:
    """The iteration of the best test: the last one's is far below it."""
    found = scores(unbroken)
    best = max(found, key=lambda iteration: (found[iteration], -iteration))
    assert best <= 30 and found[best] > 1.2 * found[ITERATIONS]
    return best


def test_the_best_snapshot_stays_beside_the_newest(folder: Path, unbroken: Path, best: int) -> None:
    assert kept(unbroken) == [best, ITERATIONS]
    value = scores(unbroken)[best]
    assert metadata(unbroken)["best"] == {"measure": "mean_iou", "value": value, "iteration": best}
    snapshot = f"unbroken/snapshots/unbroken_iter_{best}.caffemodel"
    told = f"; best: mean IoU {100 * value:.1f}% at iteration {best}: {snapshot}"
    assert (folder / "said").read_text().splitlines()[-1].endswith(told)
    # whoever uses the run takes it
    assert weights_of_run(unbroken) == folder / snapshot
    assert weights_of_run(unbroken, "newest").stem.endswith(f"_{ITERATIONS}")
    renet.pack(unbroken, folder / "packed")
    assert json.loads((folder / "packed/model.json").read_text())["training"]["iteration"] == best
    for words, number in (((), best), (("--weights", "newest"), ITERATIONS)):
        words = ("--model", "unbroken", *words, "--split", "scenes/test", "--out", f"predictions{number}")
        assert call_tool("predict.py", *words, cwd=folder).returncode == 0
        record = json.loads((folder / f"predictions{number}/prediction.json").read_text())
        assert record["weights"].endswith(f"_iter_{number}.caffemodel")
    done = call_tool("predict.py", "--model", "unbroken", "--weights", "lost", *words[-4:], cwd=folder)
    assert "lost: no such file; of a run, --weights is also newest or best" in only_line(done, "predict.py")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("line", [4, 9])  # the test at 20, and a line after the best
def test_interrupted_keeps_the_same(
    folder: Path, unbroken: Path, best: int, tmp_path: Path, line: int, number: signal.Signals
) -> None:
    hold = Hold.make(tmp_path, r"open .*/metrics\.jsonl$", line)
    words = ["--solver", "net/solver.prototxt", "--run", str(tmp_path / "unbroken"), *map(str, KEPT)]
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "tools/train.py", *words], cwd=folder, env={**hold.environment}, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    hold.wait(process)
    process.send_signal(number)
    process.communicate(timeout=60)
    run = tmp_path / "unbroken"
    while is_held(run):
        time.sleep(0.01)
    done = train(folder, "--resume", "--run", run, "--keep", 1)
    assert done.returncode == 0, done.stderr
    assert scores(run) == scores(unbroken)
    assert kept(run) == kept(unbroken)
    assert metadata(run)["best"] == metadata(unbroken)["best"]
    for iteration in kept(run):
        name = f"snapshots/unbroken_iter_{iteration}.caffemodel"
        assert (run / name).read_bytes() == (unbroken / name).read_bytes()


def test_patience_ends_the_training(folder: Path, unbroken: Path, best: int) -> None:
    solver = folder / "net/solver.prototxt"
    result = renet.train(solver, folder / "early", keep=1, keep_best="mean_iou", patience=2)
    assert (result.state, result.iteration) == ("finished", best + 20)
    assert result.best == Best("mean_iou", scores(unbroken)[best], best)
    assert result.best_weights == folder / f"early/snapshots/early_iter_{best}.caffemodel"
    assert kept(folder / "early") == [best, best + 20]
    value = f"mean IoU {100 * result.best.value:.1f}%"
    reason = f"no better mean IoU in 2 tests after {value} at iteration {best}"
    assert metadata(folder / "early")["message"] == f"finished early: {reason}"
    state = RunState.of(folder / "early")
    assert (state.state, state.message) == ("finished", f"finished early: {reason}")
    # a resumption is as patient as before, unless it is asked to be more so
    before = (folder / "early/metrics.jsonl").read_text()
    done = train(folder, "--resume", "--run", "early")
    assert done.returncode == 0
    assert f"finished early, at iteration {best + 20}: {reason}; weights: " in done.stderr.splitlines()[-1]
    assert (folder / "early/metrics.jsonl").read_text() == before
    done = train(folder, "--resume", "--run", "early", "--patience", 3, "--keep", 1)
    assert f"finished early, at iteration {best + 30}: no better mean IoU in 3 tests" in done.stderr.splitlines()[-1]
    assert kept(folder / "early") == [best, best + 30]
    assert scores(folder / "early") == {at: score for at, score in scores(unbroken).items() if at <= best + 30}


def test_patience_counts_on_after_a_stop(folder: Path, best: int) -> None:
    words = ("--run", "stopped", "--iterations", best + 15)
    done = train(folder, "--solver", "net/solver.prototxt", *words, *KEPT, "--patience", 3)
    assert done.stderr.splitlines()[-1].startswith(f"finished {best + 15} iterations; ")
    done = train(folder, "--resume", "--run", "stopped", "--iterations", ITERATIONS)
    # the test of the first end counts, too
    assert f"finished early, at iteration {best + 20}: no better mean IoU in 3 tests" in done.stderr.splitlines()[-1]


def test_another_score_asked_for_at_the_resumption(folder: Path) -> None:
    done = train(folder, "--solver", "net/solver.prototxt", "--run", "late", "--iterations", 20)
    assert done.returncode == 0 and "best" not in metadata(folder / "late") and "; best" not in done.stderr
    done = train(folder, "--resume", "--run", "late", "--iterations", 50, "--keep", 1, "--keep-best", "loss")
    assert done.returncode == 0, done.stderr
    losses = scores(folder / "late", "loss")
    best = min((at for at in losses if at >= 20), key=losses.__getitem__)
    assert metadata(folder / "late")["best"] == {"measure": "loss", "value": losses[best], "iteration": best}
    assert kept(folder / "late") == sorted({best, 50})
    assert RunState.of(folder / "late").best.measure == "loss"


def test_a_best_snapshot_that_is_lost_is_followed_by_the_next(folder: Path, unbroken: Path, best: int) -> None:
    run = folder / "lost"
    shutil.copytree(unbroken, run)
    for file in (run / "snapshots").glob(f"*_iter_{best}.*"):
        file.unlink()
    done = train(folder, "--resume", "--run", run, "--iterations", ITERATIONS + 10, "--keep", 1)
    assert done.returncode == 0, done.stderr
    rest = {at: score for at, score in scores(run).items() if at >= ITERATIONS}
    assert metadata(run)["best"]["iteration"] == max(rest, key=lambda at: (rest[at], -at))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--patience", 2), "--patience counts tests without a better score; name the score with --keep-best"),
        (("--keep-best", "iou"), "argument --keep-best: invalid choice: 'iou'"),
        (("--patience", 0, "--keep-best", "loss"), "'0' is not a whole number"),
        (("--keep-best", "loss"), r"untested\.prototxt: has no test \(test_iter\)"),
    ],
)
def test_what_cannot_be_kept(folder: Path, arguments: tuple[object, ...], message: str) -> None:
    solver = folder / "net/untested.prototxt"
    solver.write_text('net: "train_val.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1\n')
    done = train(folder, "--solver", "net/untested.prototxt", "--run", "new", *arguments)
    assert re.search(message, only_line(done, "train.py"))
    assert not (folder / "new").exists()


def test_a_test_without_scores_has_its_loss(folder: Path) -> None:
    network = (folder / "net/train_val.prototxt").read_text()
    network = network[: network.index("# Pixelwise cross entropy")]
    loss = 'layer { name: "loss" type: "Reduction" bottom: "upsample" top: "loss" loss_weight: 1 }\n'
    (folder / "net/flat.prototxt").write_text(network + loss)
    solver = (folder / "net/solver.prototxt").read_text().replace("train_val", "flat").replace("0.01", "1e-12")
    (folder / "net/flat_solver.prototxt").write_text(solver)
    words = ("--solver", "net/flat_solver.prototxt", "--run", "flat", "--iterations", 10)
    done = train(folder, *words, "--keep-best", "mean_iou")
    assert "its test has no scores, only a loss: --keep-best loss" in only_line(done, "train.py")
    done = train(folder, *words, "--keep-best", "loss")
    assert done.returncode == 0, done.stderr
    assert "; best: loss " in done.stderr.splitlines()[-1]


def test_of_equal_tests_the_first_is_the_best() -> None:
    tests = [{"kind": "test", "iteration": at, "pixel_accuracy": 0.5, "loss": 1.0} for at in (30, 10, 20)]
    assert best_test(tests, "pixel_accuracy") == Best("pixel_accuracy", 0.5, 10)
    assert best_test(tests) == Best("loss", 1.0, 10)
    assert best_test(tests, "mean_iou") is None
