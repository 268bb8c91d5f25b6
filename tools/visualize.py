#!/usr/bin/env python3
"""Look into a network: feature maps, filters, class probabilities, what one pixel's answer depends on, and what it
sees while it learns."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from renet.common.argument_types import pixel, whole_number
from renet.common.command_line import CommandParser, run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.data.catalog import load_dataset
from renet.networks.deploy_network import add_deploy_options, deploy_options
from renet.networks.model_folder import find_network
from renet.networks.trained_run import BEST, NEWEST
from renet.runtime.worker_process import NativeCrash, run_native
from renet.visualization.training_samples import data_layer, samples
from renet.visualization.views import NetworkSource, filters, maps, network_files, probabilities, receptive

EXAMPLES = """examples:
  tools/visualize.py maps --model runs/n/deploy.prototxt --weights runs/n/snapshots/n_iter_600.caffemodel \\
      --image data/synthetic_scenes/test/scene_00030 --layer renet1_vertical --layer renet2_horizontal --out maps.png
  tools/visualize.py filters --model deploy.prototxt --weights net.caffemodel --layer conv1 --out filters.png
  tools/visualize.py probabilities --model deploy.prototxt --weights net.caffemodel --image scene.png --out prob.png
  tools/visualize.py receptive --network "N-ReNet=deploy.prototxt,net.caffemodel" \\
      --network "FCN=fcn.prototxt,fcn.caffemodel" --image scene.png --pixel 64,48 --out field.png
  tools/visualize.py receptive --network N-ReNet=my_model --image scene.png --out field.png
  tools/visualize.py samples --solver solvers/n_renet_stanford_background.prototxt --out samples.png
  tools/visualize.py samples --model my_net/train_val.prototxt --count 12 --out samples.png"""


def main(arguments: argparse.Namespace) -> None:
    """Draw what the command line describes.

    Raises:
        UserError: bad input, named.
    """
    try:
        (drawing,) = run_native(arguments.draw, *described(arguments))
    except NativeCrash as crash:
        raise UserError(f"Caffe stopped: {crash}") from None
    buffer = io.BytesIO()
    drawing.save(buffer, format="PNG", optimize=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, buffer.getvalue())
    print(f"{arguments.out}: {drawing.width} x {drawing.height}")


def described(arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Read from the command line what its drawing takes."""
    if arguments.draw is samples:
        return data_layer(arguments.solver, arguments.model), arguments.dataset, arguments.count, arguments.width
    options = deploy_options(arguments)
    if arguments.draw is receptive:
        found = [(name, find_network(model, weights)) for name, model, weights in arguments.network]
        sources = [(name, NetworkSource(one.deploy, one.weights, options)) for name, one in found]
        return sources, arguments.image, arguments.pixel, arguments.label, arguments.width
    network = find_network(arguments.model, arguments.weights)
    source = NetworkSource(network.deploy, network.weights, options)
    if arguments.draw is filters:
        return source, arguments.layer, arguments.width
    if arguments.draw is maps:
        return source, arguments.image, arguments.layer, arguments.channels, arguments.width
    dataset = network.dataset if arguments.dataset is None else load_dataset(arguments.dataset)
    return source, arguments.image, None if dataset is None else dataset.classes, arguments.width


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="visualize.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    for draw, text in (
        (
            maps,
            "channels of any layer as grey images, one row a layer (Figure 2); where a layer works in place, as a "
            "ReLU does, what it has made of them",
        ),
        (filters, "a layer's weights"),
        (probabilities, "each class's probability"),
        (receptive, "the gradient of one output pixel over the image: what its answer depends on"),
        (
            samples,
            "the first samples of a training, cropped, mirrored and augmented as the network gets them, beside their "
            "labels; pixels without a colour of a class are ignored",
        ),
    ):
        command = commands.add_parser(draw.__name__, help=text, description=text)
        command.set_defaults(draw=draw)
        if draw is receptive:
            command.add_argument(
                "--network", type=network_files, action="append", required=True, metavar="NAME=MODEL[,WEIGHTS]",
                help="a column; may be repeated",
            )  # fmt: skip
            command.add_argument("--pixel", type=pixel, metavar="COLUMN,ROW", help="default: the middle")
            command.add_argument("--label", type=int, metavar="N", help="class (default: the one predicted there)")
        elif draw is samples:
            source = command.add_mutually_exclusive_group(required=True)
            source.add_argument("--solver", type=Path, metavar="FILE", help="the training's solver")
            source.add_argument("--model", type=Path, metavar="FILE", help="or its network, a train_val.prototxt")
            command.add_argument("--count", type=whole_number(1), default=8, metavar="N", help="default: %(default)s")
        else:
            command.add_argument(
                "--model",
                type=Path,
                required=True,
                metavar="FILE|DIR",
                help="deploy.prototxt, a model folder or a run's",
            )
            command.add_argument(
                "--weights",
                type=Path,
                metavar="FILE",
                help=f".caffemodel; a model folder has its own; of a run also {NEWEST} or {BEST}",
            )
        if draw not in (filters, samples):
            command.add_argument(
                "--image", type=Path, required=True, metavar="FILE|SPLIT/ID", help="the image that it sees"
            )
        if draw is maps:
            command.add_argument("--layer", action="append", required=True, metavar="NAME", help="may be repeated")
            command.add_argument(
                "--channels", default="0-3", metavar="LIST", help="such as 0-3,8 (default: %(default)s)"
            )
        if draw is filters:
            command.add_argument("--layer", required=True, metavar="NAME", help="a layer with weights")
        if draw is not samples:
            add_deploy_options(command)
        if draw in (probabilities, samples):
            command.add_argument("--dataset", metavar="NAME|DATASET.JSON", help="names of the classes")
        command.add_argument(
            "--width", type=whole_number(16), default=260, metavar="PX", help="of one drawing (default: %(default)s)"
        )
        command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
