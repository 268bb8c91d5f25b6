"""Other classes from trained weights: which layers keep what they learnt, and which start anew under new names.

Caffe fills layers by name, and ends where one of a name has another shape. So what starts anew gets a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from renet.common.errors import UserError
from renet.common.scratch import scratch_file
from renet.common.text_layout import listed, shape_text
from renet.networks.deploy_network import DeployNetwork
from renet.networks.model_folder import find_network
from renet.networks.spec import NewLayer
from renet.runtime.worker_process import run_native
from renet.weights.weight_files import Blobs, read_layers

NEW_RATE = 3.0  # times the training's rate, for layers that start anew
# Layers of the scores: the last convolution, and what works on the scores.
_SCORES = "Convolution"
# Caffe sets their rates itself, and refuses others.
_WITHOUT_RATES = "BatchNorm"

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TrainedWeights:
    """Weights to start from.

    Attributes:
        file: the weights.
        classes: that they tell apart, where they are known.
        mean: taken off B, G and R there, where it is known.
    """

    file: Path
    classes: tuple[str, ...] | None = None
    mean: tuple[float, float, float] | None = None

    @classmethod
    def find(cls, model: Path) -> TrainedWeights:
        """Find the weights of a run's folder, a model folder, or a file of weights alone.

        Raises:
            UserError: there are none; names what is missing.
        """
        if not model.is_dir():
            return cls(model)
        network = find_network(model, None)
        blue, green, red = DeployNetwork.read(network.deploy).transform.mean
        classes = None if network.dataset is None else tuple(network.dataset.classes)
        return cls(network.weights, classes, (blue, green, red))


@dataclass(frozen=True)
class Start:
    """What a network keeps of trained weights.

    Attributes:
        weights: where from.
        kept: names of the layers that are filled.
        new: the layers whose name or rate changes.
        notes: what is kept and what starts anew, a line each.
    """

    weights: Path
    kept: tuple[str, ...]
    new: tuple[NewLayer, ...]
    notes: tuple[str, ...]


def plan_start(
    trained: TrainedWeights, deploy: str, classes: tuple[str, ...], dataset: str, new_rate: float = NEW_RATE
) -> Start:
    """Compare a new network with trained weights, layer by layer.

    The layer of the scores is kept only where the classes are the same in the same order (or those of the weights are
    not known, and as many).

    Args:
        trained: the weights.
        deploy: the new network's prototxt.
        classes: of the new network.
        dataset: its name, of which new layers' names are made.
        new_rate: what multiplies the learning rate of layers that start anew.

    Raises:
        UserError: no layer fits.
    """
    stored = dict(read_layers(trained.file))
    stored = {name: blobs for name, blobs in stored.items() if blobs}
    (layers,) = run_native(_parameters, deploy)
    last = max((number for number, (_, kind, _) in enumerate(layers) if kind == _SCORES), default=len(layers))
    same_classes = trained.classes in (None, classes)
    suffix = re.sub(r"\W+", "_", dataset)
    kept, new, reasons = [], [], []
    for number, (name, kind, shapes) in enumerate(layers):
        names = [name, f"{name}_{suffix}"]  # the second where the weights come of a training like this one
        fitting = next((one for one in names if _fits(stored.get(one), shapes)), None)
        if fitting is not None and (same_classes or number < last):
            kept.append(fitting)
            if fitting != name:
                new.append(NewLayer(name, fitting))
            continue
        reasons.append((name, _reason(stored, name, shapes)))
        own = next(one for one in _names(names) if one not in stored)
        rate = 1.0 if kind == _WITHOUT_RATES else new_rate
        new.append(
            NewLayer(name, own, rate, len(shapes), f"It starts anew, so that it learns at {rate:g} times the rate.")
        )
    if not kept:
        name, reason = reasons[0]
        raise UserError(f"{trained.file}: no layer fits this model; it has {listed(list(stored))}; {name} {reason}")
    return Start(trained.file, tuple(kept), tuple(new), tuple(_notes(trained, kept, new, reasons, classes, new_rate)))


def kept_rate(usual: float, new_rate: float | None) -> float:
    """Choose a training's rate, rounded to a digit: so that layers which start anew learn at the usual one."""
    return float(f"{usual / (new_rate or NEW_RATE):.1g}")


def _notes(
    trained: TrainedWeights,
    kept: list[str],
    new: list[NewLayer],
    reasons: list[tuple[str, str]],
    classes: tuple[str, ...],
    new_rate: float,
) -> Iterator[str]:
    had = f" of {len(trained.classes)} classes" if trained.classes else ""
    yield f"weights: {trained.file}{had}, for {len(classes)} classes"
    yield f"kept, {len(kept)} layers: {listed(kept, 4) if len(kept) < 5 else f'{kept[0]} ... {kept[-1]}'}"
    names = {one.layer: one.name for one in new}
    for name, reason in reasons:
        own = "" if names[name] == name else f", as {names[name]}"
        yield f"starts anew at {new_rate:g} times the rate: {name}{own} ({name} {reason})"
    if trained.mean is None:
        yield "the mean that these weights learnt with is not known; --mean says it"


def _reason(stored: Mapping[str, Blobs], name: str, shapes: Shapes) -> str:
    if name not in stored:
        return "is not there"
    blobs = stored[name]
    if _fits(blobs, shapes):
        return "is of other classes there"
    there = " and ".join(shape_text(blobs[number].shape) for number in sorted(blobs))
    return f"has {there} there, {' and '.join(map(shape_text, shapes))} here"


def _fits(blobs: Blobs | None, shapes: Shapes) -> bool:
    return (
        blobs is not None
        and set(blobs) == set(range(len(shapes)))
        and all(blobs[number].fits(shape) for number, shape in enumerate(shapes))
    )


def _names(names: list[str]) -> Iterator[str]:
    """Names to choose from: the layer's own, that with the dataset, and others of it."""
    yield from names
    number = 2
    while True:
        yield f"{names[-1]}_{number}"
        number += 1


def _parameters(deploy: str) -> Iterator[list[tuple[str, str, Shapes]]]:
    """The layers of a network that have weights: name, type, and the weights' shapes."""
    import caffe

    with scratch_file(deploy, ".prototxt") as file:
        built = caffe.Net(str(file), caffe.TEST)
    kinds = {name: layer.type for name, layer in zip(built._layer_names, built.layers)}
    yield [(name, kinds[name], tuple(tuple(blob.shape) for blob in blobs)) for name, blobs in built.params.items()]
