"""Sheets of pictures in rows: test images, with their truth and predictions beside them (Figures 4 and 5)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from renet.common.errors import UserError
from renet.data.dataset import Dataset
from renet.data.image_ids import find_labels
from renet.data.label_maps import read_label_map
from renet.data.split_reader import SplitReader

MARGIN = 8  # pixels between pictures
LINE = 22  # pixels of a line of text


def photograph(image: np.ndarray) -> Image.Image:
    """Make an RGB picture of an H x W x 3 uint8 image, BGR."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))


def colour(labels: np.ndarray, dataset: Dataset) -> Image.Image:
    """Make an RGB picture of H x W class indices in the dataset's colours; ignored pixels are white."""
    palette = np.array(dataset.full_palette(), np.uint8).reshape(256, 3)
    return Image.fromarray(palette[labels])


def sheet(
    rows: Sequence[Sequence[Image.Image]], titles: Sequence[str], dataset: Dataset | None, width: int
) -> Image.Image:
    """Lay out the rows under their titles, with the classes' colours at the bottom.

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


def png(picture: Image.Image) -> bytes:
    """Encode a picture as a PNG of the least size."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def prediction_rows(
    split: Path,
    dataset: Dataset,
    predictions: Sequence[Path],
    *,
    ids: Sequence[str] | None = None,
    count: int = 5,
    truth_last: bool = False,
) -> list[list[Image.Image]]:
    """Draw rows of an image, its truth where the split has labels, and its predictions.

    Args:
        split: the prepared split.
        dataset: colours.
        predictions: folders of label maps, one a column.
        ids: the images; None: the first `count`.
        count: of images.
        truth_last: the truth comes after the predictions, not before.

    Raises:
        UserError: an image is not in the split, or a prediction is missing or of another size; names it.
    """
    files = [find_labels(folder) for folder in predictions]
    rows = []
    with SplitReader(split) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        for image_id in ids or list(index_of)[:count]:
            if image_id not in index_of:
                raise UserError(f"{split}: has no image {image_id}")
            image, truth = reader.image(index_of[image_id]), reader.label(index_of[image_id])
            row = []
            for folder, of_folder in zip(predictions, files):
                file = of_folder.get(image_id, folder / f"{image_id}.png")
                labels = read_label_map(file)
                if labels.shape != image.shape[:2]:
                    raise UserError(f"{file}: is {labels.shape}, its image {image.shape[:2]}")
                row.append(colour(labels, dataset))
            if truth is not None:
                row.insert(len(row) if truth_last else 0, colour(truth, dataset))
            rows.append([photograph(image), *row])
    return rows


def prediction_sheet(
    split: Path,
    dataset: Dataset,
    predictions: Sequence[Path],
    names: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    count: int = 5,
    width: int = 200,
    truth_last: bool = False,
) -> tuple[Image.Image, int]:
    """Lay out `prediction_rows` under titles.

    Args:
        split: as there; so are dataset, predictions, ids, count and truth_last.
        dataset: see there.
        predictions: see there.
        names: titles of the predictions.
        ids: see there.
        count: see there.
        width: of one picture, pixels.
        truth_last: see there.

    Returns:
        The sheet, and its number of rows.

    Raises:
        UserError: as there, or other numbers of names and predictions.
    """
    if len(names) != len(predictions):
        raise UserError(f"{len(names)} names for {len(predictions)} folders of predictions")
    rows = prediction_rows(split, dataset, predictions, ids=ids, count=count, truth_last=truth_last)
    titles = ["image", *names]
    if len(rows[0]) > len(titles):
        titles.insert(len(titles) if truth_last else 1, "truth")
    return sheet(rows, titles, dataset, width), len(rows)
