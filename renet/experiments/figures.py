"""Figures of the paper: feature maps of N-ReNet, and predictions side by side."""

from __future__ import annotations

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
from renet.experiments.plan import Experiment, Figure
from renet.experiments.runs import Runs
from renet.networks.deploy_network import DeployNetwork
from renet.runtime.worker_process import NativeCrash, run_native
from renet.training.files import DEPLOY
from renet.visualization.network_inspector import NetworkInspector, grey
from renet.visualization.sheet import photograph, png, sheet

MAPS = 4  # of a layer, as in Figure 2
WIDTH = 160  # of a picture in the sheet
_LAYER = re.compile(r"renet(\d+)_(vertical|horizontal)")


@dataclass(frozen=True)
class FigureOptions:
    """Choice of a figure's images.

    Attributes:
        count: so many of the split's first images, where `ids` is empty.
        ids: these images.
        others: title and folder of other systems' predictions.
    """

    count: int = 4
    ids: tuple[str, ...] = ()
    others: tuple[tuple[str, Path], ...] = ()


def draw(runs: Runs, experiment: Experiment, options: FigureOptions) -> Path:
    """Draw the experiment's figure, whose runs are finished, into the folder of the runs; return its file.

    Raises:
        UserError: an image or a prediction is missing; names it.
        Stopped: picture_sheet.py failed.
    """
    figure = experiment.figure
    assert figure is not None, "the caller saw a figure"
    out = runs.settings.out / f"{experiment.name}.png"
    if figure.features is not None:
        _draw_features(runs, figure, options, out)
    else:
        _draw_predictions(runs, figure, options, out)
    return out


def _draw_predictions(runs: Runs, figure: Figure, options: FigureOptions, out: Path) -> None:
    columns = [*(options.others if figure.others else ())]
    columns += [(title, runs.predictions(inference)) for title, inference in figure.columns]
    images = ("--ids", *options.ids) if options.ids else ("--count", options.count)
    data = ("--split", product_path(figure.split), "--dataset", product_path(runs.settings.dataset.folder))
    folders = [product_path(folder) for _, folder in columns]
    names = [title for title, _ in columns]
    result = ("--truth-last", "--out", product_path(out))
    runs.command("tools/picture_sheet.py", *data, "--predictions", *folders, "--names", *names, *images, *result)


# ---------------------------------------------------------------------------------------------------- feature maps


def _draw_features(runs: Runs, figure: Figure, options: FigureOptions, out: Path) -> None:
    """A sheet of all images and maps, and each map as a grey PNG of the map's own size beside it."""
    training = figure.features
    assert training is not None, "the figure of features has a network"
    model = runs.folder(training) / DEPLOY
    layers = first_and_last(model)
    with SplitReader(figure.split) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        ids = options.ids or tuple(index_of)[: options.count]
        for image_id in ids:
            if image_id not in index_of:
                raise UserError(f"{figure.split}: has no image {image_id}")
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
                write_atomically(folder / f"{name}.png", png(picture))
            rows.append([photograph(image), *(p.convert("RGB") for p in greys)])
    except NativeCrash as crash:
        raise UserError(f"{model}: {crash}") from None
    titles = ["image", *(f"{_title(layer)} {number}" for layer in layers for number in range(1, MAPS + 1))]
    write_atomically(out, png(sheet(rows, titles, None, WIDTH)))


def first_and_last(model: Path) -> tuple[str, str]:
    """Find the first vertical and the last horizontal ReNet layer of a deploy network.

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
    """Compute the first maps of some layers for each image; meant for a process of its own (see `worker_process`).

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
    network = NetworkInspector(model, weights)
    for image in images:
        network.forward(image)
        yield np.concatenate([network.maps(layer)[:MAPS] for layer in layers])


def _title(layer: str) -> str:
    number, direction = _LAYER.fullmatch(layer).groups()
    return f"renet{number} ({direction[0].upper()})"
