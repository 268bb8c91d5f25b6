"""Class names and colours of the paper's two datasets, so that they can be scored without a prepared copy at hand."""

from pathlib import Path

import numpy as np

from data_prep import stanford_background
from renet.common.command_line import UserError
from renet.data.dataset import IGNORE_LABEL, Dataset

MEAN_BGR = (104.0, 117.0, 123.0)

# The names are those of the VOC development kit, so that a table can be laid beside the kit's own.
VOC2012_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def bit_interleaved_palette(count: int) -> np.ndarray:
    """Colours of the VOC development kit: the label's bits dealt out in turn to R, G, B, highest colour bit first.

    Args:
        count: number of labels, at most 256.

    Returns:
        (count, 3) uint8, RGB; label 1 is (128, 0, 0), label 20 is (0, 64, 128), label 255 is (224, 224, 192).
    """
    labels = np.arange(count)
    palette = np.zeros((count, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            bit = (labels >> (3 * step + channel)) & 1
            palette[:, channel] |= (bit << (7 - step)).astype(np.uint8)
    return palette


VOC2012_PALETTE = bit_interleaved_palette(len(VOC2012_CLASSES))

_KNOWN = {
    stanford_background.NAME: (stanford_background.CLASSES, stanford_background.PALETTE),
    "voc2012": (VOC2012_CLASSES, VOC2012_PALETTE),
}
KNOWN_NAMES = tuple(_KNOWN)


def load_dataset(name_or_path: str | Path) -> Dataset:
    """Find a dataset by its built-in name or by its dataset.json (or the folder that holds it).

    A built-in dataset has no splits and no folder of its own.

    Raises:
        UserError: neither a built-in name nor an existing file, or a file that is no dataset.json.
    """
    known = _KNOWN.get(str(name_or_path))
    if known is not None:
        classes, palette = known
        return Dataset(str(name_or_path), classes, palette, MEAN_BGR, IGNORE_LABEL, {}, Path())
    path = Path(name_or_path)
    if not path.exists():
        raise UserError(f"{path}: no such dataset.json, and no built-in dataset ({', '.join(KNOWN_NAMES)})")
    return Dataset.load(path)
