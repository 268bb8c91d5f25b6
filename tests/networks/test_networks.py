"""prototxt/generate.py: what it writes, and the networks themselves in pycaffe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from segmentation_helpers import CLASSES, write_dataset_json, write_split

from prototxt.generate import main, make_parser
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.data.dataset import Dataset, SplitSummary
from renet.networks.generation import write
from renet.networks.models import H_RENETS, MODELS, N_RENETS
from renet.networks.shipped import SHIPPED, Shipped, shipped_files


def generate(repository: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "prototxt" / "generate.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def read(file: Path, message: object) -> object:
    return text_format.Parse(file.read_text(), message)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset.json of five classes; the generator needs no images."""
    folder = tmp_path_factory.mktemp("data") / "five"
    folder.mkdir()
    Dataset(
        "five",
        ("a", "b", "c", "d", "e"),
        np.zeros((5, 3), np.uint8),
        (10.0, 20.0, 30.5),
        255,
        {name: SplitSummary(count, "0") for name, count in (("train", 9), ("val", 7), ("fold0/test", 3))},
        folder,
    ).save()
    return folder


def deploy_of(model: str, repository: Path, dataset: Path, folder: Path) -> Path:
    done = generate(repository, "--model", model, "--dataset", dataset, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder / "deploy.prototxt"


def test_shipped_files_are_what_the_generator_writes(repository: Path) -> None:
    written = shipped_files()
    on_disk = {*(repository / "prototxt").rglob("*.prototxt"), *(repository / "solvers").glob("*.prototxt")}
    assert on_disk == set(written)
    for file, text in written.items():
        assert file.read_text() == text, f"{file}: .venv/bin/python prototxt/generate.py --shipped --force"


def test_a_deploy_network_finds_all_that_was_trained(repository: Path) -> None:
    files = sorted((repository / "prototxt").rglob("deploy*.prototxt"))
    for file in files:
        trained = {
            (layer.name, layer.type)
            for layer in read(file.with_name("train_val.prototxt"), caffe_pb2.NetParameter()).layer
        }
        for layer in read(file, caffe_pb2.NetParameter()).layer:
            crf = layer.dense_crf_param
            learned = crf.learn or crf.kernel_weights == crf.MATRIX or crf.compatibility == crf.MATRIX
            if (layer.name, layer.type) not in trained:
                assert layer.type in ("Input", "Softmax", "DenseCRF") and not learned, f"{file}: {layer.name}"
    assert files


@pytest.mark.parametrize("item", SHIPPED, ids=lambda item: item.name)
def test_shipped_solver_leads_to_its_network_and_runs_folder(repository: Path, item: Shipped) -> None:
    solver = read(repository / "solvers" / f"{item.name}.prototxt", caffe_pb2.SolverParameter())
    assert solver.net == f"prototxt/{item.model}/{item.data.name}/train_val.prototxt"
    network = read(repository / solver.net, caffe_pb2.NetParameter())
    assert solver.snapshot_prefix == f"runs/{item.name}"
    sources = [source for layer in network.layer for source in layer.segmentation_data_param.source]
    assert sources == [*item.data.train, item.data.test]
    assert not any(Path(source).is_absolute() for source in sources)


def test_the_papers_settings(repository: Path) -> None:
    """Section 4 (crops, batch, labels) and 4.1 (patches, groups); the solver of the released code."""
    network = read(repository / "prototxt/n_renet/stanford_background/train_val.prototxt", caffe_pb2.NetParameter())
    layers = {layer.name: layer for layer in network.layer}
    data = network.layer[0].segmentation_data_param
    assert (data.batch_size, data.crop_height, data.crop_width, data.mirror) == (10, 240, 320, True)
    sweeps = [layer.renet_param for layer in network.layer if layer.type == "ReNetLSTM"]
    assert [sweep.num_output for sweep in sweeps] == [40, 40, 60, 60, 60, 60]
    assert [sweep.direction for sweep in sweeps] == [0, 1] * 3
    assert [(sweep.patch_height, sweep.patch_width) for sweep in sweeps] == [(2, 2)] + [(1, 1)] * 5
    assert all(sweep.weight_filler.min == pytest.approx(-0.2) for sweep in sweeps)
    assert all(sweep.weight_filler.max == pytest.approx(0.2) for sweep in sweeps)
    assert layers["score"].convolution_param.num_output == 8
    solver = read(repository / "solvers/n_renet_stanford_background.prototxt", caffe_pb2.SolverParameter())
    assert (solver.max_iter, solver.stepsize, solver.test_iter[:]) == (36000, 12000, [143])
    assert [solver.base_lr, solver.gamma, solver.momentum, solver.weight_decay] == pytest.approx(
        [0.05, 0.1, 0.9, 0.0005]
    )
    released = read(
        repository / "prototxt/n_renet_released/stanford_background/train_val.prototxt", caffe_pb2.NetParameter()
    )
    data = released.layer[0].segmentation_data_param
    assert (data.batch_size, data.crop_height, data.crop_width) == (20, 240, 321)
    mixing = [layer for layer in released.layer if layer.name in ("transition1", "transition2")]
    assert [layer.convolution_param.num_output for layer in mixing] == [80, 120]
    assert all([(p.lr_mult, p.decay_mult) for p in layer.param] == [(1, 1), (2, 0)] for layer in mixing)


def test_augmentation_is_written_into_the_training_data_alone(repository: Path, dataset: Path, tmp_path: Path) -> None:
    command = ("--model", "n_renet_small", "--dataset", dataset)

    def data_layers(name: str, *options: str) -> tuple[object, object]:
        done = generate(repository, *command, "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
        network = read(tmp_path / name / "train_val.prototxt", caffe_pb2.NetParameter())
        return network.layer[0].segmentation_data_param, network.layer[1].segmentation_data_param

    plain, plain_test = data_layers("plain")
    some, some_test = data_layers("some", "--augment", "scale", "colour")
    ranged, _ = data_layers("ranged", "--augment", "scale=0.75,1.5", "colour=0.5")
    every, every_test = data_layers("every", "--augment")
    assert plain_test == some_test == every_test
    assert (some.scale_min, some.scale_max) == (0.5, 2)
    assert min(some.brightness, some.contrast, some.saturation, some.hue) > 0
    assert not any(some.HasField(name) for name in ("aspect", "rotation", "blur", "cutout"))
    assert (ranged.scale_min, ranged.scale_max, ranged.brightness) == (0.75, 1.5, 0.5)
    assert (ranged.contrast, ranged.saturation, ranged.hue) == (some.contrast, some.saturation, some.hue)
    assert every.aspect > 1 and every.rotation > 0 and every.blur > 0 and every.cutout > 0
    for augmented in (some, ranged, every):
        known = {field.name for field, _ in plain.ListFields()}
        for name in {field.name for field, _ in augmented.ListFields()} - known:
            augmented.ClearField(name)
        assert augmented == plain
    assert "# Augmented by scale, colour," in (tmp_path / "ranged" / "train_val.prototxt").read_text()
    text = (tmp_path / "some" / "train_val.prototxt").read_text()
    assert "# Augmented by scale, colour," in text and "  brightness: 0.2\n" in text
    assert "Augmented" not in (tmp_path / "plain" / "train_val.prototxt").read_text()


def test_an_augmentation_that_is_not_known(repository: Path, dataset: Path, tmp_path: Path) -> None:
    done = generate(repository, "--model", "n_renet", "--dataset", dataset, "--out", tmp_path, "--augment", "zoom")
    assert done.returncode == 2 and "no augmentation 'zoom'; there are scale, aspect" in done.stderr


@pytest.mark.parametrize("choice", ["scale=", "scale=1,2,3", "scale=low", "rotation=nan", "rotation=inf", "blur=-1"])
def test_an_augmentation_with_a_range_of_no_sense(dataset: Path, tmp_path: Path, choice: str) -> None:
    with pytest.raises(UserError, match=f"augmentation '{choice}': up to [12] numbers, of (scale_min|rotation|blur)"):
        write("n_renet", dataset, tmp_path, augment=[choice])


def lstm(channels: int, units: int, patch: int = 1) -> int:
    gate = units * (channels * patch * patch) + units * units + units
    return 2 * 4 * gate


def expected_n_renet(classes: int) -> int:
    groups = lstm(3, 40, 2) + lstm(80, 40) + lstm(80, 60) + lstm(120, 60) + lstm(120, 60) + lstm(120, 60)
    return groups + 120 * classes + classes


def expected_released(classes: int) -> int:
    first = lstm(3, 40, 3) + lstm(80, 40) + 80 * 80 + 80
    second = lstm(80, 60) + lstm(120, 60) + 120 * 120 + 120
    return first + second + lstm(120, 60) + lstm(120, 60) + 120 * classes + classes


def expected_small(classes: int) -> int:
    return lstm(3, 16, 2) + lstm(32, 16) + lstm(32, 24) + lstm(48, 24) + 48 * classes + classes


def parameters(network: caffe.Net) -> int:
    return sum(blob.count for blobs in network.params.values() for blob in blobs)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("n_renet", expected_n_renet), ("n_renet_released", expected_released), ("n_renet_small", expected_small)],
)
def test_parameter_counts(
    repository: Path, dataset: Path, tmp_path: Path, model: str, expected: Callable[[int], int]
) -> None:
    network = caffe.Net(str(deploy_of(model, repository, dataset, tmp_path)), caffe.TEST)
    assert parameters(network) == expected(5)


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_conv_small_has_as_many_parameters_as_n_renet_small(
    repository: Path, dataset: Path, tmp_path: Path, classes: int
) -> None:
    content = Dataset.open(dataset)
    many = tmp_path / "many"
    many.mkdir()
    Dataset(
        "many",
        tuple(f"c{i}" for i in range(classes)),
        np.zeros((classes, 3), np.uint8),
        content.mean,
        255,
        content.splits,
        many,
    ).save()
    network = caffe.Net(str(deploy_of("conv_small", repository, many, tmp_path / "net")), caffe.TEST)
    assert parameters(network) == pytest.approx(expected_small(classes), rel=0.1)


@pytest.mark.parametrize("model", [*N_RENETS, *H_RENETS])
def test_output_has_the_inputs_size(repository: Path, dataset: Path, tmp_path: Path, model: str) -> None:
    network = caffe.Net(str(deploy_of(model, repository, dataset, tmp_path)), caffe.TEST)
    for size in ((1, 3, 33, 47), (2, 3, 32, 48), (1, 3, 5, 1)):
        network.blobs["data"].reshape(*size)
        network.blobs["data"].data[...] = np.random.default_rng(0).uniform(-1, 1, size)
        prob = network.forward()["prob"]
        assert prob.shape == (size[0], 5, *size[2:])
        assert np.allclose(prob.sum(axis=1), 1, atol=1e-5)


def test_receptive_fields(repository: Path, dataset: Path, tmp_path: Path) -> None:
    """conv_small's is 31 pixels, by the layers' sizes and by what a changed pixel does; n_renet_small's has no end."""
    file = deploy_of("conv_small", repository, dataset, tmp_path / "conv")
    field, jump = 1, 1
    for layer in read(file, caffe_pb2.NetParameter()).layer:
        if layer.type == "Convolution":
            convolution = layer.convolution_param
            field += (convolution.kernel_size[0] - 1) * jump
            jump *= convolution.stride[0] if convolution.stride else 1
    assert field == 31
    networks = {
        "conv_small": caffe.Net(str(file), caffe.TEST),
        "n_renet_small": caffe.Net(
            str(deploy_of("n_renet_small", repository, dataset, tmp_path / "renet")), caffe.TEST
        ),
    }
    image = np.random.default_rng(1).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)
    reach = {}
    for name, network in networks.items():
        scores = []
        for change in (0.0, 5.0):
            network.blobs["data"].reshape(*image.shape)
            network.blobs["data"].data[...] = image
            network.blobs["data"].data[0, :, 32, 32] += change
            network.forward()
            scores.append(network.blobs["score"].data.copy())
        rows, columns = np.nonzero(np.abs(scores[1] - scores[0]).max(axis=(0, 1)))
        reach[name] = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    # A pixel lies within the 31 x 31 of 15 or 16 positions in each direction of the halved map.
    assert all(14 <= extent <= 16 for extent in reach["conv_small"])
    assert reach["n_renet_small"] == (32, 32)


def test_written_network_follows_the_command_line(repository: Path, dataset: Path, tmp_path: Path) -> None:
    done = generate(
        repository,
        *("--model", "n_renet", "--dataset", dataset / "dataset.json", "--crop", "120x160", "--batch", "4"),
        *("--train-split", "val", "--test-split", "fold0/test", "--solver", "adam", "--iterations", "77"),
        *("--forget-bias", "0.5", "--dataset-mean", "--out", "net"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    network = read(tmp_path / "net/train_val.prototxt", caffe_pb2.NetParameter())
    train, test = (layer.segmentation_data_param for layer in network.layer[:2])
    assert (train.batch_size, train.crop_height, train.crop_width) == (4, 120, 160)
    assert train.source[:] == [str(dataset / "val")]
    assert test.source[:] == [str(dataset / "fold0/test")]
    assert (test.batch_size, test.crop_height, test.mirror) == (1, 0, False)
    assert list(train.mean_value) == list(test.mean_value) == [10.0, 20.0, 30.5]
    assert all(layer.renet_param.forget_bias == 0.5 for layer in network.layer if layer.type == "ReNetLSTM")
    deploy = read(tmp_path / "net/deploy.prototxt", caffe_pb2.NetParameter())
    assert list(deploy.layer[0].transform_param.mean_value) == [10.0, 20.0, 30.5]
    assert deploy.layer[0].transform_param.scale == pytest.approx(1 / 128)
    solver = read(tmp_path / "net/solver.prototxt", caffe_pb2.SolverParameter())
    assert (solver.type, solver.lr_policy, solver.power, solver.max_iter) == ("Adam", "poly", 1, 77)
    assert (solver.test_iter[:], solver.clip_gradients) == ([3], 5)
    assert solver.net == "train_val.prototxt", "so that a copied folder trains its own network"


POLICIES = {
    "fixed": {},
    "step": {"gamma": pytest.approx(0.1), "stepsize": 30},
    "poly": {"power": pytest.approx(0.9)},
    "cosine": {},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
def test_schedules(dataset: Path, tmp_path: Path, policy: str, solver: str) -> None:
    command = ["--model", "n_renet", "--dataset", str(dataset), "--out", str(tmp_path), "--iterations", "90"]
    command += ["--solver", solver, "--schedule", policy, "--warmup", "7", "--average", "0.99"]
    assert run(main, make_parser(), command) == 0
    found = read(tmp_path / "solver.prototxt", caffe_pb2.SolverParameter())
    assert (found.type, found.lr_policy) == ({"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[solver], policy)
    fields = {field.name: value for field, value in found.ListFields() if field.name in ("gamma", "stepsize", "power")}
    assert fields == POLICIES[policy]
    assert (found.warmup_iter, found.warmup_start_lr, found.average_decay) == (7, 0, pytest.approx(0.99))
    assert found.weight_decay == pytest.approx({"sgd": 0.0005, "adam": 0, "adamw": 0.01}[solver])
    assert "linearly" not in (tmp_path / "solver.prototxt").read_text(), "of the solver's usual schedule"


@pytest.mark.parametrize(("model", "layers"), [("n_renet_small", 4), ("n_renet_released", 6), ("h_renet_bn", 2)])
def test_precision_is_every_renet_layers(dataset: Path, tmp_path: Path, model: str, layers: int) -> None:
    write(model, dataset, tmp_path, precision="BF16")
    for file in ("train_val", "deploy"):
        network = read(tmp_path / f"{file}.prototxt", caffe_pb2.NetParameter())
        of_type = [layer.renet_param.precision for layer in network.layer if layer.type == "ReNetLSTM"]
        assert of_type == [caffe_pb2.ReNetParameter.BF16] * layers
    write(model, dataset, tmp_path / "plain", precision="FLOAT32")
    assert "precision" not in (tmp_path / "plain/train_val.prototxt").read_text()


@pytest.mark.parametrize(
    ("model", "after"),
    [
        ("n_renet", ["renet1_horizontal", "renet2_horizontal"]),
        ("n_renet_quarter", ["renet1_horizontal", "renet2_horizontal"]),
        ("n_renet_released", ["transition1", "transition2"]),
        ("n_renet_small", ["renet1_horizontal"]),
    ],
)
def test_dropout_stands_between_the_groups(dataset: Path, tmp_path: Path, model: str, after: list[str]) -> None:
    write(model, dataset, tmp_path, dropout=0.25)
    for file in ("train_val", "deploy"):
        layers = read(tmp_path / f"{file}.prototxt", caffe_pb2.NetParameter()).layer
        dropped = [layer for layer in layers if layer.type == "Dropout"]
        assert [layer.bottom[0] for layer in dropped] == after
        for layer in dropped:
            assert layer.dropout_param.dropout_ratio == 0.25
            assert layer.top[0] == layer.name, "not in place"
            assert [bottom for other in layers for bottom in other.bottom].count(layer.top[0]) == 1
    network = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    plain_folder = tmp_path / "plain"
    write(model, dataset, plain_folder)
    plain = caffe.Net(str(plain_folder / "deploy.prototxt"), caffe.TEST)
    plain.share_with(network)
    image = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 3, 20, 24))
    results = []
    for each in (network, plain):
        each.blobs["data"].reshape(*image.shape)
        each.blobs["data"].data[...] = image
        results.append(each.forward()["prob"].copy())
    assert np.array_equal(*results), "a deploy network passes everything on"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "n_renet"], "--dataset is missing"),
        (["--model", "alexnet"], "invalid choice: 'alexnet'"),
        (["--shipped", "--model", "n_renet"], "--shipped"),
        (["--model", "n_renet", "--dataset", "nowhere", "--out", "net"], "nowhere"),
        (["--model", "n_renet", "--dataset", "DATASET", "--out", "net", "--crop", "120"], "'120' is not HEIGHTxWIDTH"),
        (["--model", "n_renet", "--dataset", "DATASET", "--out", "net", "--batch", "0"], "'0' is not a whole number"),
        (["--model", "n_renet", "--dataset", "DATASET", "--out", "net", "--train-split", "x"], "has no split x"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    repository: Path, dataset: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    arguments = [str(dataset) if argument == "DATASET" else argument for argument in arguments]
    done = generate(repository, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert re.fullmatch(r"generate\.py: [^\n]+\n", done.stderr)
    assert not (tmp_path / "net").exists()


def test_edited_files_are_not_overwritten(repository: Path, dataset: Path, tmp_path: Path) -> None:
    command = ("--model", "conv_small", "--dataset", dataset, "--out", tmp_path / "net")
    assert generate(repository, *command).returncode == 0
    names = {"train_val.prototxt", "deploy.prototxt", "deploy_crf.prototxt", "solver.prototxt"}
    files = {file.name: file for file in (tmp_path / "net").iterdir()}
    assert set(files) == names
    for file in files.values():
        original = file.read_bytes()
        file.write_bytes(original.replace(b"64", b"65") + b"# mine\n")
        content = {each: each.read_bytes() for each in files.values()}
        done = generate(repository, *command, "--crop", "32x32")  # would write other files
        assert done.returncode == 2
        assert re.fullmatch(r"generate\.py: [^\n]+\n", done.stderr)
        assert f"{file}: edited" in done.stderr and "--force" in done.stderr and "--out" in done.stderr
        assert {each: each.read_bytes() for each in files.values()} == content, "nothing is written, or all"
        file.write_bytes(original)
    edited = files["deploy.prototxt"]
    edited.write_text(edited.read_text() + "# mine\n")
    assert generate(repository, *command, "--force").returncode == 0
    assert "mine" not in edited.read_text()


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda text: text, id="as it was"),
        pytest.param(lambda text: text.replace(b"\n", b"\r\n"), id="line ends of Windows"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b" \n") + b"\n", id="byte-order mark, blanks"),
    ],
)
def test_unedited_files_are_written_anew(
    repository: Path, dataset: Path, tmp_path: Path, written: Callable[[bytes], bytes]
) -> None:
    command = ("--model", "conv_small", "--dataset", dataset, "--out", tmp_path)
    assert generate(repository, *command).returncode == 0
    solver = tmp_path / "solver.prototxt"
    solver.write_bytes(written(solver.read_bytes()))
    done = generate(repository, *command, "--iterations", "77")
    assert done.returncode == 0, done.stderr
    assert read(solver, caffe_pb2.SolverParameter()).max_iter == 77


@pytest.mark.parametrize(
    "content", [b"net: 'mine'\n", b"", b"\xff\xfe\x00"], ids=["without a checksum", "empty", "no text"]
)
def test_a_file_of_other_origin_is_not_overwritten(
    repository: Path, dataset: Path, tmp_path: Path, content: bytes
) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_bytes(content)
    done = generate(repository, "--model", "conv_small", "--dataset", dataset, "--out", tmp_path)
    assert (done.returncode, solver.read_bytes()) == (2, content)
    assert f"{solver}: edited" in done.stderr
    assert list(tmp_path.iterdir()) == [solver]


def test_shipped_files_that_were_edited_are_not_overwritten(repository: Path, tmp_path: Path) -> None:
    """In a copy of the generator and its library, which writes beside itself."""
    for folder in ("prototxt", "renet"):
        shutil.copytree(repository / folder, tmp_path / folder)
    (tmp_path / "solvers").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "prototxt/generate.py"), "--shipped"]
    edited = tmp_path / "prototxt/fcn/voc2012/deploy.prototxt"
    edited.write_text(edited.read_text().replace("num_output: 21", "num_output: 3"))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    assert "generate.py: prototxt/fcn/voc2012/deploy.prototxt: edited" in done.stderr
    assert "--out" not in done.stderr, "an option that does not go with --shipped"
    assert list((tmp_path / "solvers").iterdir()) == []
    subprocess.run([*command, "--force"], check=True, capture_output=True, env=environment, timeout=120)
    assert edited.read_text() == shipped_files()[repository / "prototxt/fcn/voc2012/deploy.prototxt"]


# ------------------------------------------------------------------------------------------------- splits and tests


def dataset_of(folder: Path, split: str, count: int, size: tuple[int, int], labels: Sequence[str] = CLASSES) -> Path:
    """A dataset of two splits, which says that `split` has `count` images; three are there."""
    pair = (np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))
    write_split(folder / split, {f"image{number}": pair for number in range(3)})
    splits = {split: {"count": count, "sha256": ""}, "train": {"count": 500, "sha256": ""}}
    write_dataset_json(folder, list(labels), splits=splits)
    return folder


def images_tested(folder: Path) -> int:
    (found,) = read(folder / "solver.prototxt", caffe_pb2.SolverParameter()).test_iter
    return found


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        # 200 iterations of 10 crops of 96 x 128, each as long as 3 forward passes, and 10 tests: 60 such images each
        pytest.param((96, 128), ("--iterations", "200"), 60, id="images as large as the crops"),
        pytest.param((192, 256), ("--iterations", "200"), 15, id="larger images"),
        pytest.param((96, 64), ("--iterations", "200"), 120, id="smaller images"),
        pytest.param((96, 128), ("--iterations", "200", "--interval", "100"), 233, id="few tests"),
        pytest.param((96, 128), ("--iterations", "200", "--iter-size", "2"), 120, id="more passes"),
        pytest.param((96, 128), ("--iterations", "2000"), 233, id="a long training"),
        pytest.param((96, 128), ("--iterations", "2", "--interval", "1", "--batch", "1"), 1, id="one at least"),
        pytest.param((96, 128), ("--iterations", "200", "--test-images", "100"), 100, id="as wished"),
        pytest.param((96, 128), ("--iterations", "200", "--test-images", "1000"), 233, id="more than there are"),
    ],
)
def test_tests_take_a_small_part_of_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], options: tuple[str, ...], expected: int
) -> None:
    data = dataset_of(tmp_path / "data", "test", 233, size)
    command = ("--model", "conv_small", "--dataset", str(data), "--out", str(tmp_path / "net"))
    assert run(main, make_parser(), [*command, *options]) == 0
    assert images_tested(tmp_path / "net") == expected
    told = f"the first {expected} of the 233 images" if expected < 233 else "all 233 images"
    said = capsys.readouterr().out
    assert f"{told} of {data / 'test'}" in said
    assert ("--test-images N" in said) == (expected < 233 and "--test-images" not in options)
    comment = f"the first {expected} of the test split's 233" if expected < 233 else "the whole test split"
    assert f"# One image at a time: {comment}.\n" in (tmp_path / "net/solver.prototxt").read_text()


def test_a_split_may_be_another_datasets(repository: Path, tmp_path: Path) -> None:
    data = dataset_of(tmp_path / "data", "test", 233, (96, 128))
    other = dataset_of(tmp_path / "other", "fold3/test", 7, (96, 128))
    command = ("--model", "conv_small", "--dataset", data, "--out", "net")
    for option in ("--test-split", "--train-split"):
        done = generate(repository, *command, option, "other/fold3/test", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        layers = read(tmp_path / "net/train_val.prototxt", caffe_pb2.NetParameter()).layer[:2]
        train, test = (list(layer.segmentation_data_param.source) for layer in layers)
        assert (test if option == "--test-split" else train) == [str(other / "fold3/test")]
        assert images_tested(tmp_path / "net") == (7 if option == "--test-split" else 233)


@pytest.mark.parametrize("option", ["--test-split", "--train-split"])
def test_wrong_splits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    data = dataset_of(tmp_path / "data", "test", 233, (96, 128))
    other = dataset_of(tmp_path / "other", "test", 7, (96, 128), labels=("a", "b", "c"))
    unnamed = dataset_of(tmp_path / "unnamed", "test", 7, (96, 128))
    (unnamed / "test").rename(unnamed / "renamed")
    alone = dataset_of(tmp_path / "alone", "test", 7, (96, 128))
    (alone / "dataset.json").unlink()
    command = ("--model", "conv_small", "--dataset", str(data), "--out", str(tmp_path / "net"))
    for split, message in (
        ("tset", f"{option}: {data} has no split tset (it has test, train; the folder of a prepared split goes, too)"),
        (other / "test", f"{option}: {other / 'test'} has other labels than {data}"),
        (unnamed / "renamed", f"{unnamed / 'renamed'} is none of the splits that {unnamed / 'dataset.json'} names"),
        (alone / "test", f"{option}: {alone / 'test'}: there is no dataset.json above it"),
        (data, f"{option}: {data} has no split {data}"),
    ):
        assert run(main, make_parser(), [*command, option, str(split)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.fixture(scope="module")
def small(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared images, `data`, and a network, `net`, of two iterations."""
    folder = tmp_path_factory.mktemp("small")
    pair = (np.zeros((24, 32, 3), np.uint8), np.zeros((24, 32), np.uint8))
    for split in ("train", "test"):
        write_split(folder / "data" / split, {f"image{number}": pair for number in range(2)})
    splits = {split: {"count": 2, "sha256": ""} for split in ("train", "test")}
    write_dataset_json(folder / "data", splits=splits)
    command = ("--model", "conv_small", "--dataset", folder / "data", "--crop", "24x32", "--batch", "1")
    done = generate(repository, *command, "--iterations", "2", "--out", folder / "net")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_copied_folder_trains_its_own_network(repository: Path, small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "net", tmp_path / "far/away/copy")
    network = tmp_path / "far/away/copy/train_val.prototxt"
    network.write_text(network.read_text().replace('name: "conv_small_data"', 'name: "edited"'))
    (tmp_path / "train_val.prototxt").write_text("another network in the current folder")
    command = [sys.executable, str(repository / "tools/train.py"), "--solver", "far/away/copy/solver.prototxt"]
    done = subprocess.run([*command, "--run", "run"], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["model"] == "edited"
    assert 'name: "edited"' in (tmp_path / "run/train_val.prototxt").read_text()


def test_a_run_does_not_overwrite_the_network_that_it_trains(repository: Path, small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "net", tmp_path / "net")
    content = {file: file.read_bytes() for file in (tmp_path / "net").iterdir()}
    command = [sys.executable, str(repository / "tools/train.py"), "--solver", "net/solver.prototxt", "--run", "net"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("train.py: net/solver.prototxt: lies in the run's folder")
    assert {file: file.read_bytes() for file in (tmp_path / "net").iterdir()} == content


def test_stock_caffe_trains_the_network_beside_its_solver(repository: Path, small: Path, tmp_path: Path) -> None:
    """As docs/editing_networks.md says; here the data are named as where they lie within the repository."""
    shutil.copytree(small / "net", tmp_path / "my_net")
    network = tmp_path / "my_net/train_val.prototxt"
    network.write_text(network.read_text().replace(f"{small}/data", "data"))
    (tmp_path / "data").symlink_to(small / "data")
    (tmp_path / "runs").mkdir()
    command = [repository / "build/cpu/bin/caffe", "train", "-solver", "my_net/solver.prototxt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/conv_small_data_iter_2.caffemodel").is_file()


@pytest.mark.parametrize("ignored", [255, 200, 3])
def test_every_place_knows_the_ignored_label(tmp_path: Path, ignored: int) -> None:
    splits = {split: {"count": 2, "sha256": ""} for split in ("train", "test")}
    write_dataset_json(tmp_path / "data", splits=splits, ignore_label=ignored)
    command = ("--model", "conv_small", "--dataset", str(tmp_path / "data"), "--out", str(tmp_path / "net"))
    assert run(main, make_parser(), command) == 0
    layers = read(tmp_path / "net/train_val.prototxt", caffe_pb2.NetParameter()).layer
    places = [layer.segmentation_data_param.ignore_label for layer in layers if layer.type == "SegmentationData"]
    places += [layer.loss_param.ignore_label for layer in layers if layer.type.endswith("Loss")]
    places += [layer.accuracy_param.ignore_label for layer in layers if layer.type == "Accuracy"]
    assert places == [ignored] * 4  # two data layers, one loss for both phases, one accuracy


def crf_of(file: Path) -> object:
    """The DenseCRF layer that a network ends in."""
    *_, before, last = read(file, caffe_pb2.NetParameter()).layer
    assert last.type == "DenseCRF" and list(last.bottom) == [before.top[0], "data"]
    assert list(last.top) == ["prob"]
    return last


def test_deploy_crf_is_the_deploy_network_with_the_papers_crf(repository: Path) -> None:
    for item in SHIPPED:
        folder = repository / "prototxt" / item.model / item.data.name
        if MODELS[item.model].trained_crf is not None:
            continue
        plain = read(folder / "deploy.prototxt", caffe_pb2.NetParameter())
        assert plain.layer[-1].type == "Softmax"
        with_crf = read(folder / "deploy_crf.prototxt", caffe_pb2.NetParameter())
        assert list(with_crf.layer)[:-1] == list(plain.layer)[:-1]
        crf = crf_of(folder / "deploy_crf.prototxt").dense_crf_param
        expected = {"h_renet_released": (5, 3, 3, 5, 80, 3), "deeplab_largefov": (10, 3, 3, 4, 121, 5)}
        assert (
            *(crf.max_iter, crf.pos_w, crf.pos_xy_std),
            *(crf.bi_w, crf.bi_xy_std, crf.bi_rgb_std),
        ) == expected.get(item.model, (2, 3, 3, 5, 80, 3))
        released = item.model == "h_renet_released"
        transform = plain.layer[0].transform_param
        assert list(crf.mean_value) == ([] if released else list(transform.mean_value))
        assert crf.scale == transform.scale and not crf.learn
        of_release = caffe_pb2.DenseCRFParameter.AFTER, caffe_pb2.DenseCRFParameter.RGB
        usual = caffe_pb2.DenseCRFParameter.SYMMETRIC, caffe_pb2.DenseCRFParameter.BGR
        assert (crf.normalization, crf.order) == (of_release if released else usual)


def test_a_network_with_a_crf_gives_probabilities_of_the_inputs_size(
    repository: Path, dataset: Path, tmp_path: Path
) -> None:
    folder = deploy_of("conv_small", repository, dataset, tmp_path).parent
    network = caffe.Net(str(folder / "deploy_crf.prototxt"), caffe.TEST)
    plain = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    plain.share_with(network)
    for size in ((1, 3, 33, 47), (2, 3, 32, 48)):
        values = np.random.default_rng(0).uniform(-0.5, 0.5, size)
        results = []
        for each in (network, plain):
            each.blobs["data"].reshape(*size)
            each.blobs["data"].data[...] = values
            results.append(each.forward()["prob"].copy())
        assert results[0].shape == (size[0], 5, *size[2:])
        assert np.allclose(results[0].sum(axis=1), 1, atol=1e-5)
        assert np.abs(results[0] - results[1]).max() > 1e-3


def test_a_network_that_is_trained_with_its_crf_ends_in_it(repository: Path) -> None:
    folder = repository / "prototxt/conv_small_crf/synthetic_scenes"
    trained = next(
        layer
        for layer in read(folder / "train_val.prototxt", caffe_pb2.NetParameter()).layer
        if layer.type == "DenseCRF"
    )
    deployed = crf_of(folder / "deploy.prototxt")
    assert not (folder / "deploy_crf.prototxt").exists()
    for crf in (trained.dense_crf_param, deployed.dense_crf_param):
        assert crf.learn and crf.bi_rgb_std == 12
    assert trained.dense_crf_param.output == caffe_pb2.DenseCRFParameter.LOG_PROBABILITY
    assert [param.decay_mult for param in trained.param] == [0, 0, 0]
