"""What is checked on a GPU besides speed: the C++ tests, the processor's results against the GPU's, memory accesses.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import array
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from renet.gpu_check.entries import with_precision
from renet.gpu_check.googletest import Report, listed_tests, run_tests, uses_gpu
from renet.gpu_check.machine import (
    FAILED,
    PASSED,
    SKIPPED,
    UNFINISHED,
    Machine,
    Outcome,
    find_sanitizer,
    run_command,
    run_commands,
    side_by_side,
)
from renet.gpu_check.work import (
    BF16,
    BRANCHING,
    BRANCHING_TOLERANCE,
    FLOAT32,
    FORWARD,
    FORWARD_BACKWARD,
    PRECISIONS,
    TF32,
    largest_difference,
)

AGREEMENT = "agreement"
AGREEMENT_SUITES = re.compile(r"GPU(Agreement|Precision)")
TESTS_AT_ONCE = 8
LISTING_SECONDS = 60
FAILURES_SHOWN = 3


# --- C++ tests -------------------------------------------------------------------------------------------------------


def kind_of_test(name: str, our_suites: Sequence[str]) -> str:
    """Where a test belongs: "agreement" (of processor and GPU), "ours" or "caffe"."""
    suite = name.split(".")[0].split("/")[0]
    if suite in our_suites:
        return AGREEMENT if AGREEMENT_SUITES.match(suite) else "ours"
    return "caffe"


def outcome_of_tests(report: Report) -> Outcome:
    """What a report of tests comes to."""
    bad = {**report.crashed, **report.failed}
    parts = [f"{len(report.passed)} passed"]
    for count, word in ((len(report.failed), "failed"), (len(report.crashed), "crashed")):
        parts += [f"{count} {word}"] if count else []
    parts += [f"{len(report.unfinished)} not finished in time"] if report.unfinished else []
    summary = ", ".join(parts)
    if bad:
        more = len(bad) - FAILURES_SHOWN
        summary += f": {', '.join(list(bad)[:FAILURES_SHOWN])}" + (f" and {more} more" if more > 0 else "")
    status = FAILED if bad else UNFINISHED if report.unfinished else PASSED
    return Outcome(status, summary, report._asdict())


def test_stage(kind: str) -> Callable[[Machine, float], Outcome]:
    """The stage that runs the GPU's tests of a kind (see kind_of_test)."""

    def run(machine: Machine, deadline: float) -> Outcome:
        program, folder = machine.program("caffe-tests"), machine.bundle / "test"
        soon = min(deadline, time.monotonic() + LISTING_SECONDS)
        listed = run_command([program, "--gtest_list_tests"], soon, machine.variables, folder)
        if listed.status != 0:
            return Outcome(FAILED, f"the tests cannot be listed: {listed.words}")
        suites = machine.manifest["our_test_suites"]
        names = [name for name in listed_tests(listed.output) if kind_of_test(name, suites) == kind]
        names = [name for name in names if kind == AGREEMENT or uses_gpu(name)]
        if not names:
            return Outcome(FAILED, "the test program has no such tests")
        at_once = max(1, min(TESTS_AT_ONCE, os.cpu_count() or 1))
        machine.say(f"{len(names)} tests in {at_once} processes")
        # processes share the cores, and where the processor is compared with, few of them have most of the work
        threads = max(2, (os.cpu_count() or 1) // (2 if kind == AGREEMENT else at_once))
        variables = {**machine.variables, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        log = machine.out / f"{kind}.log"
        return outcome_of_tests(run_tests(machine, names, variables, deadline, log, at_once))

    return run


# --- Whole networks, processor against GPU ---------------------------------------------------------------------------

# Of outputs and of gradients, relative to the largest value of each. Products in TF32 keep 10 bits, in BF16 7.
NETWORK_TOLERANCES = {FLOAT32: (1e-4, 2e-3), TF32: (2e-2, 5e-2), BF16: (1e-1, 2e-1)}
TRAINING_INPUTS = "data:2,3,48,64 label:2,1,48,64:8"
USE_INPUTS = "data:1,3,96,128"
# Of networks that do not take all sizes: values go back to where a pooling found them, or labels shrink.
SIZED = re.compile(r'upsample_param|unpooling_param|name: "label_shrink"')
# Where a network goes beyond its tolerances, what Caffe's own layers differ from oneDNN's tells how much rounding
# decides: in DeconvNet's training which values are maxima, and so gradients by a quarter of the largest.
OTHER_KERNELS = {"CAFFE_ONEDNN": "0"}
ROUNDING_FACTOR = 3
PARAMETER = re.compile(r"^(.*)\.param\d+\.(data|diff)\.f32$")
# A gradient that is so much less than another of its layer is rounding alone: of a bias before batch normalisation.
NOISE = 1e-3
NETWORKS_AT_ONCE = 8
COMPARED = 1 << 18  # values of each result at most, evenly spread


class Dumped(NamedTuple):
    """A folder that benchmark_net -dump wrote: the shape of each file, and the type of each layer."""

    folder: Path
    shapes: dict[str, Sequence[int]]
    types: dict[str, str]

    def content(self, name: str) -> bytes:
        """A file's bytes."""
        return (self.folder / name).read_bytes()

    def values(self, name: str) -> array.array:
        """A file's float32 values."""
        values = array.array("f")
        values.frombytes(self.content(name))
        return values

    def some_values(self, name: str) -> array.array:
        """COMPARED of a file's values, evenly spread, or all where it has no more."""
        values = self.values(name)
        return values[:: -(-len(values) // COMPARED) or 1]


def network_differences(gpu: Dumped, cpu: Dumped) -> tuple[float, float]:
    """The largest differences of outputs and of parameters' gradients.

    Raises:
        ValueError: the two did not begin with equal inputs and parameters.
    """
    outputs = gradients = 0.0
    parameters = {name: found for name in cpu.shapes if (found := PARAMETER.search(name))}
    largest: dict[str, float] = {}
    for name, found in parameters.items():
        if found.group(2) == "diff":
            values = [*map(abs, cpu.some_values(name)), largest.get(found.group(1), 0.0)]
            largest[found.group(1)] = max(values)
    for name, shape in cpu.shapes.items():
        if gpu.shapes.get(name) != shape:
            raise ValueError(f"{name}: shape {gpu.shapes.get(name)} on the GPU, {shape} on the processor")
        parameter = parameters.get(name)
        if parameter and cpu.types[parameter.group(1)] == "BatchNorm":
            parameter = None  # the mean and the variance of what it has met are results
        if (parameter and parameter.group(2) == "data") or name in ("data.data.f32", "label.data.f32"):
            if gpu.content(name) != cpu.content(name):
                raise ValueError(f"{name}: the two sides did not begin with equal values")
        elif parameter:
            least = NOISE * largest[parameter.group(1)]
            gradients = max(gradients, largest_difference(gpu.some_values(name), cpu.some_values(name), least))
        elif name.endswith(".data.f32"):
            outputs = max(outputs, largest_difference(gpu.some_values(name), cpu.some_values(name)))
    return outputs, gradients


def different_networks(folder: Path) -> list[Path]:
    """The networks in a folder of models, without those that differ from another one in data and name alone."""
    files: dict[tuple[str, ...], Path] = {}
    for file in sorted(folder.glob("*/*/*.prototxt")):
        text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
        layers = re.split(r"^layer \{$", text, flags=re.MULTILINE)[1:]
        files.setdefault((file.name, *(layer for layer in layers if "bottom:" in layer)), file)
    return list(files.values())


def narrowed(text: str) -> str:
    """The network with fewer channels in its widest layers, VGG-16's fully connected ones: all else of a gigabyte of
    parameters is the same."""
    return re.sub(r"\bnum_output: 4096\b", "num_output: 64", text)


def fitting_inputs(text: str, inputs: str) -> str:
    """The inputs in the size that the network itself says, where it does not take all sizes."""
    if not SIZED.search(text):
        return inputs
    found = re.search(r"crop_height: (\d+)\s+crop_width: (\d+)", text) or re.search(
        r"dim: 3 dim: (\d+) dim: (\d+)", text
    )
    assert found, "the generator writes one of them"
    return re.sub(r"(:\d+,\d+),\d+,\d+", r"\1,{},{}".format(*found.groups()), inputs)


class Checked(NamedTuple):
    """What a network came to: its differences (outputs, gradients) at each precision, what failed, whether the time was
    up, and where it went beyond its tolerances, what the processor's other kernels differ by."""

    differences: dict[str, tuple[float, float]]
    failures: dict[str, str]
    late: bool
    rounding: tuple[float, float] | None = None


def check_network(machine: Machine, file: Path, deadline: float) -> Checked:
    """Run a network on the processor and, at each precision that it has, on the GPU."""
    differences: dict[str, tuple[float, float]] = {}
    failures: dict[str, str] = {}
    text = narrowed(file.read_text())
    training = file.name == "train_val.prototxt"
    passes, inputs = (FORWARD_BACKWARD, TRAINING_INPUTS) if training else (FORWARD, USE_INPUTS)
    inputs = fitting_inputs(text, inputs)
    options = ["-pass", passes, "-inputs", inputs]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            cpu = dumped(machine, text, options, Path(scratch) / "cpu", deadline)
        except RuntimeError as error:
            return Checked({}, {"": str(error)}, time.monotonic() >= deadline)
        branches = bool(BRANCHING & {*cpu.types.values()})
        rounding: tuple[float, float] | None = None
        for case in PRECISIONS:
            as_precise = with_precision(text, case)
            if case != FLOAT32 and as_precise == text:
                continue  # no layer has a precision
            try:
                gpu = dumped(machine, as_precise, [*options, "-gpu", "0"], Path(scratch) / "gpu", deadline)
                outputs, gradients = differences[case] = network_differences(gpu, cpu)
            except (RuntimeError, ValueError) as error:
                failures[case] = str(error)
                continue
            allowed = list(NETWORK_TOLERANCES[case])
            if branches:
                allowed[1] = max(allowed[1], BRANCHING_TOLERANCE[FLOAT32])
            if branches and not (outputs <= allowed[0] and gradients <= allowed[1]):
                try:
                    rounding = rounding or other_kernels(machine, text, options, cpu, Path(scratch) / "other", deadline)
                except (RuntimeError, ValueError) as error:
                    failures[case] = str(error)
                    continue
                allowed = [max(limit, ROUNDING_FACTOR * each) for limit, each in zip(allowed, rounding)]
            if not (outputs <= allowed[0] and gradients <= allowed[1]):
                failures[case] = (
                    f"outputs differ by {outputs:.1e} ({allowed[0]:.0e} allowed), gradients by {gradients:.1e}"
                    f" ({allowed[1]:.0e} allowed) of the largest value"
                )
    return Checked(differences, failures, bool(failures) and time.monotonic() >= deadline, rounding)


def other_kernels(
    machine: Machine, text: str, options: Sequence[str], cpu: Dumped, folder: Path, deadline: float
) -> tuple[float, float]:
    """How far the processor's results are apart where other kernels sum in other orders.

    Raises:
        RuntimeError: it failed there.
        ValueError: what it computes is no measure: not finite, or of other values.
    """
    other = replace(machine, variables={**machine.variables, **OTHER_KERNELS})
    found = network_differences(dumped(other, text, options, folder, deadline), cpu)
    if not all(map(math.isfinite, found)):
        raise ValueError("the processor's own results are not finite")
    return found


def networks(machine: Machine, deadline: float) -> Outcome:
    """Every network of the bundle, forward as it is used and backward as it is trained, on processor and GPU."""
    metadata: dict[str, Any] = {}
    failures: dict[str, str] = {}
    worst = dict.fromkeys(PRECISIONS, 0.0)
    rounded: list[str] = []
    late = False
    folder = machine.bundle / "prototxt"

    def done(file: Path, checked: Checked) -> None:
        nonlocal late
        late = late or checked.late
        name = str(file.relative_to(folder))
        for precision, (outputs, gradients) in checked.differences.items():
            metadata[f"{name}, {precision}"] = {"outputs": outputs, "gradients": gradients}
            if not checked.rounding:
                worst[precision] = max(worst[precision], outputs, gradients)
        if checked.rounding:
            rounded.append(name)
            outputs, gradients = checked.rounding
            metadata[f"{name}, other kernels of the processor"] = {"outputs": outputs, "gradients": gradients}
        for case, words in checked.failures.items():
            failures[f"{name}, {case}" if case else name] = words
        machine.keep({"differences": metadata, "failures": failures})

    at_once = min(NETWORKS_AT_ONCE, (os.cpu_count() or 1) // 2)
    files = different_networks(folder)
    side_by_side(machine, lambda file: check_network(machine, file, deadline), files, at_once, done)
    summary = "largest difference " + ", ".join(f"{worst[precision]:.0e} ({precision})" for precision in PRECISIONS)
    if rounded:
        summary += f"; no further apart than the processor's other kernels: {', '.join(rounded)}"
    if failures:
        first = next(iter(failures))
        summary = f"{len(failures)} failed; {first}: {failures[first]}"
    status = UNFINISHED if late else FAILED if failures else PASSED
    return Outcome(status, summary, {"differences": metadata, "failures": failures})


def dumped(machine: Machine, text: str, options: Sequence[str], folder: Path, deadline: float) -> Dumped:
    """Run a network once and read what it dumped.

    Raises:
        RuntimeError: it failed.
    """
    folder.mkdir(exist_ok=True)
    model, result = folder / "net.prototxt", folder / "result.json"
    model.write_text(text)
    command = [machine.program("benchmark_net"), "-model", str(model), *options, "-warmup", "0", "-repeats", "1"]
    command += ["-dump", str(folder), "-json", str(result)]
    variables = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", **machine.variables}  # others run beside it
    ended = run_command(command, deadline, variables, machine.bundle, machine.halted)
    if ended.status != 0:
        raise RuntimeError(f"{'GPU' if '-gpu' in options else 'processor'}: {ended.words}")
    written = json.loads(result.read_text())
    return Dumped(folder, written["dump"], {layer["name"]: layer["type"] for layer in written["layers"]})


# --- Memory accesses -------------------------------------------------------------------------------------------------

SANITIZER_FAILED = 99
SANITIZER_TOOLS = ("memcheck", "racecheck")
# Small, with d on both sides of the limits that choose a kernel, on an image that patches do not divide.
UNITS = (
    ("ReNetLSTM", "", (3, 40, 60, 120, 160)),
    ("ReNetLSTM", "peephole: true", (3, 40)),
    ("ReNetGRU", "", (3, 40, 120)),
    ("ReNetIRNN", "", (3, 40, 120)),
)
CRFS = ("max_iter: 2", "max_iter: 2 learn: true output: LOG_PROBABILITY", "max_iter: 0 pos_w: 0 bi_w: 0")


def small_network() -> str:
    """A network of all our layers on an image of 2 x 3 x 7 x 9, each unit in both directions."""
    text = """name: "small" force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 9 } } }
"""
    number = 0
    for kind, option, widths in UNITS:
        for d in widths:
            number += 1
            for direction, bottom, patch in (("VERTICAL", "data", 2), ("HORIZONTAL", f"VERTICAL{number}", 1)):
                name = f"{direction}{number}"
                text += f"""layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}"
  renet_param {{ num_output: {d} direction: {direction} patch_height: {patch} patch_width: {patch} {option}
    weight_filler {{ type: "uniform" min: -0.1 max: 0.1 }} bias_filler {{ type: "constant" }} }} }}
"""
    text += f"""layer {{ name: "upsample" type: "BilinearInterpolation" top: "upsample"
  bottom: "HORIZONTAL{number}" bottom: "data" }}
layer {{ name: "scores" type: "BilinearInterpolation" top: "scores" bottom: "HORIZONTAL1" bottom: "data" }}
layer {{ name: "l2" type: "L2Normalization" top: "l2" bottom: "HORIZONTAL1" l2_normalization_param {{ scale: 10 }} }}
"""
    for number, options in enumerate(CRFS, 1):
        text += f"""layer {{ name: "crf{number}" type: "DenseCRF" top: "crf{number}" bottom: "scores" bottom: "data"
  dense_crf_param {{ {options} }} }}
"""
    return text


def sanitizer_outcome(status: int | None, output: str, words: str) -> tuple[str, str]:
    """How a run of compute-sanitizer went, and one line on it."""
    if status is None:
        return UNFINISHED, words
    if "not supported" in output or "Failed to initialize" in output:
        line = next(line for line in output.splitlines() if "not supported" in line or "Failed to initialize" in line)
        return SKIPPED, line.strip("= ")
    total = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", output)
    if status == 0 and total:
        return PASSED, total[-1]
    found = re.findall(r"^=+ (.*(?:Invalid|hazard|Error|error|leak|Race).*)$", output, re.M)
    return FAILED, found[0].strip() if found else words


def sanitizer(machine: Machine, deadline: float) -> Outcome:
    """Look for wrong memory accesses and for races in all our layers, forward and backward, on small maps."""
    program = find_sanitizer(machine.own_variables)
    if program is None:
        return Outcome(SKIPPED, "compute-sanitizer is not installed")
    cases = [(tool, precision) for tool in SANITIZER_TOOLS for precision in PRECISIONS]
    commands = []
    with tempfile.TemporaryDirectory() as scratch:
        for tool, precision in cases:
            model = Path(scratch) / f"{precision}.prototxt"
            model.write_text(with_precision(small_network(), precision))
            command = [program, "--tool", tool, "--error-exitcode", str(SANITIZER_FAILED), "--print-limit", "5"]
            command += [machine.program("benchmark_net"), "-model", str(model), "-pass", FORWARD_BACKWARD, "-gpu", "0"]
            commands.append([*command, "-warmup", "0", "-repeats", "1"])
        results = run_commands(commands, deadline, machine.variables)
    metadata = {}
    for (tool, precision), ended in zip(cases, results):
        (machine.out / f"{tool}-{precision}.log").write_text(ended.output)
        metadata[f"{tool}, {precision}"] = list(sanitizer_outcome(ended.status, ended.output, ended.words))
    for status in (FAILED, UNFINISHED, SKIPPED):
        for name, (status_of_case, line) in metadata.items():
            if status_of_case == status:
                return Outcome(status, f"{name}: {line}", {"runs": metadata})
    return Outcome(PASSED, f"{len(metadata)} runs of {' and '.join(SANITIZER_TOOLS)} found nothing", {"runs": metadata})
