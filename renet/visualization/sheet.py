"""One image of many: test images in rows, with their truth and predictions beside them (Figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from renet.data.dataset import Dataset

MARGIN = 8  # pixels between pictures
LINE = 22  # pixels of a line of text


def colour(labels: np.ndarray, dataset: Dataset) -> Image.Image:
    """H x W class indices as an RGB picture in the dataset's colours; ignored pixels are white."""
    palette = np.array(dataset.full_palette(), np.uint8).reshape(256, 3)
    return Image.fromarray(palette[labels])


def sheet(
    rows: Sequence[Sequence[Image.Image]], titles: Sequence[str], dataset: Dataset | None, width: int
) -> Image.Image:
    """The rows under their titles, with the classes' colours at the bottom.

    Args:
        rows: pictures, as many in each row as there are titles.
        titles: of the columns.
        dataset: class names and colours for the legend; None: no legend.
        width: of one picture, pixels; heights follow each picture's shape.
    """
    font = ImageFont.load_default(14)
    scaled = [
        [p.resize((width, max(1, round(p.height * width / p.width))), Image.Resampling.LANCZOS) for p in row]
        for row in rows
    ]
    total = len(titles) * (width + MARGIN) + MARGIN
    classes = zip(dataset.classes, dataset.palette.tolist()) if dataset is not None else ()
    names = [(name, tuple(rgb)) for name, rgb in classes]
    entry = max((int(font.getlength(name)) for name, _ in names), default=0) + 36
    columns = max(1, (total - MARGIN) // entry)
    height = LINE + sum(row[0].height + MARGIN for row in scaled) + LINE * -(-len(names) // columns) + MARGIN
    canvas = Image.new("RGB", (total, height), "white")
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        pen.text((MARGIN + column * (width + MARGIN), 3), title, fill="black", font=font)
    top = LINE
    for row in scaled:
        for column, picture in enumerate(row):
            canvas.paste(picture, (MARGIN + column * (width + MARGIN), top))
        top += row[0].height + MARGIN
    for place, (name, rgb) in enumerate(names):
        left, line = MARGIN + (place % columns) * entry, top + (place // columns) * LINE
        pen.rectangle((left, line + 3, left + 14, line + 17), fill=rgb, outline="black")
        pen.text((left + 20, line + 1), name, fill="black", font=font)
    return canvas
