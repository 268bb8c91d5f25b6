"""Parts of the benchmark: what the machine reaches at most, and dense CRFs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from renet.benchmark.kernel_tasks import crf_text, write_crf_inputs
from renet.benchmark.network_parts import network_sides
from renet.benchmark.settings import NUMPY, PYDENSECRF, PYTORCH, Entry, Settings
from renet.benchmark.sides import Side, compare
from renet.common.errors import UserError
from renet.gpu_check.work import FORWARD

CLOSE, CLOSE_SHARE, FARTHEST = 1e-5, 0.999, 1e-3  # of the values of Q: the layer's contract with pydensecrf


def time_machine(settings: Settings, task: str) -> dict[str, Any]:
    """The large matrix product ("product", by each side's BLAS) or the "triad" over large arrays."""
    sides = {NUMPY: Side("numpy", f"kernel_tasks.{task.title()}", settings.python, {})}
    if settings.peer and task == "product":
        sides[PYTORCH] = Side("torch", "kernel_tasks.Product", settings.peer, {})
    return {"task": task, **compare(sides, settings.runs, settings.threads)}


def machine_entries(settings: Settings) -> list[Entry]:
    """What shares of the peak are shares of."""
    return [Entry(task, partial(time_machine, settings, task)) for task in ("product", "triad")]


def check_agreement(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two samples of Q.

    Raises:
        UserError: they differ by more than the contract allows.
    """
    differences = np.abs(np.subtract(ours["crf"], theirs["crf"]))
    share = float((differences < CLOSE).mean())
    if share < CLOSE_SHARE or differences.max() >= FARTHEST:
        raise UserError(
            f"the layer and pydensecrf do not compute the same: {100 * share:.2f}% of the values of Q are within "
            f"{CLOSE:g}, the farthest differs by {differences.max():.2g}"
        )
    return float(differences.max())


def time_crf(settings: Settings, shape: Sequence[int | str]) -> dict[str, Any]:
    """A DenseCRF layer beside pydensecrf, which computes in one thread; `shape` is one of `Scale.crfs`."""
    with TemporaryDirectory() as scratch:
        write_crf_inputs(shape, Path(scratch))
        sides = network_sides(settings._replace(peer=None), crf_text(shape), "", Path(scratch), FORWARD, alone=True)
        if settings.peer:
            job = {"values": scratch, "shape": list(shape)}
            sides[PYDENSECRF] = Side(
                "pydensecrf.densecrf", "kernel_tasks.Pydensecrf", settings.peer, job, check=check_agreement
            )
        return {"shape": list(shape), **compare(sides, settings.runs, settings.threads, repeats=True)}


def crf_entries(settings: Settings) -> list[Entry]:
    """Every shape."""
    return [Entry(",".join(map(str, shape)), partial(time_crf, settings, shape)) for shape in settings.scale.crfs]
