"""Solvers: every field is decided on, and what is wrong is told before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.common.repository import find_file
from renet.runtime.prototxt import read_solver
from renet.training import solver_settings
from renet.training.files import SOLVER, TEST, TrainingFiles

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = 'base_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 4'
NETWORK = """
layer { name: "data" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
  dummy_data_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }
layer { name: "score" type: "Convolution" bottom: "data" top: "score" include { stage: "%s" }
  convolution_param { num_output: 2 kernel_size: 1 } }
"""


def test_every_field_is_decided_on() -> None:
    groups = (
        solver_settings.LEFT_TO_CAFFE,
        solver_settings.FILES_OF_THE_RUN,
        solver_settings.DONE_WITHOUT_CAFFE,
        solver_settings.OLD_SPELLINGS,
    )
    fields = {field.name for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields}
    assert set().union(*groups) == fields
    assert sum(map(len, groups)) == len(fields), "each in one group"
    guide = (REPOSITORY / "docs" / "training.md").read_text()
    assert [field for field in sorted(fields) if f"`{field}`" not in guide] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "adam"', r'type: "adam" is none of AdaDelta, AdaGrad, Adam, .* SGD \(did you mean Adam\?\)'),
        ('type: "Lion"', r'type: "Lion" is none of AdaDelta, .*, SGD$'),
        ('lr_policy: "sine"', 'lr_policy: "sine" is none of cosine, exp, fixed, inv, multistep, poly, sigmoid, step'),
        ('lr_policy: "polly"', r"did you mean poly\?"),
        ('lr_policy: "step" gamma: 0.1', "needs stepsize"),
        ('regularization_type: "L3"', 'regularization_type: "L3" is none of L1, L2'),
        ("max_iter: 0", "needs max_iter"),
        ("base_lr: -1", "needs base_lr"),
        ("base_lr: nan", "base_lr is nan"),
        ("base_lr: 1e39", "base_lr is inf"),
        ("iter_size: -1", "iter_size is -1, and must be 1 or more"),
        ("test_iter: -3", "test_iter is -3; a test is of 1 batch or more"),
        ("clip_gradients: nan", "clip_gradients is nan"),
        ("clip_gradients: 0", "clip_gradients is 0, which leaves nothing of the gradients"),
        ("max_iter: -4", "needs max_iter"),
        ("momentum: -0.5", r"momentum is -0\.5, and must be at least 0 and below 1"),
        ("momentum: 1", "momentum is 1, and must be at least 0 and below 1"),
        ('type: "Adam" momentum2: 1', "momentum2 is 1, and must be at least 0 and below 1"),
        ('type: "RMSProp" rms_decay: 1.5', r"rms_decay is 1\.5, and must"),
        ('type: "Adam" delta: -1', "delta is -1, and must be 0 or more"),
        ("weight_decay: -0.1", r"weight_decay is -0\.1, and must be 0 or more"),
        ('lr_policy: "step" stepsize: -2 gamma: 0.1', "needs stepsize"),
        ('lr_policy: "step" stepsize: 2', "needs gamma over 0, the factor of the rate; it is 0"),
        ('lr_policy: "exp"', "needs gamma over 0"),
        ('lr_policy: "multistep" gamma: 0.1', "needs stepvalue"),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: 3 stepvalue: 2', "needs stepvalue, .* in rising order"),
        ('lr_policy: "multistep" gamma: 0.1 stepvalue: -2', "needs stepvalue"),
        ('lr_policy: "inv" gamma: -1', "gamma is -1, and must be 0 or more"),
        ('lr_policy: "poly" power: -1', "power is -1, and must be 0 or more"),
        ("average_loss: 0", "average_loss is 0, and must be 1 or more"),
        ("iter_size: 0", "iter_size is 0"),
        ("display: -1", "display is -1"),
        ("snapshot_format: HDF5", "snapshot_format: HDF5 is not supported: every snapshot is looked into"),
        ("warmup_iter: -1", "warmup_iter is -1, and must be 0 or more"),
        ("warmup_start_lr: -0.5", r"warmup_start_lr is -0\.5, and must be 0 or more"),
        ("warmup_start_lr: nan", "warmup_start_lr is nan"),
        ("average_decay: 1", "average_decay is 1, and must be at least 0 and below 1"),
        ("average_decay: -0.5", r"average_decay is -0\.5"),
        ("average_decay: inf", "average_decay is inf"),
        ('type: "AdamW" regularization_type: "L1"', "has its own weight decay, which is L2"),
        ("test_iter: 2 test_iter: 0", "test_iter is 2, 0; a test is of 1 batch or more"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / SOLVER
    others = [line for line in GOOD.splitlines() if line.partition(":")[0] != text.partition(":")[0]]
    file.write_text("\n".join([*others, text]))
    with pytest.raises(UserError, match=message) as caught:
        solver_settings.check(read_solver(file), file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("where", "value"),
    [("segmentation_data_param", 300), ("loss_param", 300), ("loss_param", -2), ("accuracy_param", 300)],
)
def test_a_label_to_ignore_that_is_no_byte(tmp_path: Path, where: str, value: int) -> None:
    fields = dict.fromkeys(("segmentation_data_param", "loss_param", "accuracy_param"), "")
    fields[where] = f"ignore_label: {value}"
    for part in ("images.lmdb", "labels.lmdb"):
        (tmp_path / "split" / part).mkdir(parents=True)
    data, loss, right = fields.values()
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "SegmentationData" top: "data" top: "label" segmentation_data_param {'
        f' source: "split" batch_size: 1 {data} }} }}\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "data" bottom: "label" '
        f"loss_param {{ {loss} }} }}\n"
        'layer { name: "right" type: "Accuracy" bottom: "data" bottom: "label" '
        f"accuracy_param {{ {right} }} }}\n"
    )
    (tmp_path / SOLVER).write_text(f'{GOOD}\nnet: "net.prototxt"')
    with pytest.raises(UserError, match=f"layer '.*': ignore_label is {value}, and labels are 0 to 255"):
        TrainingFiles.read(tmp_path / SOLVER)


def write(folder: Path, solver: str, **networks: str) -> Path:
    """A solver and networks beside it, in which one layer belongs to a stage of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stage in networks.items():
        (folder / f"{name}.prototxt").write_text(NETWORK % stage)
    (folder / SOLVER).write_text(f"{GOOD}\n{solver}")
    return folder / SOLVER


def stage_of(network: caffe_pb2.NetParameter) -> str:
    return network.layer[1].include[0].stage[0]


INLINE = "{ %s }" % (NETWORK % "inline")


@pytest.mark.parametrize(
    ("solver", "trained", "tested"),
    [
        ('net: "a.prototxt"', "a", []),
        ('net: "a.prototxt" test_iter: 3 test_iter: 4', "a", [("a", 3), ("a", 4)]),
        (f"net_param {INLINE} test_iter: 3", "inline", [("inline", 3)]),
        ('train_net: "a.prototxt"', "a", []),
        ('train_net: "a.prototxt" test_net: "b.prototxt" test_iter: 3', "a", [("b", 3)]),
        (f"train_net_param {INLINE} test_net: 'b.prototxt' test_iter: 1", "inline", [("b", 1)]),
        (
            f"net: 'a.prototxt' test_net: 'b.prototxt' test_net_param {INLINE} test_iter: 1 test_iter: 2 test_iter: 3",
            "a",
            [("inline", 1), ("b", 2), ("a", 3)],
        ),
    ],
)
def test_every_form_of_naming_networks(
    tmp_path: Path, solver: str, trained: str, tested: list[tuple[str, int]]
) -> None:
    files = TrainingFiles.read(write(tmp_path / "net", solver, a="a", b="b"))
    run = tmp_path / "run"
    run.mkdir()
    for _ in range(2):
        assert stage_of(files.network) == trained
        assert [(stage_of(test.network.parameter), test.batches) for test in files.tests] == tested
        assert [test.kind for test in files.tests] == [TEST, f"{TEST}_1", f"{TEST}_2"][: len(tested)]
        files.write(run, "run")
        steps = text_format.Parse(files.solver_for_steps(), caffe_pb2.SolverParameter())
        assert not steps.test_net
        assert not steps.test_iter
        moved = run.rename(tmp_path / "moved" if run.name == "run" else tmp_path / "again")
        run = moved
        files = TrainingFiles.read(moved / SOLVER, own=True)  # what was written says the same, wherever it lies


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("", "it has none"),
        ('net: "a.prototxt" train_net: "a.prototxt"', "it has net and train_net"),
        ('train_net: "a.prototxt" test_iter: 1', "test_iter has 1 entries for 0 test networks"),
        ('net: "a.prototxt" test_net: "b.prototxt"', "test_iter has 0 entries for 1 test networks"),
        ('net: "a.prototxt" test_iter: 1 test_state {} test_state {}', "test_state has 2 entries for 1 tests"),
    ],
)
def test_networks_that_do_not_fit_together(tmp_path: Path, solver: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingFiles.read(write(tmp_path, solver, a="a", b="b"))


def test_states_choose_layers_as_in_caffe(tmp_path: Path) -> None:
    solver = (
        'net: "a.prototxt" train_state { stage: "a" } test_iter: 1 test_iter: 1'
        ' test_state { stage: "a" level: 2 } test_state { stage: "other" }'
    )
    files = TrainingFiles.read(write(tmp_path, solver, a="a"))
    assert [layer.name for layer in files.training_layers] == ["data", "score"]
    assert [[layer.name for layer in test.layers] for test in files.tests] == [["score"], []]
    assert [test.title for test in files.tests] == ["test (a)", "test_1 (other)"]
    network = tmp_path / "a.prototxt"
    network.write_text(network.read_text() + 'state { stage: "fixed" level: 1 }')
    state, other = (test.state for test in TrainingFiles.read(tmp_path / SOLVER).tests)
    assert (list(state.stage), state.level, state.phase) == (["fixed", "a"], 2, caffe_pb2.TEST)
    assert (list(other.stage), other.level) == (["fixed", "other"], 1)


def test_old_spellings_are_todays(tmp_path: Path) -> None:
    file = write(tmp_path, 'net: "a.prototxt" solver_type: ADAM', a="a")
    (tmp_path / "a.prototxt").write_text(
        """layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
           input: "data" input_dim: 1 input_dim: 3 input_dim: 2 input_dim: 2"""
    )
    files = TrainingFiles.read(file)
    assert files.solver.type == "Adam"
    assert not files.solver.HasField("solver_type")
    assert [layer.type for layer in files.network.layer] == ["Input", "InnerProduct"]


def test_a_copied_folder_has_its_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write(tmp_path / "original", 'net: "a.prototxt"', a="original").parent
    copy = write(tmp_path / "copy", 'net: "a.prototxt"', a="copy").parent
    for folder in (tmp_path, original, copy):
        monkeypatch.chdir(folder)
        files = TrainingFiles.read(copy / SOLVER)
        assert stage_of(files.network) == "copy"
        assert files.place() is None
    write(copy, f'net: "{original}/a.prototxt"')
    files = TrainingFiles.read(copy / SOLVER)
    assert stage_of(files.network) == "original"
    assert files.place() == f"network: {original}/a.prototxt ({copy}/a.prototxt is not what is trained)"


def test_where_paths_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "both").write_text("")
    (here / "one").write_text("")
    monkeypatch.chdir(here)
    assert find_file("both", there / SOLVER) == there / "both"
    assert find_file("one", there / SOLVER) == here / "one"
    assert find_file("prototxt/generate.py", there / SOLVER) == REPOSITORY / "prototxt/generate.py"
    with pytest.raises(UserError, match="'none' leads to nothing"):
        find_file("none", there / SOLVER)
    monkeypatch.chdir(REPOSITORY)
    assert find_file("prototxt/generate.py", there / SOLVER) == Path("prototxt/generate.py")
    assert find_file("../README.md", REPOSITORY / "solvers" / SOLVER) == Path("README.md")
