"""Views into a network: feature maps, filters, class probabilities, and what one pixel depends on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from renet.common.errors import UserError
from renet.data.image_formats import read_image_bytes
from renet.data.images import normalise
from renet.data.split_reader import IMAGES, SplitReader, decode_image
from renet.networks.deploy_network import DeployOptions
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
    return decode_image(normalise(read_image_bytes(file), str(file)).data)


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from.

    Attributes:
        model: deploy prototxt.
        weights: .caffemodel, or Caffe's HDF5 file.
        options: what the network does not say of itself.
    """

    model: Path
    weights: Path
    options: DeployOptions

    def inspector(self) -> NetworkInspector:
        """Build the network."""
        return NetworkInspector(self.model, self.weights, self.options)

    def seeing(self, image: Path) -> tuple[NetworkInspector, np.ndarray]:
        """Build the network and run it on an image (see `read_image`), H x W x 3 BGR, which is returned, too."""
        network, seen = self.inspector(), read_image(image)
        network.forward(seen)
        return network, seen


def maps(source: NetworkSource, image: Path, layers: Sequence[str], channels: str, width: int) -> Iterator[Image.Image]:
    """Draw the chosen channels (such as "0-3,8") of the chosen layers: one row a layer, as in the paper's Figure 2."""
    network, seen = source.seeing(image)
    rows = []
    for layer in layers:
        values = network.maps(layer)
        numbers = channel_numbers(channels, len(values))
        rows.append([photograph(seen), *(_enlarged(grey(values[number]), seen) for number in numbers)])
    titles = ["image", *(f"channel {number}" for number in channel_numbers(channels, 1 << 30))]
    yield _captioned(sheet(rows, titles, None, width), [f"rows: {', '.join(layers)}"])


def filters(source: NetworkSource, layer: str, width: int) -> Iterator[Image.Image]:
    """Draw the weights of a layer: filters over three colours in colour, over more channels their mean in grey, and
    what has no extent (1x1, recurrent) as one grey matrix."""
    weights = source.inspector().filters(layer)
    if weights.ndim < 4 or weights.shape[2:] == (1, 1):
        # products with vectors: one row a filter
        rows = weights.reshape(len(weights), -1)
        scale = max(1, 4 * width // max(rows.shape))
        size = (rows.shape[1] * scale, rows.shape[0] * scale)
        yield Image.fromarray(grey(rows)).resize(size, Image.Resampling.NEAREST)
        return
    if weights.shape[1] == 3:
        pictures = [Image.fromarray(grey(one)[::-1].transpose(1, 2, 0).copy()) for one in weights]
    else:
        pictures = [Image.fromarray(grey(one.mean(axis=0))) for one in weights]
    columns = min(16, len(pictures))
    side = max(8, width * 4 // columns)
    tall = round(side * pictures[0].height / pictures[0].width)
    canvas = Image.new("RGB", (columns * (side + 2), -(-len(pictures) // columns) * (tall + 2)), "white")
    for number, picture in enumerate(pictures):
        place = (number % columns * (side + 2), number // columns * (tall + 2))
        canvas.paste(picture.resize((side, tall), Image.Resampling.NEAREST).convert("RGB"), place)
    yield canvas


def probabilities(
    source: NetworkSource, image: Path, classes: Sequence[str] | None, width: int
) -> Iterator[Image.Image]:
    """Draw each class's probability as a grey picture, black 0 and white 1; without `classes` they are numbered.

    Raises:
        UserError: the network has another number of classes.
    """
    network, seen = source.seeing(image)
    values = network.maps(network.output)
    check_probabilities(values, f'{source.model}: "{network.output}"')
    names = [f"class {number}" for number in range(len(values))] if classes is None else classes
    if len(names) != len(values):
        raise UserError(f"{source.model}: tells {len(values)} classes apart, the dataset has {len(names)}")
    pictures = [_captioned(photograph(seen), ["image"])]
    for plane, name in zip(values, names):
        pictures.append(_captioned(_enlarged((plane * 255).round().astype(np.uint8), seen), [name]))
    rows = [pictures[start : start + 4] for start in range(0, len(pictures), 4)]
    rows[-1] += [Image.new("RGB", pictures[0].size, "white")] * (4 - len(rows[-1]))
    yield sheet(rows, [""] * 4, None, width)


def receptive(
    sources: Sequence[tuple[str, NetworkSource]],
    image: Path,
    pixel: tuple[int, int] | None,
    label: int | None,
    width: int,
) -> Iterator[Image.Image]:
    """Draw what one pixel's answer depends on, one column a network.

    Args:
        sources: networks, each with what it is called.
        image: a file or an image of a split (see `read_image`).
        pixel: column and row; None: the middle.
        label: class whose score is followed back; None: the predicted one.
        width: of a column, in pixels.
    """
    seen = read_image(image)
    column, row = pixel or (seen.shape[1] // 2, seen.shape[0] // 2)
    pictures, titles = [_marked(photograph(seen), column, row)], ["image"]
    for name, source in sources:
        network = source.inspector()
        network.forward(seen)
        found = network.sensitivity(row, column, label)
        pictures.append(_marked(Image.fromarray(heat_map(seen, found.map)), column, row))
        titles.append(f"{name}: {100 * receptive_share(found.map):.0f}% of the image")
    yield sheet([pictures], titles, None, width)


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
