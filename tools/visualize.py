#!/usr/bin/env python3
"""Look into a network: feature maps, filters, class probabilities, and what one pixel's answer depends on."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from renet.common.command_line import CommandParser, UserError, run
from renet.data.dataset import write_atomically
from renet.data.catalog import load_dataset
from renet.conversion.prepare import whole_number
from renet.data.split_reader import IMAGES, SplitReader
from renet.networks.deploy_network import add_deploy_options, deploy_options
from renet.runtime.worker_process import NativeCrash, run_native
from tools.picture_sheet import sheet
from renet.prediction.probabilities import check_probabilities
from renet.visualization.open_network import OpenNetwork, chosen, grey, heat, share_that_matters

EXAMPLES = """examples:
  tools/visualize.py maps --model runs/n/deploy.prototxt --weights runs/n/snapshots/n_iter_600.caffemodel \\
      --image data/synthetic_scenes/test/scene_00030 --layer renet1_vertical --layer renet2_horizontal --out maps.png
  tools/visualize.py filters --model deploy.prototxt --weights net.caffemodel --layer conv1 --out filters.png
  tools/visualize.py probabilities --model deploy.prototxt --weights net.caffemodel --image scene.png --out prob.png
  tools/visualize.py receptive --network "N-ReNet=deploy.prototxt,net.caffemodel" \\
      --network "FCN=fcn.prototxt,fcn.caffemodel" --image scene.png --pixel 64,48 --out field.png"""


def read_image(file: Path) -> np.ndarray:
    """H x W x 3 BGR bytes of a picture file, or of an image of a prepared split, named SPLIT/ID.

    Raises:
        UserError: no picture; names the file.
    """
    if (file.parent / IMAGES).is_dir():
        with SplitReader(file.parent) as reader:
            ids = reader.ids()
            if file.name not in ids:
                raise UserError(f"{file.parent}: has no image {file.name}")
            return reader.image(ids.index(file.name))
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    image = cv2.imread(str(file))
    if image is None:
        raise UserError(f"{file}: not a picture, or a damaged one")
    return image


def maps(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """The chosen channels of the chosen layers: one row a layer, as in the paper's Figure 2."""
    network, image = _seen(arguments)
    rows = []
    for layer in arguments.layer:
        values = network.maps(layer)
        numbers = chosen(arguments.channels, len(values))
        rows.append([_photograph(image), *(_enlarged(grey(values[number]), image) for number in numbers)])
    titles = ["image", *(f"channel {number}" for number in chosen(arguments.channels, 1 << 30))]
    yield _captioned(sheet(rows, titles, None, arguments.width), [f"rows: {', '.join(arguments.layer)}"])


def filters(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """The weights of a layer: filters over three colours in colour, over more channels their mean in grey, and what has
    no extent (1x1, recurrent) as one grey matrix."""
    weights = OpenNetwork(arguments.model, arguments.weights, deploy_options(arguments)).filters(arguments.layer)
    if weights.ndim < 4 or weights.shape[2:] == (1, 1):
        # products with vectors: one row a filter
        rows = weights.reshape(len(weights), -1)
        scale = max(1, 4 * arguments.width // max(rows.shape))
        size = (rows.shape[1] * scale, rows.shape[0] * scale)
        yield Image.fromarray(grey(rows)).resize(size, Image.Resampling.NEAREST)
        return
    if weights.shape[1] == 3:
        pictures = [Image.fromarray(grey(one)[::-1].transpose(1, 2, 0).copy()) for one in weights]
    else:
        pictures = [Image.fromarray(grey(one.mean(axis=0))) for one in weights]
    columns = min(16, len(pictures))
    side = max(8, arguments.width * 4 // columns)
    tall = round(side * pictures[0].height / pictures[0].width)
    canvas = Image.new("RGB", (columns * (side + 2), -(-len(pictures) // columns) * (tall + 2)), "white")
    for number, picture in enumerate(pictures):
        place = (number % columns * (side + 2), number // columns * (tall + 2))
        canvas.paste(picture.resize((side, tall), Image.Resampling.NEAREST).convert("RGB"), place)
    yield canvas


def probabilities(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """Each class's probability as a grey picture, black 0 and white 1."""
    network, image = _seen(arguments)
    values = network.maps(network.output)
    check_probabilities(values, f'{arguments.model}: "{network.output}"')
    names = [f"class {number}" for number in range(len(values))]
    if arguments.dataset is not None:
        names = list(load_dataset(arguments.dataset).classes)
        if len(names) != len(values):
            raise UserError(f"{arguments.model}: tells {len(values)} classes apart, the dataset has {len(names)}")
    pictures = [_captioned(_photograph(image), ["image"])]
    for plane, name in zip(values, names):
        pictures.append(_captioned(_enlarged((plane * 255).round().astype(np.uint8), image), [name]))
    rows = [pictures[start : start + 4] for start in range(0, len(pictures), 4)]
    rows[-1] += [Image.new("RGB", pictures[0].size, "white")] * (4 - len(rows[-1]))
    yield sheet(rows, [""] * 4, None, arguments.width)


def receptive(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """What one pixel's answer depends on, one column a network."""
    image = read_image(arguments.image)
    height, width = image.shape[:2]
    column, row = arguments.pixel or (width // 2, height // 2)
    pictures, titles = [_marked(_photograph(image), column, row)], ["image"]
    for name, model, weights in arguments.network:
        network = OpenNetwork(model, weights, deploy_options(arguments))
        network.see(image)
        found = network.sensitivity(row, column, arguments.label)
        pictures.append(_marked(Image.fromarray(heat(image, found.map)), column, row))
        titles.append(f"{name}: {100 * share_that_matters(found.map):.0f}% of the picture")
    yield sheet([pictures], titles, None, arguments.width)


def _seen(arguments: argparse.Namespace) -> tuple[OpenNetwork, np.ndarray]:
    image = read_image(arguments.image)
    network = OpenNetwork(arguments.model, arguments.weights, deploy_options(arguments))
    network.see(image)
    return network, image


def _photograph(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))


def _enlarged(plane: np.ndarray, image: np.ndarray) -> Image.Image:
    size = (image.shape[1], image.shape[0])
    return Image.fromarray(plane).resize(size, Image.Resampling.NEAREST).convert("RGB")


def _captioned(picture: Image.Image, lines: list[str]) -> Image.Image:
    canvas = Image.new("RGB", (picture.width, picture.height + 14 * len(lines)), "white")
    canvas.paste(picture, (0, 0))
    for number, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((8, picture.height + 14 * number), line, fill="black")
    return canvas


def _marked(picture: Image.Image, column: int, row: int) -> Image.Image:
    scale = max(1, 400 // picture.width)
    large = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    x, y, reach = (column + 0.5) * scale, (row + 0.5) * scale, max(3, large.width // 60)
    pen = ImageDraw.Draw(large)
    pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline="black", width=4)
    pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline="white", width=2)
    return large


def main(arguments: argparse.Namespace) -> None:
    """Write the picture that the command line describes.

    Raises:
        UserError: bad input, named.
    """
    try:
        (picture,) = run_native(arguments.draw, arguments)
    except NativeCrash as crash:
        raise UserError(f"Caffe stopped: {crash}") from None
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, buffer.getvalue())
    print(f"{arguments.out}: {picture.width} x {picture.height}")


def pixel(text: str) -> tuple[int, int]:
    """Read "COLUMN,ROW"."""
    column, comma, row = text.partition(",")
    if not (comma and column.isdecimal() and row.isdecimal()):
        raise argparse.ArgumentTypeError(f"a pixel is COLUMN,ROW such as 64,48, not {text!r}")
    return int(column), int(row)


def network_files(text: str) -> tuple[str, Path, Path]:
    """Read "NAME=MODEL,WEIGHTS"."""
    name, equals, files = text.partition("=")
    model, comma, weights = files.partition(",")
    if not (equals and comma and name and model and weights):
        raise argparse.ArgumentTypeError(f"a network is NAME=DEPLOY.PROTOTXT,WEIGHTS.CAFFEMODEL, not {text!r}")
    return name, Path(model), Path(weights)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="visualize.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    for draw, text in (
        (
            maps,
            "channels of any layer as grey pictures, one row a layer (Figure 2); where a layer works in place, as a "
            "ReLU does, what it has made of them",
        ),
        (filters, "a layer's weights"),
        (probabilities, "each class's probability"),
        (receptive, "the gradient of one output pixel over the picture: what its answer depends on"),
    ):
        command = commands.add_parser(draw.__name__, help=text, description=text)
        command.set_defaults(draw=draw)
        if draw is receptive:
            command.add_argument(
                "--network", type=network_files, action="append", required=True, metavar="NAME=MODEL,WEIGHTS",
                help="a column; may be repeated",
            )  # fmt: skip
            command.add_argument("--pixel", type=pixel, metavar="COLUMN,ROW", help="default: the middle")
            command.add_argument("--label", type=int, metavar="N", help="class (default: the one predicted there)")
        else:
            command.add_argument("--model", type=Path, required=True, metavar="FILE", help="deploy.prototxt")
            command.add_argument("--weights", type=Path, required=True, metavar="FILE", help=".caffemodel")
        if draw is not filters:
            command.add_argument(
                "--image", type=Path, required=True, metavar="FILE|SPLIT/ID", help="the picture that it sees"
            )
        if draw is maps:
            command.add_argument("--layer", action="append", required=True, metavar="NAME", help="may be repeated")
            command.add_argument(
                "--channels", default="0-3", metavar="LIST", help="such as 0-3,8 (default: %(default)s)"
            )
        if draw is filters:
            command.add_argument("--layer", required=True, metavar="NAME", help="a layer with weights")
        add_deploy_options(command)
        if draw is probabilities:
            command.add_argument("--dataset", metavar="NAME|DATASET.JSON", help="names of the classes")
        command.add_argument(
            "--width", type=whole_number(16), default=260, metavar="PX", help="of one picture (default: %(default)s)"
        )
        command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
