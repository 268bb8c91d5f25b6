"""The check on a GPU, as far as a machine without one can try it: counting, reports, failures, and the PyTorch side."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from segmentation_helpers import call_tool, only_line

from renet.benchmark.layer_tasks import Shape
from renet.benchmark.tables import group_flops
from renet.gpu_check import check, entries, googletest, speed, stages
from renet.gpu_check.entries import FORWARD, FORWARD_BACKWARD, STEP, Entry
from renet.gpu_check.machine import FAILED, PASSED, SKIPPED, UNFINISHED, Conversation, Died, Ended, Machine, Outcome
from renet.gpu_check.work import BF16, FLOAT32, TF32, Rates, data_sheet, floor, moved_bytes, operations
from tools import gpu_check

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu"))
BENCHMARK = BUILD / "bin" / "benchmark_net"
TINY = (2, 3, 5, 4, 2)
RATES = Rates({FLOAT32: 10.0, TF32: 40.0, BF16: 80.0}, 2.0, "measured")


def later(seconds: float) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A bundle that holds nothing yet; what is kept and said is collected."""
    (tmp_path / "bundle" / "programs").mkdir(parents=True)
    (tmp_path / "bundle" / "test").mkdir()
    (tmp_path / "out").mkdir()
    environment = dict(os.environ)
    return Machine(
        bundle=tmp_path / "bundle",
        out=tmp_path / "out",
        variables=environment,
        own_variables=environment,
        manifest={"our_test_suites": ["OurTest", "GPUAgreementTest"], "commit": None},
        gpu="NVIDIA H200",
        keep=lambda metadata: None,
        say=lambda text: None,
    )


def add_program(machine: Machine, name: str, text: str) -> None:
    """A program of the bundle, in Python."""
    file = Path(machine.program(name))
    # by way of the shell, as the path of an interpreter with a space in it would end there
    start = f"""#!/bin/sh\n'''exec' "{sys.executable}" "$0" "$@"\n' '''\n"""
    file.write_text(f"{start}import json, os, sys, time\n{text}")
    file.chmod(0o755)


@pytest.fixture
def processor_as_gpu(machine: Machine) -> Machine:
    """The CPU's benchmark_net, which computes on the processor whatever -gpu says."""
    if not BENCHMARK.is_file():
        pytest.skip(f"{BENCHMARK} is not built: make caffe")
    text = f"""arguments = sys.argv[1:]
if "-gpu" in arguments:
    place = arguments.index("-gpu")
    del arguments[place:place + 2]
os.execv({str(BENCHMARK)!r}, [{str(BENCHMARK)!r}, *arguments])
"""
    add_program(machine, "benchmark_net", text)
    return machine


# --- Without a GPU ---------------------------------------------------------------------------------------------------


def test_no_gpu_is_told_in_one_line(tmp_path: Path) -> None:
    if machine.gpu_names():
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


def test_one_gpu_of_those_that_are_visible() -> None:
    assert machine.only_gpu(1, {}) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert machine.only_gpu(1, {"CUDA_VISIBLE_DEVICES": "5,3"}) == {"CUDA_VISIBLE_DEVICES": "3"}


# --- The chip's limit ------------------------------------------------------------------------------------------------


def renet_layer(inputs: int, d: int, taken: list[int], given: list[int]) -> dict:
    params = [[4 * d, inputs], [4 * d], [4 * d, d]] * 2
    return {
        "type": "ReNetLSTM",
        "bottoms": [taken],
        "tops": [given],
        "params": params,
        "backward": True,
        "propagate_down": True,
    }


def test_operations_of_a_group_are_those_of_the_processors_benchmark() -> None:
    for shape in entries.SHAPES:
        n, c, height, width, d = shape
        middle = [n, 2 * d, height, width]
        layers = [renet_layer(c, d, [n, c, height, width], middle), renet_layer(2 * d, d, middle, middle)]
        assert operations(layers, False) == group_flops(Shape(*shape), FORWARD)
        assert operations(layers, True) == group_flops(Shape(*shape), FORWARD_BACKWARD)


def test_operations_and_bytes_of_other_layers() -> None:
    sides = {"backward": True, "propagate_down": False}
    convolution = {
        "type": "Convolution",
        "bottoms": [[2, 3, 8, 6]],
        "tops": [[2, 5, 4, 3]],
        "params": [[5, 3, 2, 2], [5]],
    }
    deconvolution = {
        "type": "Deconvolution",
        "bottoms": [[1, 4, 3, 2]],
        "tops": [[1, 1, 6, 4]],
        "params": [[4, 1, 2, 2]],
    }
    product = {"type": "InnerProduct", "bottoms": [[7, 10]], "tops": [[7, 3]], "params": [[3, 10], [3]]}
    resize = {
        "type": "BilinearInterpolation",
        "bottoms": [[1, 2, 3, 4], [1, 9, 6, 8]],
        "tops": [[1, 2, 6, 8]],
        "params": [],
    }
    loss = {"type": "SoftmaxWithLoss", "bottoms": [[1, 2, 6, 8], [1, 1, 6, 8]], "tops": [[]], "params": []}
    split = {"type": "Split", "bottoms": [[4, 4]], "tops": [[4, 4], [4, 4]], "params": []}
    assert operations([convolution | sides], False) == 2 * (2 * 4 * 3) * (5 * 3 * 2 * 2)
    assert operations([convolution | sides], True) == 2 * operations([convolution | sides], False)
    assert operations([convolution | sides | {"backward": False}], True) == operations([convolution | sides], False)
    assert operations([deconvolution | sides], False) == 2 * (3 * 2) * (4 * 2 * 2)
    assert operations([product | sides], False) == 2 * 7 * 30
    assert operations([resize | sides, loss | sides, split | sides], True) == 0
    assert moved_bytes([resize | sides], False) == 4 * (24 + 96)
    assert moved_bytes([split | sides], True) == 0
    held, taken, given = 33, 70, 21
    assert moved_bytes([product | sides], False) == 4 * (held + taken + given)
    assert moved_bytes([product | sides], True) == 4 * (held + taken + given + given + taken + 2 * held)
    with_input = moved_bytes([product | sides | {"propagate_down": True}], True)
    assert with_input - moved_bytes([product | sides], True) == 4 * taken
    assert moved_bytes([product | sides], True, update=True) - moved_bytes([product | sides], True) == 4 * 5 * held


def test_floor_is_the_longer_one() -> None:
    arithmetic, memory = floor(2 * 10**10, 10**9, RATES, FLOAT32), floor(2 * 10**10, 10**9, RATES, BF16)
    assert (arithmetic.milliseconds, arithmetic.limit) == (pytest.approx(2.0), "arithmetic")
    assert (memory.milliseconds, memory.limit) == (pytest.approx(0.5), "memory")


@pytest.mark.parametrize(
    ("name", "float32", "terabytes"),
    [
        ("NVIDIA H200", 67.0, 4.8),
        ("NVIDIA H100 80GB HBM3", 67.0, 3.35),
        ("NVIDIA H100 PCIe", 51.2, 2.0),
        ("NVIDIA A100-SXM4-40GB", 19.5, 1.555),
        ("NVIDIA A10G", 31.2, 0.6),
        ("Tesla T4", 8.1, 0.32),
        ("NVIDIA L4", 30.3, 0.3),
        ("NVIDIA L40S", 91.6, 0.864),
    ],
)
def test_data_sheets(name: str, float32: float, terabytes: float) -> None:
    rates = data_sheet(name)
    assert rates
    assert (rates.tflops[FLOAT32], rates.terabytes) == (float32, terabytes)


def test_an_unknown_gpu_has_no_data_sheet() -> None:
    assert data_sheet("Imaginary 1") is None


# --- C++ tests -------------------------------------------------------------------------------------------------------

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
    assert [name for name in names if googletest.uses_gpu(name)] == [
        "OurTest/0.TestForwardGPU",
        "GPUAgreementTest/1.Shapes",
        "MathFunctionsTest/2.TestSwap",
        "CuDNNConvolutionLayerTest/0.TestSimple",
    ]
    ours = ["OurTest", "GPUAgreementTest"]
    kinds = [stages.kind_of_test(name, ours) for name in names]
    assert kinds == ["ours", "ours", "agreement", "caffe", "caffe", "caffe"]


# Speaks as GoogleTest does; what a test does is told by its name.
TEST_PROGRAM = """
listing = json.loads(os.environ["LISTING"])
if "--gtest_list_tests" in sys.argv:
    print("Suite.")
    print("".join(f"  {name}\\n" for name in listing))
    sys.exit(0)
wanted = next(a for a in sys.argv if a.startswith("--gtest_filter=")).partition("=")[2].split(":")
for name in listing:
    full = f"Suite.{name}"
    if full not in wanted:
        continue
    print(f"[ RUN      ] {full}", flush=True)
    if "Dies" in name:
        print("F20261122 21:02:14.218755 23873 layer.cpp:131] Check failed: a == b (1 vs. 2)", file=sys.stderr)
        print("*** Check failure stack trace: ***", file=sys.stderr)
        os.abort()
    if "Hangs" in name:
        time.sleep(60)
    if "Fails" in name:
        print("test.cpp:7: Failure\\n  Actual: 2")
    print(f"[  {'FAILED  ' if 'Fails' in name else '     OK '}] {full} (0 ms)", flush=True)
print("[  FAILED  ] 1 test, listed below:")
sys.exit(0)
"""


def run_tests(machine: Machine, names: list[str], seconds: float = 60, at_once: int = 2) -> googletest.Report:
    add_program(machine, "caffe-tests", TEST_PROGRAM)
    variables = {**machine.variables, "LISTING": json.dumps(names)}
    full = [f"Suite.{name}" for name in names]
    command = [machine.program("caffe-tests")]
    return googletest.run_tests(command, full, variables, machine.bundle, later(seconds), machine.out, at_once)


def test_a_test_that_ends_the_program_costs_itself_alone(machine: Machine) -> None:
    names = ["A", "DiesFirst", "B", "Fails", "DiesAgain", "C"]
    report = run_tests(machine, names, at_once=1)
    assert set(report.passed) == {"Suite.A", "Suite.B", "Suite.C"}
    assert report.failed == {"Suite.Fails": "test.cpp:7: Failure\n  Actual: 2"}
    assert set(report.crashed) == {"Suite.DiesFirst", "Suite.DiesAgain"}
    assert "Check failed: a == b (1 vs. 2) (layer.cpp:131)" in report.crashed["Suite.DiesFirst"]
    assert not report.unfinished
    assert "RUN      ] Suite.C" in (machine.out / "0.log").read_text()


def test_shares_come_together(machine: Machine) -> None:
    names = [f"Test{number}" for number in range(7)] + ["Fails"]
    report = run_tests(machine, names, at_once=3)
    assert (len(report.passed), list(report.failed)) == (7, ["Suite.Fails"])
    assert len(list(machine.out.iterdir())) == 3


def test_what_the_time_does_not_suffice_for_is_unfinished(machine: Machine) -> None:
    report = run_tests(machine, ["A", "Hangs", "B"], seconds=10, at_once=1)
    assert set(report.passed) == {"Suite.A"}
    assert report.unfinished == ["Suite.Hangs", "Suite.B"]
    assert not report.crashed
    assert stages.outcome_of_tests(report).status == UNFINISHED


def test_a_program_that_does_not_start_is_told_once(machine: Machine) -> None:
    add_program(machine, "caffe-tests", "print('libx.so: not found', file=sys.stderr)\nsys.exit(127)\n")
    report = googletest.run_share(
        *([machine.program("caffe-tests")], ["S.a", "S.b"], machine.variables, machine.bundle),
        *(later(60), machine.out / "log", googletest.Processes()),
    )
    assert set(report.crashed.values()) == {"ended with status 127; last line: libx.so: not found"}
    assert set(report.crashed) == {"S.a", "S.b"}


def test_stage_of_tests(machine: Machine) -> None:
    names = ["OneGPU", "OnProcessor"]
    add_program(machine, "caffe-tests", TEST_PROGRAM)
    machine.variables = {**machine.variables, "LISTING": json.dumps(names)}
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


def test_end_of_all_processes(machine: Machine) -> None:
    """Ctrl-C must not wait for the deadline."""
    processes = googletest.Processes()
    process = processes.start([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process
    threading.Timer(0.2, processes.halt).start()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert processes.start(["true"]) is None


# --- Networks --------------------------------------------------------------------------------------------------------

SMALL_NETWORK = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 5 } } }
layer { name: "renet" type: "ReNetLSTM" bottom: "data" top: "renet"
  renet_param { num_output: 4 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
"""


def test_networks_agree_with_themselves(processor_as_gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PRECISIONS", (FLOAT32,))
    folder = processor_as_gpu.bundle / "prototxt" / "model" / "dataset"
    folder.mkdir(parents=True)
    (folder / "deploy.prototxt").write_text(SMALL_NETWORK)
    training = REPOSITORY / "prototxt/n_renet_small/synthetic_scenes/train_val.prototxt"
    (folder / "train_val.prototxt").write_text(training.read_text())
    outcome = stages.networks(processor_as_gpu, later(200))
    assert outcome.status == PASSED, outcome.summary
    assert set(outcome.metadata["differences"]) == {
        "model/dataset/deploy.prototxt, FLOAT32",
        "model/dataset/train_val.prototxt, FLOAT32",
    }
    (folder / "deploy.prototxt").write_text(SMALL_NETWORK.replace("num_output: 4", "num_output: 0"))
    outcome = stages.networks(processor_as_gpu, later(200))
    assert outcome.status == FAILED
    assert "1 failed; model/dataset/deploy.prototxt: processor: Check failed: " in outcome.summary


def dumped(machine: Machine, name: str, text: str, *options: str) -> stages.Dumped:
    return stages.dumped(machine, text, options or ("-pass", FORWARD), machine.out / name, later(60))


def test_differences_of_networks(processor_as_gpu: Machine) -> None:
    text = "force_backward: true\n" + SMALL_NETWORK
    first = dumped(processor_as_gpu, "first", text, "-pass", FORWARD_BACKWARD)
    assert stages.network_differences(first, first) == (0.0, 0.0)
    other = dumped(processor_as_gpu, "other", text, "-pass", FORWARD_BACKWARD)
    for name, place, factor in (("renet.data.f32", 0, 1.5), ("renet.param2.diff.f32", 1, -2.0)):
        changed(other, name, factor)
        difference = stages.network_differences(other, first)[place]
        assert difference == pytest.approx(abs(factor - 1), rel=1e-5)
    changed(other, "data.data.f32", 2)
    with pytest.raises(ValueError, match=r"data\.data\.f32: the two sides did not begin with equal values"):
        stages.network_differences(other, first)


NORMALISED = """name: "normalised"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 dim: 1 dim: 6 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "bn" bottom: "label" top: "loss" }
"""


def changed(result: stages.Dumped, name: str, factor: float) -> None:
    """Multiply the largest value of a dumped file."""
    values = result.values(name)
    largest = max(range(len(values)), key=lambda i: abs(values[i]))
    values[largest] *= factor
    (result.folder / name).write_bytes(values.tobytes())


def test_what_batch_norm_has_met_is_a_result(processor_as_gpu: Machine) -> None:
    options = ("-pass", FORWARD_BACKWARD, "-inputs", "data:2,3,6,5 label:2,1,6,5:4")
    first, other = (dumped(processor_as_gpu, name, NORMALISED, *options) for name in ("first", "other"))
    changed(other, "bn.param1.data.f32", 1.25)
    assert stages.network_differences(other, first) == (pytest.approx(0.25), 0.0)
    changed(other, "conv.param0.data.f32", 1.25)
    with pytest.raises(ValueError, match=r"conv\.param0\.data\.f32: the two sides did not begin with equal values"):
        stages.network_differences(other, first)


def test_gradients_may_branch(processor_as_gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a ReLU, not elsewhere, and outputs nowhere."""
    monkeypatch.setattr(stages, "PRECISIONS", (FLOAT32,))
    monkeypatch.setattr(stages, "TRAINING_INPUTS", "data:2,3,6,5 label:2,1,6,5:4")
    file = processor_as_gpu.bundle / "train_val.prototxt"
    for text, differences, failed in (
        (NORMALISED, (1e-5, 5e-2), False),
        (NORMALISED, (1e-5, 5e-1), True),
        (NORMALISED, (1e-2, 0.0), True),
        (NORMALISED.replace('type: "ReLU"', 'type: "TanH"'), (1e-5, 1e-2), True),
    ):
        monkeypatch.setattr(stages, "network_differences", lambda *_, differences=differences: differences)
        file.write_text(text)
        checked = stages.check_network(processor_as_gpu, file, later(60), threading.Event())
        assert checked.differences == {FLOAT32: differences}
        assert bool(checked.failures) == failed


def test_networks_that_differ_in_data_alone_are_one() -> None:
    chosen = {str(file.relative_to(REPOSITORY)) for file in stages.different_networks(REPOSITORY / "prototxt")}
    assert "prototxt/fcn/voc2012/train_val.prototxt" in chosen
    assert "prototxt/fcn/voc2012/deploy_crf.prototxt" in chosen
    assert "prototxt/fcn/voc2012_256x320/train_val.prototxt" not in chosen
    models = {file.parents[1].name for file in (REPOSITORY / "prototxt").glob("*/*/*.prototxt")}
    assert {name.split("/")[1] for name in chosen} == models


def test_networks_end_when_interrupted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C does not wait for those that have not begun."""
    begun = []

    def run(machine: Machine, text: str, *_: object) -> None:
        begun.append(text)
        time.sleep(0.2)
        raise RuntimeError("failed")

    def keep(metadata: dict) -> None:
        raise KeyboardInterrupt

    for number in range(20):
        file = machine.bundle / "prototxt" / f"model{number}" / "dataset" / "deploy.prototxt"
        file.parent.mkdir(parents=True)
        file.write_text(f'layer {{\n  bottom: "{number}"\n}}\n')
    monkeypatch.setattr(stages, "NETWORKS_AT_ONCE", 1)
    monkeypatch.setattr(stages, "dumped", run)
    machine.keep = keep
    with pytest.raises(KeyboardInterrupt):
        stages.networks(machine, later(60))
    assert 0 < len(begun) < 10


def test_largest_difference() -> None:
    assert stages.largest_difference([1.0, -3.0], [1.0, -4.0]) == 0.25
    assert stages.largest_difference([0.0], [0.0]) == 0
    for ours, reference in (([1.0], [0.0]), ([math.nan, 0.0], [1.0, 0.0]), ([1.0], [1.0, 1.0])):
        assert stages.largest_difference(ours, reference) == math.inf


# --- Memory accesses -------------------------------------------------------------------------------------------------


def test_small_network_has_all_layers_and_runs_backward(processor_as_gpu: Machine) -> None:
    result = dumped(processor_as_gpu, "small", stages.small_network(), "-pass", FORWARD_BACKWARD)
    widths = sum(len(each[2]) for each in stages.UNITS)
    with_parameters = {name.split(".")[0] for name in result.shapes if ".param" in name}
    assert len(with_parameters) == 2 * widths + sum("learn: true" in options for options in stages.CRFS)
    assert list(result.shapes["upsample.data.f32"][2:]) == [7, 9]
    gradients = [name for name in result.shapes if name.endswith(".diff.f32") and ".param" in name]
    assert all(any(result.values(name)) for name in gradients)


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, "========= ERROR SUMMARY: 0 errors\n", (PASSED, "0 errors")),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed\n", (PASSED, "0 hazards displayed")),
        (
            99,
            "========= Invalid __global__ write of size 4 bytes\n=========     at k\n",
            (FAILED, "Invalid __global__"),
        ),
        (255, "========= Error: Device not supported. Please refer to x\n", (SKIPPED, "Error: Device not supported")),
        (0, "nothing was checked\n", (FAILED, "words")),
        (None, "", (UNFINISHED, "words")),
    ],
)
def test_what_the_sanitizer_said(status: int | None, output: str, expected: tuple[str, str]) -> None:
    outcome, line = stages.sanitizer_outcome(status, output, "words")
    assert outcome == expected[0]
    assert line.startswith(expected[1])


def test_sanitizer_stage(processor_as_gpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PRECISIONS", (FLOAT32,))
    processor_as_gpu.own_variables = {"PATH": str(tmp_path)}
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: [])
    assert stages.sanitizer(processor_as_gpu, later(60)).status == SKIPPED
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != 5 ]; do shift; done; shift\n"$@" && echo "========= ERROR SUMMARY: 0 errors"\n'
    )
    program.chmod(0o755)
    outcome = stages.sanitizer(processor_as_gpu, later(100))
    assert (outcome.status, outcome.summary) == (PASSED, "2 runs of memcheck and racecheck found nothing")
    program.write_text("#!/bin/sh\necho '========= Error: Race reported between Write access'\nexit 99\n")
    outcome = stages.sanitizer(processor_as_gpu, later(60))
    assert outcome.status == FAILED
    assert "Race reported" in outcome.summary
    assert (processor_as_gpu.out / "racecheck-FLOAT32.log").is_file()


# --- Speed -----------------------------------------------------------------------------------------------------------

GROUP = Entry("tiny group", FORWARD_BACKWARD, 9, TINY, images=2, peer=True)
NETWORK = Entry(
    "small network",
    STEP,
    40,
    None,
    ("-solver", "solver", "-model", "model", "-inputs", "data:2,3,16,24 label:2,1,16,24:8"),
)
PEER = """
print(json.dumps({"versions": {"torch": "97"}, "device": "none"}), flush=True)
for line in sys.stdin:
    question = json.loads(line)
    answer = {
        "rates": {"tflops": {"FLOAT32": 10.0, "TF32": 40.0, "BF16": 80.0}, "terabytes": 2.0},
        "prepare": {"memory_mib": 7.0},
        "run": {"milliseconds": 50.0},
        "compare": {"differences": {"output": 1e-6, "input gradient": DIFFERENCE}, "own": {}},
    }[question["do"]]
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def timed(processor_as_gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose benchmark is two small entries in float32, beside a PyTorch that only pretends."""
    bundle = processor_as_gpu.bundle
    (bundle / "solver").write_text('net: "model" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 10\n')
    (bundle / "model").write_text(
        (REPOSITORY / "prototxt/n_renet_small/synthetic_scenes/train_val.prototxt").read_text()
    )
    (bundle / "tools").mkdir()
    (bundle / "renet" / "gpu_check" / "pytorch_peer.py").write_text("import json, sys\nDIFFERENCE = 2e-6\n" + PEER)
    monkeypatch.setattr(speed, "ENTRIES", (GROUP, NETWORK))
    monkeypatch.setattr(speed, "PRECISIONS", (FLOAT32,))
    processor_as_gpu.peer = sys.executable
    return processor_as_gpu


def test_benchmark(timed: Machine) -> None:
    kept: list[int] = []
    timed.keep = lambda metadata: kept.append(len(metadata["rows"]))
    outcome = speed.benchmark(timed, later(200))
    assert outcome.status == PASSED, outcome.summary
    assert kept == [1, 2]
    group, network = outcome.metadata["rows"]
    json.dumps(outcome.metadata)
    assert len(group["milliseconds"]) == len(group["pytorch_milliseconds"]) == speed.ROUNDS
    assert group["ratio"] == pytest.approx(50 / group["median"])
    assert group["pytorch_memory_mib"] == 7
    assert max(group["differences"].values()) == 2e-6
    assert group["operations"] == 3 * 40 * ((24 + 16) + (32 + 16)) * 2 * 2
    assert group["share_of_limit"] == pytest.approx(group["floor"]["milliseconds"] / group["median"])
    assert group["floor"]["rates"] == "measured"
    assert network["pytorch_milliseconds"] == []
    assert network["ratio"] is None
    assert network["operations"] > 0
    assert "aim " in outcome.metadata["aims"][0]


def test_a_result_that_differs_fails(timed: Machine) -> None:
    (timed.bundle / "renet" / "gpu_check" / "pytorch_peer.py").write_text("import json, sys\nDIFFERENCE = 0.5\n" + PEER)
    outcome = speed.benchmark(timed, later(200))
    assert outcome.status == FAILED
    words = (
        "tiny group, forward+backward, FLOAT32: input gradient differs from PyTorch's by 5.0e-01 of the largest value"
    )
    assert words in outcome.summary
    assert len(outcome.metadata["rows"]) == 2


def test_without_pytorch_it_times_alone(timed: Machine) -> None:
    timed.peer = None
    outcome = speed.benchmark(timed, later(200))
    assert outcome.status == PASSED
    assert "no PyTorch sees the GPU" in outcome.summary
    group = outcome.metadata["rows"][0]
    assert group["ratio"] is None
    assert group["floor"]["rates"] == "data sheet"


def test_a_pytorch_that_dies_does_not_stop_ours(timed: Machine) -> None:
    text = "import json, sys\nprint(json.dumps({}), flush=True)\nsys.stdin.readline()\n"
    text += 'print(json.dumps({"tflops": {"FLOAT32": 1.0}, "terabytes": 1.0}), flush=True)\nsys.exit("out of memory")\n'
    (timed.bundle / "renet" / "gpu_check" / "pytorch_peer.py").write_text(text)
    outcome = speed.benchmark(timed, later(200))
    assert len(outcome.metadata["rows"]) == 2
    assert outcome.status == FAILED
    assert "PyTorch: ended with status 1; last line: out of memory" in outcome.summary


def test_what_our_side_cannot_do_is_told(timed: Machine) -> None:
    (timed.bundle / "model").write_text('layer { name: "x" type: "NoSuchLayer" top: "x" }')
    outcome = speed.benchmark(timed, later(200))
    assert outcome.status == FAILED
    assert "1 of 2 timed" in outcome.summary
    assert "small network, step, FLOAT32: Check failed: " in outcome.summary


def test_each_entry_has_its_own_precisions(timed: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolutions follow the precision of the row."""
    allowed = {}

    def time_entry(machine: Machine, entry: Entry, precision: str, *rest: object) -> speed.Row:
        row = timed_entry(machine, entry, precision, *rest)
        allowed[entry.name, precision] = json.loads((rest[1] / "result.json").read_text())["allow_tf32"]
        return row

    timed_entry = speed.time_entry
    monkeypatch.setattr(speed, "time_entry", time_entry)
    monkeypatch.setattr(speed, "PRECISIONS", (FLOAT32, TF32, BF16))
    monkeypatch.setattr(speed, "ROUNDS", 1)
    few = (GROUP._replace(precisions=(BF16,)), NETWORK._replace(precisions=(FLOAT32, TF32)))
    monkeypatch.setattr(speed, "ENTRIES", few)
    outcome = speed.benchmark(timed, later(200))
    assert outcome.summary == "3 of 3 timed"
    assert allowed == {
        ("small network", FLOAT32): False,
        ("small network", TF32): True,
        ("tiny group", BF16): False,
    }


def test_beside_pytorch_itself(
    processor_as_gpu: Machine, peer_command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry as on a GPU, with both sides on the processor and a small image."""
    monkeypatch.setattr(speed, "ROUNDS", 2)
    (processor_as_gpu.bundle / "prototxt").symlink_to(REPOSITORY / "prototxt")
    entry = entries.segmentation("h_renet_bn_mlfb", 1, FORWARD_BACKWARD)
    small = tuple(option.replace(entries.VOC_SIZE, "33,41") for option in entry.options)
    log = processor_as_gpu.out / "log"
    with Conversation(peer_command, dict(os.environ), processor_as_gpu.bundle, log, later(300)) as peer:
        row = speed.time_entry(
            processor_as_gpu, entry._replace(options=small), FLOAT32, peer, processor_as_gpu.out, later(300)
        )
    assert (row.peer_failure, row.wrong) == (None, None)
    assert len(row.ours) == len(row.peer) == 2
    assert row.ratio > 0
    assert row.peer_memory_mib is None
    assert row.differences["loss"] < 1e-5
    assert {"conv3_1.param0 gradient", "conv7_scale.param1 gradient", "conv8.param1 gradient"} <= set(row.differences)
    assert not any(name.startswith(("conv1", "conv2")) for name in row.differences)
    frozen = {layer["name"] for layer in row.layers if layer["params"] and not layer["backward"]}
    assert frozen == {f"conv{number}_{index}" for number in (1, 2) for index in (1, 2)}
    row_metadata = row.metadata(RATES)
    json.dumps(row_metadata)
    assert len(speed.cells(row_metadata)) == len(speed.COLUMNS)
    assert row_metadata["microseconds_a_step"] is None


def test_what_may_differ() -> None:
    def wrong(types: list[str], precision: str, own: float = 0.0, **differences: float) -> str | None:
        named = {name.replace("_", " "): value for name, value in differences.items()}
        layers = [{"type": kind} for kind in types]
        return speed.Row(GROUP, precision, [1.0], [1.0], 1.0, 1.0, named, layers, {"output": own}).wrong

    assert wrong(["ReNetLSTM"], FLOAT32, output=1e-4, data_gradient=1e-4) is None
    assert wrong(["ReNetLSTM"], FLOAT32, output=1e-4, data_gradient=1e-2).startswith("data gradient differs")
    assert wrong(["Convolution", "ReLU"], FLOAT32, output=1e-4, data_gradient=1e-2) is None
    assert wrong(["Convolution", "ReLU"], FLOAT32, output=1e-2, data_gradient=1e-2).startswith("output differs")
    assert wrong(["Pooling"], TF32, output=1e-2, data_gradient=0.2) is None
    assert wrong(["Pooling"], TF32, output=math.inf).startswith("output differs")
    assert wrong(["ReNetLSTM"], TF32, output=4e-2, own=1e-2).startswith("output differs")
    assert wrong(["ReNetLSTM"], TF32, output=4e-2, own=2e-2) is None, "PyTorch's own results move as far"


def test_when_the_time_is_up_rows_are_missing(timed: Machine) -> None:
    outcome = speed.benchmark(timed, later(-1))
    assert outcome.status == UNFINISHED
    assert outcome.metadata["rows"] == []


def metadata(**changes: object) -> dict:
    """The metadata of a recorded row."""
    row = {
        **GROUP._asdict(),
        **{"precision": FLOAT32, "median": 2.0, "milliseconds": [2.0], "milliseconds_an_image": 0.2},
        **{"pytorch_milliseconds": [5.0, 4.0, 6.0], "ratio": 2.5, "memory_mib": 12.4, "pytorch_memory_mib": 99.6},
        **{"differences": {"output": 1e-6, "input gradient": 3e-6}, "microseconds_a_step": 17.7},
        **{"floor": {"milliseconds": 0.5, "limit": "memory", "rates": "measured"}, "share_of_limit": 0.25},
    }
    return {**row, **changes}


def test_table() -> None:
    alone = metadata(name="N-ReNet", passes=FORWARD, shape=None, pytorch_milliseconds=[], ratio=None)
    alone.update(pytorch_memory_mib=None, differences={})
    del alone["floor"], alone["share_of_limit"]
    heading, first, second = speed.table([metadata(), alone]).splitlines()
    assert heading.split("  ")[0] == "what"
    expected = "tiny group forward+backward FLOAT32 2.000 5.000 2.50 0.500 m 25% - 12 100 3e-06"
    assert " ".join(first.split()) == expected
    assert " ".join(second.split()) == "N-ReNet forward FLOAT32 2.000 - - - - 17.70 12 - -"
    no_steps = speed.table([alone | {"steps": 0, "microseconds_a_step": None}]).splitlines()[1]
    assert " ".join(no_steps.split()) == "N-ReNet forward FLOAT32 2.000 - - - - - 12 - -"
    assert len(first) == len(heading)


def test_aims() -> None:
    rows = [
        metadata(),
        metadata(ratio=1.9),
        metadata(precision=TF32),
        metadata(name="N-ReNet", shape=None, passes=FORWARD, aim=1, milliseconds_an_image=0.9),
        metadata(name="N-ReNet", shape=None, passes=FORWARD, aim=1, milliseconds_an_image=1.1),
        metadata(name="many iterations", shape=None, passes=FORWARD),
    ]
    assert [line.split(":")[0] for line in speed.aims(rows)] == ["aim reached", "aim missed"] * 2


def test_aim_of_h_renet() -> None:
    """The paper's 0.24 s beside 0.21 s."""

    def named(model: str, median: float, precision: str = FLOAT32) -> dict:
        name = speed.segmentation_name(model, 1)
        return metadata(name=name, shape=None, passes=FORWARD, median=median, precision=precision)

    fcn = named("fcn", 10.0)
    (line,) = speed.aims([fcn, named("h_renet_bn_mlfb", 11.0), named("h_renet_bn_mlfb", 99.0, TF32)])
    assert line == (
        "aim reached: h_renet_bn_mlfb 375x500, batch 1: at most 1.14 times fcn's time, as in the paper (1.10 times)"
    )
    (line,) = speed.aims([fcn, named("h_renet_bn_mlfb", 12.0)])
    assert line.startswith("aim missed")
    assert speed.aims([fcn]) == []


def test_precision_of_all_renet_layers() -> None:
    text = (REPOSITORY / "prototxt/n_renet/stanford_background/deploy.prototxt").read_text()
    assert speed.with_precision(text, FLOAT32) == text
    changed = speed.with_precision(text, BF16)
    assert changed.count("precision: BF16") == text.count("renet_param {") == 6


def test_entries_are_there(processor_as_gpu: Machine) -> None:
    """Files that entries name lie in the bundle, and their texts are networks."""
    for entry in speed.ENTRIES:
        for flag in ("-model", "-solver"):
            if flag in entry.options:
                assert (REPOSITORY / entry.options[entry.options.index(flag) + 1]).is_file()
        assert entry.shape or entry.text or "-model" in entry.options
        if entry.text:
            result = dumped(processor_as_gpu, "text", entry.text, "-pass", entry.passes)
            assert max(map(abs, result.values("crf.data.f32"))) <= 1


# --- Processes -------------------------------------------------------------------------------------------------------


def test_commands_end_at_the_deadline(tmp_path: Path) -> None:
    start = time.monotonic()
    ended = machine.run_command(["sh", "-c", "echo begun; sleep 120"], later(5))
    assert time.monotonic() - start < 60
    assert (ended.status, ended.output, ended.words) == (None, "begun\n", "stopped: the time was up")
    missing = machine.run_command([str(tmp_path / "none")], later(5))
    assert missing.status == 127
    assert "No such file" in missing.words
    assert Ended(-6, "F20261122 21:02:14.2 23 a.cpp:1] Check failed: x\n").words == "Check failed: x (a.cpp:1)"
    assert Ended(-11, "").words == "ended with signal 11"


def test_a_conversation_ends_at_the_deadline(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(60)"]
    conversation = Conversation(command, dict(os.environ), tmp_path, tmp_path / "log", later(5))
    with conversation, pytest.raises(Died, match="the time was up"):
        conversation.ask("anything")


# --- All stages ------------------------------------------------------------------------------------------------------


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
            PASSED, "1 of 1 timed", {"rows": [metadata()], "rates": RATES._asdict(), "aims": ["aim reached: x"]}
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
    machine.run_commands([["sh", "-c", "echo $$ > {out}/child; sleep 300"]], deadline)

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


def test_a_python_whose_pytorch_sees_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("none", "echo no torch >&2; exit 1"), ("has", "echo 97")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python3").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name / "python3").chmod(0o755)
    none, has = tmp_path / "none", tmp_path / "has"
    monkeypatch.setattr(sys, "executable", "")
    peer, lacking = machine.find_peer({"PATH": f"{none}:{has}"}, later(30))
    assert peer == str(has / "python3")
    assert lacking == {str(none / "python3"): "ended with status 1; last line: no torch"}
    assert machine.find_peer({"PATH": str(none)}, later(30))[0] is None
