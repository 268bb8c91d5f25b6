"""The paper's figures: feature maps of N-ReNet, and predictions side by side."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.repository import product_path
from renet.data.split_reader import SplitReader
from renet.experiments.plan import Experiment, Pictures
from renet.experiments.runs import Runs
from renet.networks.deploy_network import DeployNetwork
from renet.runtime.worker_process import NativeCrash, run_native
from renet.training.files import DEPLOY
from renet.visualization.sheet import sheet
from renet.weights.weight_files import load

MAPS = 4  # of a layer, as in Figure 2
WIDTH = 160  # of a picture in the sheet
_LAYER = re.compile(r"renet(\d+)_(vertical|horizontal)")


@dataclass(frozen=True)
class Shown:
    """What a figure shows.

    Attributes:
        count: so many of the split's first images, where `ids` is empty.
        ids: these images.
        others: title and folder of other systems' predictions.
    """

    count: int = 4
    ids: tuple[str, ...] = ()
    others: tuple[tuple[str, Path], ...] = ()


def draw(runs: Runs, experiment: Experiment, shown: Shown) -> Path:
    """Draw the experiment's figure, whose runs are finished, into the folder of the runs; returns its file.

    Raises:
        UserError: an image or a prediction is missing; names it.
        Stopped: picture_sheet.py failed.
    """
    pictures = experiment.pictures
    assert pictures is not None, "a figure has pictures"
    out = runs.settings.out / f"{experiment.name}.png"
    if pictures.features is not None:
        _draw_features(runs, pictures, shown, out)
    else:
        _draw_predictions(runs, pictures, shown, out)
    return out


def _draw_predictions(runs: Runs, pictures: Pictures, shown: Shown, out: Path) -> None:
    columns = [*(shown.others if pictures.others else ())]
    columns += [(title, runs.predictions(inference)) for title, inference in pictures.columns]
    images = ("--ids", *shown.ids) if shown.ids else ("--count", shown.count)
    data = ("--split", product_path(pictures.split), "--dataset", product_path(runs.settings.dataset.folder))
    folders = [product_path(folder) for _, folder in columns]
    names = [title for title, _ in columns]
    result = ("--truth-last", "--out", product_path(out))
    runs.command("tools/picture_sheet.py", *data, "--predictions", *folders, "--names", *names, *images, *result)


# ---------------------------------------------------------------------------------------------------- feature maps


def _draw_features(runs: Runs, pictures: Pictures, shown: Shown, out: Path) -> None:
    """A sheet of all images and maps, and each map as a grey PNG of the map's own size beside it."""
    training = pictures.features
    assert training is not None, "the figure of features has a network"
    model = runs.folder(training) / DEPLOY
    layers = first_and_last(model)
    with SplitReader(pictures.split) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        ids = shown.ids or tuple(index_of)[: shown.count]
        for image_id in ids:
            if image_id not in index_of:
                raise UserError(f"{pictures.split}: has no image {image_id}")
        images = [reader.image(index_of[image_id]) for image_id in ids]
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    try:
        found = run_native(feature_maps, model, runs.weights(training), images, layers)
        for image_id, image, maps in zip(ids, images, found):
            greys = [Image.fromarray(grey(each)) for each in maps]
            names = [f"{image_id}_{layer}_{number}" for layer in layers for number in range(1, MAPS + 1)]
            for name, picture in zip(names, greys):
                write_atomically(folder / f"{name}.png", _png(picture))
            rows.append([Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])), *(p.convert("RGB") for p in greys)])
    except NativeCrash as crash:
        raise UserError(f"{model}: {crash}") from None
    titles = ["image", *(f"{_title(layer)} {number}" for layer in layers for number in range(1, MAPS + 1))]
    write_atomically(out, _png(sheet(rows, titles, None, WIDTH)))


def first_and_last(model: Path) -> tuple[str, str]:
    """The first vertical and the last horizontal ReNet layer of a deploy network.

    Raises:
        UserError: it has none.
    """
    names = [layer.name for layer in DeployNetwork.read(model).description.layer if _LAYER.fullmatch(layer.name)]
    if len(names) < 2:
        raise UserError(f"{model}: has no ReNet layers whose maps could be shown")
    return names[0], names[-1]


def feature_maps(
    model: Path, weights: Path, images: Sequence[np.ndarray], layers: Sequence[str]
) -> Iterator[np.ndarray]:
    """The first maps of some layers for each image; meant for a process of its own (see `worker_process`).

    Args:
        model: deploy prototxt; a layer's top has its name.
        weights: .caffemodel.
        images: H x W x 3 uint8, BGR.
        layers: their names.

    Yields:
        (layers x MAPS) x h x w float32, the layers' maps one after the other.

    Raises:
        UserError: the model or the weights do not serve.
    """
    described = DeployNetwork.read(model)
    import caffe

    caffe.set_mode_cpu()
    network = described.build()
    load(network, weights, every_layer=True)
    for image in images:
        given = network.blobs[described.input]
        given.reshape(1, 3, *image.shape[:2])
        given.data[0] = described.transform.apply(image)
        network.forward()
        yield np.concatenate([network.blobs[layer].data[0, :MAPS] for layer in layers])


def grey(values: np.ndarray) -> np.ndarray:
    """A map as grey levels: its lowest value black, its highest white; an even map is black."""
    low, high = float(values.min()), float(values.max())
    return np.round(255 * (values - low) / ((high - low) or 1)).astype(np.uint8)


def _title(layer: str) -> str:
    number, direction = _LAYER.fullmatch(layer).groups()
    return f"renet{number} ({direction[0].upper()})"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
