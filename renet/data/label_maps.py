"""Label maps as PNG files: one byte a pixel, the class index; a palette only colours them for the eye."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.data.dataset import Dataset
from renet.data.image_formats import read_image_bytes
from renet.data.images import read_index_png


def read_label_map(file: Path) -> np.ndarray:
    """Read the class indices in a palette or grey PNG.

    Returns:
        H x W uint8.

    Raises:
        UserError: missing, broken, colour-coded or with values over 255; names the file.
    """
    labels = read_index_png(read_image_bytes(file), str(file))
    if labels.dtype != np.uint8:
        raise UserError(f"{file}: holds the value {labels.max()}; class indices are 8 bits")
    return labels


def encode_label_map(labels: np.ndarray, dataset: Dataset) -> bytes:
    """Encode H x W class indices as an 8-bit palette PNG in the dataset's colours."""
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(dataset.full_palette())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_label_map(file: Path, labels: np.ndarray, dataset: Dataset) -> None:
    """Write `labels` (H x W) as a palette PNG, whole or not at all.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    write_atomically(file, encode_label_map(labels, dataset))
