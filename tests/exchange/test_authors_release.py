"""The authors' own networks, imported: small ones in their prototxts' words with their blobs, beside a run of their
equations in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from import_helpers import imported, refused, write_weights

from renet.exchange.authors_release import lstm_blobs
from renet.networks.model_folder import read_model_folder

Array = np.ndarray
Blobs = dict[str, list[Array]]
WIDTHS, HEAD, UNITS, CLASSES = (3, 4, 5, 6, 6), 7, 4, 21
SIZE = (21, 34)


# ------------------------------------------------------------------------------------------- their equations, in NumPy


def convolved(x: Array, weights: Array, bias: Array, pad: int = 0, dilation: int = 1) -> Array:
    """C x H x W, stride 1."""
    side = weights.shape[2]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    reach = dilation * (side - 1)
    height, width = padded.shape[1] - reach, padded.shape[2] - reach
    result = np.zeros((weights.shape[0], height, width)) + bias.reshape(-1, 1, 1)
    for row in range(side):
        for column in range(side):
            seen = padded[:, row * dilation :, column * dilation :][:, :height, :width]
            result += np.tensordot(weights[:, :, row, column].astype(float), seen, 1)
    return result


def pooled(x: Array, kernel: int, stride: int, pad: int = 0) -> Array:
    """The largest value of each window; windows that begin on the map are all there, as Caffe rounds up."""
    sides = [-(-(side + 2 * pad - kernel) // stride) + 1 for side in x.shape[1:]]
    padded = np.full((x.shape[0], *(side + 2 * pad + kernel for side in x.shape[1:])), -np.inf)
    padded[:, pad : pad + x.shape[1], pad : pad + x.shape[2]] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
    return windows[:, ::stride, ::stride][:, : sides[0], : sides[1]].max((3, 4))


def normalised(x: Array, mean: Array, variance: Array, count: Array) -> Array:
    mean, variance = (each.reshape(-1, 1, 1) / count[0] for each in (mean, variance))
    return (x - mean) / np.sqrt(variance + 1e-5)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def scanned(sequence: Array, blobs: list[Array], peephole: bool) -> Array:
    """One scan over T x lines x P with 11 blobs: i_t, c_t, f_t, s_t = f s + i c, o_t of the new s, h = o tanh(s)."""
    w_i, w_c, w_o, w_f, p_i, p_o, p_f, b_i, b_c, b_o, b_f = (blob.astype(float) for blob in blobs)
    p_i, p_o, p_f = (peephole * each for each in (p_i, p_o, p_f))
    h = s = np.zeros((sequence.shape[1], b_i.size))
    output = []
    for x in sequence:
        both = np.concatenate([x, h], axis=1)
        i = sigmoid(both @ w_i.T + s @ p_i.T + b_i)
        f = sigmoid(both @ w_f.T + s @ p_f.T + b_f)
        c = np.tanh(both @ w_c.T + b_c)
        s = f * s + i * c
        o = sigmoid(both @ w_o.T + s @ p_o.T + b_o)
        h = o * np.tanh(s)
        output.append(h)
    return np.array(output)


def swept(x: Array, blobs: list[Array], vertical: bool, patch: int = 1, peephole: bool = False) -> Array:
    """Their ReNet LSTM layer on C x H x W: patches are channel, row, column, the forward scan comes first."""
    channels, height, width = x.shape
    patches = x.reshape(channels, height // patch, patch, width // patch, patch).transpose(1, 3, 0, 2, 4)
    patches = patches.reshape(height // patch, width // patch, -1)
    sequence = patches if vertical else patches.transpose(1, 0, 2)
    forward = scanned(sequence, blobs[:11], peephole)
    backward = scanned(sequence[::-1], blobs[11:], peephole)[::-1]
    both = np.concatenate([forward, backward], axis=2)
    return both.transpose(2, 0, 1) if vertical else both.transpose(2, 1, 0)


def resized(x: Array, height: int, width: int) -> Array:
    """Bilinear, corners on corners."""

    def along(values: Array, axis: int, size: int) -> Array:
        places = np.linspace(0, values.shape[axis] - 1, size)
        low = np.clip(places.astype(int), 0, max(0, values.shape[axis] - 2))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (places - low).reshape([-1 if each == axis else 1 for each in range(3)])
        return values.take(low, axis) * (1 - share) + values.take(high, axis) * share

    return along(along(x, 1, height), 2, width)


def softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=0))
    return powers / powers.sum(axis=0)


# --------------------------------------------------------------------------------------------------- their networks


def lstm_layer(
    name: str, bottom: str, direction: str, units: int, patch: int = 1, more: str = "peephole: false"
) -> str:
    rates = ("param { lr_mult: 10 decay_mult: 1 } " * 7 + "param { lr_mult: 20 decay_mult: 0 } " * 4) * 2
    return f"""
layer {{
  name: "{name}" type: "ReNetLSTM" bottom: "{bottom}" top: "{name}" {rates}
  renet_lstm_param {{
    direction: {direction} num_output: {units} patch_width: {patch} patch_height: {patch} {more}
    general_weight_filler {{ type: "uniform" min: -0.2 max: 0.2 }} general_bias_filler {{ type: "constant" value: 0. }}
    forget_gate_bias_filler {{ type: "constant" value: 2. }}
  }}
}}"""


def convolution(name: str, bottom: str, channels: int, more: str) -> str:
    rates = "param { lr_mult: 10 decay_mult: 1 } param { lr_mult: 20 decay_mult: 0 }"
    return (
        f'layer {{ bottom: "{bottom}" top: "{name}" name: "{name}" type: "Convolution" {rates}\n'
        f"  convolution_param {{ num_output: {channels} {more} }} }}\n"
    )


def relu(blob: str, name: str) -> str:
    return f'layer {{ bottom: "{blob}" top: "{blob}" name: "{name}" type: "ReLU" }}\n'


def h_renet(widths: tuple[int, ...] = WIDTHS, head: int = HEAD, units: int = UNITS) -> str:
    """The deploy file of 2016, with fewer channels."""
    text = 'name: "VGG_ILSVRC_16_layer"\ninput: "data"\n' + "input_dim: {} input_dim: {} input_dim: {} input_dim: {}\n"
    text = text.format(1, 3, *SIZE)
    last = "data"
    for stage, (depth, channels) in enumerate(zip((2, 2, 3, 3, 3), widths, strict=True), 1):
        for index in range(1, depth + 1):
            name = f"conv{stage}_{index}"
            window = "pad: 1 kernel_size: 3" if stage < 5 else "#pad: 1\n    pad: 2 dilation: 2 kernel_size: 3"
            text += convolution(name, last, channels, window)
            text += relu(name, f"Relu{stage}_{index}") if name != "conv5_3" else ""
            last = name
        window = "kernel_size: 2 stride: 2" if stage < 4 else "kernel_size: 3 stride: 1 pad: 1 #stride: 2\n"
        text += f'layer {{ bottom: "{last}" top: "pool{stage}" name: "pool{stage}" type: "Pooling"'
        text += f" pooling_param {{ pool: MAX {window} }} }}\n"
        last = f"pool{stage}"
    text += convolution("fc6_new", "pool5", head, "kernel_size: 3 pad: 12 dilation: 12") + relu("fc6_new", "Relu6")
    text += 'layer { bottom: "fc6_new" top: "fc6_new" name: "drop6" type: "Dropout" }\n'
    text += convolution("fc7_new", "fc6_new", head, "kernel_size: 1")
    for name in ("pool4", "pool5", "fc7_new"):
        for phase, of_all in (("TRAIN", "false"), ("TEST", "true")):
            text += f'layer {{ bottom: "{name}" top: "{name}_batch_norm" name: "{name}_batch_norm" type: "BatchNorm"'
            text += f" include {{ phase: {phase} }} batch_norm_param {{ use_global_stats: {of_all} }} }}\n"
        text += relu(f"{name}_batch_norm", "Relu7")
    joined = "pool4_pool5_fc7_batch_norm"
    text += (
        f'layer {{ bottom: "pool4_batch_norm" bottom: "pool5_batch_norm" bottom: "fc7_new_batch_norm" top: "{joined}"'
    )
    text += f' name: "{joined}" type: "Concat" concat_param {{ axis: 1 }} }}\n'
    text += lstm_layer("renet_lstm_6_vertical", joined, "Y_DIR", units)
    text += lstm_layer("renet_lstm_6_horizontal", "renet_lstm_6_vertical", "X_DIR", units)
    text += convolution("conv6", "renet_lstm_6_horizontal", CLASSES, "kernel_size: 1 stride: 1")
    return (
        text
        + """
layer {
  name: "bilinear_interpolation" type: "BilinearInterpolation" bottom: "conv6" bottom: "data" top: "conv6_full_res"
}
layer { name: "splitting" bottom: "conv6_full_res" top: "unary" top: "Q0" type: "Split" }
layer {
  name: "inference1" type: "DenseCRFMeanfield" bottom: "unary" bottom: "Q0" bottom: "data" top: "inference1"
  dense_crf_meanfield_param {
    num_iterations: 5 theta_alpha: 80 # bilateral kernel, position std dev
    theta_beta: 4 theta_gamma: 2 bilateral_filter_weight: 5 spatial_filter_weight: 3
  }
}
layer { bottom: "inference1" top: "prob" name: "prob" type: "Softmax" }
"""
    )


def n_renet(labels: int = 9) -> str:
    """The training file of 2015, with fewer units."""
    data = ""
    for phase, mirror in (("TRAIN", "true"), ("TEST", "false")):
        data += f"""
layer {{
  name: "mnist" type: "ImageSegUniformSizeData" top: "data" top: "label" include {{ phase: {phase} }}
  transform_param {{
    crop_height: 12 crop_width: 15 mean_value: 104 mean_value: 117 mean_value: 123 mirror: {mirror} scale: 0.0078125
  }}
  data_param {{ source: "/somewhere/train_0.sstable" batch_size: 20 backend: SSTABLE }}
}}"""
    text = 'name: "ReNet 2 layer"' + data
    last = "data"
    for number, (units, channels) in enumerate(((3, 5), (4, 6), (2, labels)), 1):
        text += lstm_layer(f"renet_lstm_{number}_vertical", last, "Y_DIR", units, 3 if number == 1 else 1)
        text += lstm_layer(f"renet_lstm_{number}_horizontal", f"renet_lstm_{number}_vertical", "X_DIR", units)
        text += convolution(f"conv{number}", f"renet_lstm_{number}_horizontal", channels, "kernel_size: 1 stride: 1")
        last = f"conv{number}"
        text += f'layer {{ name: "tanh1" type: "TanH" bottom: "{last}" top: "{last}" }}\n' if number < 3 else ""
    return (
        text
        + """
layer {
  name: "bilinear_interpolation" type: "BilinearInterpolation" bottom: "conv3" top: "conv3_full_res"
  bilinear_interpolation_param { interpolation_factor: 3 }
}
layer {
  name: "cross_entropy_loss" type: "SoftmaxWithLoss" bottom: "conv3_full_res" bottom: "label" top: "cross_entropy_loss"
  loss_weight: 1 softmax_param { axis: 1 } loss_param { ignore_label: 0 }
}
layer {
  name: "accuracy" type: "Accuracy" bottom: "conv3_full_res" bottom: "label" top: "accuracy" include { phase: TEST }
  accuracy_param { axis: 1 ignore_label: 0 }
}"""
    )


def lstm_weights(random: np.random.Generator, inputs: int, units: int, peepholes: str = "zero") -> list[Array]:
    made = []
    for _ in range(2):
        made += [random.normal(0, 0.5, (units, inputs + units)) for _ in range(4)]
        matrices = random.normal(0, 0.5, (3, units, units))
        made += list(matrices * {"zero": 0, "diagonal": np.eye(units), "full": 1}[peepholes])
        made += [random.normal(0, 0.5, units) for _ in range(4)]
    return [blob.astype(np.float32) for blob in made]


def kernel(random: np.random.Generator, outputs: int, inputs: int, side: int) -> list[Array]:
    weights = random.normal(0, (2 / (inputs * side**2)) ** 0.5, (outputs, inputs, side, side))
    return [weights.astype(np.float32), random.normal(0, 0.1, outputs).astype(np.float32)]


def h_renet_weights() -> Blobs:
    random = np.random.default_rng(1)
    blobs, inputs = {}, 3
    for stage, (depth, channels) in enumerate(zip((2, 2, 3, 3, 3), WIDTHS, strict=True), 1):
        for index in range(1, depth + 1):
            blobs[f"conv{stage}_{index}"] = kernel(random, channels, inputs, 3)
            inputs = channels
    blobs["fc6_new"] = kernel(random, HEAD, inputs, 3)
    blobs["fc7_new"] = kernel(random, HEAD, HEAD, 1)
    sizes = {"pool4": WIDTHS[3], "pool5": WIDTHS[4], "fc7_new": HEAD}
    for name, size in sizes.items():
        statistics = [random.normal(0, 9, size), random.uniform(4, 9, size) * 99, [3.0]]
        blobs[f"{name}_batch_norm"] = [np.array(each, np.float32) for each in statistics]
    blobs["renet_lstm_6_vertical"] = lstm_weights(random, sum(sizes.values()), UNITS)
    blobs["renet_lstm_6_horizontal"] = lstm_weights(random, 2 * UNITS, UNITS)
    blobs["conv6"] = [4 * each for each in kernel(random, CLASSES, 2 * UNITS, 1)]  # probabilities that differ
    potts = -np.eye(CLASSES, dtype=np.float32).reshape(1, 1, CLASSES, CLASSES)
    blobs["inference1"] = [np.full((1, 1, 1, 1), weight, np.float32) for weight in (2.5, 6)] + [potts]
    return blobs


def h_renet_scores(image: Array, blobs: Blobs) -> Array:
    x, pools = image, {}
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for index in range(1, depth + 1):
            name = f"conv{stage}_{index}"
            x = convolved(x, *blobs[name], pad=2 if stage == 5 else 1, dilation=2 if stage == 5 else 1)
            x = x if name == "conv5_3" else np.maximum(x, 0)
        x = pools[f"pool{stage}"] = pooled(x, 2, 2) if stage < 4 else pooled(x, 3, 1, 1)
    head = np.maximum(convolved(x, *blobs["fc6_new"], pad=12, dilation=12), 0)
    seen = {"pool4": pools["pool4"], "pool5": x, "fc7_new": convolved(head, *blobs["fc7_new"])}
    features = [np.maximum(normalised(each, *blobs[f"{name}_batch_norm"]), 0) for name, each in seen.items()]
    x = swept(np.concatenate(features), blobs["renet_lstm_6_vertical"], vertical=True)
    x = swept(x, blobs["renet_lstm_6_horizontal"], vertical=False)
    return resized(convolved(x, *blobs["conv6"]), *SIZE)


def n_renet_weights(peepholes: str = "zero") -> Blobs:
    random = np.random.default_rng(2)
    blobs, inputs = {}, 27
    for number, (units, channels) in enumerate(((3, 5), (4, 6), (2, 9)), 1):
        blobs[f"renet_lstm_{number}_vertical"] = lstm_weights(random, inputs, units, peepholes)
        blobs[f"renet_lstm_{number}_horizontal"] = lstm_weights(random, 2 * units, units, peepholes)
        blobs[f"conv{number}"] = kernel(random, channels, 2 * units, 1)
        inputs = channels
    return blobs


def n_renet_scores(image: Array, blobs: Blobs, peephole: bool = False) -> Array:
    x = image
    for number in (1, 2, 3):
        x = swept(x, blobs[f"renet_lstm_{number}_vertical"], True, 3 if number == 1 else 1, peephole)
        x = swept(x, blobs[f"renet_lstm_{number}_horizontal"], False, 1, peephole)
        x = convolved(x, *blobs[f"conv{number}"])
        x = np.tanh(x) if number < 3 else x
    return resized(x, *image.shape[1:])


# ------------------------------------------------------------------------------------------------------------- tests


def described(file: Path) -> caffe_pb2.NetParameter:
    return text_format.Parse(file.read_text(), caffe_pb2.NetParameter())


def probabilities(folder: Path, image: Array) -> Array:
    network = read_model_folder(folder)
    built = caffe.Net(str(network.deploy), str(network.weights), caffe.TEST)
    built.blobs["data"].reshape(1, *image.shape)
    built.blobs["data"].data[...] = image
    return built.forward()["prob"][0]


@pytest.fixture(scope="module")
def h_renet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H-ReNet of 2016 with their blobs, imported."""
    place = tmp_path_factory.mktemp("h_renet")
    (place / "deploy.prototxt").write_text(h_renet())
    write_weights(place / "h_renet_iter_36000.caffemodel", h_renet_weights())
    imported(
        place / "deploy.prototxt", place / "h_renet_iter_36000.caffemodel", place / "model", "--dataset", "voc2012"
    )
    return place / "model"


def test_h_renet_of_2016_computes_as_theirs(h_renet_folder: Path) -> None:
    image = np.random.default_rng(3).uniform(-120, 140, (3, *SIZE))
    expected = softmax(h_renet_scores(image, h_renet_weights()))
    assert expected.max() > 0.2 and expected.std() > 0.01
    assert np.abs(probabilities(h_renet_folder, image) - expected).max() < 1e-5


def test_h_renet_of_2016_becomes_the_released_model(h_renet_folder: Path, repository: Path) -> None:
    """Names, types and order are those of h_renet_released, so that its weights start a training there."""
    for file in ("deploy.prototxt", "deploy_crf.prototxt"):
        ours = described(repository / "prototxt/h_renet_released/voc2012" / file)
        theirs = described(h_renet_folder / file)
        layers = [
            [(layer.name, layer.type, list(layer.bottom), list(layer.top)) for layer in each.layer]
            for each in (theirs, ours)
        ]
        assert layers[0] == layers[1]
    assert list(theirs.layer[0].transform_param.mean_value) == [104, 117, 123]
    crf = theirs.layer[-1].dense_crf_param
    assert (crf.max_iter, crf.pos_xy_std, crf.bi_xy_std, crf.bi_rgb_std) == (5, 2, 80, 4)
    assert (crf.pos_w, crf.bi_w) == (2.5, 6)  # as the weights have them
    released = ours.layer[-1].dense_crf_param
    assert (crf.normalization, crf.order) == (released.normalization, released.order) == (crf.AFTER, crf.RGB)
    assert not crf.mean_value and not released.mean_value


def test_n_renet_of_2015_computes_as_theirs(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "model.prototxt").write_text(n_renet())
    write_weights(tmp_path / "w.caffemodel", n_renet_weights())
    said = imported(tmp_path / "model.prototxt", tmp_path / "w.caffemodel", tmp_path / "out")
    assert "without the row of the label 0" in said
    image = np.random.default_rng(4).uniform(-1, 1, (3, 12, 15))
    expected = softmax(n_renet_scores(image, n_renet_weights())[1:])
    assert np.abs(probabilities(tmp_path / "out", image) - expected).max() < 1e-5
    ours = described(repository / "prototxt/n_renet_released/stanford_background/deploy.prototxt")
    theirs = described(tmp_path / "out/deploy.prototxt")
    assert [(each.name, each.type) for each in theirs.layer] == [(each.name, each.type) for each in ours.layer]
    transform = theirs.layer[0].transform_param
    assert (list(transform.mean_value), transform.scale) == ([104, 117, 123], 1 / 128)


def test_diagonal_peepholes_are_taken_and_full_ones_refused(tmp_path: Path) -> None:
    text = n_renet().replace("peephole: false", "")  # on, by default
    (tmp_path / "model.prototxt").write_text(text)
    write_weights(tmp_path / "w.caffemodel", n_renet_weights("diagonal"))
    imported(tmp_path / "model.prototxt", tmp_path / "w.caffemodel", tmp_path / "out")
    image = np.random.default_rng(5).uniform(-1, 1, (3, 12, 15))
    expected = softmax(n_renet_scores(image, n_renet_weights("diagonal"), peephole=True)[1:])
    assert np.abs(probabilities(tmp_path / "out", image) - expected).max() < 1e-5
    write_weights(tmp_path / "full.caffemodel", n_renet_weights("full"))
    line = refused(tmp_path / "model.prototxt", tmp_path / "full.caffemodel", tmp_path / "none")
    assert "'renet_lstm_1_vertical' has full peephole matrices, 3 x 3" in line


def test_peepholes_that_are_off_do_not_count() -> None:
    random = np.random.default_rng(6)
    on, off = (lstm_weights(random, 2, 3, kind) for kind in ("full", "zero"))
    assert len(lstm_blobs(on, False, "x")) == len(lstm_blobs(off, False, "x")) == 6
    assert [blob.shape for blob in lstm_blobs(off, True, "x")] == [(12, 2), (12,), (12, 3), (3, 3)] * 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda blobs: blobs["renet_lstm_6_vertical"].pop(), "has 21 blobs; the authors' ReNet LSTM has 22"),
        (lambda blobs: blobs["inference1"][2].__imul__(2), "has learnt a compatibility of labels"),
        (lambda blobs: blobs.pop("conv6"), "no weights for 1 of 21 layers: conv8"),
    ],
)
def test_weights_that_do_not_serve(tmp_path: Path, change: Callable[[Blobs], object], complaint: str) -> None:
    (tmp_path / "deploy.prototxt").write_text(h_renet())
    blobs = h_renet_weights()
    change(blobs)
    write_weights(tmp_path / "w.caffemodel", blobs)
    assert complaint in refused(tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel", tmp_path / "out")
