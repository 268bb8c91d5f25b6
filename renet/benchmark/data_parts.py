"""The part of the benchmark that is about data: converting, loading, and scoring label maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from renet.benchmark.data_tasks import convert
from renet.benchmark.layer_tasks import FORWARD
from renet.benchmark.settings import CAFFE, NUMPY, PYTORCH, Entry, Settings
from renet.benchmark.sides import Side, compare
from renet.benchmark.tables import largest_difference
from renet.common.errors import UserError
from renet.conversion.synthetic_scenes import draw
from renet.data.catalog import SYNTHETIC_SCENES, VOC2012
from renet.data.dataset import Dataset
from renet.data.images import encode_png
from renet.data.split_reader import SplitReader

SCENES = 10  # drawn; the files are copies of them
BATCH = 10
QUALITY = 90  # of the JPEGs
SHIFT = 5  # pixels by which a prediction is beside the truth
DECODERS_TOLERANCE = 2e-2  # of the largest value of a batch: two libraries' JPEG decoders may round differently


def draw_files(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Pictures (JPEG), labels, predictions (the labels, shifted) as PNG, and classes.txt, all made of drawn scenes.

    Args:
        folder: gets images/, labels/, predictions/ and classes.txt.
        count: of each.
        size: height and width.
    """
    scenes = [draw(0, 0, index, size) for index in range(min(SCENES, count))]
    for name in ("images", "labels", "predictions"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text("\n".join(SYNTHETIC_SCENES.classes) + "\n")
    for index, scene in enumerate(scenes):
        encoded = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        prediction = np.roll(scene.label, SHIFT, axis=1)
        for number in range(index, count, len(scenes)):
            (folder / "images" / f"scene_{number:05d}.jpg").write_bytes(encoded)
            (folder / "labels" / f"scene_{number:05d}.png").write_bytes(encode_png(scene.label))
            (folder / "predictions" / f"scene_{number:05d}.png").write_bytes(encode_png(prediction))


def check_alike(tolerance: float, ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two sides' results, relative to the largest value.

    Raises:
        UserError: it is above `tolerance`.
    """
    difference = largest_difference(dict(ours), dict(theirs))
    if difference > tolerance:
        raise UserError(f"the two sides do not come to the same: they differ by {difference:.1e} of the largest value")
    return difference


def _measure(
    settings: Settings, folder: Path, job: dict[str, Any], sides: Mapping[str, tuple[str, Path | str]], tolerance: float
) -> dict[str, Any]:
    """Time tasks that take `job`; `sides` has the task and the Python of each."""
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    taken = {name: Side(task, python, file, caffe=settings.build) for name, (task, python) in sides.items()}
    return compare(taken, FORWARD, settings.runs, settings.threads, partial(check_alike, tolerance))


def time_conversion(settings: Settings) -> dict[str, Any]:
    """Pictures and label PNGs to a verified split."""
    count = settings.scale.converted
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_files(folder, count, settings.scale.image)
        measured = _measure(settings, folder, {"folder": str(folder)}, {CAFFE: ("conversion", settings.python)}, 0)
    return {"what": "conversion", "images": count, **measured}


def time_loading(settings: Settings) -> dict[str, Any]:
    """Batches of whole images of one size, in the order of the split, so that both sides' can be compared."""
    scale = settings.scale
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_files(folder, scale.converted, scale.image)
        convert(folder, folder / "data")
        split = folder / "data" / "train"
        with SplitReader(split) as reader:
            pairs = [
                [str(folder / "images" / f"{one}.jpg"), str(folder / "labels" / f"{one}.png")] for one in reader.ids()
            ]
        job = {"split": str(split), "pairs": pairs, "mean": list(Dataset.open(folder / "data").mean)}
        job |= {"batch": BATCH, "batches": scale.loaded, "size": list(scale.image)}
        sides: dict[str, tuple[str, Path | str]] = {CAFFE: ("caffe-loading", settings.python)}
        if settings.peer:
            sides[PYTORCH] = ("pytorch-loading", settings.peer)
        measured = _measure(settings, folder, job, sides, DECODERS_TOLERANCE)
    return {"what": "loading", "images": BATCH * scale.loaded, **measured}


def time_evaluation(settings: Settings) -> dict[str, Any]:
    """Label maps of the size of VOC's to scores, beside a NumPy loop."""
    count = settings.scale.scored
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_files(folder, count, settings.scale.image)
        job = {"truth": str(folder / "labels"), "predictions": str(folder / "predictions"), "dataset": "voc2012"}
        job |= {"class_count": len(VOC2012.classes)}
        sides = {CAFFE: ("evaluation", settings.python), NUMPY: ("numpy-evaluation", settings.python)}
        measured = _measure(settings, folder, job, sides, 0)
    return {"what": "evaluation", "images": count, **measured}


def data_entries(settings: Settings) -> list[Entry]:
    """Conversion, loading, evaluation."""
    return [
        Entry("conversion", partial(time_conversion, settings)),
        Entry("loading", partial(time_loading, settings)),
        Entry("evaluation", partial(time_evaluation, settings)),
    ]
