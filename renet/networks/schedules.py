"""Schedules by which the networks learn, and the solver's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from caffe.proto import caffe_pb2

from renet.networks.spec import comment_lines, field_lines

# From what is trained, over how, to what is written: the order of a solver's fields for a reader.
SOLVER_ORDER = (
    *("net", "weights", "test_iter", "test_interval", "test_initialization"),
    *("type", "base_lr", "lr_policy", "gamma", "stepsize", "power", "warmup_iter", "momentum", "momentum2", "delta"),
    *("weight_decay", "clip_gradients", "average_decay", "iter_size", "max_iter", "display", "average_loss"),
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

    def adjusted(
        self,
        rate: float | None = None,
        interval: int | None = None,
        policy: str | None = None,
        warmup: int | None = None,
        average: float | None = None,
    ) -> Schedule:
        """Replace what is given.

        Args:
            rate: the learning rate.
            interval: iterations between two tests, and two snapshots.
            policy: name of `POLICIES`, by which the rate falls.
            warmup: first iterations, over which the rate climbs from 0.
            average: share of the weights' running average that stays at each iteration.
        """
        rule, comments = dict(self.rule), dict(self.comments)
        if rate is not None:
            rule["base_lr"] = rate
            comments = {}
        if policy is not None:
            fields, comment = POLICIES[policy](self.iterations)
            rule = {name: value for name, value in rule.items() if name not in ("gamma", "stepsize", "power")}
            rule |= {"lr_policy": policy, **fields}
            comments.pop("base_lr", None)
            comments["lr_policy"] = comment
        if warmup is not None:
            rule["warmup_iter"] = warmup
            comments["warmup_iter"] = "Over so many iterations the rate climbs from warmup_start_lr, 0 here."
        if average is not None:
            rule["average_decay"] = average
            comments["average_decay"] = (
                "Tests and the .caffemodel have a running average of the weights, of which this share stays at each\n"
                "iteration."
            )
        return replace(self, rule=rule, comments=comments, interval=self.interval if interval is None else interval)


# By name, for so many iterations: the fields beside lr_policy, and a comment.
POLICIES: Mapping[str, Callable[[int], tuple[dict[str, Any], str]]] = {
    "fixed": lambda _: ({}, "The rate stays as it is."),
    "step": lambda iterations: (
        {"gamma": 0.1, "stepsize": max(1, iterations // 3)},
        "The rate is divided by 10 after each third of the iterations.",
    ),
    "poly": lambda _: ({"power": 0.9}, "The rate falls to 0: base_lr * (1 - iter / max_iter) ^ power, as DeepLab's."),
    "cosine": lambda _: ({}, "The rate falls to 0 along half a cosine: base_lr * (1 + cos(pi iter / max_iter)) / 2."),
}


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


def authors_sgd(
    iterations: int, rate: float, comment: str, *, momentum: float = 0.9, step: int | None = None
) -> Schedule:
    """Make the schedule of another system's authors.

    Args:
        iterations: of the whole training.
        rate: learning rate at first.
        comment: above it.
        momentum: of the gradients.
        step: iterations between two divisions of the rate by 10; None: it stays.
    """
    rule = _sgd(rate, step or 1) | {"momentum": momentum}
    if step is None:
        rule = {name: value for name, value in rule.items() if name not in ("gamma", "stepsize")}
        rule["lr_policy"] = "fixed"
    return Schedule(iterations, max(1, iterations // 10), rule, {"base_lr": comment})


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


def adamw(schedule: Schedule) -> Schedule:
    """Give a schedule of Adam decoupled weight decay: AdamW."""
    return replace(
        schedule,
        rule={**schedule.rule, "type": "AdamW", "weight_decay": 0.01},
        comments={
            **schedule.comments,
            "base_lr": "A schedule for little computing time: AdamW, the rate falling linearly to 0.",
            "weight_decay": "Decoupled: what every iteration takes off a weight is rate * weight_decay of it.",
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
