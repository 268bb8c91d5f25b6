"""Run many tests of a GoogleTest program side by side; a test that ends the program costs itself alone.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from renet.gpu_check.machine import Machine, run_command, side_by_side

TESTS_OF_A_PROCESS = 12  # at most; what the time runs out in is lost, so that long ones run alone
LINES_KEPT = 6  # of what a failed test said


class Report(NamedTuple):
    """What came of some tests.

    Attributes:
        passed: names, with their seconds.
        failed: names, with what they said.
        crashed: names of tests in which the program ended, with its last words.
        unfinished: names that the time did not suffice for.
    """

    passed: dict[str, float]
    failed: dict[str, str]
    crashed: dict[str, str]
    unfinished: list[str]


def listed_tests(text: str) -> list[str]:
    """The names in the output of --gtest_list_tests."""
    names, suite = [], ""
    for line in text.splitlines():
        name = line.split("#")[0].rstrip()
        if re.fullmatch(r"[\w/]+\.", name):
            suite = name
        elif suite and re.fullmatch(r"  \w+", name):
            names.append(suite + name.strip())
    return names


def uses_gpu(name: str) -> bool:
    """Whether a test of Caffe's program works on the GPU, by its name.

    Suites typed by device have float and double on the CPU as /0 and /1, on the GPU as /2 and /3.
    """
    return bool(re.search(r"GPU|Gpu|CuDNN|CUDA|Cuda|NCCL|/[23]\.", name)) and "Emulation" not in name


def is_long(name: str) -> bool:
    """Whether a test takes longer than most: numerical gradients wait for the GPU thousands of times."""
    return "Gradient" in name


def run_tests(
    machine: Machine, names: Sequence[str], variables: Mapping[str, str], deadline: float, log: Path, at_once: int
) -> Report:
    """Run tests of the bundle's test program, some in each process, `at_once` processes side by side.

    Args:
        machine: has the program.
        names: the tests; long ones run last.
        variables: the environment.
        deadline: when to stop, by time.monotonic().
        log: gets everything that the program says.
        at_once: processes.
    """
    report = Report({}, {}, {}, [])
    short = [name for name in names if not is_long(name)]
    count = max(at_once, -(-len(short) // TESTS_OF_A_PROCESS))
    # neighbours, which take equally long, go to different ones
    shares = [short[i::count] for i in range(min(count, len(short)))] + [[name] for name in names if is_long(name)]

    def run_share(share: Sequence[str]) -> None:
        if time.monotonic() >= deadline:
            report.unfinished.extend(share)
            return
        with tempfile.TemporaryDirectory() as scratch:
            told = Path(scratch) / "told.xml"
            command = [machine.program("caffe-tests"), f"--gtest_filter={':'.join(share)}", "--gtest_color=no"]
            command.append(f"--gtest_output=xml:{told}")
            ended = run_command(command, deadline, variables, machine.bundle / "test", machine.halted)
            with open(log, "a", encoding="utf-8") as written:
                written.write(ended.output)
            ended_well = ended.status is not None and told.is_file()
            for case in ElementTree.parse(told).iter("testcase") if ended_well else ():
                name = f"{case.get('classname')}.{case.get('name')}"
                words = "\n".join(failure.text for failure in case.iter("failure"))
                if words:
                    report.failed[name] = "\n".join(words.splitlines()[:LINES_KEPT])
                elif name in share:
                    report.passed[name] = float(case.get("time", 0))
        if ended_well:
            return
        if ended.status is None:
            report.unfinished.extend(share)
        elif len(share) == 1 or "[ RUN" not in ended.output:  # what did not even begin will not the next time
            report.crashed.update(dict.fromkeys(share, ended.words))
        else:
            for half in (share[: len(share) // 2], share[len(share) // 2 :]):
                run_share(half)

    side_by_side(machine, run_share, shares, at_once)
    return report
