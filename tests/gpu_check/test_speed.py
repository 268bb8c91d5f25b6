"""The benchmark on a GPU, with the processor in its place and a PyTorch that only pretends."""

from __future__ import annotations

import json
import math
import os
import sys

import pytest
from gpu_check_helpers import GROUP, REPOSITORY, dumped, later, recorded

from renet.gpu_check import entries, speed
from renet.gpu_check.conversation import Conversation
from renet.gpu_check.entries import Entry, segmentation_name, with_precision
from renet.gpu_check.machine import FAILED, PASSED, UNFINISHED, Machine
from renet.gpu_check.work import BF16, FLOAT32, FORWARD, FORWARD_BACKWARD, STEP, TF32

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
    (bundle / "renet" / "gpu_check").mkdir(parents=True)
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

    def time_entry(machine: Machine, entry: Entry, precision: str, *rest: object) -> tuple:
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
        row, wrong = speed.time_entry(
            processor_as_gpu, entry._replace(options=small), FLOAT32, peer, processor_as_gpu.out, later(300)
        )
    assert wrong is None
    assert len(row["milliseconds"]) == len(row["pytorch_milliseconds"]) == 2
    assert row["ratio"] > 0
    assert row["pytorch_memory_mib"] is row["microseconds_a_step"] is None
    differences = row["differences"]
    assert differences["loss"] < 1e-5
    assert {"conv3_1.param0 gradient", "conv7_scale.param1 gradient", "conv8.param1 gradient"} <= set(differences)
    assert not any(name.startswith(("conv1", "conv2")) for name in differences)
    layers = json.loads((processor_as_gpu.out / "result.json").read_text())["layers"]
    frozen = {layer["name"] for layer in layers if layer["params"] and not layer["backward"]}
    assert frozen == {f"conv{number}_{index}" for number in (1, 2) for index in (1, 2)}
    json.dumps(row)
    assert len(speed.cells(row)) == len(speed.COLUMNS)


def test_what_may_differ() -> None:
    def wrong(types: list[str], precision: str, own: float = 0.0, **differences: float) -> str | None:
        named = {name.replace("_", " "): value for name, value in differences.items()}
        row = {"differences": named, "pytorch_differences": {"output": own}, "precision": precision}
        return speed.wrong(row, [{"type": kind} for kind in types])

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


def test_table() -> None:
    alone = recorded(name="N-ReNet", passes=FORWARD, shape=None, pytorch_milliseconds=[], ratio=None)
    alone.update(pytorch_memory_mib=None, differences={})
    del alone["floor"], alone["share_of_limit"]
    heading, first, second = speed.table([recorded(), alone]).splitlines()
    assert heading.split("  ")[0] == "what"
    expected = "tiny group forward+backward FLOAT32 2.000 5.000 2.50 0.500 m 25% - 12 100 3e-06"
    assert " ".join(first.split()) == expected
    assert " ".join(second.split()) == "N-ReNet forward FLOAT32 2.000 - - - - 17.70 12 - -"
    no_steps = speed.table([alone | {"steps": 0, "microseconds_a_step": None}]).splitlines()[1]
    assert " ".join(no_steps.split()) == "N-ReNet forward FLOAT32 2.000 - - - - - 12 - -"
    assert len(first) == len(heading)


def test_aims() -> None:
    rows = [
        recorded(),
        recorded(ratio=1.9),
        recorded(precision=TF32),
        recorded(name="N-ReNet", shape=None, passes=FORWARD, aim=1, milliseconds_an_image=0.9),
        recorded(name="N-ReNet", shape=None, passes=FORWARD, aim=1, milliseconds_an_image=1.1),
        recorded(name="many iterations", shape=None, passes=FORWARD),
    ]
    assert [line.split(":")[0] for line in speed.aims(rows)] == ["aim reached", "aim missed"] * 2


def test_aim_of_h_renet() -> None:
    """The paper's 0.24 s beside 0.21 s."""

    def named(model: str, median: float, precision: str = FLOAT32) -> dict:
        name = segmentation_name(model, 1)
        return recorded(name=name, shape=None, passes=FORWARD, median=median, precision=precision)

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
    assert with_precision(text, FLOAT32) == text
    changed = with_precision(text, BF16)
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
