"""What tools/visualize.py shows is what the network computes, and a wrong name or file ends in one line."""

from __future__ import annotations

from pathlib import Path

import caffe
import cv2
import numpy as np
import pytest
from PIL import Image
from segmentation_helpers import REPOSITORY, call_tool, only_line, write_split

from renet.common.errors import UserError
from renet.networks.deploy_network import DeployOptions
from renet.visualization.network_inspector import NetworkInspector, channel_numbers, grey, heat_map, receptive_share

RENET, CONVOLUTIONAL = (
    REPOSITORY / "prototxt" / name / "synthetic_scenes/deploy.prototxt" for name in ("n_renet_small", "conv_small")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks with initial weights, and a picture of 40 x 32."""
    folder = tmp_path_factory.mktemp("visualize")
    caffe.set_mode_cpu()
    for name, model in (("renet", RENET), ("conv", CONVOLUTIONAL)):
        caffe.set_random_seed(7)
        caffe.Net(str(model), caffe.TEST).save(str(folder / f"{name}.caffemodel"))
    picture = np.random.default_rng(1).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "picture.png"), picture)
    return folder


def visualize(folder: Path, command: str, *arguments: object, model: Path = RENET, weights: str = "renet.caffemodel"):
    files = () if command == "receptive" else ("--model", model, "--weights", weights)
    return call_tool("visualize.py", command, *files, *arguments, "--out", "out.png", cwd=folder)


@pytest.mark.parametrize(("model", "weights"), [(RENET, "renet"), (CONVOLUTIONAL, "conv")])
def test_gradient_equals_finite_differences(folder: Path, model: Path, weights: str) -> None:
    network = NetworkInspector(model, folder / f"{weights}.caffemodel")
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 16, 16)).astype(np.float32)
    row, column, label = 7, 9, 4
    network.forward_values(values)
    gradient, _ = network.gradient(row, column, label)
    assert gradient.shape == values.shape
    for _ in range(4):
        direction = rng.normal(size=values.shape).astype(np.float32)
        scores = []
        for step in (0.001, -0.001):  # small, for a ReLU bends where its input changes sign
            network.forward_values(values + step * direction)
            scores.append(float(network.maps(network.score_name())[label, row, column]))
        expected = float((gradient * direction).sum())
        assert (scores[0] - scores[1]) / 0.002 == pytest.approx(expected, rel=0.02, abs=2e-3)


def test_a_renet_pixel_depends_on_the_whole_picture_and_a_convolutional_one_does_not(folder: Path) -> None:
    # a process that has computed a convolution keeps its way of doing so
    caffe.Net(str(CONVOLUTIONAL), caffe.TEST).forward()
    image = np.random.default_rng(3).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    shares = []
    for model, weights in ((RENET, "renet"), (CONVOLUTIONAL, "conv")):
        network = NetworkInspector(model, folder / f"{weights}.caffemodel")
        network.forward(image)
        shares.append(receptive_share(network.sensitivity(48, 64).map))
    assert shares[0] > 0.99 and shares[1] == 33 * 33 / (96 * 128)


def test_the_predicted_class_is_followed_where_none_is_named(folder: Path) -> None:
    network = NetworkInspector(RENET, folder / "renet.caffemodel")
    network.forward(cv2.imread(str(folder / "picture.png")))
    assert network.sensitivity(5, 6).label == network.maps("prob")[:, 5, 6].argmax()


def test_maps_show_the_layers_channels(folder: Path) -> None:
    arguments = ("--image", "picture.png", "--layer", "renet1_vertical", "--channels", "0,2", "--width", 40)
    result = visualize(folder, "maps", *arguments)
    assert result.returncode == 0, result.stderr
    network = NetworkInspector(RENET, folder / "renet.caffemodel")
    network.forward(cv2.imread(str(folder / "picture.png")))
    shown = np.array(Image.open(folder / "out.png").convert("L"))
    for place, channel in ((1, 0), (2, 2)):
        expected = grey(network.maps("renet1_vertical")[channel]).repeat(2, axis=0).repeat(2, axis=1)
        left = 8 + place * 48
        assert np.array_equal(shown[22 : 22 + 32, left : left + 40], expected)


def test_probabilities_filters_and_receptive_field_are_drawn(folder: Path) -> None:
    image = ("--image", "picture.png")
    networks = [f"{name}={model},{name}.caffemodel" for name, model in (("renet", RENET), ("conv", CONVOLUTIONAL))]
    for result in (
        visualize(folder, "probabilities", *image),
        visualize(folder, "filters", "--layer", "conv1", model=CONVOLUTIONAL, weights="conv.caffemodel"),
        visualize(folder, "filters", "--layer", "renet1_vertical"),
        visualize(folder, "receptive", *image, "--network", networks[0], "--network", networks[1], "--pixel", "3,30"),
    ):
        assert result.returncode == 0, result.stderr
        picture = np.array(Image.open(folder / "out.png").convert("L"))
        assert picture.std() > 10
    assert picture.shape[1] == 3 * (260 + 8) + 8


def test_scores_that_a_layer_in_place_changes(folder: Path) -> None:
    plain = CONVOLUTIONAL.read_text()
    prob = 'layer {\n  name: "prob"'
    bent = 'layer { name: "bend" type: "ReLU" bottom: "upsample" top: "upsample" relu_param { negative_slope: 0.5 } }\n'
    assert prob in plain
    (folder / "bent.prototxt").write_text(plain.replace(prob, bent + prob))
    values = np.random.default_rng(3).normal(size=(3, 16, 16)).astype(np.float32)
    gradients = []
    for model in (CONVOLUTIONAL, folder / "bent.prototxt"):
        network = NetworkInspector(model, folder / "conv.caffemodel")
        network.forward_values(values)
        scores = network.maps("upsample")[:, 7, 9]
        assert scores.min() < 0
        gradients.append(network.gradient(7, 9, int(scores.argmin()))[0])
    assert np.abs(gradients[0]).max() > 0
    assert np.allclose(gradients[1], gradients[0] / 2, rtol=1e-4, atol=1e-9)


def test_all_filters_are_drawn(folder: Path) -> None:
    (folder / "wide.prototxt").write_text(
        """layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } }
        transform_param { mean_value: 104 mean_value: 117 mean_value: 123 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 300 kernel_size: 3 weight_filler { type: "msra" } } }"""
    )
    caffe.Net(str(folder / "wide.prototxt"), caffe.TEST).save(str(folder / "wide.caffemodel"))
    result = visualize(
        folder, "filters", "--layer", "conv", "--width", 80, model=Path("wide.prototxt"), weights="wide.caffemodel"
    )
    assert result.returncode == 0, result.stderr
    picture = np.array(Image.open(folder / "out.png"))
    side = 80 * 4 // 16 + 2
    assert picture.shape[:2] == (-(-300 // 16) * side, 16 * side)
    # the last row holds 12 of 16
    last = picture[-side:, :]
    assert last[:, : 12 * side].min() < 128 and (last[:, 12 * side :] == 255).all()


def test_an_image_of_a_prepared_split(folder: Path) -> None:
    write_split(folder / "test", {"one": (cv2.imread(str(folder / "picture.png")), np.zeros((32, 40), np.uint8))})
    assert visualize(folder, "maps", "--image", "picture.png", "--layer", "score").returncode == 0
    expected = (folder / "out.png").read_bytes()
    assert visualize(folder, "maps", "--image", "test/one", "--layer", "score").returncode == 0
    assert (folder / "out.png").read_bytes() == expected
    result = visualize(folder, "maps", "--image", "test/two", "--layer", "score")
    assert "test: has no image two" in only_line(result, "visualize.py")


def test_bad_input_is_named(folder: Path) -> None:
    (folder / "text.png").write_text("no image")
    image = ("--image", "picture.png")
    network = ("--network", f"a={RENET},renet.caffemodel")
    cases = [
        (("maps", *image, "--layer", "renet1_vertikal"), 'no layer "renet1_vertikal"; near matches: renet1_vertical'),
        (("maps", *image, "--layer", "zzz"), "it has data, "),
        (("maps", *image, "--layer", "score", "--channels", "0-99"), "no channel 10: there are 0 to 9"),
        (("maps", *image, "--layer", "score", "--channels", "0-9999999999"), "no channel 10: there are 0 to 9"),
        (("maps", *image, "--layer", "score", "--channels", "a"), "channels are numbers"),
        (("maps", "--image", "nowhere.png", "--layer", "score"), "nowhere.png: no such file"),
        (("maps", "--image", "text.png", "--layer", "score"), "text.png: not an image"),
        (("filters", "--layer", "upsample"), 'no layer "upsample" with weights'),
        (("probabilities", *image, "--dataset", "voc2012"), "tells 10 classes apart, the dataset has 21"),
        (("receptive", *image, *network, "--pixel", "40,3"), "pixel 40,3 lies outside the image of 40 x 32"),
        (("receptive", *image, *network, "--pixel", "x"), "a pixel is COLUMN,ROW"),
        (("receptive", *image, *network, "--label", "10"), "no class 10"),
        (("receptive", *image, "--network", "a"), "a network is NAME="),
        (("receptive", *image, "--network", f"a={CONVOLUTIONAL},renet.caffemodel"), "it belongs to another network"),
    ]
    for arguments, message in cases:
        assert message in only_line(visualize(folder, *arguments), "visualize.py")


def test_small_parts() -> None:
    assert channel_numbers("0-2,5", 6) == [0, 1, 2, 5]
    for channels in ("3-1", "3-1,2"):
        with pytest.raises(UserError, match="is empty"):
            channel_numbers(channels, 6)
    assert grey(np.array([[-1.0, 0.0, 1.0]])).tolist() == [[0, 128, 255]]
    assert (grey(np.zeros((2, 2))) == 128).all()
    picture = np.full((2, 2, 3), 200, np.uint8)
    shown = heat_map(picture, np.array([[1.0, 0.0], [0.0, 1e-3]]))
    assert (shown[0, 1] == 150).all() and len({tuple(pixel) for pixel in shown.reshape(-1, 3).tolist()}) == 3
    assert (heat_map(picture, np.zeros((2, 2))) == 150).all()


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
def test_weights_that_are_no_numbers_or_of_another_network(folder: Path, tmp_path: Path, suffix: str) -> None:
    network = caffe.Net(str(CONVOLUTIONAL), caffe.TEST)
    last = list(network.params)[-1]
    network.params[last][0].data.flat[3] = np.nan
    file = tmp_path / f"spoilt{suffix}"
    (network.save_hdf5 if suffix == ".h5" else network.save)(str(file))
    with pytest.raises(UserError, match=f"spoilt{suffix}: the layer '{last}' has values that are infinite or no num"):
        NetworkInspector(CONVOLUTIONAL, file)
    with pytest.raises(UserError, match=f"spoilt{suffix}: .* it belongs to another network$"):
        NetworkInspector(RENET, file)


def test_maps_that_are_no_numbers(folder: Path) -> None:
    network = NetworkInspector(CONVOLUTIONAL, folder / "conv.caffemodel")
    values = np.zeros((3, 16, 16), np.float32)
    values[0, 3, 3] = np.inf
    network.forward_values(values)
    with pytest.raises(UserError, match='"conv1" has values that are infinite or no numbers for this image'):
        network.maps("conv1")


OLD = """
input: "picture" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "score" type: CONVOLUTION bottom: "picture" top: "score"
  convolution_param { num_output: 2 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "softmax" type: SOFTMAX bottom: "score" top: "softmax" }
"""


def test_a_network_of_an_older_caffe_with_names_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text(OLD)
    caffe.Net(str(tmp_path / "old.prototxt"), caffe.TEST).save(str(tmp_path / "old.caffemodel"))
    picture = np.random.default_rng(1).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    files = ("--model", "old.prototxt", "--weights", "old.caffemodel")
    shown = ("--image", "picture.png", "--out", "out.png")
    line = only_line(call_tool("visualize.py", "probabilities", *files, *shown, cwd=tmp_path), "visualize.py")
    assert "old.prototxt: layer" in line and "say --mean B,G,R" in line
    result = call_tool("visualize.py", "probabilities", *files, *shown, "--mean", "104,117,123", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    scores = ("--mean", "104,117,123", "--output-blob", "score")
    line = only_line(call_tool("visualize.py", "probabilities", *files, *shown, *scores, cwd=tmp_path), "visualize.py")
    assert 'old.prototxt: "score" holds no probabilities' in line
    network = NetworkInspector(
        tmp_path / "old.prototxt", tmp_path / "old.caffemodel", DeployOptions(mean=(104, 117, 123))
    )
    network.forward(picture)
    assert network.score_name() == "score"
    seen = network.sensitivity(6, 5).map > 0
    assert seen[5:8, 4:7].all() and seen.sum() == 9
