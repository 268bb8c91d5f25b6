"""Prototxts of other Caffes, brought to the layers that this one has: what a prediction takes, and nothing else.

Their files are read without our messages first (`prototxt_tree`), since they have layers and fields of their own. What
belongs to a training goes; the rest is told with a note of each change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.common.text_files import read_text
from renet.common.text_layout import listed
from renet.exchange.prototxt_tree import Node, Word, parse_tree
from renet.networks.net_state import layers_in, state_of
from renet.runtime.prototxt import parse_prototxt, read_network, upgrade_network
from renet.weights.weight_files import check_is_no_pointer

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
# What only a training or a test writes or reads, by the types' names in small letters alone
_OF_TRAINING = re.compile(r".*(loss|accuracy|matwrite|hdf5output|silence)$")
_RULES = ("include", "exclude")  # of when a layer is built
# Layers of forks that are ones of Caffe's under another name
_ALSO = {
    "depthwiseconvolution": "Convolution",
    "convolutiondepthwise": "Convolution",
    "holeconvolution": "Convolution",
    "cudnnbatchnorm": "BatchNorm",
    "spatialdropout": "Dropout",
    "nvbatchnorm": "BatchNorm",
}
# Fields of layers, and of messages in layers, that change nothing in a prediction
_WITHOUT_EFFECT = ("strict_dim", "visualize", "engine")
_BLOBS_WITH_STATISTICS = 4  # of a BN: slope, bias, mean, variance; SegNet's has scale and shift alone
_OF_BATCH_NORM_WITH_SCALE = ("scale_bias", "scale_filler", "bias_filler")


@dataclass
class ForeignLayer:
    """Layer of another Caffe's prototxt.

    Attributes:
        node: its fields; what is changed there is read.
        origin: its name there, by which its weights are found.
        blobs: its weights.
    """

    node: Node
    origin: str
    blobs: list[np.ndarray] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name here."""
        return self.node.value("name")

    @property
    def kind(self) -> str:
        """Its type in small letters alone: SOFTMAX_LOSS of the first files is softmaxloss."""
        return plain(self.node.value("type"))

    @property
    def bottoms(self) -> list[str]:
        """Names of the blobs that it reads."""
        return self.node.values("bottom")

    @property
    def tops(self) -> list[str]:
        """Names of the blobs that it writes."""
        return self.node.values("top")


@dataclass
class ForeignNetwork:
    """Network of another Caffe, as its file has it for a prediction.

    Attributes:
        file: its prototxt.
        name: its name.
        is_old: whether its layers have the form of before 2014, `layers`.
        layers: in the order of computation, without inputs.
        inputs: shapes by the names of their blobs; a shape may be empty where nobody says it.
        transform: what a data layer says of the image's mean and scale.
        scores: the blob that a loss reads, where there is one.
        activation: the type of the layer that makes probabilities of scores.
        ignored: the label that a loss ignores, where one does.
        notes: what was changed, a line each.
    """

    file: Path
    name: str
    is_old: bool
    layers: list[ForeignLayer]
    inputs: dict[str, list[int]]
    transform: Node = field(default_factory=Node)
    scores: str | None = None
    activation: str = "Softmax"
    ignored: int | None = None
    notes: list[str] = field(default_factory=list)

    def outputs(self) -> list[str]:
        """List the blobs that no layer reads."""
        left: dict[str, None] = {}
        for layer in self.layers:
            for bottom in layer.bottoms:
                left.pop(bottom, None)
            left |= dict.fromkeys(layer.tops)
        return list(left)

    def producer(self, blob: str) -> ForeignLayer | None:
        """Find the layer that writes a blob last."""
        return next((layer for layer in reversed(self.layers) if blob in layer.tops), None)

    def rename_blob(self, old: str, new: str) -> None:
        """Give a blob another name; another blob that has it makes room."""
        if old == new:
            return
        names = {*self.inputs, *(top for layer in self.layers for top in layer.tops)}
        if new in names:
            self.rename_blob(new, unique(f"{new}_2", names))
        self.inputs = {new if name == old else name: shape for name, shape in self.inputs.items()}
        for layer in self.layers:
            for key in ("bottom", "top"):
                values = layer.node.values(key)
                if old in values:
                    layer.node.put(key, *(new if value == old else value for value in values))

    def keep_what_makes(self, blob: str) -> None:
        """Leave out the layers that a blob does not need."""
        wanted, kept = {blob}, []
        for layer in reversed(self.layers):
            if wanted.intersection(layer.tops):
                kept.append(layer)
                wanted = wanted.difference(layer.tops).union(layer.bottoms)
        gone = [layer.name for layer in self.layers if all(layer is not other for other in kept)]
        if gone:
            self.notes.append(f'left out, as "{blob}" does not need it: {listed(gone)}')
        self.layers = kept[::-1]
        for name in [name for name in self.inputs if name not in wanted]:
            del self.inputs[name]

    def message(self) -> caffe_pb2.NetParameter:
        """Make the layers a message of ours in today's form, without inputs.

        Raises:
            UserError: a field that this Caffe does not have; names file, layer and field.
        """
        message = caffe_pb2.NetParameter()
        for layer in self.layers:
            text = Node([("layers" if self.is_old else "layer", layer.node)]).text()
            where = Path(f'{self.file} (layer "{layer.name}")')
            message.MergeFrom(parse_prototxt(text, caffe_pb2.NetParameter(), where))
        message = upgrade_network(message, self.file)
        message.name = self.name
        return message


def plain(kind: str) -> str:
    """Write a type's name in small letters alone, as it is compared."""
    return kind.replace("_", "").lower()


def unique(name: str, taken: Iterable[str]) -> str:
    """Choose a name that is not taken: `name`, else with 2 for its number, and so on."""
    stem, number = re.sub(r"_\d+$", "", name), 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def read_foreign_network(file: Path, settings: Mapping[str, str]) -> ForeignNetwork:
    """Read another Caffe's prototxt of any age: what a test builds, without data layers, losses and scores.

    Args:
        file: the prototxt.
        settings: what stands for `${NAME}` in it.

    Raises:
        UserError: no such file, no prototxt, or a placeholder without a value; names the file.
    """
    root = parse_tree(_settled(read_text(file), settings, file), file)
    if any(layer.has("layer") for layer in root.nodes("layers")):  # of 2013: Caffe's own upgrade knows these
        root = parse_tree(text_format.MessageToString(read_network(file)), file)
    old = bool(root.nodes("layers"))
    nodes = root.nodes("layers" if old else "layer")
    if not nodes:
        raise UserError(f"{file}: has no layers: not a network's prototxt")
    network = ForeignNetwork(file, root.value("name"), old, _in_a_test(nodes, root, file), _given_inputs(root))
    _take_inputs(network)
    _leave_out_training(network)
    _tidy(network)
    return network


def check_types(network: ForeignNetwork) -> None:
    """Make sure that this Caffe has every layer.

    Raises:
        UserError: it lacks one; names the layer, its type, and what serves instead.
    """
    known = {plain(kind) for kind in caffe.layer_type_list()}
    for layer in network.layers:
        if layer.kind not in known:
            kind = layer.node.value("type")
            advice = caffe.foreign_layer_advice(kind) or "docs/layers.md has those of other Caffes that are"
            raise UserError(
                f'{network.file}: the layer "{layer.name}" has the type {kind}, which is not here; {advice}'
            )


def _settled(text: str, settings: Mapping[str, str], file: Path) -> str:
    check_is_no_pointer(text.encode(), file)
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    lacking = [name for name in dict.fromkeys(_PLACEHOLDER.findall(code)) if name not in settings]
    # Others are paths of data and of results, which go anyway
    needed = [name for name in lacking if re.search(rf"(?:(?:bottom|top):\s*[\"'][^\"'\n]*|:\s*)\$\{{{name}\}}", code)]
    if needed:
        asked = " ".join(f"--set {name}=..." for name in needed)
        raise UserError(f"{file}: a template, in which ${{{needed[0]}}} has no value; say {asked}")
    return _PLACEHOLDER.sub(lambda found: settings.get(found[1], ""), text)


def _in_a_test(nodes: list[Node], root: Node, file: Path) -> list[ForeignLayer]:
    """The layers that Caffe builds in a test."""
    rules = Node()
    for node in nodes:
        rules.fields.append(
            ("layer", Node([("name", node.value("name")), *(each for each in node.fields if each[0] in _RULES)]))
        )
    rules.fields += [("state", state) for state in root.nodes("state")]
    message = parse_prototxt(rules.text(), caffe_pb2.NetParameter(), file)
    state = state_of(message, caffe_pb2.TEST, caffe_pb2.NetState(stage=["deploy"]))
    kept = layers_in(message, state)
    chosen = [node for node, rule in zip(nodes, message.layer, strict=True) if any(rule is each for each in kept)]
    for node in chosen:
        node.drop(*_RULES, "phase")
    return [ForeignLayer(node, node.value("name")) for node in chosen]


def _given_inputs(root: Node) -> dict[str, list[int]]:
    names = root.values("input")
    dims = [int(dim) for dim in root.values("input_dim")]
    shapes = _shapes(root.nodes("input_shape")) or [dims[place : place + 4] for place in range(0, len(dims), 4)]
    shapes += [[]] * (len(names) - len(shapes))
    return dict(zip(names, shapes, strict=False))


def _take_inputs(network: ForeignNetwork) -> None:
    """Make inputs of Input layers, and of the first top of each data layer; whatever reads its other tops goes, too."""
    left, lost = [], set()
    for layer in network.layers:
        if layer.kind == "input":
            shapes = _shapes(layer.node.node("input_param").nodes("shape"))
            for place, top in enumerate(layer.tops):
                network.inputs[top] = shapes[min(place, len(shapes) - 1)] if shapes else []
            if layer.node.has("transform_param"):
                network.transform = layer.node.node("transform_param")
        elif _is_data(layer):
            image, *others = layer.tops
            network.inputs[image] = _size_of_data(layer)
            network.transform = layer.node.node("transform_param")
            lost |= set(others)
            network.notes.append(
                f'the data layer "{layer.name}" ({layer.node.value("type")}) became the input "{image}"'
            )
        else:
            left.append(layer)
    network.layers = []
    for layer in left:
        if lost.intersection(layer.bottoms) and not _OF_TRAINING.fullmatch(layer.kind):
            lost |= set(layer.tops)
            network.notes.append(f'left out, as it reads labels: "{layer.name}" ({layer.node.value("type")})')
        else:
            network.layers.append(layer)


def _is_data(layer: ForeignLayer) -> bool:
    reads_files = (layer.kind.endswith("data") and layer.kind != "dummydata") or layer.kind == "python"
    return reads_files and bool(layer.tops) and not layer.bottoms


def _shapes(nodes: Iterable[Node]) -> list[list[int]]:
    return [[int(dim) for dim in node.values("dim")] for node in nodes]


def _size_of_data(layer: ForeignLayer) -> list[int]:
    transform = layer.node.node("transform_param")
    messages = [value for _, value in layer.node.fields if isinstance(value, Node)]
    for height, width in (("crop_height", "crop_width"), ("new_height", "new_width"), ("crop_size", "crop_size")):
        for node in (transform, *messages):
            if node.value(height) and node.value(width):
                return [1, 3, int(node.value(height)), int(node.value(width))]
    return []


def _leave_out_training(network: ForeignNetwork) -> None:
    gone = [layer for layer in network.layers if _OF_TRAINING.fullmatch(layer.kind)]
    for layer in gone:
        if layer.kind.endswith("loss") and layer.bottoms:
            network.scores = layer.bottoms[0]  # the last one, as losses of other branches stand before it
            network.activation = "Sigmoid" if layer.kind.startswith("sigmoid") else "Softmax"
            label = layer.node.node("loss_param").value("ignore_label")
            network.ignored = int(label) if label else None
    network.layers = [layer for layer in network.layers if all(layer is not other for other in gone)]
    if gone:
        network.notes.append(f"left out, as a prediction does not take them: {listed([each.name for each in gone])}")


def _tidy(network: ForeignNetwork) -> None:
    """Give Caffe's names to what forks call otherwise, and take out what changes nothing in a prediction."""
    renamed: dict[str, list[str]] = {}
    for layer in network.layers:
        if layer.kind in _ALSO:
            kind = _ALSO[layer.kind]
            renamed.setdefault(f"{layer.node.value('type')} is {kind} here", []).append(layer.name)
            layer.node.put("type", Word(kind.upper()) if network.is_old else kind)
        layer.node.drop(*_WITHOUT_EFFECT)
        for _, value in layer.node.fields:
            if isinstance(value, Node):
                value.drop(*_WITHOUT_EFFECT)
        if layer.kind == "batchnorm":
            parameter = layer.node.node("batch_norm_param")
            parameter.drop(*_OF_BATCH_NORM_WITH_SCALE)
            if parameter.value("use_global_stats") == "false":
                parameter.drop("use_global_stats")
                network.notes.append(f'"{layer.name}": use_global_stats: false, which is for a training, is left out')
        if layer.kind == "densecrf" and len(layer.bottoms) == 3:  # DeepLab's: scores, the image's size, the image
            scores, _, image = layer.bottoms
            layer.node.put("bottom", scores, image)
            network.notes.append(f'"{layer.name}": no bottom with the image\'s size, which the image itself has')
    network.notes += [f"{note}: {listed(names)}" for note, names in renamed.items()]


def attach_weights(network: ForeignNetwork, stored: Mapping[str, list[np.ndarray]], file: Path) -> list[str]:
    """Give the layers their weights by the names that they have in `file`.

    Returns:
        Names of layers with weights that the network does not have.

    Raises:
        UserError: two layers have the name of one with weights.
    """
    taken: set[str] = set()
    for layer in network.layers:
        if layer.origin in stored:
            if layer.origin in taken:
                raise UserError(f'{network.file}: has two layers "{layer.origin}", and {file} weights for one')
            taken.add(layer.origin)
            layer.blobs = list(stored[layer.origin])
    return [name for name in stored if name not in taken]


def give_own_names(network: ForeignNetwork) -> None:
    """Give every layer a name of its own."""
    taken: set[str] = set()
    for layer in network.layers:
        name = unique(layer.name, taken)
        if name != layer.name:
            network.notes.append(f'a second layer "{layer.name}" is now "{name}"')
            layer.node.put("name", name)
        taken.add(name)


def settle_batch_norm(network: ForeignNetwork) -> None:
    """Let each BN say which of its two forms it has: the forks' files have both under the same fields, and the weights
    tell."""
    learning = []
    for layer in network.layers:
        if layer.kind != "bn":
            continue
        parameter = layer.node.node("bn_param")
        if not layer.node.has("bn_param"):
            layer.node.fields.append(("bn_param", parameter))
        has_statistics = parameter.value("moving_average") == "true" or len(layer.blobs) == _BLOBS_WITH_STATISTICS
        parameter.drop("moving_average", "decay")
        if has_statistics:
            fillers = {"scale_filler": "slope_filler", "shift_filler": "bias_filler"}
            parameter.fields = [(fillers.get(key, key), value) for key, value in parameter.fields]
            if not parameter.has("slope_filler"):
                parameter.fields.append(("slope_filler", Node([("type", "constant"), ("value", Word("1"))])))
        elif parameter.value("bn_mode", "LEARN") == "LEARN" and not parameter.has("slope_filler"):
            learning.append(layer.name)
    if learning:
        network.notes.append(
            f"in the form for a training, bn_mode LEARN, with statistics of each image by itself: {listed(learning)}"
        )
