"""Predict what images show with a trained network: palette PNGs at each image's own size, overlays, probabilities."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.parts import WHOLE, add_part_argument, chosen_part
from renet.data.catalog import KNOWN, find_dataset
from renet.evaluation.voc_submission import check_is_voc2012, image_sizes, write_submission
from renet.exchange.onnx_file import find_network
from renet.networks.deploy_network import deploy_options
from renet.prediction.image_job import begin, items_of_files, items_of_split, record_time
from renet.prediction.options import add_engine_options, add_model_options, add_settings_options, settings_of
from renet.prediction.prediction_job import PredictionJob, predict_all

EXAMPLES = """examples:
  tools/predict.py --model runs/n_renet --split data/stanford_background/fold0/test --out runs/n_renet/predictions \\
      --overlay
  tools/predict.py --model deploy.prototxt --weights net.caffemodel --dataset stanford_background \\
      --input holiday/ street.jpg --out predictions --overlay --crf
  tools/predict.py --model my_model --input holiday/ --out predictions --scales 0.75 1 1.25 --flip
  tools/predict.py --model my_model.onnx --input holiday/ --out predictions
  tools/predict.py --model my_model --input town.tif --out predictions --window 512x512 --overlap 96
  tools/predict.py --model deploy.prototxt --weights net.caffemodel --split data/voc2012/test --out runs/x/test \
      --comp6 runs/x/submission                   # also writes runs/x/submission/results.tgz for VOC's server
  tools/predict.py --model my_model --split data/x/test --out predictions --part 3/8     # of 1/8 ... 8/8

Writes into DIR:
  <image id>.png                class indices; the palette shows them in the dataset's colours
  overlay/<image id>.jpg        with --overlay
  probabilities/<image id>.npz  with --probabilities: array "probabilities", classes x height x width, float16
A second call goes on where the first one stopped; with other settings it is refused.

--window takes the memory that the network needs for one window, and 4 bytes x classes x the window's height x the
image's width. Each window goes through scales, flip and CRF as an image of its own; where they overlap, probabilities
are averaged, weighted by the distance from the window's edge. --probabilities holds those of the whole image."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, nargs="+", metavar="PATH", help="images, and folders of images")
    source.add_argument("--split", type=Path, metavar="SPLIT", help="a prepared split, such as data/x/test")
    parser.add_argument(
        "--dataset",
        metavar="NAME|DATASET.JSON",
        help=f"names and colours: {', '.join(KNOWN)}, or a dataset.json (default: the model's, else the split's)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--overlay", action="store_true", help="also lay the labels over the images, with a legend")
    parser.add_argument("--probabilities", action="store_true", help="also write the probabilities of all classes")
    add_settings_options(parser)
    parser.add_argument(
        "--comp6",
        type=Path,
        metavar="DIR",
        help="when all is predicted, write and check a VOC2012 submission of these images: its tree and results.tgz",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="predict everything anew; removes the folder's predictions of other networks",
    )
    add_part_argument(parser, "predict this share of the images alone, beside the other parts in one DIR")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Predict what is not predicted yet.

    Raises:
        UserError: bad input, named.
    """
    part = chosen_part(arguments)
    if part != WHOLE and arguments.comp6:
        raise UserError(
            "--comp6 needs all parts: give it to evaluate.py, or to predict.py without --part, when all is done"
        )
    job = build_job(arguments)
    job = replace(job, items=tuple(part.share(job.items)))
    sizes = None
    if arguments.comp6:
        # before the work, since what is refused then is refused after it, too
        check_is_voc2012(job.dataset)
        sizes = image_sizes(job.split) if job.split is not None else None
    left = begin(job, arguments.overwrite, part)
    if left:
        start = time.perf_counter()
        seconds = predict_all(replace(job, items=left))
        record_time(job.out, seconds, "CPU" if job.gpu is None else f"GPU {job.gpu}")
        rate = len(seconds) / (time.perf_counter() - start)
        print(f"{len(seconds)} images predicted, {rate:.2f} a second: {job.out}")
    if arguments.comp6:
        write_submission(job.out, [item.image_id for item in job.items], job.dataset, arguments.comp6, sizes)


def build_job(arguments: argparse.Namespace) -> PredictionJob:
    """What the arguments ask for.

    Raises:
        UserError: an input is missing.
    """
    network = find_network(arguments.model, arguments.weights)
    items = items_of_split(arguments.split) if arguments.split else items_of_files(arguments.input)
    if not items:
        raise UserError(f"{arguments.split}: an empty split")
    return PredictionJob(
        model=network.deploy,
        weights=network.weights,
        dataset=find_dataset(arguments.dataset, arguments.split, network.dataset),
        out=arguments.out,
        items=items,
        split=arguments.split,
        settings=settings_of(arguments, network),
        overlay=arguments.overlay,
        probabilities=arguments.probabilities,
        gpu=arguments.gpu,
        allow_missing=arguments.allow_missing,
        deploy=deploy_options(arguments),
    )


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
