"""tools/runs.py: what it tells of trainings in every state, whole and half written."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import platform
import re
import resource
import time
from pathlib import Path

import pytest
from segmentation_helpers import call_tool, only_line

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.machine import multiplies_bfloat16, processor_name
from renet.training.run_folder import RunFolder, note_death
from renet.training.run_state import RunState, best_test, find_runs, is_run
from renet.training.run_table import duration
from tools.runs import main, make_parser

TESTS = [
    {"kind": "test", "iteration": 10, "loss": 2.0, "mean_iou": 0.25},
    {"kind": "train", "iteration": 10, "loss": 1.0, "seconds": 3.0},
    {"kind": "test", "iteration": 20, "loss": 3.0, "mean_iou": 0.5},
    {"kind": "train", "iteration": 20, "loss": 1.0, "seconds": 7000.0},
    {"kind": "test", "iteration": 30, "loss": 1.0, "mean_iou": 0.5},
]


def write_run(folder: Path, metadata: object = None, metrics: str | None = None) -> Path:
    """A run folder as train.py leaves it, with the given run.json and metrics.jsonl."""
    (folder / "snapshots").mkdir(parents=True)
    (folder / "train.log").write_text("")
    if metadata is not None:
        (folder / "run.json").write_text(metadata if isinstance(metadata, str) else json.dumps(metadata))
    if metrics is not None:
        (folder / "metrics.jsonl").write_text(metrics)
    return folder


def as_lines(metrics: list[dict]) -> str:
    return "".join(json.dumps(line) + "\n" for line in metrics)


def listed(folder: Path) -> dict[str, dict]:
    """What `runs.py --json` says, by the run's name."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(main, make_parser(), [str(folder), "--json"]) == 0
    return {Path(entry["run"]).name: entry for entry in json.loads(said.getvalue())}


@pytest.mark.parametrize(
    ("metadata", "state"),
    [
        ({"state": "finished"}, "finished"),
        ({"state": "interrupted"}, "stopped"),
        ({"state": "running"}, "stopped"),  # killed: it could not say so
        ({"state": "failed", "message": "no\nloss"}, "failed"),
        ({}, "stopped"),
        ({"state": ["odd"], "iteration": "many", "iterations": True, "seconds": "long"}, "unknown"),
        ({"seconds": "long"}, "unknown"),
        (None, "stopped"),  # killed before run.json was there
        ("", "unknown"),
        ('{"state": "finis', "unknown"),
        ("[1]", "unknown"),
        ("\0\0\0", "unknown"),
    ],
)
def test_states(tmp_path: Path, metadata: object, state: str) -> None:
    folder = write_run(tmp_path / "run", metadata)
    with open(folder / "train.log") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert listed(tmp_path)["run"]["state"] == "running"
    entry = listed(tmp_path)["run"]
    assert entry["state"] == state
    assert (entry["message"] is not None) == (state in ("failed", "unknown"))
    assert entry["iteration"] is None
    assert entry["best"] is None


@pytest.mark.parametrize("rest", ["", '{"kind": "test", "iterat', "\0\0", "[]\n", "12\n", '{"kind": "test"}\n'])
def test_metrics_that_break_off(tmp_path: Path, rest: str) -> None:
    metadata = {"state": "running", "iteration": 10, "iterations": 40, "seconds": 3.5}
    folder = write_run(tmp_path / "run", metadata, as_lines(TESTS) + rest)
    entry = listed(tmp_path)["run"]
    assert entry["best"] == {"measure": "mean_iou", "value": 0.5, "iteration": 20}
    assert (entry["iteration"], entry["iterations"], entry["seconds"]) == (10, 40, 7000.0)
    with open(folder / "train.log") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert listed(tmp_path)["run"]["iteration"] == 30, "a running one is further than its last snapshot"
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    assert listed(tmp_path)["run"]["best"] is None


def test_best_test() -> None:
    losses = [{key: value for key, value in line.items() if key != "mean_iou"} for line in TESTS]
    assert best_test(losses).measure == "loss"
    assert (best_test(losses).value, best_test(losses).iteration) == (1.0, 30)
    assert best_test([{"kind": "test", "iteration": 1, "loss": float("nan")}]) is None
    assert best_test([]) is None


def test_which_folders_are_runs(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {}) for name in ("a", "experiments/fcn", "experiments/h")]
    write_run(runs[0] / "predictions" / "within", {})
    write_run(tmp_path / "begun")
    (tmp_path / "empty").mkdir()
    (tmp_path / "experiments/loop").symlink_to(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    write_run(tmp_path.parent / f"{tmp_path.name}_elsewhere", {})
    (tmp_path / "other_disk").symlink_to(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    found = [tmp_path / "a", tmp_path / "begun", *runs[1:], tmp_path / "other_disk"]
    assert list(find_runs(tmp_path)) == found
    assert list(find_runs(runs[0])) == [runs[0]]
    assert not is_run(tmp_path / "experiments")
    assert list(find_runs(tmp_path / "empty")) == []


def test_table(tmp_path: Path) -> None:
    metadata = {"state": "finished", "iteration": 40000, "iterations": 40000, "seconds": 95000.0}
    old = write_run(tmp_path / "old", metadata, as_lines(TESTS))
    for file in (old, *old.iterdir()):
        os.utime(file, (time.time() - 3 * 3600, time.time() - 3 * 3600))
    write_run(tmp_path / "new", {"state": "failed", "message": "the loss is nan", "iterations": 5})
    done = call_tool("runs.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, _, first, second, message = done.stdout.splitlines()
    assert header.split() == ["run", "state", "iteration", "best", "test", "at", "trained", "last", "sign"]
    assert re.fullmatch(r".*/new +failed +\?/5 +- +- +- +\d+ (s|min) ago", first)
    assert re.fullmatch(r".*/old +finished +40,000/40,000 +mean IoU 50\.0% +20 +1 d 2 h +3 h 00 min ago", second)
    assert message == f"{tmp_path / 'new'}: the loss is nan"


def test_nothing_and_nowhere(tmp_path: Path) -> None:
    assert call_tool("runs.py", tmp_path, cwd=tmp_path).stdout == f"no runs in {tmp_path}\n"
    assert call_tool("runs.py", tmp_path, "--json", cwd=tmp_path).stdout == "[]\n"
    line = only_line(call_tool("runs.py", tmp_path / "lost", cwd=tmp_path), "runs.py")
    assert line == f"runs.py: {tmp_path / 'lost'}: no such folder"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min"), (3599, "1 h 00 min"), (86399, "1 d 0 h"), (5e5, "5 d 18 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_look_does_not_keep_a_training_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", {})
    log = open(folder / "train.log")  # noqa: SIM115
    fcntl.flock(log, fcntl.LOCK_SH)
    monkeypatch.setattr("renet.training.run_folder.time.sleep", lambda _: log.close())  # while the training waits
    RunFolder(folder).open()
    assert log.closed


def test_no_more_open_files_is_no_state_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", {"state": "finished"})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.open(os.devnull, os.O_RDONLY)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        assert run(main, make_parser(), [str(tmp_path)]) == 2
        with pytest.raises(OSError, match="Too many open files"):
            RunState.of(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert capsys.readouterr().err == f"runs.py: {tmp_path}: Too many open files\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("the net is lost"), "the net is lost"),
        (OSError(28, "No space left on device", "a.txt"), "a.txt: No space left on device"),
        (MemoryError(), "MemoryError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit("over"), "SystemExit: over"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
    ],
)
def test_every_exception_is_noted(tmp_path: Path, error: BaseException, message: str) -> None:
    folder = RunFolder(write_run(tmp_path / "run"))
    folder.begin({"iterations": 5})
    folder.iteration = 3
    with pytest.raises(type(error)), folder.failures_noted():
        raise error
    entry = listed(tmp_path)["run"]
    assert (entry["state"], entry["message"], entry["iteration"]) == ("failed", message, 3)


@pytest.mark.parametrize(("state", "shown"), [("failed", "failed"), ("interrupted", "stopped")])
def test_a_death_is_noted(tmp_path: Path, state: str, shown: str) -> None:
    note_death(write_run(tmp_path / "run", {"state": "running"}), state, "ended by signal 11 (SIGSEGV)")
    assert listed(tmp_path)["run"]["state"] == shown
    note_death(write_run(tmp_path / "begun"), state, "no run.json to note it in")
    assert listed(tmp_path)["begun"]["state"] == "stopped"


def test_a_processor_without_a_name_is_told_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renet.common.machine.PROCESSORS", tmp_path / "cpuinfo")
    assert processor_name() == platform.machine()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A Processor\n")
    assert processor_name() == "A Processor"


@pytest.mark.parametrize(
    ("vendor", "flags", "multiplies"),
    [
        ("GenuineIntel", "fpu avx512_bf16 amx_bf16", True),
        ("GenuineIntel", "fpu avx512_bf16", False),
        ("AuthenticAMD", "fpu avx512_bf16", True),
        ("AuthenticAMD", "fpu avx512f", False),
    ],
)
def test_whether_the_processor_multiplies_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, multiplies: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n")
    monkeypatch.setattr("renet.common.machine.PROCESSORS", tmp_path / "cpuinfo")
    assert multiplies_bfloat16() == multiplies
