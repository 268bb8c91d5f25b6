"""The whole check: its command line, its stages and its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_check_helpers import RATES, REPOSITORY, add_program, later, recorded
from segmentation_helpers import call_tool, only_line

from renet.gpu_check import check
from renet.gpu_check import machine as gpu_machine
from renet.gpu_check.machine import FAILED, PASSED, SKIPPED, UNFINISHED, Machine, Outcome
from tools import gpu_check


def test_no_gpu_is_told_in_one_line(tmp_path: Path) -> None:
    if gpu_machine.gpu_names():
        pytest.skip("there is a GPU here")
    done = call_tool("gpu_check.py", cwd=tmp_path)
    assert "no NVIDIA GPU is usable here" in only_line(done, "gpu_check.py")
    assert not list(tmp_path.iterdir())


def test_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "gpu_names", lambda: ["A GPU"])
    for arguments, words in (
        (["--gpu", "1"], "--gpu 1: this machine has 1 GPU(s), numbered from 0"),
        (["--time-limit", "0"], "a number of seconds above 0 is expected"),
        ([], "manifest.json: not readable"),
    ):
        assert gpu_check.main(arguments) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1


def stage(name: str, run: object, share: float = 1) -> check.Stage:
    return check.Stage(name, share, run, f"what {name} does")


def good(machine: Machine, deadline: float) -> Outcome:
    return Outcome(PASSED, "fine", {"seen": 1})


def broken(machine: Machine, deadline: float) -> Outcome:
    raise ZeroDivisionError("a bug")


def test_a_stage_that_breaks_leaves_the_others(machine: Machine, tmp_path: Path) -> None:
    report = check.Report(tmp_path / "report.json", {"machine": {}})
    outcomes = check.run_stages([stage("bad", broken), stage("fine", good)], machine, report, 10)
    assert [each.status for each in outcomes.values()] == [FAILED, PASSED]
    assert check.exit_status(outcomes) == 1
    assert check.exit_status({"fine": outcomes["fine"], "other": Outcome(SKIPPED, "")}) == 0
    assert check.exit_status({"late": Outcome(UNFINISHED, "")}) == 1
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["stages"]["bad"]["summary"] == "ZeroDivisionError: a bug"
    assert "broken" in written["stages"]["bad"]["traceback"]
    assert written["stages"]["fine"]["seen"] == 1
    assert check.conclusion(outcomes).splitlines()[1] == "fine  passed      fine"


def test_time_that_is_left_over_goes_to_the_next(machine: Machine, tmp_path: Path) -> None:
    deadlines = []

    def run(machine: Machine, deadline: float) -> Outcome:
        deadlines.append(deadline - start)
        return Outcome(PASSED, "")

    start = time.monotonic()
    report = check.Report(tmp_path / "report.json", {})
    check.run_stages([stage("a", run, 1), stage("b", run, 3)], machine, report, 100)
    assert deadlines == [pytest.approx(25, abs=20), pytest.approx(100, abs=20)]


def test_a_killed_run_leaves_what_it_did(machine: Machine, tmp_path: Path) -> None:
    """Facts that a stage keeps are in the file before the stage ends."""
    file = tmp_path / "report.json"

    def run(machine: Machine, deadline: float) -> Outcome:
        machine.keep({"rows": [1, 2]})
        assert json.loads(file.read_text())["stages"]["long"] == {"status": "started", "rows": [1, 2]}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check.run_stages([stage("long", run)], machine, check.Report(file, {}), 10)
    assert json.loads(file.read_text())["stages"]["long"]["rows"] == [1, 2]


def test_the_whole_check(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line to the table, with stages that only pretend."""
    manifest = {"glibc": "2.17", "needs": {}, "cuda_major": None, "cxx_versions": [], "commit": "abc", "bytes": {}}
    (machine.bundle / "manifest.json").write_text(json.dumps(manifest))
    add_program(machine, "caffe", "print('device')\n")

    def timed_stage(machine: Machine, deadline: float) -> Outcome:
        return Outcome(
            PASSED, "1 of 1 timed", {"rows": [recorded()], "rates": RATES._asdict(), "aims": ["aim reached: x"]}
        )

    monkeypatch.setattr(check, "BUNDLE", machine.bundle)
    monkeypatch.setattr(check, "gpu_names", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(check, "find_peer", lambda variables, deadline: (None, {"python3": "no torch"}))
    monkeypatch.setattr(check, "STAGES", (stage("benchmark", timed_stage), stage("ours", broken)))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "results"
    assert gpu_check.main(["--out", str(out)]) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("NVIDIA H200, commit abc, ")
    assert "floor: the longer one of arithmetic (a) and memory (m) at FLOAT32 10, TF32 40, BF16 80 TFLOP/s" in said.out
    assert lines[-2:] == ["benchmark  passed      1 of 1 timed", "ours       FAILED      ZeroDivisionError: a bug"]
    assert "s] ours: FAILED, ZeroDivisionError" in said.err
    report = json.loads((out / "report.json").read_text())
    assert report["machine"]["device_query"] == ["device"]
    assert report["pytorch"]["without"] == {"python3": "no torch"}
    assert gpu_check.main(["--out", str(out), "--only", "benchmark", "--json", str(tmp_path / "mine.json")]) == 0
    assert list(json.loads((tmp_path / "mine.json").read_text())["stages"]) == ["benchmark"]


def test_help_names_the_stages() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "gpu_check.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    for each in gpu_check.STAGES:
        assert f"  {each.name} " in done.stdout
    assert sum(each.share for each in gpu_check.STAGES) <= gpu_check.TIME_LIMIT < 9 * 60


TERMINATED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from renet.gpu_check import check
from renet.gpu_check import machine as gpu_machine
from tools import gpu_check
bundle = Path({bundle!r})

def long(machine, deadline):
    machine.keep({{"begun": True}})
    gpu_machine.run_commands([["sh", "-c", "echo $$ > {out}/child; sleep 300"]], deadline)

check.BUNDLE = bundle
check.gpu_names = lambda: ["A GPU"]
check.find_peer = lambda variables, deadline: (None, {{}})
check.STAGES = (check.Stage("long", 1, long, "waits"),)
sys.exit(gpu_check.main(["--out", {out!r}]))
"""


def test_a_terminated_run_ends_at_once_and_leaves_its_report(machine: Machine) -> None:
    manifest = {"glibc": "2.17", "needs": {}, "cuda_major": None, "cxx_versions": [], "commit": "abc"}
    (machine.bundle / "manifest.json").write_text(json.dumps(manifest))
    add_program(machine, "caffe", "pass\n")
    text = TERMINATED.format(repository=str(REPOSITORY), bundle=str(machine.bundle), out=str(machine.out))
    process = subprocess.Popen([sys.executable, "-c", text], stderr=subprocess.PIPE, text=True)
    child = machine.out / "child"
    end = later(60)
    while not (child.is_file() and child.read_text().strip()):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=30)[1]
    assert process.returncode == gpu_check.EXIT_INTERRUPTED
    assert said.splitlines()[-1].endswith("interrupted; the report holds what was done")
    assert json.loads((machine.out / "report.json").read_text())["stages"]["long"] == {
        "status": "started",
        "begun": True,
    }
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
