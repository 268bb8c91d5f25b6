"""Scores while training: which of a network's losses they are of, and what a test network makes of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from renet.common.errors import UserError
from renet.common.progress import progress
from renet.data.dataset import IGNORE_LABEL, Dataset
from renet.evaluation.scores import scores
from renet.training.files import TestNetwork, dataset_folders
from renet.training.ranks import Ranks, divides_test


def total_loss(network: caffe.Net) -> float:
    """The weighted sum of the network's loss blobs after a forward pass."""
    weights = network.blob_loss_weights
    return float(sum(weight * network.blobs[name].data.sum() for name, weight in weights.items() if weight))


@dataclass(frozen=True)
class Head:
    """A loss over class scores (or, in a network without one, an accuracy), and what it compares.

    Attributes:
        layer: its name.
        weight: of the loss in the sum; 0 for an accuracy.
        score: N x C x H x W blob, or N x C; at least two classes.
        label: blob of a label for each place: N x 1 x H x W, or N.
        ignore_label: label that counts nowhere.
        label_name: of the label blob in the network file.
    """

    layer: str
    weight: float
    score: Any
    label: Any
    ignore_label: int
    label_name: str

    @property
    def classes(self) -> int:
        """C."""
        return int(self.score.shape[1])

    def count(self) -> np.ndarray:
        """The C x C confusion matrix of the present batch: rows the truth, columns the class with the largest score.

        Raises:
            UserError: a label is no class and not the ignored one; names layer, value and classes.
        """
        predictions = self.score.data.argmax(axis=1)
        labels = self.label.data.reshape(predictions.shape)
        counted = labels != self.ignore_label
        truths, predictions = labels[counted], predictions[counted]
        # so that no number (NaN) is none, either
        wrong = ~((truths >= 0) & (truths < self.classes) & (truths == np.floor(truths)))
        if wrong.any():
            raise UserError(
                f"layer {self.layer!r} got the label {truths[wrong][0]:g}; expected 0 to {self.classes - 1}, or"
                f" {self.ignore_label} (ignored)"
            )
        pairs = truths.astype(np.int64) * self.classes + predictions
        return np.bincount(pairs, minlength=self.classes**2).reshape(self.classes, self.classes)


def find_heads(network: caffe.Net, layers: Iterable[caffe_pb2.LayerParameter]) -> list[Head]:
    """All losses over class scores of a built network; where it has none, its accuracies.

    Args:
        network: as Caffe built it.
        layers: those of its description that it was built from.
    """
    described = {layer.name: layer for layer in layers}
    weights = list(network.blob_loss_weights.values())
    losses, accuracies = [], []
    for index, (name, layer) in enumerate(zip(network._layer_names, network.layers)):
        bottoms, tops = list(network._bottom_ids(index)), list(network._top_ids(index))
        weight = sum(weights[top] for top in tops)
        description = described.get(name)
        if description is None or len(bottoms) < 2 or not (weight or layer.type == "Accuracy"):
            continue
        score, label = network._blobs[bottoms[0]], network._blobs[bottoms[1]]
        shape = tuple(score.shape)
        if (
            len(shape) < 2
            or shape[1] < 2
            or label.count != score.count // shape[1]
            or _axis(description)
            not in (
                1,
                1 - len(shape),
            )
        ):
            continue
        parameter = description.accuracy_param if layer.type == "Accuracy" else description.loss_param
        ignored = parameter.ignore_label if parameter.HasField("ignore_label") else IGNORE_LABEL
        head = Head(name, weight, score, label, ignored, description.bottom[1])
        (losses if weight else accuracies).append(head)
    return losses or accuracies


def _axis(layer: caffe_pb2.LayerParameter) -> int:
    """The axis of the classes."""
    parameters = {
        "SoftmaxWithLoss": layer.softmax_param,
        "InfogainLoss": layer.infogain_loss_param,
        "Accuracy": layer.accuracy_param,
    }
    return parameters[layer.type].axis if layer.type in parameters else 1


def main_head(heads: Sequence[Head]) -> Head | None:
    """The head that scores are of: that of the largest weight, of equal ones the last."""
    return max(reversed(heads), key=lambda head: head.weight, default=None)


def told(heads: Sequence[Head]) -> str | None:
    """A line that says which of several heads the scores are of; None where there is no choice."""
    main = main_head(heads)
    if main is None or len(heads) == 1:
        return None
    others = ", ".join(f"{head.layer} (weight {head.weight:g})" for head in heads if head is not main)
    return f"scores: of the layer {main.layer} (weight {main.weight:g}), not of {others}"


def check_classes(heads: Iterable[Head], layers: Sequence[caffe_pb2.LayerParameter], where: str) -> Iterator[str]:
    """Compare each head's classes with those of the prepared datasets whose labels come to it as they are.

    Args:
        heads: of a built network.
        layers: those of its description that it was built from.
        where: the network's file, for messages.

    Yields:
        lines that tell of more outputs than the dataset has classes.

    Raises:
        UserError: fewer outputs than classes; names both.
    """
    for head in heads:
        sources = [layer for layer in layers if head.label_name in layer.top]
        for layer in sources if len(sources) == 1 else ():  # else a layer in place changes them
            for folder in dict.fromkeys(dataset_folders(layer)):
                dataset = Dataset.open(folder)
                labels = [label for label in range(len(dataset.classes)) if label != head.ignore_label]
                text = (
                    f"{where}: layer {head.layer!r} gets scores of {head.classes} classes, and"
                    f" {folder / 'dataset.json'} has {len(dataset.classes)}"
                )
                if max(labels) >= head.classes:
                    raise UserError(
                        f"{text}: num_output of the layer that makes the scores must be the number of classes"
                    )
                if len(dataset.classes) < head.classes:
                    yield f"{text}; the others will never be right"


def build(test: TestNetwork, file: Path) -> tuple[caffe.Net, list[Head]]:
    """A test's network from `file`, in its state, and its heads."""
    # Caffe adds these stages to the network's own, and takes the level in place of its own
    network = caffe.Net(str(file), test.state.phase, level=test.state.level, stages=list(test.more_stages))
    return network, find_heads(network, test.layers)


def count(
    test: TestNetwork, file: Path, solver: Any, is_stopped: Callable[[], bool], ranks: Ranks
) -> tuple[float, np.ndarray] | None:
    """Test a solver's weights, or their averages where it keeps some, on the first batches of a test.

    Every call builds the network anew, so that it always sees the same images and holds no memory in between. The ranks
    divide the batches: one reads every n-th.

    Returns:
        of all ranks' batches the mean loss, and the confusion matrix, without rows where the network has no head; None
        where the work was asked to stop.

    Raises:
        UserError: a label is out of range; names the layer.
    """
    network, heads = build(test, file)
    solver.share_weights(network)
    head = main_head(heads)
    if head is not None:
        _ = head.score.data, head.label.data  # what NumPy has asked for stays until it is counted
    network.share_maps()
    confusion = np.zeros((0, 0) if head is None else (head.classes, head.classes), np.int64)
    loss = 0.0
    divides = ranks.size > 1 and divides_test(test.layers)
    step = ranks.size if divides else 1
    for first in progress(range(0, test.batches, step), description=test.kind, unit="batch", within=True):
        if is_stopped():
            return None
        if divides and first + ranks.rank >= test.batches:
            continue
        network.forward()
        loss += total_loss(network)
        if head is not None:
            try:
                confusion = confusion + head.count()
            except UserError as error:
                raise UserError(f"{file}: {test.title}: {error}") from None
    if divides:
        loss, confusion = ranks.sum(loss), ranks.sum_counts(confusion)
    return loss / test.batches, confusion


def score(
    test: TestNetwork, file: Path, solver: Any, is_stopped: Callable[[], bool], ranks: Ranks
) -> dict[str, float] | None:
    """Score what `count` counts.

    Returns:
        `loss`, and where the network has a head `pixel_accuracy`, `class_accuracy` and `mean_iou` (fractions); None
        where the work was asked to stop.

    Raises:
        UserError: as of `count`.
    """
    counted = count(test, file, solver, is_stopped, ranks)
    if counted is None:
        return None
    loss, confusion = counted
    result = {"loss": loss}
    if np.any(confusion):
        found = scores(confusion)
        result |= {
            "pixel_accuracy": found.pixel_accuracy,
            "class_accuracy": found.class_accuracy,
            "mean_iou": found.mean_iou,
        }
    return result
