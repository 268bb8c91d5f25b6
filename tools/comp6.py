"""The folder tree of a VOC2012 segmentation submission (competition 6: trained on any data)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.command_line import UserError
from data_prep.dataset import Dataset
from data_prep.known_datasets import bit_interleaved_palette
from tools.evaluation import check_predictions_exist, size_text
from tools.label_maps import encode_label_map, read_label_map

SUBFOLDER = Path("results/VOC2012/Segmentation/comp6_test_cls")


def write_comp6(
    predictions: Path,
    ids: Sequence[str],
    dataset: Dataset,
    folder: Path,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Path:
    """Write `folder/results/VOC2012/Segmentation/comp6_test_cls/<image>.png` for every image, and check the result.

    Args:
        predictions: folder of label maps named by image id.
        ids: the images of the submission.
        dataset: VOC2012's classes.
        folder: where `results/` is to stand; what an earlier call wrote there is replaced.
        sizes: height and width of each image, where they are known.

    Returns:
        The folder of the PNGs.

    Raises:
        UserError: a prediction is missing, no label map, of another size or names a class that VOC does not have;
            names the file.
    """
    check_predictions_exist(predictions, ids)
    target = folder / SUBFOLDER
    beside = target.with_name(f".{target.name}.partial")
    if beside.exists():
        shutil.rmtree(beside)
    beside.mkdir(parents=True)
    try:
        for image_id in ids:
            file = predictions / f"{image_id}.png"
            labels = read_label_map(file)
            _check_labels(file, labels, len(dataset.classes))
            if sizes is not None and labels.shape != sizes[image_id]:
                height, width = sizes[image_id]
                raise UserError(f"{file}: {size_text(labels)}, the image is {width} x {height}")
            (beside / file.name).write_bytes(encode_label_map(labels, dataset))
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    check_comp6(folder, ids, len(dataset.classes))
    return target


def check_comp6(folder: Path, ids: Iterable[str], classes: int) -> None:
    """Check a submission's tree as the evaluation server would: the right files, 8-bit palette, VOC's colours, classes.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    target = folder / SUBFOLDER
    if not target.is_dir():
        raise UserError(f"{target}: missing")
    expected = {f"{image_id}.png" for image_id in ids}
    present = {file.name for file in target.iterdir()}
    for name in sorted(expected - present):
        raise UserError(f"{target / name}: missing")
    for name in sorted(present - expected):
        raise UserError(f"{target / name}: not an image of this submission")
    colours = bit_interleaved_palette(classes).reshape(-1).tolist()
    for name in sorted(expected):
        file = target / name
        labels = read_label_map(file)
        with Image.open(file) as image:
            palette = image.getpalette() if image.mode == "P" else None
        if palette is None or palette[: len(colours)] != colours:
            raise UserError(f"{file}: not a palette PNG in VOC's colours")
        _check_labels(file, labels, classes)


def _check_labels(file: Path, labels: np.ndarray, classes: int) -> None:
    highest = int(labels.max())
    if highest >= classes:
        raise UserError(f"{file}: the value {highest} is no class; classes are 0 to {classes - 1}")
