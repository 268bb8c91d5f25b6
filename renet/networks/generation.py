"""Generation of a model's networks and solver for a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import product_path
from renet.networks.files import TRAIN_VAL, Data, network_texts, solver_file_text
from renet.networks.models import MODELS
from renet.networks.schedules import Schedule
from renet.networks.sealed_files import edited, write_texts
from renet.networks.spec import Options
from renet.networks.splits import affordable_test_images


def write(files: Mapping[Path, str], force: bool, keeping: str) -> None:
    """Write all the files, or none where a person edited one, and print their paths.

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

    Returns:
        Texts by path, and a line on the tests while training.
    """
    model = MODELS[model_name]
    tested = test_images or affordable_test_images(data, options, schedule, iter_size)
    data = replace(data, tested_images=min(tested, data.test_images))
    name = f"{model_name}_{data.name}"
    files = {out / file: text for file, text in network_texts(model, name, data, options).items()}
    files[out / "solver.prototxt"] = solver_file_text(
        name,
        f"{model_name} on {data.name}",
        model,
        data,
        options,
        schedule,
        TRAIN_VAL,
        iter_size=iter_size,
        weights=None if weights is None else product_path(weights),
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
