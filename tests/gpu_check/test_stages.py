"""Processor against GPU, and memory accesses."""

from __future__ import annotations

import array
from pathlib import Path

import pytest
from gpu_check_helpers import REPOSITORY, dumped, later

from renet.gpu_check import machine as gpu_machine
from renet.gpu_check import stages
from renet.gpu_check.machine import FAILED, PASSED, SKIPPED, UNFINISHED, Machine
from renet.gpu_check.work import FLOAT32, FORWARD_BACKWARD

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


def test_differences_of_networks(processor_as_gpu: Machine) -> None:
    text = "force_backward: true\n" + SMALL_NETWORK
    first = dumped(processor_as_gpu, "first", text, "-pass", FORWARD_BACKWARD)
    assert stages.network_differences(first, first) == (0.0, 0.0)
    other = dumped(processor_as_gpu, "other", text, "-pass", FORWARD_BACKWARD)
    for name, place, factor in (("renet.data.f32", 0, 1.5), ("renet.param2.diff.f32", 1, -2.0)):
        changed(other, name, factor)
        difference = stages.network_differences(other, first)[place]
        assert difference == pytest.approx(abs(factor - 1), rel=1e-5)
    # as of a bias before batch normalisation: next to nothing, beside the layer's other gradients
    for side, value in ((first, 1e-9), (other, -2e-9)):
        zeros = side.values("renet.param2.diff.f32")
        (side.folder / "renet.param2.diff.f32").write_bytes(array.array("f", [value] * len(zeros)).tobytes())
    assert 0 < stages.network_differences(other, first)[1] < 1e-3
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
    """Below a ReLU, not elsewhere, and outputs nowhere, but where the processor's own rounding decides more."""
    monkeypatch.setattr(stages, "PRECISIONS", (FLOAT32,))
    monkeypatch.setattr(stages, "TRAINING_INPUTS", "data:2,3,6,5 label:2,1,6,5:4")
    file = processor_as_gpu.bundle / "train_val.prototxt"
    smooth = NORMALISED.replace('type: "ReLU"', 'type: "TanH"')
    for text, differences, rounding, failed in (
        (NORMALISED, (1e-5, 5e-2), (0.0, 0.0), False),
        (NORMALISED, (1e-5, 5e-1), (0.0, 0.0), True),
        (NORMALISED, (1e-2, 0.0), (0.0, 0.0), True),
        (NORMALISED, (1e-2, 5e-1), (5e-3, 0.4), False),
        (NORMALISED, (2e-2, 5e-1), (5e-3, 0.4), True),
        (smooth, (1e-5, 1e-2), (0.0, 0.0), True),
        (smooth, (1e-5, 1e-2), (5e-3, 0.4), True),
    ):
        found = {"gpu": differences, "other": rounding}
        monkeypatch.setattr(stages, "network_differences", lambda side, _, found=found: found[side.folder.name])
        file.write_text(text)
        checked = stages.check_network(processor_as_gpu, file, later(60))
        assert checked.differences == {FLOAT32: differences}
        assert bool(checked.failures) == failed


def test_other_kernels_sum_in_other_orders(processor_as_gpu: Machine, tmp_path: Path) -> None:
    text = NORMALISED.replace("num_output: 4 kernel_size: 1", "num_output: 40 kernel_size: 3 pad: 1")
    options = ("-pass", FORWARD_BACKWARD, "-inputs", "data:2,3,6,5 label:2,1,6,5:40")
    usual = dumped(processor_as_gpu, "usual", text, *options)
    outputs, gradients = stages.other_kernels(processor_as_gpu, text, options, usual, tmp_path / "other", later(60))
    assert 0 < outputs < 1e-5
    assert 0 < gradients < 1e-3
    (usual.folder / "loss.data.f32").write_bytes(array.array("f", [float("nan")]).tobytes())
    with pytest.raises(ValueError, match="the processor's own results are not finite"):
        stages.other_kernels(processor_as_gpu, text, options, usual, tmp_path / "other", later(60))


def test_networks_that_do_not_take_all_sizes_get_their_own() -> None:
    def text(name: str) -> str:
        return (REPOSITORY / "prototxt" / name).read_text()

    sizes = {
        "segnet/camvid/train_val.prototxt": "data:2,3,360,480 label:2,1,360,480:8",
        "deconvnet/voc2012/train_val.prototxt": "data:2,3,224,224 label:2,1,224,224:8",
        "deeplab_largefov/voc2012/train_val.prototxt": "data:2,3,321,321 label:2,1,321,321:8",
        "fcn/voc2012/train_val.prototxt": stages.TRAINING_INPUTS,
    }
    for name, expected in sizes.items():
        assert stages.fitting_inputs(text(name), stages.TRAINING_INPUTS) == expected
    assert stages.fitting_inputs(text("segnet/camvid/deploy.prototxt"), stages.USE_INPUTS) == "data:1,3,360,480"
    assert (
        stages.fitting_inputs(text("deeplab_largefov/voc2012/deploy.prototxt"), stages.USE_INPUTS) == stages.USE_INPUTS
    )
    wide = text("fcn8s/voc2012/deploy.prototxt")
    assert "num_output: 4096" in wide and "num_output: 4096" not in stages.narrowed(wide)


def test_networks_that_differ_in_data_alone_are_one() -> None:
    chosen = {str(file.relative_to(REPOSITORY)) for file in stages.different_networks(REPOSITORY / "prototxt")}
    assert "prototxt/fcn/voc2012/train_val.prototxt" in chosen
    assert "prototxt/fcn/voc2012/deploy_crf.prototxt" in chosen
    assert "prototxt/fcn/voc2012_256x320/train_val.prototxt" not in chosen
    models = {file.parents[1].name for file in (REPOSITORY / "prototxt").glob("*/*/*.prototxt")}
    assert {name.split("/")[1] for name in chosen} == models


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
    monkeypatch.setattr(gpu_machine.glob, "glob", lambda pattern: [])
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
