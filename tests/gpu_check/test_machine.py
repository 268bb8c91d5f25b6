"""What a machine has, and the processes on it."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from gpu_check_helpers import later

from renet.gpu_check.conversation import Conversation, Died
from renet.gpu_check.machine import Ended, Machine, find_peer, only_gpu, run_command, side_by_side


def test_one_gpu_of_those_that_are_visible() -> None:
    assert only_gpu(1, {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert only_gpu(1, {"CUDA_VISIBLE_DEVICES": "5,3"}) == {"CUDA_VISIBLE_DEVICES": "3"}


def test_commands_end_at_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = run_command(["sh", "-c", "echo begun; sleep 120"], later(5))
    assert time.monotonic() - start < 60
    assert (ended.status, ended.output, ended.words) == (None, "begun\n", "stopped: the time was up")
    missing = run_command([str(tmp_path / "none")], later(5))
    assert missing.status == 127
    assert "No such file" in missing.words
    assert Ended(-6, "F20261122 21:02:14.2 23 a.cpp:1] Check failed: x\n").words == "Check failed: x (a.cpp:1)"
    assert Ended(-11, "").words == "ended with signal 11"


def test_an_interruption_ends_what_runs_and_begins_no_more(machine: Machine) -> None:
    begun: list[int] = []
    running = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number:
            running.set()
            run_command(["sleep", "300"], later(300), None, None, machine.halted)
        else:
            running.wait(60)

    def done(number: int, result: None) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side(machine, work, range(20), 2, done)
    assert time.monotonic() - start < 60
    assert len(begun) < 5


def test_a_conversation_ends_at_the_deadline(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(60)"]
    conversation = Conversation(command, dict(os.environ), tmp_path, tmp_path / "log", later(5))
    with conversation, pytest.raises(Died, match="the time was up"):
        conversation.ask("anything")


def test_both_ends_of_a_conversation(repository: Path, tmp_path: Path) -> None:
    program = """
import os
from renet.gpu_check.conversation import serve
class Answers:
    def double(self, number): return {"doubled": 2 * number}
    def end(self): os._exit(3)
def begin():
    print("this is no answer", flush=True)
    return {"ready": True}, Answers()
serve(begin)
"""
    command, log = [sys.executable, "-c", program], tmp_path / "log"
    with Conversation(command, dict(os.environ), repository, log) as conversation:
        assert conversation.ready == {"ready": True}
        assert conversation.ask("double", number=4) == {"doubled": 8}
        with pytest.raises(Died, match="TypeError: "):
            conversation.ask("double", number=None)
        with pytest.raises(Died, match="ended with status 3; last line: this is no answer"):
            conversation.ask("end")


def test_a_python_whose_pytorch_sees_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("none", "echo no torch >&2; exit 1"), ("has", "echo 97")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python3").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name / "python3").chmod(0o755)
    none, has = tmp_path / "none", tmp_path / "has"
    monkeypatch.setattr(sys, "executable", "")
    peer, lacking = find_peer({"PATH": f"{none}:{has}"}, later(30))
    assert peer == str(has / "python3")
    assert lacking == {str(none / "python3"): "ended with status 1; last line: no torch"}
    assert find_peer({"PATH": str(none)}, later(30))[0] is None
