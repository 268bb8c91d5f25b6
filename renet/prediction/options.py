"""Options of the commands that predict: how an image goes through the network, and on what."""

from __future__ import annotations

import argparse
from pathlib import Path

from renet.common.argument_types import crop_size, part_of_size, positive, whole_number
from renet.common.errors import UserError
from renet.networks.deploy_network import add_deploy_options
from renet.networks.model_folder import TrainedNetwork
from renet.networks.trained_run import BEST, NEWEST
from renet.prediction.crf_parameters import CrfParameters, read_crf_parameters
from renet.prediction.inference import PredictionSettings
from renet.prediction.windows import Window

DEFAULT_CRF = Path()  # of --crf without a file


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model and --weights."""
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


def add_settings_options(parser: argparse.ArgumentParser) -> None:
    """Add those of `settings_of`."""
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
        help="predict larger images in overlapping windows, in bounded memory",
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


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what the network runs on, and what it does not say of itself."""
    add_deploy_options(parser)
    parser.add_argument("--gpu", type=int, metavar="N", help="device number (default: the CPU)")
    parser.add_argument(
        "--allow-missing", action="store_true", help="keep initial values where the weights lack a layer"
    )


def crf_parameters_of(file: Path | None, network: TrainedNetwork) -> CrfParameters:
    """Read the parameters that --crf means: of its file, else the model folder's own, else the defaults.

    Raises:
        UserError: as `read_crf_parameters`.
    """
    chosen = network.deploy_crf if file in (None, DEFAULT_CRF) else file
    return CrfParameters() if chosen is None else read_crf_parameters(chosen)


def settings_of(arguments: argparse.Namespace, network: TrainedNetwork) -> PredictionSettings:
    """Read what `add_settings_options` added.

    Raises:
        UserError: an overlap without a window, or one that does not fit; or the CRF's file does not serve.
    """
    if arguments.window is None and arguments.overlap is not None:
        raise UserError("--overlap needs --window")
    return PredictionSettings(
        image_scale=arguments.image_scale,
        min_size=arguments.min_size,
        flip=arguments.flip,
        crf=None if arguments.crf is None else crf_parameters_of(arguments.crf, network),
        scales=tuple(arguments.scales),
        window=None if arguments.window is None else Window.of(arguments.window, arguments.overlap),
    )
