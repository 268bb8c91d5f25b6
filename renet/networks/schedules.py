"""Schedules by which the networks learn, and the solver's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from caffe.proto import caffe_pb2

from renet.networks.spec import comment_lines, field_lines

# From what is trained, over how, to what is written: the order of a solver's fields for a reader.
SOLVER_ORDER = (
    *("net", "weights", "test_iter", "test_interval", "test_initialization"),
    *("type", "base_lr", "lr_policy", "gamma", "stepsize", "power", "momentum", "momentum2", "delta"),
    *("weight_decay", "clip_gradients", "iter_size", "max_iter", "display", "average_loss"),
    *("snapshot", "snapshot_prefix", "solver_mode", "random_seed"),
)


@dataclass(frozen=True)
class Schedule:
    """Schedule of a training.

    Attributes:
        iterations: of the whole training.
        interval: iterations between two snapshots, and between two tests.
        rule: the SolverParameter fields of the rule itself.
        comments: by field name.
    """

    iterations: int
    interval: int
    rule: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)

    def adjusted(self, rate: float | None = None, interval: int | None = None) -> Schedule:
        """Replace the learning rate and the interval, as far as they are given."""
        schedule = self
        if rate is not None:
            schedule = replace(schedule, rule={**schedule.rule, "base_lr": rate}, comments={})
        return schedule if interval is None else replace(schedule, interval=interval)


def n_renet_sgd(iterations: int | None = None) -> Schedule:
    """Make N-ReNet's schedule, 36,000 iterations by default, the rate divided by 10 after each third."""
    iterations = iterations or 36000
    return Schedule(
        iterations,
        min(1000, max(1, iterations // 10)),
        _sgd(0.05, max(1, iterations // 3)),
        {
            "base_lr": "The paper gives no solver for N-ReNet: rate, momentum and decay are those of the authors'\n"
            "code of 2015, which divides the rate by 10 after each third of its 36,000 iterations."
        },
    )


def h_renet_sgd(iterations: int, step: int | None = None, more: str = "") -> Schedule:
    """Make the paper's schedule for H-ReNet and its baseline (section 4.2): 0.001, divided by 10 in the middle or every
    `step`.

    Args:
        iterations: of the whole training.
        step: iterations between two divisions.
        more: a further comment.
    """
    when = f"every {step:,}" if step else "in the middle"
    return Schedule(
        iterations,
        max(1, iterations // 10),
        _sgd(0.001, step or max(1, iterations // 2)),
        {
            "base_lr": f"Section 4.2: 0.001, divided by 10 {when} of the {iterations:,} iterations"
            f"{more}. Momentum\nand decay, which the paper does not give, are the usual ones with this backbone.",
        },
    )


def adam(iterations: int | None = None, rate: float = 0.002) -> Schedule:
    """Make a schedule for little computing time: Adam, 5,000 iterations by default, the rate falling linearly to 0."""
    iterations = iterations or 5000
    return Schedule(
        iterations,
        min(1000, max(1, iterations // 10)),
        {
            "type": "Adam",
            "base_lr": rate,
            "lr_policy": "poly",
            "power": 1,
            "momentum": 0.9,
            "momentum2": 0.999,
            "delta": 1e-8,
            "clip_gradients": 5,
        },
        {
            "base_lr": "A schedule for little computing time: Adam, the rate falling linearly to 0.",
            "clip_gradients": "The norm of a gradient is cut to this: after long sweeps one is huge now and then.",
        },
    )


def _sgd(rate: float, step: int) -> dict[str, Any]:
    return {
        "base_lr": rate,
        "lr_policy": "step",
        "gamma": 0.1,
        "stepsize": step,
        "momentum": 0.9,
        "weight_decay": 0.0005,
    }


def solver_text(
    headline: str,
    net: str,
    schedule: Schedule,
    name: str,
    test_images: int,
    *,
    tested_images: int | None = None,
    weights: str | None = None,
    weights_comment: str = "",
    iter_size: int = 1,
    batch_norm: bool = False,
) -> str:
    """Write the solver as prototxt.

    Args:
        headline: what the file says first.
        net: path of the train_val network; relative ones lead from the solver's folder, or from the repository's root.
        schedule: how it learns.
        name: of the training: snapshots are runs/<name>_iter_N.
        test_images: of the test split.
        tested_images: how many of them a test sees; None: all.
        weights: path of the weights that it starts from.
        weights_comment: above it.
        iter_size: forward and backward passes whose gradients make one iteration.
        batch_norm: whether the network has BatchNorm layers.
    """
    tested_images = tested_images or test_images
    solver = caffe_pb2.SolverParameter(
        net=net,
        test_iter=[tested_images],
        test_interval=schedule.interval,
        test_initialization=False,
        max_iter=schedule.iterations,
        display=20,
        average_loss=20,
        snapshot=schedule.interval,
        snapshot_prefix=f"runs/{name}",
        solver_mode=caffe_pb2.SolverParameter.CPU,
        random_seed=0,
        **schedule.rule,
    )
    comments = {
        "test_iter": "One image at a time: the whole test split."
        if tested_images == test_images
        else f"One image at a time: the first {tested_images} of the test split's {test_images}.",
        "snapshot": "Files runs/..._iter_N.caffemodel and .solverstate; tools/train.py keeps them in the run's folder.",
        "solver_mode": "CPU; tools/train.py --gpu 0 and caffe train -gpu 0 take a GPU.",
        "random_seed": "Of the initial weights; the samples have the seed of their data layer.",
        **schedule.comments,
    }
    if weights is not None:
        solver.weights.append(weights)
        comments["weights"] = weights_comment
    if iter_size > 1:
        solver.iter_size = iter_size
        comments["iter_size"] = "Passes whose gradients are averaged into one iteration: batch x iter_size images." + (
            "\nBatchNorm's mean and variance are still those of a single pass's batch." if batch_norm else ""
        )
    return comment_lines(headline) + field_lines(solver, comments, indent="", order=SOLVER_ORDER)
