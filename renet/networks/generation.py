"""Networks and solvers of a model written for a dataset, as a person asks for them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import product_path
from renet.data.catalog import MEAN_BGR
from renet.data.dataset import Dataset
from renet.networks.files import TRAIN_VAL, Data, network_texts, solver_file_text
from renet.networks.models import MODELS
from renet.networks.schedules import Schedule
from renet.networks.spec import Options
from renet.networks.splits import affordable_test_images, chosen_data
from renet.networks.written_files import edited, write_texts


def write(files: Mapping[Path, str], force: bool, keeping: str) -> None:
    """Write all the files, or none where a person edited one, and tell which.

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
    for path in files:
        print(product_path(path))


def chosen_options(arguments: argparse.Namespace) -> Options:
    """What the command line says about the network, the model's own choice elsewhere."""
    model = MODELS[arguments.model]
    mean = arguments.mean or (Dataset.load(arguments.dataset).mean if arguments.dataset_mean else MEAN_BGR)
    options = Options(arguments.crop or model.crop, arguments.batch or model.batch, mean=tuple(mean))
    names = ("forget_bias", "frozen", "new_rate", "gaussian_std", "l2_scale", "batch_norm_memory")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return replace(options, **given)


def written_files(arguments: argparse.Namespace) -> tuple[dict[Path, str], str]:
    """The files of the model and dataset that the command line names, and what is to be said about their tests.

    Raises:
        UserError: bad data or choices.
    """
    data = chosen_data(Dataset.load(arguments.dataset), arguments.train_split, arguments.test_split)
    model = MODELS[arguments.model]
    options = chosen_options(arguments)
    schedule = model.schedule(arguments.solver, arguments.iterations)
    if arguments.rate is not None:
        schedule = replace(schedule, rule={**schedule.rule, "base_lr": arguments.rate}, comments={})
    if arguments.interval is not None:
        schedule = replace(schedule, interval=arguments.interval)
    tested = arguments.test_images or affordable_test_images(data, options, schedule, arguments.iter_size)
    data = replace(data, tested_images=min(tested, data.test_images))
    out: Path = arguments.out
    name = f"{arguments.model}_{data.name}"
    files = {out / file: text for file, text in network_texts(model, name, data, options).items()}
    headline = f"{arguments.model} on {data.name}"
    files[out / "solver.prototxt"] = solver_file_text(
        name,
        headline,
        model,
        data,
        options,
        schedule,
        TRAIN_VAL,
        iter_size=arguments.iter_size,
        weights=None if arguments.weights is None else product_path(arguments.weights),
    )
    return files, test_text(data, schedule, arguments.test_images is not None)


def test_text(data: Data, schedule: Schedule, is_wish: bool) -> str:
    """What the tests while training see, in a line.

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
