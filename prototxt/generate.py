#!/usr/bin/env python3
"""Write networks and solvers: train_val.prototxt, deploy.prototxt (and deploy_crf.prototxt) and a solver for a model
and a dataset.

A model is one function of `MODELS`: it adds the layers between `data` and `score` to a `Network`, each with the
comment that the written file shows above it. Data, upsampling, loss and solver are the same for all.
"""

from __future__ import annotations

import argparse
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from data_prep.command_line import UserError, run
from data_prep.dataset import IGNORE_LABEL, Dataset
from data_prep.known_datasets import MEAN_BGR, load_dataset
from data_prep.prepare import whole_number
from data_prep.synthetic_scenes import CLASSES as SCENE_CLASSES

ROOT = Path(__file__).resolve().parent.parent
INPUT_SCALE = 1 / 128
WIDEST_LINE = 110

UNIFORM = {"type": "uniform", "min": -0.2, "max": 0.2}
GAUSSIAN = {"type": "gaussian", "std": 0.1}
ZERO = {"type": "constant", "value": 0}
WEIGHTS_AND_FREE_BIAS = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}]
# The forget gate starts nearly open, so that early in the training a state survives more than a few steps.
FORGET_BIAS = 2

VERTICAL = caffe_pb2.ReNetParameter.VERTICAL
HORIZONTAL = caffe_pb2.ReNetParameter.HORIZONTAL


class Network:
    """A NetSpec in which every layer may carry a comment.

    Attributes:
        spec: the NetSpec; the layers are added in the order in which they are to be written.
        classes: number of labels C.
    """

    def __init__(self, classes: int) -> None:
        self.spec = caffe.NetSpec()
        self.classes = classes
        self._comments: dict[str, str] = {}
        self._last: str | None = None

    def add(self, name: str, layer: Any, comment: str = "") -> Any:
        """Name a layer made by `caffe.layers` (its top takes the same name) and return its top."""
        self.spec[name] = layer
        self._comments[name] = comment
        self._last = name
        return layer

    @property
    def last(self) -> Any:
        """The top that was added last."""
        return self.spec[self._last]

    def text(self) -> str:
        """The layers as prototxt, each under its comment."""
        return "\n".join(
            _comment(self._comments.get(layer.name, "")) + f"layer {{\n{_fields(layer)}}}\n"
            for layer in self.spec.to_proto().layer
        )


# ---------------------------------------------------------------------------------------------------------- text


def _comment(text: str, indent: str = "") -> str:
    """`text` as comment lines, broken at its own line ends."""
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in text.splitlines())


def _fields(
    message: Message, comments: Mapping[str, str] | None = None, indent: str = "  ", order: tuple[str, ...] = ()
) -> str:
    """The fields of `message` in text format, short messages on one line, with comments above some of the fields.

    Fields come in the order of their numbers, or in `order`, which then names them all.
    """
    out = []
    fields = message.ListFields()
    if order:
        fields.sort(key=lambda field: order.index(field[0].name))
    for descriptor, value in fields:
        values = value if isinstance(value, (list, tuple)) or hasattr(value, "extend") else [value]
        out.append(_comment((comments or {}).get(descriptor.name, ""), indent))
        for item in values:
            if isinstance(item, Message):
                line = f"{indent}{descriptor.name} {{ {text_format.MessageToString(item, as_one_line=True)} }}\n"
                if len(line) > WIDEST_LINE:
                    line = f"{indent}{descriptor.name} {{\n{_fields(item, indent=indent + '  ')}{indent}}}\n"
            else:
                scalar = io.StringIO()
                text_format.PrintFieldValue(descriptor, item, scalar)
                line = f"{indent}{descriptor.name}: {scalar.getvalue()}\n"
            out.append(line)
    return "".join(out)


# -------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Options:
    """What a person may choose about a network; crops and batch are of the training.

    Attributes:
        crop: height and width in pixels.
        batch: images of one forward pass.
        forget_bias: initial bias of the LSTMs' forget gates.
        mean: taken off the channels B, G, R (0..255) before the scaling.
    """

    crop: tuple[int, int]
    batch: int
    forget_bias: float = FORGET_BIAS
    mean: tuple[float, float, float] = MEAN_BGR


def renet_group(
    network: Network,
    number: int,
    units: int,
    patch: int,
    forget_bias: float,
    comment: str = "",
    sweep_comment: str = "",
) -> None:
    """A recurrent layer group (paper, section 3): a vertical ReNet layer, then a horizontal one.

    Args:
        network: to add to, on top of its last layer.
        number: of the group, from 1.
        units: d, hidden units of one scan; each layer's top has 2d channels.
        patch: side of the square patches that the vertical layer sees; the horizontal one sees single positions.
        forget_bias: added to the forget gates' biases at initialisation.
        comment: above the vertical layer.
        sweep_comment: above the horizontal layer.
    """
    for name, direction, side, text in (
        ("vertical", VERTICAL, patch, comment),
        ("horizontal", HORIZONTAL, 1, sweep_comment),
    ):
        layer = L.ReNetLSTM(
            network.last,
            renet_param={
                "num_output": units,
                "direction": direction,
                "patch_height": side,
                "patch_width": side,
                "weight_filler": UNIFORM,
                "bias_filler": ZERO,
                "forget_bias": forget_bias,
            },
        )
        network.add(f"renet{number}_{name}", layer, text)


def convolution(
    network: Network, name: str, channels: int, kernel: int, filler: Mapping[str, Any], comment: str = "", **more: Any
) -> None:
    """A convolution on top of the last layer; its bias starts at 0, learns at twice the rate and does not decay."""
    layer = L.Convolution(
        network.last,
        param=WEIGHTS_AND_FREE_BIAS,
        convolution_param={
            "num_output": channels,
            "kernel_size": [kernel],
            "weight_filler": filler,
            "bias_filler": ZERO,
            **more,
        },
    )
    network.add(name, layer, comment)


INITIALISATION = (
    "Weights start uniform in [-0.2, 0.2], biases at 0 (as in the authors' release, which also lifts the\n"
    "forget gate's bias)."
)
SCORE = "1x1 convolution that aligns the channels with the labels (section 3)."


def n_renet(network: Network, options: Options, units: tuple[int, ...] = (40, 60, 60), patch: int = 2) -> None:
    """N-ReNet of the paper's sections 3 and 4.1: groups of ReNet layers on raw pixels, stacked directly."""
    patches = {
        2: "The image is cut into 2x2 patches (section 4.1), so width and height are halved.",
        4: "The image is cut into 4x4 patches, where the paper has 2x2: a quarter of its positions.",
    }
    for number, d in enumerate(units, start=1):
        first = number == 1
        comment = f"Group {number}: d = {d} hidden units in each of the two scans, so {2 * d} channels"
        comment += f".\n{patches[patch]}\n{INITIALISATION}" if first else ", over single positions."
        sweep = "The orthogonal sweep: from here on each position has seen the whole image (section 3)."
        renet_group(network, number, d, patch if first else 1, options.forget_bias, comment, sweep if first else "")
    convolution(network, "score", network.classes, 1, GAUSSIAN, SCORE)


def n_renet_quarter(network: Network, options: Options) -> None:
    """`n_renet` with 4x4 patches first: a quarter of the positions, for training on a CPU."""
    n_renet(network, options, patch=4)


def n_renet_released(network: Network, options: Options) -> None:
    """N-ReNet as in the authors' code of 2015: coarser patches, and a 1x1 convolution with tanh between the groups."""
    between = (80, 120, None)
    for number, (units, channels) in enumerate(zip((40, 60, 60), between), start=1):
        comment = f"Group {number}: d = {units} in each scan, so {2 * units} channels."
        if number == 1:
            comment += "\n3x3 patches, where the paper's text has 2x2.\n" + INITIALISATION
        renet_group(network, number, units, 3 if number == 1 else 1, options.forget_bias, comment)
        if channels is not None:
            text = "The released network mixes the channels between two groups; the paper stacks them directly."
            convolution(network, f"transition{number}", channels, 1, GAUSSIAN, text if number == 1 else "")
            network.add(f"transition{number}_tanh", L.TanH(network.last, in_place=True))
    convolution(network, "score", network.classes, 1, GAUSSIAN, SCORE)


SMALL_UNITS = (16, 24)


def n_renet_small(network: Network, options: Options) -> None:
    """N-ReNet with two small groups, for small pictures on a CPU."""
    n_renet(network, options, SMALL_UNITS)


CONV_SMALL_DEPTH = 7


def renet_parameters(channels: int, units: int, patch: int) -> int:
    """Parameters of one ReNetLSTM layer: in each of two scans four gates of d units with W_x (d x P), W_h (d x d) and
    b (d), P = channels * patch^2."""
    return 2 * 4 * units * (channels * patch**2 + units + 1)


def n_renet_parameters(units: tuple[int, ...], classes: int, patch: int = 2) -> int:
    """Parameters of `n_renet`: its groups and the score layer."""
    channels, total = 3, 0
    for d in units:
        total += renet_parameters(channels, d, patch) + renet_parameters(2 * d, d, 1)
        channels, patch = 2 * d, 1
    return total + (channels + 1) * classes


def conv_small_parameters(channels: int, classes: int) -> int:
    """Parameters of `conv_small` with so many channels in every layer."""
    first = (3 * 9 + 1) * channels
    return first + CONV_SMALL_DEPTH * (channels * 9 + 1) * channels + (channels + 1) * classes


def conv_small_channels(classes: int) -> int:
    """The number of channels that brings `conv_small` closest to `n_renet_small`'s count of parameters."""
    target = n_renet_parameters(SMALL_UNITS, classes)
    return min(range(1, 257), key=lambda channels: abs(conv_small_parameters(channels, classes) - target))


def conv_small(network: Network, options: Options) -> None:
    """A fully convolutional network of `n_renet_small`'s size that sees 31 x 31 pixels around each position."""
    channels = conv_small_channels(network.classes)
    count = conv_small_parameters(channels, network.classes)
    rival = n_renet_parameters(SMALL_UNITS, network.classes)
    text = (
        f"{channels} channels in every layer: {count} parameters, where n_renet_small has {rival}.\n"
        "Stride 2 halves width and height, as the 2x2 patches do there; the seven 3x3 layers after it make the\n"
        "receptive field 31 x 31 pixels."
    )
    for number in range(1, CONV_SMALL_DEPTH + 2):
        first = number == 1
        more = {"pad": [1], "stride": [2]} if first else {"pad": [1]}
        convolution(network, f"conv{number}", channels, 3, {"type": "msra"}, text if first else "", **more)
        network.add(f"relu{number}", L.ReLU(network.last, in_place=True))
    convolution(network, "score", network.classes, 1, {"type": "msra"}, "1x1 convolution to the labels.")


# The positional kernel's and the bilateral kernel's weights and spreads in the authors' release; it iterates 5 times,
# but the paper's Table 6 has 2.
RELEASED_CRF = {"max_iter": 2, "pos_w": 3, "pos_xy_std": 3, "bi_w": 5, "bi_xy_std": 80, "bi_rgb_std": 3}
# For small drawn pictures with noise: colours within one thing differ by more than 3, and things are nearer.
SCENES_CRF = {"max_iter": 2, "pos_w": 1, "pos_xy_std": 3, "bi_w": 3, "bi_xy_std": 30, "bi_rgb_std": 12}


def dense_crf(network: Network, options: Options, parameters: Mapping[str, Any], learn: bool, train: bool) -> None:
    """A dense CRF over the scores of the last layer, at the end of a network.

    Args:
        network: to add to; the image is its `data`.
        options: say what was taken off the image and by what it was multiplied.
        parameters: of `dense_crf_param`.
        learn: the kernels' weights and the labels' compatibility are parameter blobs.
        train: the top is `crf`, log probabilities for the loss; else `prob`, probabilities.
    """
    output = caffe_pb2.DenseCRFParameter.LOG_PROBABILITY if train else caffe_pb2.DenseCRFParameter.PROBABILITY
    text = (
        "Fully connected CRF over the scores (section 4.2), mean field over the permutohedral lattice. mean_value and\n"
    )
    text += "scale say how the layer gets the image's own colours back from `data`."
    if learn:
        text += (
            "\nlearn: the weights of the two kernels (one for each label) and the C x C compatibility of the labels\n"
            "are parameters, which start at pos_w, bi_w and Potts; the spreads stay. They are few, so decay would\n"
            "only pull them to 0; the weights may move ten times as fast, as they start at units, not at tenths."
        )
    else:
        text += (
            "\nTable 4 (e) to (g) and Table 6: two iterations; the kernels are those of the authors' release. Nothing\n"
            "of it is learned: the network's weights serve as they are, and tools/crf.py searches better settings."
        )
    if train:
        text += (
            "\nThe loss takes the softmax of the top, and that of log probabilities is the probabilities: exact.\n"
            "Backward keeps Q of every iteration: max_iter x C x H x W numbers, of one image at a time."
        )
    fast, slow = {"lr_mult": 10, "decay_mult": 0}, {"lr_mult": 1, "decay_mult": 0}
    layer = L.DenseCRF(
        network.last,
        network.spec.data,
        **({"param": [fast, fast, slow]} if learn else {}),
        dense_crf_param={
            **parameters,
            "output": output,
            "mean_value": list(options.mean),
            "scale": INPUT_SCALE,
            **({"learn": True} if learn else {}),
        },
    )
    network.add("crf" if train else "prob", layer, text)


# ------------------------------------------------------------------------------------------------------- solvers


# From what is trained, over how, to what is written: the order of a solver's fields for a reader.
SOLVER_ORDER = (
    *("net", "test_iter", "test_interval", "test_initialization"),
    *("type", "base_lr", "lr_policy", "gamma", "stepsize", "power", "momentum", "momentum2", "delta"),
    *("weight_decay", "clip_gradients", "max_iter", "display", "average_loss"),
    *("snapshot", "snapshot_prefix", "solver_mode", "random_seed"),
)


@dataclass(frozen=True)
class Schedule:
    """How a network learns.

    Attributes:
        name: `sgd` or `adam`.
        iterations: of the whole training.
        interval: iterations between two snapshots, and between two tests.
    """

    name: str
    iterations: int
    interval: int

    def fields(self) -> dict[str, Any]:
        """The SolverParameter fields of the rule itself."""
        if self.name == "sgd":
            return {
                "base_lr": 0.05,
                "lr_policy": "step",
                "gamma": 0.1,
                "stepsize": max(1, self.iterations // 3),
                "momentum": 0.9,
                "weight_decay": 0.0005,
            }
        return {
            "type": "Adam",
            "base_lr": 0.002,
            "lr_policy": "poly",
            "power": 1,
            "momentum": 0.9,
            "momentum2": 0.999,
            "delta": 1e-8,
            "clip_gradients": 5,
        }

    def comments(self) -> dict[str, str]:
        """Comments by field name."""
        if self.name == "sgd":
            return {
                "base_lr": "The paper gives no solver for N-ReNet: rate, momentum and decay are those of the authors'\n"
                "code of 2015, which divides the rate by 10 after each third of its 36,000 iterations."
            }
        return {
            "base_lr": "A schedule for little computing time: Adam, the rate falling linearly to 0.",
            "clip_gradients": "The norm of a gradient is cut to this: after long sweeps one is huge now and then.",
        }


def schedule_of(name: str, iterations: int | None) -> Schedule:
    """The schedule `sgd` or `adam` over so many iterations (default 36,000 or 5,000), tested a dozen times or so."""
    iterations = iterations or (36000 if name == "sgd" else 5000)
    return Schedule(name, iterations, min(1000, max(1, iterations // 10)))


# ------------------------------------------------------------------------------------------------- model x dataset


@dataclass(frozen=True)
class Model:
    """A model that the generator knows.

    Attributes:
        build: adds its layers to a network, the last of them `score`.
        headline: what the written files say first.
        crop: default training crop (height, width).
        batch: default batch.
        schedule: default solver.
        crf: parameters of a dense CRF that is trained together with the network; None: the network is trained alone.
    """

    build: Callable[[Network, Options], None]
    headline: str
    crop: tuple[int, int]
    batch: int
    schedule: str = "sgd"
    crf: Mapping[str, Any] | None = None


PAPER = "Combining the Best of Convolutional Layers and Recurrent Layers, arXiv 1603.04871"
MODELS = {
    "n_renet": Model(
        n_renet,
        f"N-ReNet: three recurrent layer groups on raw pixels.\n{PAPER}, sections 3 and 4.1.",
        (240, 320),
        10,
    ),
    # Crops smaller than most images shift the patches' grid over them from sample to sample.
    "n_renet_quarter": Model(
        n_renet_quarter,
        f"N-ReNet with 4x4 patches first, for training on a CPU.\nAfter {PAPER}, sections 3 and 4.1.",
        (208, 288),
        10,
        "adam",
    ),
    "n_renet_released": Model(
        n_renet_released,
        "N-ReNet as in the authors' code of 2015, which differs from the paper's text where the comments say so.\n"
        f"{PAPER}.",
        (240, 321),
        20,
    ),
    "n_renet_small": Model(
        n_renet_small,
        f"N-ReNet with two small groups, for small pictures on a CPU.\nAfter {PAPER}, section 3.",
        (96, 128),
        10,
        "adam",
    ),
    "conv_small": Model(
        conv_small,
        "A small fully convolutional network to hold beside n_renet_small: as many parameters, the same resolution,\n"
        "but it sees only the near surroundings of a position.",
        (96, 128),
        10,
        "adam",
    ),
    "conv_small_crf": Model(
        conv_small,
        "conv_small and a dense CRF, trained together, which the paper leaves as future work (section 4.2).\n"
        "It may start from conv_small's weights (tools/train.py --weights), whose layers have the same names.",
        (96, 128),
        10,
        "adam",
        SCENES_CRF,
    ),
}


@dataclass(frozen=True)
class Data:
    """Where a network's pictures come from.

    Attributes:
        name: of the dataset, as in file names.
        classes: number of labels C.
        ignore_label: label that counts nowhere.
        train: folder of the split that it learns from.
        test: folder of the split that it is tested on.
        test_images: number of images there.
    """

    name: str
    classes: int
    ignore_label: int
    train: str
    test: str
    test_images: int


def train_val_text(model: Model, data: Data, options: Options) -> str:
    """The training and testing network as prototxt."""
    common = {
        "mean_value": list(options.mean),
        "scale": INPUT_SCALE,
        "ignore_label": data.ignore_label,
    }
    train = Network(data.classes)
    train_data, _ = L.SegmentationData(
        ntop=2,
        include={"phase": caffe.TRAIN},
        segmentation_data_param={
            "source": [data.train],
            "batch_size": options.batch,
            "crop_height": options.crop[0],
            "crop_width": options.crop[1],
            "mirror": True,
            "shuffle": True,
            "seed": 0,
            **common,
        },
    )
    train.add("data", train_data, "Random crops, flipped left to right half of the time (section 4, training).")
    train.spec.label = train_data.fn.tops[1]

    network = Network(data.classes)
    test_data, label = L.SegmentationData(
        ntop=2,
        include={"phase": caffe.TEST},
        segmentation_data_param={"source": [data.test], "batch_size": 1, **common},
    )
    network.add("data", test_data, "Whole images at their own size (section 4, testing).")
    network.spec.label = label
    model.build(network, options)
    _upsample(network)
    if model.crf is not None:
        dense_crf(network, options, model.crf, learn=True, train=True)
    scores = network.last
    network.add(
        "loss",
        L.SoftmaxWithLoss(scores, label, loss_param={"ignore_label": data.ignore_label}),
        "Pixelwise cross entropy, all labels weighted alike (section 4); unlabelled pixels count nowhere.",
    )
    network.add(
        "accuracy",
        L.Accuracy(
            scores,
            label,
            include={"phase": caffe.TEST},
            accuracy_param={"ignore_label": data.ignore_label},
        ),
        "Share of right pixels, image by image.",
    )
    return _comment(model.headline) + f'name: "{data.name}"\n\n' + train.text() + "\n" + network.text()


def deploy_text(model: Model, data: Data, options: Options, crf: bool = False) -> str:
    """The network for new pictures as prototxt: input `data`, output `prob` (N x C x H x W).

    Args:
        model: of `MODELS`.
        data: gives the name and the labels.
        options: of the network.
        crf: a dense CRF takes the softmax's place; a model that is trained with one always ends in it.
    """
    network = Network(data.classes)
    network.add(
        "data",
        L.Input(
            input_param={"shape": {"dim": [1, 3, *options.crop]}},
            transform_param={"mean_value": list(options.mean), "scale": INPUT_SCALE},
        ),
        "Images of any size: reshape this blob. BGR 0..255, minus the mean, times the scale; Caffe itself does not\n"
        "apply transform_param here, tools/predict.py does.",
    )
    model.build(network, options)
    _upsample(network)
    if crf or model.crf is not None:
        dense_crf(network, options, model.crf or RELEASED_CRF, learn=model.crf is not None, train=False)
    else:
        network.add("prob", L.Softmax(network.last))
    return _comment(model.headline) + f'name: "{data.name}"\n\n' + network.text()


def _upsample(network: Network) -> None:
    network.add(
        "upsample",
        L.BilinearInterpolation(network.last, network.spec.data),
        "Bilinear interpolation back to the input's own size (section 4.1).",
    )


def solver_text(model: str, data: Data, schedule: Schedule, net: str, options: Options) -> str:
    """The solver as prototxt; `net` is the path of the train_val network."""
    solver = caffe_pb2.SolverParameter(
        net=net,
        test_iter=[data.test_images],
        test_interval=schedule.interval,
        test_initialization=False,
        max_iter=schedule.iterations,
        display=20,
        average_loss=20,
        snapshot=schedule.interval,
        snapshot_prefix=f"runs/{model}_{data.name}",
        solver_mode=caffe_pb2.SolverParameter.CPU,
        random_seed=0,
        **schedule.fields(),
    )
    comments = {
        "test_iter": "One image at a time: the whole test split.",
        "snapshot": "Files runs/..._iter_N.caffemodel and .solverstate; tools/train.py keeps them in the run's folder.",
        "solver_mode": "CPU; tools/train.py --gpu 0 and caffe train -gpu 0 take a GPU.",
        "random_seed": "Of the initial weights; the samples have the seed of their data layer.",
        **schedule.comments(),
    }
    head = f"{model} on {data.name}: crops of {options.crop[0]} x {options.crop[1]}, batches of {options.batch}."
    return _comment(head) + _fields(solver, comments, indent="", order=SOLVER_ORDER)


def network_files(
    model: str, data: Data, options: Options, schedule: Schedule, folder: Path, solver: Path
) -> dict[Path, str]:
    """All files of one model and dataset, by path."""
    known = MODELS[model]
    name = replace(data, name=f"{model}_{data.name}")
    train_val = folder / "train_val.prototxt"
    files = {
        train_val: train_val_text(known, name, options),
        folder / "deploy.prototxt": deploy_text(known, name, options),
        solver: solver_text(model, data, schedule, product_path(train_val), options),
    }
    if known.crf is None:
        files[folder / "deploy_crf.prototxt"] = deploy_text(known, name, options, crf=True)
    return files


def product_path(path: Path) -> str:
    """`path` as prototxts name it: from the repository's root where it lies inside, else in full."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(absolute)


# ------------------------------------------------------------------------------------------------- shipped files


def _shipped_data(name: str, classes: int, split: str, test_images: int) -> Data:
    folder = f"data/{name}/{split}"
    return Data(name, classes, IGNORE_LABEL, f"{folder}train", f"{folder}test", test_images)


_STANFORD_CLASSES = len(load_dataset("stanford_background").classes)
_STANFORD = _shipped_data("stanford_background", _STANFORD_CLASSES, "fold0/", 143)
_SCENES = _shipped_data("synthetic_scenes", len(SCENE_CLASSES), "", 100)


@dataclass(frozen=True)
class Shipped:
    """One model and dataset whose files come with the repository."""

    model: str
    data: Data
    schedule: Schedule | None = None


SHIPPED = (
    Shipped("n_renet", _STANFORD),
    Shipped("n_renet_released", _STANFORD),
    Shipped("n_renet_quarter", _STANFORD, schedule=schedule_of("adam", 4500)),
    Shipped("n_renet_small", _SCENES, schedule=schedule_of("adam", 600)),
    Shipped("conv_small", _SCENES, schedule=schedule_of("adam", 600)),
    Shipped("conv_small_crf", _SCENES, schedule=schedule_of("adam", 600)),
)


def shipped_files() -> dict[Path, str]:
    """Every file that the repository ships, by absolute path, as this generator writes it."""
    files: dict[Path, str] = {}
    for item in SHIPPED:
        model = MODELS[item.model]
        files |= network_files(
            item.model,
            item.data,
            Options(model.crop, model.batch),
            item.schedule or schedule_of(model.schedule, None),
            ROOT / "prototxt" / item.model / item.data.name,
            ROOT / "solvers" / f"{item.model}_{item.data.name}.prototxt",
        )
    return files


# -------------------------------------------------------------------------------------------------- command line


def prepared_data(path: Path, train: str | None, test: str | None) -> Data:
    """Read a dataset.json (or its folder) and choose the splits, by default `train` and `test` or `val`, bare or of
    `fold0`.

    Raises:
        UserError: no such dataset or split.
    """
    dataset = Dataset.load(path)

    def choose(wanted: str | None, option: str, usual: tuple[str, ...]) -> str:
        names = (wanted,) if wanted else usual
        for name in names:
            if name in dataset.splits:
                return name
        known = ", ".join(dataset.splits) or "none"
        raise UserError(f"{option}: {dataset.folder} has no split {' or '.join(names)} (it has {known})")

    train = choose(train, "--train-split", ("train", "fold0/train"))
    test = choose(test, "--test-split", ("test", "val", "fold0/test"))
    return Data(
        dataset.folder.resolve().name,
        len(dataset.classes),
        dataset.ignore_label,
        product_path(dataset.folder / train),
        product_path(dataset.folder / test),
        dataset.splits[test].count,
    )


def crop_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers, for argparse."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 120x160")
    return int(match[1]), int(match[2])


def write_files(files: Mapping[Path, str]) -> None:
    """Write each text to its path, making folders."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(product_path(path))


def main(arguments: argparse.Namespace) -> None:
    """Write what the command line asks for."""
    if arguments.shipped:
        if any((arguments.model, arguments.dataset, arguments.out)):
            raise UserError("--shipped writes the repository's own files; it goes without --model, --dataset and --out")
        write_files(shipped_files())
        return
    for option in ("model", "dataset", "out"):
        if getattr(arguments, option) is None:
            raise UserError(f"--{option} is missing (or --shipped, to write the repository's own files anew)")
    data = prepared_data(arguments.dataset, arguments.train_split, arguments.test_split)
    model = MODELS[arguments.model]
    mean = Dataset.load(arguments.dataset).mean if arguments.dataset_mean else MEAN_BGR
    options = Options(arguments.crop or model.crop, arguments.batch or model.batch, arguments.forget_bias, tuple(mean))
    schedule = schedule_of(arguments.solver or model.schedule, arguments.iterations)
    out: Path = arguments.out
    write_files(network_files(arguments.model, data, options, schedule, out, out / "solver.prototxt"))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = "\n".join(f"  {name:18}{model.headline.splitlines()[0]}" for name, model in MODELS.items())
    result = argparse.ArgumentParser(
        description="Write a network and its solver for a prepared dataset.",
        epilog=f"""models:
{known}

example:
  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_data --crop 120x160 --out my_net
  .venv/bin/python tools/train.py --solver my_net/solver.prototxt

Any class count works: it comes from the dataset.json. The written files are plain prototxt, made to be edited.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--model", choices=MODELS, help="see below")
    result.add_argument("--dataset", type=Path, metavar="DATASET.JSON", help="a prepared dataset, or its folder")
    result.add_argument("--out", type=Path, metavar="DIR", help="for train_val, deploy, deploy_crf and solver.prototxt")
    result.add_argument("--crop", type=crop_size, metavar="HxW", help="training crops (default: the model's)")
    result.add_argument("--batch", type=whole_number(1), metavar="N", help="training batch (default: the model's)")
    result.add_argument("--train-split", metavar="NAME", help="default train, or fold0/train")
    result.add_argument("--test-split", metavar="NAME", help="default test, or val, or fold0/test")
    result.add_argument("--solver", choices=("sgd", "adam"), help="the paper's SGD, or Adam for little time")
    result.add_argument("--iterations", type=whole_number(1), metavar="N", help="default 36000 (sgd) or 5000 (adam)")
    result.add_argument(
        "--forget-bias", type=float, default=FORGET_BIAS, metavar="X", help="initial forget gate bias (default 2)"
    )
    result.add_argument(
        "--dataset-mean",
        action="store_true",
        help="take off the dataset's own mean, and not the usual {:g}, {:g}, {:g}".format(*MEAN_BGR),
    )
    result.add_argument("--shipped", action="store_true", help="write all files of prototxt/ and solvers/ anew")
    return result


if __name__ == "__main__":
    raise SystemExit(run(main, parser()))
