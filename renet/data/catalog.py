"""Known data sets: classes, colours, and the sizes of their splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renet.common.errors import UserError
from renet.data.dataset import FILE_NAME, IGNORE_LABEL, Dataset

MEAN_BGR = (104.0, 117.0, 123.0)


@dataclass(frozen=True)
class KnownDataset:
    """Data set that is known by name, so that it can be scored without a prepared copy at hand.

    Attributes:
        name: as in file names and options.
        classes: names of the labels 0 .. C-1.
        palette: C x 3 uint8, RGB.
        images: how many there are, by split; `all` where nobody has split them.
        distant_context_classes: see `Dataset`.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    images: Mapping[str, int]
    distant_context_classes: tuple[str, ...] = ()


def bit_interleaved_palette(count: int) -> np.ndarray:
    """Compute the colours of the VOC development kit: the label's bits dealt out in turn to R, G, B, highest colour bit
    first.

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


VOC2012 = KnownDataset(
    "voc2012",
    # The names are those of the VOC development kit, so that a table can be laid beside the kit's own.
    (
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
    ),
    bit_interleaved_palette(21),
    {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "trainvalaug": 12031, "test": 1456},
)

STANFORD_BACKGROUND = KnownDataset(
    "stanford_background",
    ("sky", "tree", "road", "grass", "water", "building", "mountain", "foreground object"),
    np.array(
        [
            (135, 206, 250),  # sky
            (27, 94, 32),  # tree
            (120, 110, 130),  # road
            (140, 200, 60),  # grass
            (25, 80, 200),  # water
            (170, 60, 45),  # building
            (150, 105, 60),  # mountain
            (255, 190, 0),  # foreground object
        ],
        np.uint8,
    ),
    {"all": 715},
)

SYNTHETIC_SCENES = KnownDataset(
    "synthetic_scenes",
    ("sky", "sea", "hill", "grass", "tree", "house", "beach", "desert", "road", "path"),
    np.array(
        [
            (135, 206, 250),  # sky
            (25, 80, 200),  # sea
            (140, 120, 150),  # hill
            (140, 200, 60),  # grass
            (27, 94, 32),  # tree
            (170, 60, 45),  # house
            (255, 224, 130),  # beach
            (230, 140, 40),  # desert
            (90, 90, 100),  # road
            (160, 110, 70),  # path
        ],
        np.uint8,
    ),
    {},
    ("beach", "desert", "road", "path"),
)

KNOWN = {known.name: known for known in (STANFORD_BACKGROUND, VOC2012, SYNTHETIC_SCENES)}


def load_dataset(name_or_path: str | Path) -> Dataset:
    """Find a dataset by its name (see `KNOWN`) or by its dataset.json (or the folder that holds it).

    A known dataset has no splits and no folder of its own.

    Raises:
        UserError: neither a known name nor an existing file, or a file that is no dataset.json.
    """
    known = KNOWN.get(str(name_or_path))
    if known is not None:
        distant = known.distant_context_classes
        return Dataset(
            known.name,
            known.classes,
            known.palette,
            MEAN_BGR,
            IGNORE_LABEL,
            {},
            Path(),
            distant_context_classes=distant,
        )
    path = Path(name_or_path)
    if not path.exists():
        raise UserError(f"{path}: no such dataset.json, and no built-in dataset ({', '.join(KNOWN)})")
    return Dataset.open(path)


def find_dataset(name_or_path: str | None, split: Path | None, of_model: Dataset | None = None) -> Dataset:
    """Find the dataset that is named, else that of the model folder, else the split's (the nearest dataset.json above
    it).

    Raises:
        UserError: there is none.
    """
    if name_or_path is not None:
        return load_dataset(name_or_path)
    if of_model is not None:
        return of_model
    if split is None:
        raise UserError("--dataset is needed with --input: it gives the classes' names and colours")
    dataset = Dataset.of_split(split)
    if dataset is None:
        raise UserError(f"{split}: no {FILE_NAME} in the folders above it; name one with --dataset")
    return dataset
