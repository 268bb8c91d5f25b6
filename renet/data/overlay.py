"""Overlay of a label map on its image, with a legend."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from renet.data.dataset import Dataset

_FONT_SIZE = 13
_ROW = 20
_SWATCH = 12
_MARGIN = 6
_LEAST_WIDTH = 160


def blend(image: np.ndarray, labels: np.ndarray, dataset: Dataset, opacity: float = 0.5) -> np.ndarray:
    """Lay a translucent layer of the classes' colours over an image.

    Args:
        image: H x W x 3 uint8, BGR.
        labels: H x W uint8, class indices; the ignored label leaves the image as it is.
        dataset: colours.
        opacity: of the colours, 0 to 1.

    Returns:
        H x W x 3 uint8, RGB.
    """
    colours = np.array(dataset.full_palette(), np.float32).reshape(256, 3)[labels]
    photograph = image[:, :, ::-1].astype(np.float32)
    mixed = photograph + opacity * (colours - photograph)
    return np.where((labels == dataset.ignore_label)[:, :, None], photograph, mixed).round().astype(np.uint8)


def draw_overlay(image: np.ndarray, labels: np.ndarray, dataset: Dataset, opacity: float = 0.5) -> Image.Image:
    """Draw `blend` with a legend below it that names the classes present and their share of the pixels.

    Args:
        image: H x W x 3 uint8, BGR.
        labels: H x W uint8, class indices.
        dataset: names and colours.
        opacity: of the colours, 0 to 1.

    Returns:
        An RGB image, wider than the input where the legend needs it.
    """
    mixed = blend(image, labels, dataset, opacity)
    height, width = labels.shape
    counts = np.bincount(labels.ravel(), minlength=256)
    named = [c for c in range(len(dataset.classes)) if counts[c] and c != dataset.ignore_label]
    present = sorted(named, key=lambda c: -counts[c])
    texts = [f"{dataset.classes[c]} {100 * counts[c] / labels.size:.0f}%" for c in present]
    font = ImageFont.load_default(_FONT_SIZE)
    entry = max((int(font.getlength(text)) for text in texts), default=0) + _SWATCH + 3 * _MARGIN
    canvas_width = max(width, entry, _LEAST_WIDTH)
    columns = max(1, canvas_width // entry)
    rows = -(-len(texts) // columns)
    canvas = Image.new("RGB", (canvas_width, height + rows * _ROW + 2 * _MARGIN), "white")
    canvas.paste(Image.fromarray(mixed), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for place, (label, text) in enumerate(zip(present, texts)):
        left = _MARGIN + (place % columns) * entry
        top = height + _MARGIN + (place // columns) * _ROW
        box = (left, top + 3, left + _SWATCH, top + 3 + _SWATCH)
        pen.rectangle(box, fill=tuple(dataset.palette[label].tolist()), outline="black")
        pen.text((left + _SWATCH + _MARGIN, top + 1), text, fill="black", font=font)
    return canvas
