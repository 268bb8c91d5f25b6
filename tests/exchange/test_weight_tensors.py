"""tools/convert_weights.py: the same values in every format, and back."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from safetensors.numpy import load_file, save_file
from segmentation_helpers import call_tool, only_line, write_weights

from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.exchange.name_table import TABLES, apply_table, find_table, read_table
from renet.exchange.weight_tensors import convert_weights, read_weights
from renet.weights.vgg16 import from_torchvision
from renet.weights.vgg16_layers import CHANNELS

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


def test_torchvisions_vgg16_becomes_what_the_converter_makes(tmp_path: Path) -> None:
    state, arrays = {}, {}
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    for number, (place, (outputs, inputs)) in enumerate(zip(places, CHANNELS.values(), strict=True)):
        kernels = RANDOM.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
        biases = RANDOM.normal(size=outputs).astype(np.float32)
        state |= {f"features.{place}.weight": kernels, f"features.{place}.bias": biases}
        arrays[f"Conv_{number}"] = {"kernel": kernels.transpose(2, 3, 1, 0), "bias": biases}
    save_file(state, tmp_path / "vgg16.safetensors")
    weights = convert_weights(
        tmp_path / "vgg16.safetensors", tmp_path / "vgg16.caffemodel", find_table("vgg16_torchvision")
    )
    expected = from_torchvision(arrays, "arrays")
    assert len(weights.tensors) == 2 * len(expected)
    for name, (kernels, biases) in expected.items():
        np.testing.assert_allclose(weights.tensors[f"{name}.0"], kernels, rtol=1e-6)
        np.testing.assert_array_equal(weights.tensors[f"{name}.1"], biases)


def test_network_of_another_program_gives_its_values_in_caffe(tmp_path: Path) -> None:
    """Convolution, batch normalisation, matrix on R, G, B of 0..1, as PyTorch has them."""
    state = {
        "conv.weight": RANDOM.normal(size=(4, 3, 1, 1)),
        "bn.running_mean": RANDOM.normal(size=4),
        "bn.running_var": RANDOM.uniform(1, 2, 4),
        "bn.weight": RANDOM.normal(size=4),
        "bn.bias": RANDOM.normal(size=4),
        "head.weight": RANDOM.normal(size=(5, 4 * 2 * 3)),
        "head.bias": RANDOM.normal(size=5),
        "bn.num_batches_tracked": np.array(7),
    }
    np.savez(tmp_path / "net.npz", **state)
    (tmp_path / "names.txt").write_text(
        "c.0 = conv.weight / 58.395,57.12,57.375 reversed  # B, G, R\nb.0 = bn.running_mean\nb.1 = bn.running_var\n"
        "b.2 = 1\n\ns.0 = bn.weight\ns.1 = bn.bias\nh.0 = head.weight as 5x4x2x3\nh.1 = head.bias\n"
    )
    done = call_tool(
        *("convert_weights.py", "--weights", "net.npz", "--names", "names.txt", "--out", "net.caffemodel"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 2 dim: 3 } '
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 '
        'kernel_size: 1 bias_term: false } } layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" } '
        'layer { name: "s" type: "Scale" bottom: "b" top: "s" scale_param { bias_term: true } } '
        'layer { name: "h" type: "Convolution" bottom: "s" top: "h" convolution_param { num_output: 5 kernel_h: 2 '
        "kernel_w: 3 } }"
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel"), caffe.TEST)
    rgb = RANDOM.integers(0, 256, (3, 2, 3))
    mean, deviation = (np.array(each).reshape(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    net.blobs["data"].data[0] = (rgb - 255 * mean)[::-1]
    values = np.einsum("oc,chw->ohw", state["conv.weight"][:, :, 0, 0], (rgb / 255 - mean) / deviation)
    column = {name: state[f"bn.{name}"].reshape(4, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")}
    values = (values - column["running_mean"]) / np.sqrt(column["running_var"] + 1e-5)
    values = values * column["weight"] + column["bias"]
    expected = state["head.weight"] @ values.ravel() + state["head.bias"]
    np.testing.assert_allclose(net.forward()["h"].ravel(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("c.0 conv", "names.txt:1: expected LAYER.N = TENSOR"),
        ("# none", "has no line"),
        ("\nc.x = conv", "names.txt:2: 'c.x' is not LAYER.N"),
        ("c.0 = conv\nc.0 = conv", "names.txt:2: 'c.0' is there twice"),
        ("c.0 = conv / 1,0,1", "division by 0"),
        ("c.0 = other", "net.npz: c.0: there is no tensor 'other'"),
        ("c.0 = conv / 1,2", "net.npz: c.0: 'conv' is 4 x 3 x 1 x 1, which has not 2 input channels"),
        ("c.0 = bias reversed", "net.npz: c.0: 'bias' is 4, which has no input channels"),
        ("c.0 = conv as 4x4", "net.npz: c.0: cannot reshape"),
        ("c.0 = conv every 1,2", "net.npz: c.0: 'conv' is 4 x 3 x 1 x 1, which has not 2 axes"),
        ("c.0 = conv every 0,1,1,1", "names.txt:1: expected LAYER.N = TENSOR"),
        ("c.1 = bias", "names.txt: the layer 'c' has c.1; its tensors are numbered from 0"),
    ],
    ids=str,
)
def test_bad_tables(table: str, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", conv=np.ones((4, 3, 1, 1)), bias=np.ones(4))
    (tmp_path / "names.txt").write_text(table)
    with pytest.raises(UserError, match=re.escape(message)):
        convert_weights(tmp_path / "net.npz", tmp_path / "out.caffemodel", tmp_path / "names.txt")


def test_a_table_needs_tensors_and_must_be_there(tmp_path: Path) -> None:
    source = write_weights(tmp_path / "net.caffemodel", BLOBS)
    with pytest.raises(UserError, match=r"net\.caffemodel: conv1_1\.0: there is no tensor 'features\.0\.weight'"):
        convert_weights(source, tmp_path / "out.npz", find_table("vgg16_torchvision"))
    with pytest.raises(
        UserError, match=r"nothing: no such file, nor one of the shipped tables \(.*vgg16_fc, .*vgg16_torchvision,"
    ):
        find_table("nothing")


@pytest.mark.parametrize("name", [file.stem for file in sorted(TABLES.glob("vgg16*.txt"))])
def test_shipped_tables_of_vgg16_make_the_layers_that_networks_start_from(name: str) -> None:
    tensors = {}
    torchs = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    for number, (layer, shape) in zip(torchs, CHANNELS.items(), strict=True):
        weights, bias = (f"features.{number}.weight", f"features.{number}.bias")
        if "torchvision" not in name:
            weights, bias = f"{layer}.0", f"{layer}.1"
        tensors |= {weights: nothing(*shape, 3, 3), bias: nothing(shape[0])}
    layers = (
        ("classifier.{}.weight", "classifier.{}.bias", 0, 3) if "torchvision" in name else ("fc{}.0", "fc{}.1", 6, 7)
    )
    for number, inputs in zip(layers[2:], (25088, 4096), strict=True):
        tensors |= {layers[0].format(number): nothing(4096, inputs), layers[1].format(number): nothing(4096)}
    made = {blob: value.shape for blob, value in apply_table(read_table(find_table(name)), tensors, Path()).items()}
    model = "fcn8s" if name.endswith("fc") else "deeplab_largefov" if name.endswith("reduced") else "fcn"
    description = text_format.Parse(
        next((ROOT / "prototxt" / model).glob("*/deploy.prototxt")).read_text(), caffe_pb2.NetParameter()
    )
    channels = {"data": 3}
    for layer in description.layer:
        found = layer.convolution_param
        before = channels[layer.bottom[0]] if layer.bottom else 3
        channels[layer.top[0]] = found.num_output if layer.type == "Convolution" else before
        if f"{layer.name}.0" in made:
            side = found.kernel_size[0]
            assert made.pop(f"{layer.name}.0") == (found.num_output, before, side, side)
            assert made.pop(f"{layer.name}.1") == (found.num_output,)
    assert not made


def nothing(*shape: int) -> np.ndarray:
    """An array that takes no memory."""
    return np.broadcast_to(np.float32(0), shape)


def test_a_table_takes_every_so_manieth_value(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(1, 1, 8, 12)).astype(np.float32)
    source = write_weights(tmp_path / "net.caffemodel", {"fc6": [values]})
    (tmp_path / "names.txt").write_text("fc.0 = fc6.0 as 8x3x2x2 every 4,1,1,2\n")
    made = convert_weights(source, tmp_path / "out.caffemodel", tmp_path / "names.txt").tensors["fc.0"]
    assert np.array_equal(made, values.reshape(8, 3, 2, 2)[::4, :, :, ::2])
