#!/usr/bin/env python3
"""Perform the paper's experiments on a dataset: what is missing is trained, predicted and scored, and stands beside the
paper.

Every training and prediction is a command of this repository, printed before it runs. A second call goes on where the
first one stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from functools import partial
from pathlib import Path

from renet.common.argument_types import crop_size, mean_bgr, positive, whole_number
from renet.common.command_line import run
from renet.common.commands import as_typed
from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.common.script_command import Stopped, command
from renet.data.dataset import Dataset
from renet.experiments.figures import FigureOptions
from renet.experiments.listing import check_everything, commands, experiment_lines
from renet.experiments.perform import perform_all
from renet.experiments.plan import EXPERIMENTS, experiment_dataset
from renet.experiments.runs import Runs
from renet.experiments.training import Settings
from renet.networks.models import N_RENETS, VGG16_WEIGHTS
from renet.networks.spec import PRECISIONS

NO_WEIGHTS = "none"
INTERRUPTED = 130
_SAME_NAMES = (
    *("budget", "n_renet", "crop", "batch", "iter_size", "solver", "rate", "interval", "test_images", "frozen"),
    *("precision", "equal_iterations", "new_rate", "batch_norm_memory", "mean", "test_split", "flip", "gpu"),
    "tensorboard",
)


def settings_of(arguments: argparse.Namespace, dataset: Dataset) -> Settings:
    """Translate the command line into the settings for a dataset."""
    return Settings(
        dataset,
        Path(os.path.abspath(arguments.out)),
        seeds=tuple(dict.fromkeys(arguments.seeds)),
        weights=None if arguments.weights == NO_WEIGHTS else Path(arguments.weights),
        train_split=tuple(arguments.train_split or ()),
        coco=tuple(arguments.coco),
        **{name: getattr(arguments, name) for name in _SAME_NAMES},
    )


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; the status of the step that stopped it, else 0."""
    names = list(dict.fromkeys(arguments.names)) or list(EXPERIMENTS)
    settings_for = partial(settings_of, arguments)
    if arguments.list:
        for name in names:
            print("\n".join(experiment_lines(name, arguments.dataset, settings_for, command)))
        return 0
    if not arguments.names:
        raise UserError(f"name an experiment: {', '.join(EXPERIMENTS)} (--list tells what each needs)")
    queue = []
    for name in names:
        runs = Runs(settings_for(experiment_dataset(name, arguments.dataset)[0]), command)
        queue.append((runs, EXPERIMENTS[name](runs.settings)))
    for runs, experiment in queue:
        if arguments.dry_run:
            print("\n".join(commands(runs, [experiment])))
        else:
            check_everything(runs, [experiment])
    if arguments.dry_run:
        return 0
    try:
        perform_all(queue, FigureOptions(arguments.count, tuple(arguments.ids or ()), tuple(arguments.other)))
    except (Stopped, KeyboardInterrupt) as stopped:
        again = shlex.join(["tools/experiments.py", *sys.argv[1:]])
        print(as_typed(f"experiments.py: stopped there; go on with: .venv/bin/python {again}"), file=sys.stderr)
        return stopped.args[0] if isinstance(stopped, Stopped) else INTERRUPTED
    return 0


def experiment_name(text: str) -> str:
    """Read a known experiment's name."""
    if text not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no experiment; they are {', '.join(EXPERIMENTS)}")
    return text


def other_system(text: str) -> tuple[str, Path]:
    """Read NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name, Path(folder)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="experiments.py",
        description="Run the paper's experiments on a prepared dataset, and lay the paper's figures beside.",
        epilog=f"""experiments: {", ".join(EXPERIMENTS)}

examples:
  .venv/bin/python tools/experiments.py --list
  .venv/bin/python tools/experiments.py table1 --gpu 0
  .venv/bin/python tools/experiments.py table4 irnn --dataset data/stanford_background --budget 0.01 \\
      --crop 128x160 --batch 2 --frozen 4 --solver adam --batch-norm-memory 0.95 --test-images 20

Each run is a folder of tools/train.py; runs that several experiments share are trained once. Ctrl-C stops; the same
command goes on. A run that is there must have been begun with the same options. docs/reproducing.md has more.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", type=experiment_name, metavar="NAME", help="experiments (see below)")
    parser.add_argument("--list", action="store_true", help="tell each experiment's runs, and how far they are")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs/experiments", metavar="DIR", help="default runs/experiments"
    )
    parser.add_argument("--gpu", type=whole_number(0), metavar="N", help="device number (default: the CPU)")
    parser.add_argument("--tensorboard", action="store_true", help="trainings also write TensorBoard's event files")
    _add_data_options(parser.add_argument_group("data"))
    _add_training_options(parser.add_argument_group("training", "all that is not the paper's is told in the table"))
    _add_picture_options(parser.add_argument_group("pictures"))
    return parser


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        type=Path,
        metavar="DATASET.JSON",
        help="a prepared dataset, or its folder (default: the experiment's own, data/voc2012 or "
        "data/stanford_background)",
    )
    group.add_argument("--train-split", nargs="+", metavar="NAME", help="default trainaug, train, or fold0/train")
    group.add_argument("--test-split", metavar="NAME", help="default val, test, or fold0/test")
    group.add_argument(
        "--coco",
        type=Path,
        nargs="+",
        default=[ROOT / "data/coco/train"],
        metavar="SPLIT",
        help="prepared splits of COCO, for table7b (default data/coco/train)",
    )
    group.add_argument("--mean", type=mean_bgr, metavar="B,G,R", help="taken off the images (default: the models' own)")
    group.add_argument("--flip", action="store_true", help="average predictions with those of the mirrored image")


def _add_training_options(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--budget", type=positive, default=1.0, metavar="X", help="factor of the paper's iterations, such as 0.01"
    )
    length.add_argument(
        "--iterations",
        dest="equal_iterations",
        type=whole_number(1),
        metavar="N",
        help="so many for every run, for a comparison at equal cost",
    )
    group.add_argument(
        "--seeds", type=whole_number(0), nargs="+", default=[0], metavar="N", help="a run for each (default 0)"
    )
    group.add_argument(
        "--weights",
        default=str(ROOT / VGG16_WEIGHTS),
        metavar="FILE",
        help=f"what FCN and H-ReNet start from (default {VGG16_WEIGHTS}, which data_prep/vgg16.py makes; "
        f"{NO_WEIGHTS}: nothing)",
    )
    group.add_argument(
        "--n-renet",
        choices=N_RENETS,
        default="n_renet",
        metavar="MODEL",
        help=f"{', '.join(N_RENETS)} for table1, figure2; the first two for recipe_folds, recipe_parts",
    )
    group.add_argument("--crop", type=crop_size, metavar="HxW", help="training crops (default: the model's)")
    group.add_argument("--batch", type=whole_number(1), metavar="N", help="images of a pass (default: the model's)")
    group.add_argument(
        "--iter-size", type=whole_number(1), default=1, metavar="N", help="passes to an iteration (default 1)"
    )
    group.add_argument("--solver", choices=("sgd", "adam"), help="the paper's SGD, or Adam for little time")
    group.add_argument("--rate", type=positive, metavar="X", help="learning rate (default: the solver's usual)")
    group.add_argument(
        "--precision", choices=PRECISIONS, help="of the ReNet layers' products, see docs/layers.md (default FLOAT32)"
    )
    group.add_argument("--frozen", type=int, choices=range(6), metavar="N", help="conv1 to convN keep their weights")
    group.add_argument(
        "--new-rate", type=positive, metavar="X", help="factor of the rate of layers that are not VGG-16's"
    )
    group.add_argument(
        "--batch-norm-memory", type=positive, metavar="X", help="short trainings want less than 0.999: 0.95"
    )
    group.add_argument(
        "--interval", type=whole_number(1), metavar="N", help="iterations between two tests, and two snapshots"
    )
    group.add_argument(
        "--test-images",
        type=whole_number(1),
        metavar="N",
        help="test on the first N images while training (default: as many as keep tests below about a tenth of the "
        "time; the table's scores are of all)",
    )


def _add_picture_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--count", type=whole_number(1), default=4, metavar="N", help="images of a figure (default 4)")
    group.add_argument("--ids", nargs="+", metavar="ID", help="these images in place of the first")
    group.add_argument(
        "--other",
        type=other_system,
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="another system's predictions, a column of figure5",
    )


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
