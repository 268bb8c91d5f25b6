#!/usr/bin/env python3
"""Write networks and solvers: train_val.prototxt, deploy.prototxt (and deploy_crf.prototxt) and a solver for a model
and a dataset.

`models.py` lists the models; n_renet.py and h_renet.py hold their layers, solvers.py their schedules, network_files.py
what all have alike (data, upsampling, loss), shipped.py what comes with the repository.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from renet.common.command_line import UserError, run
from renet.data.dataset import Dataset
from renet.data.catalog import MEAN_BGR
from renet.conversion.prepare import whole_number
from renet.networks.splits import affordable_test_images, chosen_data
from renet.networks.h_renet import VARIANTS
from renet.networks.models import MODELS
from renet.networks.spec import Options
from renet.networks.files import TRAIN_VAL, Data, network_texts, product_path, solver_file_text
from renet.networks.shipped import shipped_files
from renet.networks.schedules import Schedule
from renet.networks.written_files import edited, write_texts


def crop_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers, for argparse."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 120x160")
    return int(match[1]), int(match[2])


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


def mean_bgr(text: str) -> tuple[float, float, float]:
    """B,G,R as three numbers, for argparse."""
    try:
        blue, green, red = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not B,G,R, such as 104,117,123") from None
    return blue, green, red


def positive(text: str) -> float:
    """A number over 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0")
    return number


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


def main(arguments: argparse.Namespace) -> None:
    """Write what the command line asks for."""
    if arguments.shipped:
        if any((arguments.model, arguments.dataset, arguments.out)):
            raise UserError("--shipped writes the repository's own files; it goes without --model, --dataset and --out")
        write(shipped_files(), arguments.force, "a copy of the folder keeps it")
        return
    for option in ("model", "dataset", "out"):
        if getattr(arguments, option) is None:
            raise UserError(f"--{option} is missing (or --shipped, to write the repository's own files anew)")
    files, tests = written_files(arguments)
    write(files, arguments.force, "another --out keeps it")
    print(tests)
    variant = VARIANTS.get(arguments.model)
    if variant is not None:
        print(f"the recurrent layer group: {' '.join(variant.group_text().split())}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = "\n".join(f"  {name:24}{model.headline.splitlines()[0]}" for name, model in MODELS.items())
    result = argparse.ArgumentParser(
        description="Write a network and its solver for a prepared dataset.",
        epilog=f"""models:
{known}

examples:
  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_data --crop 120x160 --out my_net
  .venv/bin/python tools/train.py --solver my_net/solver.prototxt

  .venv/bin/python prototxt/generate.py --model h_renet_bn_mlfb --dataset data/voc2012 --crop 256x320 --out my_net
  .venv/bin/python prototxt/generate.py --model h_renet_bn --dataset data/voc2012 --out my_net \\
      --train-split trainvalaug data/coco/train

Any class count works: it comes from the dataset.json. The written files are plain prototxt, made to be edited.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Options((1, 1), 1)
    result.add_argument("--model", choices=MODELS, metavar="NAME", help="see below")
    result.add_argument("--dataset", type=Path, metavar="DATASET.JSON", help="a prepared dataset, or its folder")
    result.add_argument("--out", type=Path, metavar="DIR", help="for train_val, deploy, deploy_crf and solver.prototxt")
    result.add_argument("--shipped", action="store_true", help="write all files of prototxt/ and solvers/ anew")
    result.add_argument("--force", action="store_true", help="overwrite files that were edited since they were written")
    result.add_argument("--crop", type=crop_size, metavar="HxW", help="training crops (default: the model's)")
    result.add_argument("--batch", type=whole_number(1), metavar="N", help="training batch (default: the model's)")
    result.add_argument(
        "--train-split",
        nargs="+",
        metavar="NAME",
        help="default trainaug, train, or fold0/train; several are read as one, and folders of another prepared "
        "dataset's splits with the same labels go, too",
    )
    result.add_argument(
        "--test-split",
        metavar="NAME",
        help="tested while training: default val, or test, or fold0/test; or such a folder",
    )
    result.add_argument(
        "--test-images",
        type=whole_number(1),
        metavar="N",
        help="a test sees the first N images of the split (default: all, or as many as keep all tests below about a "
        "tenth of the training's time)",
    )
    result.add_argument("--mean", type=mean_bgr, metavar="B,G,R", help="default {:g},{:g},{:g}".format(*MEAN_BGR))
    result.add_argument("--dataset-mean", action="store_true", help="take off the dataset's own mean")
    learning = result.add_argument_group("learning")
    learning.add_argument("--solver", choices=("sgd", "adam"), help="the paper's SGD, or Adam for little time")
    learning.add_argument("--iterations", type=whole_number(1), metavar="N", help="default: the solver's usual")
    learning.add_argument(
        "--interval",
        type=whole_number(1),
        metavar="N",
        help="iterations between two tests, and two snapshots (default: a tenth of all)",
    )
    learning.add_argument("--rate", type=positive, metavar="X", help="learning rate (default: the solver's usual)")
    learning.add_argument(
        "--iter-size",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="passes to an iteration: a batch of 2 with 5 passes learns from 10 images at a time (default 1)",
    )
    learning.add_argument("--weights", type=Path, metavar="FILE", help="what it starts from (default: the model's)")
    learning.add_argument(
        "--forget-bias", type=float, metavar="X", help=f"initial forget gate bias (default {default.forget_bias})"
    )
    fine = result.add_argument_group("fcn and h_renet")
    fine.add_argument(
        "--frozen",
        type=int,
        choices=range(6),
        metavar="N",
        help=f"conv1 to convN keep their weights and are skipped in backpropagation (default {default.frozen})",
    )
    fine.add_argument(
        "--new-rate",
        type=positive,
        metavar="X",
        help=f"factor of the learning rate of layers that do not come from VGG-16 (default {default.new_rate:g})",
    )
    fine.add_argument(
        "--gaussian-std",
        type=positive,
        metavar="X",
        help=f"of conv6's and conv7's initial weights (default {default.gaussian_std:g}; the paper's text: 0.1)",
    )
    fine.add_argument(
        "--l2-scale", type=positive, metavar="X", help=f"of L2 normalisation (default {default.l2_scale:g})"
    )
    fine.add_argument(
        "--batch-norm-memory",
        type=positive,
        metavar="X",
        help="share of the running statistics that stays at each iteration (default "
        f"{default.batch_norm_memory:g}; short trainings want less: 0.95)",
    )
    return result


if __name__ == "__main__":
    raise SystemExit(run(main, parser()))
