"""Predict what images show with a trained network: palette PNGs at each image's own size, overlays, probabilities."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from renet.common.argument_types import crop_size, part_of_size, positive, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.parts import WHOLE, add_part_argument, chosen_part
from renet.data.catalog import KNOWN, find_dataset
from renet.evaluation.voc_submission import check_is_voc2012, image_sizes, write_submission
from renet.exchange.onnx_file import find_network
from renet.networks.deploy_network import add_deploy_options, deploy_options
from renet.networks.trained_run import BEST, NEWEST
from renet.prediction.crf_parameters import CrfParameters, read_crf_parameters
from renet.prediction.image_job import begin, items_of_files, items_of_split, record_time
from renet.prediction.inference import PredictionSettings
from renet.prediction.prediction_job import PredictionJob, predict_all
from renet.prediction.windows import Window

DEFAULT_CRF = Path()  # of --crf without a file

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
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="deploy.prototxt, a model folder of pack.py, a run's folder, or an .onnx file, which onnxruntime runs",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f".caffemodel, or .h5; a model folder has its own, and of a run this may be {NEWEST} or {BEST} (default: "
        f"the {BEST} of a run with --keep-best, else the {NEWEST})",
    )
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
    parser.add_argument(
        "--image-scale",
        type=part_of_size,
        default=1.0,
        metavar="FACTOR",
        help="shrink the image for the network, if it was trained so; the predictions have full size",
    )
    parser.add_argument(
        "--min-size",
        type=crop_size,
        default=(1, 1),
        metavar="HxW",
        help="pad what the network sees to at least this height and width by reflection, and cut the prediction back",
    )
    parser.add_argument("--flip", action="store_true", help="average with the prediction of the mirrored image")
    parser.add_argument(
        "--scales",
        type=positive,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="average the probabilities of the image resized by each of these (default: 1)",
    )
    parser.add_argument(
        "--window",
        type=crop_size,
        metavar="HxW",
        help="predict larger images in overlapping windows, in bounded memory (see below)",
    )
    parser.add_argument(
        "--overlap",
        type=whole_number(0),
        metavar="P",
        help="pixels that neighbouring windows share at least (default: a quarter of the window's shorter side)",
    )
    parser.add_argument(
        "--crf",
        type=Path,
        nargs="?",
        const=DEFAULT_CRF,
        metavar="FILE",
        help=f"sharpen the result with a dense CRF; FILE holds its dense_crf_param (default: the model "
        f"folder's own, else {CrfParameters()})",
    )
    parser.add_argument(
        "--comp6",
        type=Path,
        metavar="DIR",
        help="when all is predicted, write and check a VOC2012 submission of these images: its tree and results.tgz",
    )
    add_deploy_options(parser)
    parser.add_argument("--gpu", type=int, metavar="N", help="device number (default: the CPU)")
    parser.add_argument(
        "--allow-missing", action="store_true", help="keep initial values where the weights lack a layer"
    )
    parser.add_argument(
        "--save-memory",
        action="store_true",
        help="on the CPU, let maps go that no later layer reads: less than half of the memory, and somewhat slower",
    )
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
    if arguments.window is None and arguments.overlap is not None:
        raise UserError("--overlap needs --window")
    network = find_network(arguments.model, arguments.weights)
    items = items_of_split(arguments.split) if arguments.split else items_of_files(arguments.input)
    if not items:
        raise UserError(f"{arguments.split}: an empty split")
    crf = None
    if arguments.crf is not None:
        file = network.deploy_crf if arguments.crf == DEFAULT_CRF else arguments.crf
        crf = CrfParameters() if file is None else read_crf_parameters(file)
    return PredictionJob(
        model=network.deploy,
        weights=network.weights,
        dataset=find_dataset(arguments.dataset, arguments.split, network.dataset),
        out=arguments.out,
        items=items,
        split=arguments.split,
        settings=PredictionSettings(
            image_scale=arguments.image_scale,
            min_size=arguments.min_size,
            flip=arguments.flip,
            crf=crf,
            scales=tuple(arguments.scales),
            window=None if arguments.window is None else Window.of(arguments.window, arguments.overlap),
        ),
        overlay=arguments.overlay,
        probabilities=arguments.probabilities,
        gpu=arguments.gpu,
        allow_missing=arguments.allow_missing,
        save_memory=arguments.save_memory,
        deploy=deploy_options(arguments),
    )


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
