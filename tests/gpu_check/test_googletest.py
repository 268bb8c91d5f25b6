"""The C++ tests on a GPU, with a program that speaks as GoogleTest does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gpu_check_helpers import REPOSITORY, add_program, later

from renet.gpu_check import googletest, stages
from renet.gpu_check.machine import FAILED, PASSED, UNFINISHED, Machine, run_command

LISTING = """OurTest/0.  # TypeParam = float
  TestForwardGPU
  TestBackward
GPUAgreementTest/1.
  Shapes
MathFunctionsTest/2.
  TestSwap
CuDNNConvolutionLayerTest/0.
  TestSimple
LayerTest/1.
  TestCPU
"""


def test_listed_tests() -> None:
    names = googletest.listed_tests("note of the program\n" + LISTING)
    assert names[:3] == ["OurTest/0.TestForwardGPU", "OurTest/0.TestBackward", "GPUAgreementTest/1.Shapes"]
    assert [name for name in names if googletest.uses_gpu(name)] == [names[0], *names[2:5]]
    kinds = [stages.kind_of_test(name, ["OurTest", "GPUAgreementTest"]) for name in names]
    assert kinds == ["ours", "ours", "agreement", "caffe", "caffe", "caffe"]


# Speaks as GoogleTest does; what a test does is told by its name.
TEST_PROGRAM = """
listing = json.loads(os.environ["LISTING"])
given = dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
if "--gtest_list_tests" in sys.argv:
    print("Suite.")
    print("".join(f"  {name}\\n" for name in listing))
    sys.exit(0)
cases = ""
for name in listing:
    if f"Suite.{name}" not in given["--gtest_filter"].split(":"):
        cases += f'<testcase name="{name}" status="notrun" time="0" classname="Suite" />'
        continue
    print(f"[ RUN      ] Suite.{name}", flush=True)
    if "Dies" in name:
        print("F20261122 21:02:14.218755 23873 layer.cpp:131] Check failed: a == b (1 vs. 2)", file=sys.stderr)
        print("*** Check failure stack trace: ***", file=sys.stderr)
        os.abort()
    if "Hangs" in name:
        time.sleep(60)
    failure = '<failure message="a" type=""><![CDATA[test.cpp:7\\n  Actual: 2]]></failure>' if "Fails" in name else ""
    cases += f'<testcase name="{name}" status="run" time="0.5" classname="Suite">{failure}</testcase>'
with open(given["--gtest_output"].partition(":")[2], "w") as told:
    told.write(f'<?xml version="1.0"?><testsuites><testsuite>{cases}</testsuite></testsuites>')
"""


def run_tests(machine: Machine, names: list[str], seconds: float = 60, at_once: int = 2) -> googletest.Report:
    add_program(machine, "caffe-tests", TEST_PROGRAM)
    variables = {**machine.variables, "LISTING": json.dumps(names)}
    full = [f"Suite.{name}" for name in names]
    return googletest.run_tests(machine, full, variables, later(seconds), machine.out / "log", at_once)


def test_a_test_that_ends_the_program_costs_itself_alone(machine: Machine) -> None:
    report = run_tests(machine, ["A", "DiesFirst", "B", "Fails", "DiesAgain", "C"], at_once=1)
    assert report.passed == dict.fromkeys(("Suite.A", "Suite.B", "Suite.C"), 0.5)
    assert report.failed == {"Suite.Fails": "test.cpp:7\n  Actual: 2"}
    assert set(report.crashed) == {"Suite.DiesFirst", "Suite.DiesAgain"}
    assert "Check failed: a == b (1 vs. 2) (layer.cpp:131)" in report.crashed["Suite.DiesFirst"]
    assert not report.unfinished
    assert "RUN      ] Suite.C" in (machine.out / "log").read_text()


def test_shares_come_together(machine: Machine) -> None:
    names = [f"Test{number}" for number in range(40)] + ["Fails", "LongGradient"]
    report = run_tests(machine, names, at_once=3)
    assert (len(report.passed), list(report.failed)) == (41, ["Suite.Fails"])


def test_what_the_time_does_not_suffice_for_is_unfinished(machine: Machine) -> None:
    report = run_tests(machine, ["A", "HangsGradient", "BGradient"], seconds=10, at_once=1)
    assert set(report.passed) == {"Suite.A"}
    assert report.unfinished == ["Suite.HangsGradient", "Suite.BGradient"]
    assert not report.crashed
    assert stages.outcome_of_tests(report).status == UNFINISHED


def test_a_program_that_does_not_start_is_told_once(machine: Machine) -> None:
    add_program(machine, "caffe-tests", "print('libx.so: not found', file=sys.stderr)\nsys.exit(127)\n")
    report = googletest.run_tests(machine, ["S.a", "S.b"], machine.variables, later(60), machine.out / "log", 1)
    assert report.crashed == dict.fromkeys(("S.a", "S.b"), "ended with status 127; last line: libx.so: not found")
    assert (machine.out / "log").read_text().count("not found") == 1


def test_stage_of_tests(machine: Machine) -> None:
    add_program(machine, "caffe-tests", TEST_PROGRAM)
    machine.variables = {**machine.variables, "LISTING": json.dumps(["OneGPU", "OnProcessor"])}
    machine.manifest = {"our_test_suites": ["Suite"]}
    outcome = stages.test_stage("ours")(machine, later(60))
    assert (outcome.status, outcome.summary) == (PASSED, "1 passed")
    assert list(outcome.metadata["passed"]) == ["Suite.OneGPU"]
    nothing = stages.test_stage("caffe")(machine, later(60))
    assert (nothing.status, nothing.summary) == (FAILED, "the test program has no such tests")


def test_summary_of_tests() -> None:
    report = googletest.Report({"a": 1.0}, dict.fromkeys("bcde", "words"), {"f": "died"}, ["g"])
    outcome = stages.outcome_of_tests(report)
    assert outcome.status == FAILED
    assert outcome.summary == "1 passed, 4 failed, 1 crashed, 1 not finished in time: f, b, c and 2 more"


def test_the_real_program(machine: Machine) -> None:
    """GoogleTest itself lists, filters and writes what is read here."""
    program = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu")) / "bin" / "caffe-tests"
    if not program.is_file():
        pytest.skip(f"{program} is not built")
    Path(machine.program("caffe-tests")).symlink_to(program)
    listed = run_command([str(program), "--gtest_list_tests"], later(60), machine.variables)
    names = [name for name in googletest.listed_tests(listed.output) if name.startswith("SyncedMemoryTest.")]
    report = googletest.run_tests(machine, names, machine.variables, later(60), machine.out / "log", 2)
    assert names and set(report.passed) == set(names)
