"""The check of a bundle: its stages in order, what each found, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from renet.gpu_check.launcher import Environment, Unusable, find_environment, read_manifest
from renet.gpu_check.machine import (
    FAILED,
    PASSED,
    SKIPPED,
    Machine,
    Outcome,
    find_peer,
    gpu_names,
    metadata_of,
    only_gpu,
)
from renet.gpu_check.speed import benchmark, table
from renet.gpu_check.stages import AGREEMENT, networks, sanitizer, test_stage

BUNDLE = Path(__file__).resolve().parents[2]
EXIT_FAILED, EXIT_BAD_USE, EXIT_INTERRUPTED = 1, 2, 130
TIME_LIMIT = 520.0  # seconds: under 9 minutes


class Stage(NamedTuple):
    """Something to check.

    Attributes:
        name: what --only calls it.
        share: of the time; what a stage leaves over goes to the next ones.
        run: does it, until a deadline by time.monotonic().
        what: for --help.
    """

    name: str
    share: float
    run: Callable[[Machine, float], Outcome]
    what: str


# What tells most comes first, in case that the time runs out.
STAGES = (
    Stage("agreement", 60, test_stage(AGREEMENT), "C++ tests of every layer: processor against GPU"),
    Stage("networks", 80, networks, "every network: processor against GPU, in each precision"),
    Stage("benchmark", 200, benchmark, "speed, beside PyTorch and the chip's limit"),
    Stage("ours", 60, test_stage("ours"), "the C++ tests of our layers on the GPU"),
    Stage("sanitizer", 60, sanitizer, "compute-sanitizer's memcheck and racecheck on small maps"),
    Stage("caffe", 60, test_stage("caffe"), "Caffe's own C++ tests on the GPU"),
)


class Report:
    """What is written as JSON, after everything that is learned, so that a killed run leaves what it did."""

    def __init__(self, file: Path, metadata: dict[str, Any]) -> None:
        self._file = file
        self.content: dict[str, Any] = {**metadata, "stages": {}}
        self.write()

    def write(self) -> None:
        """Write it, whole or not at all."""
        partial = self._file.with_name(self._file.name + ".part")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        os.replace(str(partial), str(self._file))

    def note(self, stage: str, **metadata: Any) -> None:
        """Bring a stage's metadata up to date."""
        self.content["stages"].setdefault(stage, {}).update(metadata)
        self.write()


def run_stages(stages: Sequence[Stage], machine: Machine, report: Report, time_limit: float) -> dict[str, Outcome]:
    """Run the stages, each until its share of the time is used up; what one does wrong does not touch the others."""
    outcomes = {}
    end = time.monotonic()
    whole = sum(stage.share for stage in stages)
    for stage in stages:
        end += time_limit * stage.share / whole
        machine.say(f"{stage.name}: {stage.what}")
        machine.keep = lambda metadata, name=stage.name: report.note(name, **metadata)
        report.note(stage.name, status="started")
        start = time.monotonic()
        try:
            outcome = stage.run(machine, end)
        except Exception as error:
            outcome = Outcome(
                FAILED, f"{type(error).__name__}: {error}".splitlines()[0], {"traceback": traceback.format_exc()}
            )
        outcomes[stage.name] = outcome
        seconds = round(time.monotonic() - start, 1)
        report.note(stage.name, **outcome.metadata, status=outcome.status, summary=outcome.summary, seconds=seconds)
        machine.say(f"{stage.name}: {outcome.status}, {outcome.summary}")
    return outcomes


def conclusion(outcomes: dict[str, Outcome]) -> str:
    """The short table of all stages."""
    width = max(len(name) for name in outcomes)
    return "\n".join(f"{name.ljust(width)}  {each.status:10}  {each.summary}" for name, each in outcomes.items())


def exit_status(outcomes: dict[str, Outcome]) -> int:
    """0 where all went well or could not be done here, else 1."""
    return 0 if all(each.status in (PASSED, SKIPPED) for each in outcomes.values()) else EXIT_FAILED


def prepare(arguments: argparse.Namespace) -> tuple[Machine, Environment]:
    """Find out what there is.

    Raises:
        Unusable: there is no GPU here, or something else that is needed is missing.
    """
    names = gpu_names()
    if not names:
        raise Unusable("no NVIDIA GPU is usable here: CUDA's driver (libcuda.so.1) is missing or sees none")
    if not 0 <= arguments.gpu < len(names):
        raise Unusable(f"--gpu {arguments.gpu}: this machine has {len(names)} GPU(s), numbered from 0")
    if not arguments.time_limit > 0:  # nor NaN
        raise Unusable(f"--time-limit {arguments.time_limit:g}: a number of seconds above 0 is expected")
    manifest = read_manifest(BUNDLE)
    own = {**os.environ, **only_gpu(arguments.gpu, os.environ)}
    own.pop("CAFFE_ALLOW_TF32", None)  # precision is chosen network by network here
    environment = find_environment(BUNDLE, own)
    arguments.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {text}", file=sys.stderr, flush=True)

    machine = Machine(
        bundle=BUNDLE,
        out=arguments.out.resolve(),
        variables=environment.variables,
        own_variables=own,
        manifest=manifest,
        gpu=names[arguments.gpu],
        keep=lambda metadata: None,
        say=say,
    )
    return machine, environment


def check(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; the exit status."""
    started = time.monotonic()
    machine, environment = prepare(arguments)
    machine.say(f"{machine.gpu}: looking at the machine")
    soon = started + arguments.time_limit / 4
    machine.peer, without_peer = find_peer(machine.own_variables, soon)
    metadata = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "bundle": {name: value for name, value in machine.manifest.items() if name != "bytes"},
        "machine": metadata_of(machine, environment.libraries, soon),
        "pytorch": {"python": machine.peer, "without": without_peer},
    }
    report = Report(arguments.json or arguments.out / "report.json", metadata)
    stages = [stage for stage in STAGES if not arguments.only or stage.name in arguments.only]
    outcomes = run_stages(stages, machine, report, arguments.time_limit - (time.monotonic() - started))
    report.content["seconds"] = round(time.monotonic() - started, 1)
    report.write()
    timed = report.content["stages"].get("benchmark", {})
    print(f"{machine.gpu}, commit {(machine.manifest['commit'] or 'none')[:12]}, {report.content['seconds']:.0f} s")
    if timed.get("rows"):
        print(table(timed["rows"]))
        print("floor: the longer one of arithmetic (a) and memory (m)", _rates(timed["rates"]))
        print("\n".join(timed["aims"]))
    print(conclusion(outcomes))
    return exit_status(outcomes)


def _rates(rates: dict[str, Any] | None) -> str:
    if not rates:
        return "is not known for this GPU"
    speeds = ", ".join(f"{name} {speed:.0f}" for name, speed in rates["tflops"].items())
    return f"at {speeds} TFLOP/s and {rates['terabytes']:.2f} TB/s ({rates['source']})"
