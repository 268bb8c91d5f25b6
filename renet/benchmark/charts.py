"""The growth of the networks' times with the image's size and with the batch, as one SVG."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from renet.benchmark.settings import CAFFE, PYTORCH, SIDE_TITLES
from renet.benchmark.tables import MODEL_TITLES

COLOURS = ("#3465a4", "#cc3311", "#4e9a06", "#75507b")
STYLES = {CAFFE: "o-", PYTORCH: "s--"}
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "growth", "font.family": "sans-serif", "font.size": 10}


def growth_chart(part: Mapping[str, Any]) -> bytes:
    """An SVG of two panels: milliseconds an image by megapixels of one image, and by the images of a batch.

    Args:
        part: the results' part "growth".
    """
    entries = list(part["entries"].values())
    models = sorted({entry["model"] for entry in entries})
    with pyplot.rc_context(SETTINGS):
        figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
        for panel, axis, label in zip(panels, ("size", "batch"), ("megapixels of an image", "images in a batch")):
            for model, colour in zip(models, COLOURS):
                for side, style in STYLES.items():
                    points = sorted(
                        point(entry, side)
                        for entry in entries
                        if (entry["axis"], entry["model"]) == (axis, model) and side in entry["sides"]
                    )
                    if points:
                        name = f"{MODEL_TITLES[model]}, {SIDE_TITLES[side]}"
                        panel.plot(*zip(*points), style, color=colour, markersize=5, label=name)
            panel.set_xlabel(label)
            panel.set_ylabel("milliseconds an image, forward")
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
        if panels[0].has_data():
            panels[0].legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
        pyplot.close(figure)
    return buffer.getvalue()


def point(entry: Mapping[str, Any], side: str) -> tuple[float, float]:
    """Where an entry lies: megapixels or images, and milliseconds an image."""
    images, _, height, width = entry["shape"]
    x = height * width / 1e6 if entry["axis"] == "size" else images
    return x, statistics.median(entry["sides"][side]["milliseconds"]) / images
