"""Parts of the benchmark: what the machine reaches at most, ReNet layer groups, and dense CRFs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from renet.benchmark.layer_tasks import FORWARD, FORWARD_BACKWARD, CrfShape, Shape
from renet.benchmark.settings import CAFFE, NUMPY, PYDENSECRF, PYTORCH, Entry, Settings
from renet.benchmark.sides import Side, compare
from renet.benchmark.tables import largest_difference
from renet.common.errors import UserError

TOLERANCE = 1e-3  # of results, relative to the largest value; the two sides add in other orders
CLOSE, CLOSE_SHARE, FARTHEST = 1e-5, 0.999, 1e-3  # of the values of Q: the layer's contract with pydensecrf
NO_SHAPE = Shape(1, 1, 1, 1, 1)  # of tasks that have their own size


def time_machine(settings: Settings, task: str) -> dict[str, Any]:
    """The large matrix product ("product", by each side's BLAS) or the "triad" over large arrays."""
    sides = {NUMPY: Side(f"numpy-{task}", settings.python, NO_SHAPE)}
    if settings.peer and task == "product":
        sides[PYTORCH] = Side(f"pytorch-{task}", settings.peer, NO_SHAPE)
    check = partial(check_results, "the matrix product")
    return {"task": task, **compare(sides, FORWARD, settings.runs, settings.threads, check)}


def machine_entries(settings: Settings) -> list[Entry]:
    """What shares of the peak are shares of."""
    return [Entry(task, partial(time_machine, settings, task)) for task in ("product", "triad")]


def check_results(what: str, ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two sides' results, relative to the largest value.

    Raises:
        UserError: it is above TOLERANCE; `what` says at what.
    """
    difference = largest_difference(ours, theirs)
    if difference > TOLERANCE:
        raise UserError(
            f"the libraries' results differ by {difference:.1e} of the largest value at {what}: they do not compute"
            " the same"
        )
    return difference


def time_group(settings: Settings, shape: Shape, passes: str) -> dict[str, Any]:
    """A ReNet layer group beside the same made of PyTorch's LSTM."""
    sides = {CAFFE: Side("caffe", settings.python, shape, caffe=settings.build)}
    if settings.peer:
        sides[PYTORCH] = Side("pytorch", settings.peer, shape)
    check = partial(check_results, f"the shape {shape}, {passes}")
    measured = compare(sides, passes, settings.runs, settings.threads, check)
    return {"shape": list(shape), "pass": passes, **measured}


def group_entries(settings: Settings) -> list[Entry]:
    """Every shape, forward alone and with backward."""
    return [
        Entry(f"{shape}, {passes}", partial(time_group, settings, shape, passes))
        for shape in settings.scale.groups
        for passes in (FORWARD, FORWARD_BACKWARD)
    ]


def check_agreement(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two samples of Q.

    Raises:
        UserError: they differ by more than the contract allows.
    """
    differences = np.abs(np.subtract(ours["Q"], theirs["Q"]))
    share = float((differences < CLOSE).mean())
    if share < CLOSE_SHARE or differences.max() >= FARTHEST:
        raise UserError(
            f"the layer and pydensecrf do not compute the same: {100 * share:.2f}% of the values of Q are within "
            f"{CLOSE:g}, the farthest differs by {differences.max():.2g}"
        )
    return float(differences.max())


def time_crf(settings: Settings, shape: CrfShape) -> dict[str, Any]:
    """A DenseCRF layer beside pydensecrf, which computes in one thread."""
    sides = {CAFFE: Side("caffe-crf", settings.python, shape, caffe=settings.build)}
    if settings.peer:
        sides[PYDENSECRF] = Side("pydensecrf", settings.peer, shape)
    return {"shape": list(shape), **compare(sides, FORWARD, settings.runs, settings.threads, check_agreement)}


def crf_entries(settings: Settings) -> list[Entry]:
    """Every shape."""
    return [Entry(str(shape), partial(time_crf, settings, shape)) for shape in settings.scale.crfs]
