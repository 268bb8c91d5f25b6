"""Generation of a model's networks and solver for a dataset."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from renet.common.errors import UserError
from renet.common.repository import ROOT, product_path
from renet.common.text_layout import shape_text
from renet.data.dataset import Dataset
from renet.networks.class_weights import chosen_class_weights
from renet.networks.files import TRAIN_VAL, WEIGHTS_COMMENT, Data, deploy_text, network_texts, solver_file_text
from renet.networks.fine_tuning import NEW_RATE, TrainedWeights, kept_rate, plan_start
from renet.networks.h_renet import VARIANTS
from renet.networks.models import MODELS, SOLVERS
from renet.networks.schedules import POLICIES, Schedule
from renet.networks.sealed_files import edited, write_texts
from renet.networks.spec import PRECISIONS, Options
from renet.networks.splits import affordable_test_images, chosen_data

SOLVER = "solver.prototxt"
FROZEN_GROUPS = 6  # none, or conv1 to convN


@dataclass(frozen=True)
class WrittenNetwork:
    """What was written of a model.

    Attributes:
        files: paths of the networks and the solver.
        solver: the solver's path.
        tests: what the tests while training see, in a line.
        notes: what else is to be known, a line each.
    """

    files: tuple[Path, ...]
    solver: Path
    tests: str
    notes: tuple[str, ...] = ()


def write(
    model: str,
    dataset: Dataset | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    crop: tuple[int, int] | None = None,
    batch: int | None = None,
    train_split: str | Sequence[str] | None = None,
    test_split: str | None = None,
    test_images: int | None = None,
    mean: tuple[float, float, float] | None = None,
    dataset_mean: bool = False,
    solver: Literal["sgd", "adam", "adamw"] | None = None,
    schedule: Literal["fixed", "step", "poly", "cosine"] | None = None,
    warmup: int | None = None,
    average: float | None = None,
    iterations: int | None = None,
    interval: int | None = None,
    rate: float | None = None,
    iter_size: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    weights_from: str | os.PathLike[str] | None = None,
    forget_bias: float | None = None,
    precision: Literal["FLOAT32", "TF32", "BF16"] | None = None,
    frozen: int | None = None,
    new_rate: float | None = None,
    gaussian_std: float | None = None,
    l2_scale: float | None = None,
    batch_norm_memory: float | None = None,
    augment: Sequence[str] = (),
    class_weights: str | os.PathLike[str] | Sequence[float] | None = None,
    hard_examples: float | None = None,
    dropout: float | None = None,
    force: bool = False,
) -> WrittenNetwork:
    """Write a model's networks and solver for a prepared dataset, as `prototxt/generate.py` does.

    What is None is the model's own choice.

    Args:
        model: name of the model, such as `n_renet` (see `MODELS`).
        dataset: prepared; or its folder.
        out: folder of train_val.prototxt, deploy.prototxt, deploy_crf.prototxt and solver.prototxt.
        crop: height and width of the training crops.
        batch: images of one forward pass.
        train_split: a split's name or folder; several are read as one.
        test_split: likewise, one.
        test_images: a test while training sees the first so many images.
        mean: taken off B, G and R, 0..255.
        dataset_mean: take the dataset's own mean off.
        solver: the paper's SGD, or Adam for little time, or AdamW: Adam with decoupled weight decay.
        schedule: how the rate falls.
        warmup: first iterations, over which the rate climbs from 0.
        average: share of the weights' running average, which tests and snapshots have, that stays at each iteration.
        iterations: of the training.
        interval: iterations between two tests, and two snapshots.
        rate: the learning rate.
        iter_size: passes to an iteration.
        weights: what the training starts from.
        weights_from: a run's folder, a model folder or weights of the same model for other classes: layers that fit are
            kept, and learn at a third of the usual rate; the others start anew, at the usual one.
        forget_bias: see `Options`, as those that follow.
        precision: likewise.
        frozen: convolution groups that keep their weights.
        new_rate: factor of the learning rate of new layers: those that do not come from VGG-16 or `weights_from`.
        gaussian_std: of the initial weights of conv6 and conv7.
        l2_scale: of L2 normalisation.
        batch_norm_memory: share of the running statistics that stays.
        augment: kinds of augmentation of the training images, of `renet.networks.augmentation.AUGMENTATIONS`.
        class_weights: `median_frequency` or `inverse` of the training splits' pixels, a file with a line for each
            class, or the weights.
        hard_examples: share of a batch's pixels that the loss is of, the worst.
        dropout: share of the values that Dropout lets go between two recurrent groups.
        force: overwrite files that a person has edited.

    Raises:
        UserError: no such model, split or augmentation, a value that nothing can be trained with, no dataset, or an
            edited file in the way; names it.
    """
    if model not in MODELS:
        close = get_close_matches(model, MODELS, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(MODELS)}"
        raise UserError(f"no model {model!r}; {hint}")
    named = (
        ("solver", solver, SOLVERS),
        ("schedule", schedule, tuple(POLICIES)),
        ("precision", precision, PRECISIONS),
    )
    for name, choice, known in named:
        if choice is not None and choice not in known:
            raise UserError(f"{name} is one of {', '.join(known)}, not {choice!r}")
    height, width = crop or (None, None)
    counts = {"batch": batch, "test_images": test_images, "iterations": iterations, "interval": interval}
    counts |= {"warmup": warmup, "iter_size": iter_size, "crop's height": height, "crop's width": width}
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or count < 1):
            raise UserError(f"{name} is a whole number of at least 1, not {count!r}")
    factors = {"rate": rate, "new_rate": new_rate, "gaussian_std": gaussian_std, "l2_scale": l2_scale}
    for name, factor in (factors | {"batch_norm_memory": batch_norm_memory}).items():
        if factor is not None and not 0 < factor < math.inf:
            raise UserError(f"{name} is a number over 0, not {factor!r}")
    if frozen is not None and frozen not in range(FROZEN_GROUPS):
        raise UserError(f"frozen is a whole number of 0 to {FROZEN_GROUPS - 1}, not {frozen!r}")
    for name, share in (("average", average), ("dropout", dropout)):
        if share is not None and not 0 <= share < 1:
            raise UserError(f"{name} is a number of at least 0 and below 1, not {share!r}")
    if hard_examples is not None and not 0 < hard_examples <= 1:
        raise UserError(f"hard_examples is a number over 0 and up to 1, not {hard_examples!r}")
    if dropout is not None and not MODELS[model].stacked:
        stacked = ", ".join(name for name, other in MODELS.items() if other.stacked)
        raise UserError(f"dropout stands between recurrent groups, of which {model} has no two; {stacked} have")
    if precision is not None and not MODELS[model].stacked and model not in VARIANTS:
        raise UserError(f"precision is of ReNet layers, of which {model} has none")
    fitting = None if crop is None else MODELS[model].protocol.crop(crop)
    if fitting != crop:
        raise UserError(
            f"{model} learns from crops of {MODELS[model].protocol.crop_rule}: {shape_text(fitting)} in place of "
            f"{shape_text(crop)}"
        )
    learning = MODELS[model].schedule(solver, iterations)
    iter_size = iter_size or MODELS[model].iter_size
    if warmup is not None and warmup >= learning.iterations:
        raise UserError(f"warmup of {warmup} iterations in a training of {learning.iterations}")
    if weights is not None and weights_from is not None:
        raise UserError("weights and weights_from both say what the training starts from; give one")
    described = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    data = chosen_data(described, [train_split] if isinstance(train_split, str) else train_split, test_split)
    weighed = None
    if class_weights is not None:
        weighed = chosen_class_weights(class_weights, described, [ROOT / split for split in data.train])
    trained = None if weights_from is None else TrainedWeights.find(Path(weights_from))
    options = MODELS[model].options(
        crop,
        batch,
        mean=mean or (described.mean if dataset_mean else trained.mean if trained else None),
        forget_bias=forget_bias,
        precision=precision,
        frozen=frozen,
        new_rate=1 if trained else new_rate,
        gaussian_std=gaussian_std,
        l2_scale=l2_scale,
        batch_norm_memory=batch_norm_memory,
        augment=tuple(augment),
        class_weights=weighed,
        hard_examples=hard_examples,
        dropout=dropout,
    )
    start = None
    if trained is not None:
        deploy = deploy_text(MODELS[model], model, len(described.classes), options)
        start = plan_start(trained, deploy, tuple(described.classes), described.name, new_rate or NEW_RATE)
        options = replace(options, new_layers=start.new)
        weights = start.weights
        rate = rate or kept_rate(learning.rule["base_lr"], new_rate)
    files, tests = generated_files(
        model,
        data,
        options,
        learning.adjusted(rate, interval, schedule, warmup, average or None),
        Path(out),
        iter_size=iter_size,
        test_images=test_images,
        weights=None if weights is None else Path(weights),
        weights_comment=None if start is None else "\n".join(start.notes),
    )
    write_files(files, force, "another --out keeps it")
    notes = (weighed.note,) if weighed is not None and weighed.note else ()
    notes += () if start is None else start.notes
    return WrittenNetwork(tuple(files), Path(out) / SOLVER, tests, notes)


def write_files(files: Mapping[Path, str], force: bool, keeping: str) -> None:
    """Write all the files, or none where a person edited one.

    Args:
        files: texts by path.
        force: overwrite edited files, too.
        keeping: how the edits are kept, for the error.

    Raises:
        UserError: one was edited and `force` is not given; names it.
    """
    kept = [] if force else edited(files)
    if kept:
        others = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        raise UserError(
            f"{product_path(kept[0])}{others}: edited since it was generated, or made otherwise; {keeping}, --force "
            "overwrites it"
        )
    write_texts(files)


def generated_files(
    model_name: str,
    data: Data,
    options: Options,
    schedule: Schedule,
    out: Path,
    *,
    iter_size: int = 1,
    test_images: int | None = None,
    weights: Path | None = None,
    weights_comment: str | None = None,
) -> tuple[dict[Path, str], str]:
    """Generate a model's networks and solver for a dataset.

    Args:
        model_name: of `MODELS`.
        data: the splits.
        options: of the network.
        schedule: how it learns.
        out: the files' folder.
        iter_size: passes to an iteration.
        test_images: at most so many images are tested while training; None: see `affordable_test_images`.
        weights: what it starts from; None: the model's own.
        weights_comment: above it in the solver; None: what is to be said of the model's own.

    Returns:
        Texts by path, and a line on the tests while training.
    """
    model = MODELS[model_name]
    tested = test_images or affordable_test_images(data, options, schedule, iter_size)
    data = replace(data, tested_images=min(tested, data.test_images))
    name = f"{model_name}_{data.name}"
    files = {out / file: text for file, text in network_texts(model, name, data, options).items()}
    files[out / SOLVER] = solver_file_text(
        name,
        f"{model_name} on {data.name}",
        model,
        data,
        options,
        schedule,
        TRAIN_VAL,
        iter_size=iter_size,
        weights=None if weights is None else product_path(weights),
        weights_comment=weights_comment or (WEIGHTS_COMMENT if weights is None else "By the layers' names."),
    )
    return files, test_text(data, schedule, test_images is not None)


def test_text(data: Data, schedule: Schedule, is_wish: bool) -> str:
    """Write in a line what the tests while training see.

    Args:
        data: says which images.
        schedule: says when.
        is_wish: their number is the command line's.
    """
    when = f"a test every {schedule.interval:,} iterations"
    if data.tested_images == data.test_images:
        return f"{when}: all {data.test_images:,} images of {data.test}"
    why = "" if is_wish else ", so that tests take about a tenth of the time (--test-images N: another number)"
    return f"{when}: the first {data.tested_images:,} of the {data.test_images:,} images of {data.test}{why}"
