"""tools/convert_weights.py: the same values in every format, and back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from safetensors.numpy import load_file, save_file
from segmentation_helpers import call_tool, only_line, write_weights

from renet.common.errors import UserError
from renet.exchange.weight_tensors import convert_weights, read_weights

RANDOM = np.random.default_rng(3)
BLOBS = {
    "conv/1": [RANDOM.normal(size=(4, 3, 2, 2)).astype(np.float32), RANDOM.normal(size=4).astype(np.float32)],
    "a.norm": [RANDOM.normal(size=3).astype(np.float32) for _ in range(12)],  # .10 is after .9
}
EXPECTED = {f"{layer}.{number}": blob for layer, blobs in BLOBS.items() for number, blob in enumerate(blobs)}


def assert_same(tensors: dict[str, np.ndarray]) -> None:
    assert tensors.keys() == EXPECTED.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, EXPECTED[name], strict=True)


@pytest.mark.parametrize(
    ("first", "second"), [*itertools.product((".caffemodel", ".h5"), (".npz", ".safetensors", ".caffemodel"))]
)
def test_there_and_back(first: str, second: str, tmp_path: Path) -> None:
    # In HDF5 a slash would make two groups of a name, which Caffe itself does not write
    names = {layer: layer.replace("/", "_") if first == ".h5" else layer for layer in BLOBS}
    source = write_weights(tmp_path / f"source{first}", {names[layer]: blobs for layer, blobs in BLOBS.items()})
    convert_weights(source, tmp_path / f"other{second}")
    convert_weights(tmp_path / f"other{second}", tmp_path / "back.caffemodel")
    found = read_weights(tmp_path / "back.caffemodel").tensors
    assert_same({name.replace("conv_1", "conv/1"): tensor for name, tensor in found.items()})
    if first == ".caffemodel":
        assert (tmp_path / "back.caffemodel").read_bytes() == _without_name(source)


def _without_name(file: Path) -> bytes:
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    network.ClearField("name")
    return network.SerializeToString()


def test_other_programs_read_and_write_it(tmp_path: Path) -> None:
    source = write_weights(tmp_path / "net.caffemodel", BLOBS)
    for name in ("net.npz", "net.safetensors"):
        done = call_tool("convert_weights.py", "--weights", source, "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 layers, 14 tensors, 88 values" in done.stdout
    assert_same(load_file(tmp_path / "net.safetensors"))
    with np.load(tmp_path / "net.npz") as arrays:
        assert_same({name: arrays[name] for name in arrays if name != "metadata"})
    np.savez(tmp_path / "theirs.npz", **EXPECTED)
    save_file(EXPECTED, tmp_path / "theirs.safetensors")
    for name in ("theirs.npz", "theirs.safetensors"):
        convert_weights(tmp_path / name, tmp_path / "theirs.caffemodel")
        assert_same(dict(read_weights(tmp_path / "theirs.caffemodel").tensors))


def test_shapes_of_before_2015_come_back_as_they_were(tmp_path: Path) -> None:
    network = caffe_pb2.NetParameter()
    layer = network.layers.add(name="old")
    blob = layer.blobs.add(num=1, channels=1, height=1, width=2)
    blob.data.extend([1, 2])
    (tmp_path / "old.caffemodel").write_bytes(network.SerializeToString())
    convert_weights(tmp_path / "old.caffemodel", tmp_path / "old.safetensors")
    convert_weights(tmp_path / "old.safetensors", tmp_path / "new.caffemodel")
    written = caffe_pb2.NetParameter.FromString((tmp_path / "new.caffemodel").read_bytes())
    assert written.layer[0].blobs[0] == blob


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.npz", None, "no such file"),
        ("net.pth", {"conv.0": np.ones(1)}, "are read as .caffemodel, .h5"),
        ("net.npz", {"conv.weight": np.ones(1)}, "'conv.weight' is not LAYER.N"),
        ("net.npz", {"conv.0": np.ones(1), "conv.2": np.ones(1)}, "numbered from 0"),
        ("net.npz", {"conv.0": np.ones(1, int)}, "not of floating point"),
        ("net.npz", {"conv.0": np.array([{}])}, "not NumPy's .npz of arrays"),
        ("net.npz", {}, "no tensors"),
        ("net.npz", b"PK broken", "not NumPy's .npz"),
        ("net.safetensors", b"12345678 broken", "not safetensors"),
        ("net.caffemodel", b"broken", "not a Caffe model"),
        ("net.h5", b"\x89HDF\r\n\x1a\nbroken", "HDF5"),
    ],
    ids=str,
)
def test_what_cannot_be_read(
    name: str, content: dict[str, np.ndarray] | bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        with open(file, "wb") as stream:
            np.savez(stream, **content)
    with pytest.raises(UserError, match=message) as caught:
        convert_weights(file, tmp_path / "out.caffemodel")
    assert name in str(caught.value)
    assert not (tmp_path / "out.caffemodel").exists()


@pytest.mark.parametrize(("out", "message"), [("net.txt", "are written as"), ("no/net.npz", "there is no folder no")])
def test_what_cannot_be_written(out: str, message: str, tmp_path: Path) -> None:
    source = write_weights(tmp_path / "net.caffemodel", BLOBS)
    done = call_tool("convert_weights.py", "--weights", source, "--out", out, cwd=tmp_path)
    assert message in only_line(done, "convert_weights.py")
