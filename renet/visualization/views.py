"""Views into a network: feature maps, filters, class probabilities, and what one pixel depends on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from renet.common.errors import UserError
from renet.data.catalog import load_dataset
from renet.data.split_reader import IMAGES, SplitReader
from renet.networks.deploy_network import deploy_options
from renet.prediction.probabilities import check_probabilities
from renet.visualization.network_inspector import NetworkInspector, channel_numbers, grey, heat_map, receptive_share
from renet.visualization.sheet import photograph, sheet


def read_image(file: Path) -> np.ndarray:
    """Read H x W x 3 BGR bytes of an image file, or of an image of a prepared split, named SPLIT/ID.

    Raises:
        UserError: no image; names the file.
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
        raise UserError(f"{file}: not an image, or a damaged one")
    return image


def maps(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """Draw the chosen channels of the chosen layers: one row a layer, as in the paper's Figure 2."""
    network, image = _seen(arguments)
    rows = []
    for layer in arguments.layer:
        values = network.maps(layer)
        numbers = channel_numbers(arguments.channels, len(values))
        rows.append([photograph(image), *(_enlarged(grey(values[number]), image) for number in numbers)])
    titles = ["image", *(f"channel {number}" for number in channel_numbers(arguments.channels, 1 << 30))]
    yield _captioned(sheet(rows, titles, None, arguments.width), [f"rows: {', '.join(arguments.layer)}"])


def filters(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """Draw the weights of a layer: filters over three colours in colour, over more channels their mean in grey, and
    what has no extent (1x1, recurrent) as one grey matrix."""
    weights = NetworkInspector(arguments.model, arguments.weights, deploy_options(arguments)).filters(arguments.layer)
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
    """Draw each class's probability as a grey picture, black 0 and white 1."""
    network, image = _seen(arguments)
    values = network.maps(network.output)
    check_probabilities(values, f'{arguments.model}: "{network.output}"')
    names = [f"class {number}" for number in range(len(values))]
    if arguments.dataset is not None:
        names = list(load_dataset(arguments.dataset).classes)
        if len(names) != len(values):
            raise UserError(f"{arguments.model}: tells {len(values)} classes apart, the dataset has {len(names)}")
    pictures = [_captioned(photograph(image), ["image"])]
    for plane, name in zip(values, names):
        pictures.append(_captioned(_enlarged((plane * 255).round().astype(np.uint8), image), [name]))
    rows = [pictures[start : start + 4] for start in range(0, len(pictures), 4)]
    rows[-1] += [Image.new("RGB", pictures[0].size, "white")] * (4 - len(rows[-1]))
    yield sheet(rows, [""] * 4, None, arguments.width)


def receptive(arguments: argparse.Namespace) -> Iterator[Image.Image]:
    """Draw what one pixel's answer depends on, one column a network."""
    image = read_image(arguments.image)
    height, width = image.shape[:2]
    column, row = arguments.pixel or (width // 2, height // 2)
    pictures, titles = [_marked(photograph(image), column, row)], ["image"]
    for name, model, weights in arguments.network:
        network = NetworkInspector(model, weights, deploy_options(arguments))
        network.forward(image)
        found = network.sensitivity(row, column, arguments.label)
        pictures.append(_marked(Image.fromarray(heat_map(image, found.map)), column, row))
        titles.append(f"{name}: {100 * receptive_share(found.map):.0f}% of the image")
    yield sheet([pictures], titles, None, arguments.width)


def _seen(arguments: argparse.Namespace) -> tuple[NetworkInspector, np.ndarray]:
    image = read_image(arguments.image)
    network = NetworkInspector(arguments.model, arguments.weights, deploy_options(arguments))
    network.forward(image)
    return network, image


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


def network_files(text: str) -> tuple[str, Path, Path | None]:
    """Read "NAME=MODEL,WEIGHTS" or "NAME=MODEL_FOLDER"."""
    name, equals, files = text.partition("=")
    model, comma, weights = files.partition(",")
    if not (equals and name and model) or bool(comma) != bool(weights):
        raise argparse.ArgumentTypeError(
            f"a network is NAME=DEPLOY.PROTOTXT,WEIGHTS.CAFFEMODEL or NAME=MODEL_FOLDER, not {text!r}"
        )
    return name, Path(model), Path(weights) if weights else None
