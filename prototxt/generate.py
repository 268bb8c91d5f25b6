#!/usr/bin/env python3
"""Write networks and solvers: train_val.prototxt, deploy.prototxt (and deploy_crf.prototxt) and a solver for a model
and a dataset.

In renet/networks/, models.py lists the models; n_renet.py, h_renet.py and others hold their layers, schedules.py how
they learn, files.py what all have alike (data, upsampling, loss), shipped.py what comes with the repository.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from renet.common.argument_types import crop_size, fraction, mean_bgr, part_of_size, positive, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.repository import product_path
from renet.data.catalog import MEAN_BGR
from renet.networks.augmentation import AUGMENTATIONS
from renet.networks.fine_tuning import NEW_RATE
from renet.networks.generation import FROZEN_GROUPS, write, write_files
from renet.networks.h_renet import VARIANTS
from renet.networks.models import MODELS, SOLVERS
from renet.networks.schedules import POLICIES
from renet.networks.shipped import shipped_files
from renet.networks.spec import PRECISIONS, Options


def main(arguments: argparse.Namespace) -> None:
    """Write what the command line asks for."""
    choices = vars(arguments)
    if choices.pop("shipped"):
        if any((arguments.model, arguments.dataset, arguments.out)):
            raise UserError("--shipped writes the repository's own files; it goes without --model, --dataset and --out")
        files = shipped_files()
        write_files(files, arguments.force, "a copy of the folder keeps it")
        print("\n".join(map(product_path, files)))
        return
    if choices["augment"] == []:
        choices["augment"] = tuple(AUGMENTATIONS)
    for option in ("model", "dataset", "out"):
        if choices[option] is None:
            raise UserError(f"--{option} is missing (or --shipped, to write the repository's own files anew)")
    written = write(**choices)
    print("\n".join(map(product_path, written.files)))
    print("\n".join((written.tests, *written.notes)))
    variant = VARIANTS.get(arguments.model)
    if variant is not None:
        print(f"the recurrent layer group: {' '.join(variant.group_text().split())}")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    known = "\n".join(f"  {name:24}{model.headline.splitlines()[0]}" for name, model in MODELS.items())
    parser = argparse.ArgumentParser(
        description="Write a network and its solver for a prepared dataset.",
        epilog=f"""models:
{known}

examples:
  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_data --crop 120x160 --out my_net
  .venv/bin/python tools/train.py --solver my_net/solver.prototxt

  .venv/bin/python prototxt/generate.py --model h_renet_bn_mlfb --dataset data/voc2012 --crop 256x320 --out my_net
  .venv/bin/python prototxt/generate.py --model h_renet_bn --dataset data/voc2012 --out my_net \\
      --train-split trainvalaug data/coco/train
  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_data --out my_net --class-weights \\
      median_frequency --solver adamw --schedule cosine --warmup 500 --average 0.999
  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_other_data --weights-from runs/my_net \\
      --iterations 2000 --out my_other_net

  .venv/bin/python prototxt/generate.py --model n_renet --dataset data/my_data --augment scale rotation colour \\
      --out my_net
  .venv/bin/python tools/visualize.py samples --solver my_net/solver.prototxt --out samples.png

Any class count works: it comes from the dataset.json. The written files are plain prototxt, made to be edited.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Options((1, 1), 1)
    parser.add_argument("--model", choices=MODELS, metavar="NAME", help="see below")
    parser.add_argument("--dataset", type=Path, metavar="DATASET.JSON", help="a prepared dataset, or its folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for train_val, deploy, deploy_crf and solver.prototxt")
    parser.add_argument("--shipped", action="store_true", help="write all files of prototxt/ and solvers/ anew")
    parser.add_argument("--force", action="store_true", help="overwrite files that were edited since they were written")
    parser.add_argument("--crop", type=crop_size, metavar="HxW", help="training crops (default: the model's)")
    parser.add_argument("--batch", type=whole_number(1), metavar="N", help="training batch (default: the model's)")
    parser.add_argument(
        "--train-split",
        nargs="+",
        metavar="NAME",
        help="default trainaug, train, or fold0/train; several are read as one, and folders of another prepared "
        "dataset's splits with the same labels go, too",
    )
    parser.add_argument(
        "--test-split",
        metavar="NAME",
        help="tested while training: default val, or test, or fold0/test; or such a folder",
    )
    parser.add_argument(
        "--test-images",
        type=whole_number(1),
        metavar="N",
        help="a test sees the first N images of the split (default: all, or as many as keep all tests below about a "
        "tenth of the training's time)",
    )
    parser.add_argument(
        "--augment",
        nargs="*",
        default=(),
        metavar="KIND",
        help=f"random changes of the training images besides crops and mirror images: {', '.join(AUGMENTATIONS)}; "
        "alone: all of them. A kind may have its range: scale=0.7,1.5. They are plain fields of the written network",
    )
    parser.add_argument("--mean", type=mean_bgr, metavar="B,G,R", help="default {:g},{:g},{:g}".format(*MEAN_BGR))
    parser.add_argument("--dataset-mean", action="store_true", help="take off the dataset's own mean")
    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--solver",
        choices=SOLVERS,
        help="the paper's SGD, or Adam for little time, or AdamW: Adam with decoupled weight decay",
    )
    learning.add_argument("--iterations", type=whole_number(1), metavar="N", help="default: the solver's usual")
    learning.add_argument(
        "--interval",
        type=whole_number(1),
        metavar="N",
        help="iterations between two tests, and two snapshots (default: a tenth of all)",
    )
    learning.add_argument("--rate", type=positive, metavar="X", help="learning rate (default: the solver's usual)")
    learning.add_argument(
        "--schedule",
        choices=tuple(POLICIES),
        help="how the rate falls, to 0 with the last two (default: the solver's usual)",
    )
    learning.add_argument(
        "--warmup", type=whole_number(1), metavar="N", help="the rate climbs from 0 over the first N iterations"
    )
    learning.add_argument(
        "--average",
        type=fraction,
        metavar="DECAY",
        help="keep a running average of the weights, of which so much stays at each iteration, such as 0.999: tests "
        "and snapshots have it",
    )
    learning.add_argument(
        "--class-weights",
        metavar="median_frequency|inverse|FILE",
        help="weigh rare classes more, by the training splits' pixels, or as a file says: a line for each class",
    )
    learning.add_argument(
        "--hard-examples",
        type=part_of_size,
        metavar="FRACTION",
        help="learn from the worst pixels of a batch alone, such as 0.25 of them",
    )
    learning.add_argument(
        "--iter-size",
        type=whole_number(1),
        metavar="N",
        help="passes to an iteration: a batch of 2 with 5 passes learns from 10 images at a time (default: the "
        "model's, mostly 1)",
    )
    learning.add_argument("--weights", type=Path, metavar="FILE", help="what it starts from (default: the model's)")
    learning.add_argument(
        "--weights-from",
        type=Path,
        metavar="MODEL",
        help="start from the same model trained for other classes: a run's folder, a model folder or a .caffemodel; "
        "says which layers are kept (at a third of the usual rate) and which start anew (docs/fine_tuning.md)",
    )
    learning.add_argument(
        "--forget-bias", type=float, metavar="X", help=f"initial forget gate bias (default {default.forget_bias})"
    )
    learning.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="what the ReNet layers round the factors of their products to: BF16 trains faster on processors and GPUs "
        f"that multiply bfloat16 (docs/layers.md; default {PRECISIONS[0]})",
    )
    learning.add_argument(
        "--dropout",
        type=fraction,
        metavar="P",
        help="let a share P of the values go between two recurrent groups (n_renet and its kin)",
    )
    learning.add_argument(
        "--new-rate",
        type=positive,
        metavar="X",
        help="factor of the learning rate of layers that do not come from VGG-16 (fcn and h_renet; default "
        f"{default.new_rate:g}, of h_renet_released {MODELS['h_renet_released'].options().new_rate:g}), or from "
        f"--weights-from (default {NEW_RATE:g}); biases learn at twice it",
    )
    fine = parser.add_argument_group("fcn and h_renet")
    fine.add_argument(
        "--frozen",
        type=int,
        choices=range(FROZEN_GROUPS),
        metavar="N",
        help=f"conv1 to convN keep their weights and are skipped in backpropagation (default {default.frozen})",
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
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
