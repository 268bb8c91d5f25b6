"""Network in the making: a NetSpec whose layers carry comments, its text, and the options of a network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from renet.data.catalog import MEAN_BGR
from renet.networks.class_weights import ClassWeights

WIDEST_LINE = 110
PRECISIONS = ("FLOAT32", "TF32", "BF16")
ZERO = {"type": "constant", "value": 0}


@dataclass(frozen=True)
class NewLayer:
    """Change of a layer that a model writes: another name, so that weights of the first do not fill it, or the rate.

    Attributes:
        layer: the model's name of it; its top keeps that.
        name: in the written network.
        rate: what multiplies its learning rates.
        blobs: how many weights it has.
        comment: above it.
    """

    layer: str
    name: str
    rate: float = 1
    blobs: int = 0
    comment: str = ""


@dataclass(frozen=True)
class Options:
    """Options of a network; crops and batch are of the training.

    Attributes:
        crop: height and width in pixels.
        batch: images of one forward pass.
        forget_bias: initial bias of the LSTMs' forget gates.
        precision: of `PRECISIONS`: what the ReNet layers round the factors of their products to.
        mean: taken off the channels B, G, R (0..255) before the scaling.
        frozen: convolution groups from the first on whose weights stay as they are (H-ReNet and FCN; conv1 is 1).
        new_rate: what multiplies the learning rate of layers without pretrained weights (H-ReNet and FCN).
        gaussian_std: of the initial weights of conv6 and conv7 (H-ReNet and FCN).
        l2_scale: the norm that L2 normalisation gives each map.
        batch_norm_memory: the share of the running mean and variance that a BatchNorm layer keeps at each iteration.
        augment: kinds of `AUGMENTATIONS` that change the training images.
        dropout: share of the values that Dropout lets go between two recurrent groups (N-ReNet); 0: no such layers.
        class_weights: factors of the classes' pixels in the loss; None: 1 for all.
        hard_examples: share of a batch's pixels that the loss is of, the worst.
        new_layers: layers with a name or rates of their own, since the network starts from trained weights.
        whole_images: it learns from whole images, one at a time; `crop` is then what they have at most.
    """

    crop: tuple[int, int]
    batch: int
    forget_bias: float = 2
    precision: str = PRECISIONS[0]
    mean: tuple[float, float, float] = MEAN_BGR
    frozen: int = 2
    new_rate: float = 1
    gaussian_std: float = 0.01
    l2_scale: float = 1000
    batch_norm_memory: float = 0.999
    augment: tuple[str, ...] = ()
    dropout: float = 0
    class_weights: ClassWeights | None = None
    hard_examples: float = 1
    new_layers: tuple[NewLayer, ...] = ()
    whole_images: bool = False

    @property
    def crop_text(self) -> str:
        """Describe what it learns from."""
        return "whole images" if self.whole_images else "crops of {} x {}".format(*self.crop)


class Network:
    """NetSpec in which every layer may carry a comment.

    Attributes:
        spec: the NetSpec; the layers are added in the order in which they are to be written.
        classes: number of labels C.
        input_scale: what the image is multiplied with after its mean was taken off.
    """

    def __init__(self, classes: int, input_scale: float = 1) -> None:
        self.spec = caffe.NetSpec()
        self.classes = classes
        self.input_scale = input_scale
        self._comments: dict[str, str] = {}
        self._last: Any = None

    def add(self, name: str, layer: Any, comment: str = "") -> Any:
        """Name a layer made by `caffe.layers` (its top takes the same name) and return its top."""
        self.spec[name] = self._last = layer
        self._comments[name] = comment
        return layer

    def add_several(self, name: str, tops: Sequence[str], layer: Any, comment: str = "") -> tuple[Any, ...]:
        """Name a layer with several tops and each of them, and return these; the first is the last that was added."""
        made = (layer,) if len(tops) == 1 else tuple(layer)
        for top_name, top in zip(tops, made, strict=True):
            self.spec[top_name] = top
        if tops[0] != name:
            made[0].fn.params["name"] = name
        self._comments[name] = comment
        self._last = made[0]
        return made

    def add_on(self, top: Any) -> None:
        """Go on from `top`, as if it had been added last."""
        self._last = top

    @property
    def last(self) -> Any:
        """Return the top that was added last, or that is gone on from."""
        return self._last

    def text(self, new_layers: Sequence[NewLayer] = ()) -> str:
        """Write the layers as prototxt, each under its comment, some with a new name and rate."""
        changes = {change.layer: change for change in new_layers}
        texts = []
        for layer in self.spec.to_proto().layer:
            comment = self._comments.get(layer.name, "")
            change = changes.get(layer.name)
            if change is not None:
                comment = "\n".join(filter(None, (comment, change.comment)))
                layer.name = change.name
                if change.rate != 1:
                    layer.param.extend(caffe_pb2.ParamSpec() for _ in range(change.blobs - len(layer.param)))
                    for param in layer.param:
                        param.lr_mult *= change.rate
            texts.append(comment_lines(comment) + f"layer {{\n{field_lines(layer)}}}\n")
        return "\n".join(texts)


def weights_and_free_bias(rate: float = 1) -> list[dict[str, float]]:
    """Make `param` of a layer with weights and a bias: the bias learns at twice the rate and does not decay."""
    return [{"lr_mult": rate, "decay_mult": 1}, {"lr_mult": 2 * rate, "decay_mult": 0}]


def convolution(
    network: Network,
    name: str,
    channels: int,
    kernel: int,
    filler: Mapping[str, Any],
    comment: str = "",
    param: Sequence[Mapping[str, float]] | None = None,
    **more: Any,
) -> None:
    """Add a convolution on top of the last layer; its bias starts at 0.

    Args:
        network: to add to.
        name: of the layer and its top.
        channels: of the top.
        kernel: height and width.
        filler: of the weights.
        comment: above it in the prototxt.
        param: rates of weights and bias; None: the bias learns at twice the rate and does not decay.
        more: other fields of `convolution_param`.
    """
    layer = L.Convolution(
        network.last,
        param=weights_and_free_bias() if param is None else list(param),
        convolution_param={
            "num_output": channels,
            "kernel_size": [kernel],
            "weight_filler": filler,
            "bias_filler": ZERO,
            **more,
        },
    )
    network.add(name, layer, comment)


def comment_lines(text: str, indent: str = "") -> str:
    """Write `text` as comment lines, broken at its own line ends."""
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in text.splitlines())


def field_lines(
    message: Message, comments: Mapping[str, str] | None = None, indent: str = "  ", order: tuple[str, ...] = ()
) -> str:
    """Write the fields of `message` in text format, short messages on one line, with comments above some of the fields.

    Fields come in the order of their numbers, or in `order`, which then names them all.
    """
    out = []
    fields = message.ListFields()
    if order:
        fields.sort(key=lambda field: order.index(field[0].name))
    for descriptor, value in fields:
        values = value if isinstance(value, (list, tuple)) or hasattr(value, "extend") else [value]
        out.append(comment_lines((comments or {}).get(descriptor.name, ""), indent))
        for item in values:
            if isinstance(item, Message):
                line = f"{indent}{descriptor.name} {{ {text_format.MessageToString(item, as_one_line=True)} }}\n"
                if len(line) > WIDEST_LINE:
                    line = f"{indent}{descriptor.name} {{\n{field_lines(item, indent=indent + '  ')}{indent}}}\n"
            else:
                scalar = io.StringIO()
                text_format.PrintFieldValue(descriptor, item, scalar)
                line = f"{indent}{descriptor.name}: {scalar.getvalue()}\n"
            out.append(line)
    return "".join(out)
