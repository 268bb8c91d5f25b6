"""The part of the benchmark that is about data: converting, loading, and scoring label maps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from renet.benchmark.data_tasks import convert
from renet.benchmark.settings import CAFFE, NUMPY, PYTORCH, Entry, Settings
from renet.benchmark.sides import Side, check_results, compare
from renet.conversion.synthetic_scenes import draw
from renet.data.catalog import SYNTHETIC_SCENES, VOC2012
from renet.data.dataset import Dataset
from renet.data.images import encode_png
from renet.data.split_reader import SplitReader
from renet.networks.augmentation import AUGMENTATIONS, augmentation_fields

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


def time_conversion(settings: Settings) -> dict[str, Any]:
    """Images and label PNGs to a verified split."""
    count = settings.scale.converted
    with TemporaryDirectory() as scratch:
        draw_files(Path(scratch), count, settings.scale.image)
        sides = {CAFFE: Side("numpy", "data_tasks.Conversion", settings.python, {"folder": scratch})}
        return {"what": "conversion", "images": count, **compare(sides, settings.runs, settings.threads)}


def time_loading(settings: Settings, augmented: bool = False) -> dict[str, Any]:
    """Batches of whole images of one size, in the order of the split, so that both sides' can be compared; or, with
    every kind of augmentation that the generator knows, ours alone."""
    scale = settings.scale
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_files(folder, scale.converted, scale.image)
        convert(folder, folder / "data")
        split = folder / "data" / "train"
        job = {"folder": scratch, "split": str(split), "mean": list(Dataset.open(folder / "data").mean)}
        job |= {"batch": BATCH, "batches": scale.loaded, "size": list(scale.image)}
        job["augmentation"] = augmentation_fields(tuple(AUGMENTATIONS)) if augmented else {}
        with SplitReader(split) as reader:
            job["names"] = list(reader.ids())
        sides = {CAFFE: Side("caffe", "data_tasks.CaffeLoading", settings.python, job, caffe=settings.build)}
        if settings.peer and not augmented:
            check = partial(check_results, tolerance=DECODERS_TOLERANCE)
            sides[PYTORCH] = Side("torch", "data_tasks.PyTorchLoading", settings.peer, job, check=check)
        measured = compare(sides, settings.runs, settings.threads)
    what = "augmented loading" if augmented else "loading"
    return {"what": what, "images": BATCH * scale.loaded, **measured}


def time_evaluation(settings: Settings) -> dict[str, Any]:
    """Label maps of the size of VOC's to scores, beside a NumPy loop."""
    count = settings.scale.scored
    with TemporaryDirectory() as scratch:
        draw_files(Path(scratch), count, settings.scale.image)
        job = {"folder": scratch, "dataset": "voc2012", "class_count": len(VOC2012.classes)}
        tasks = {CAFFE: "Evaluation", NUMPY: "NumPyEvaluation"}
        check = partial(check_results, tolerance=0)
        sides = {
            name: Side("numpy", f"data_tasks.{task}", settings.python, job, check=check) for name, task in tasks.items()
        }
        measured = compare(sides, settings.runs, settings.threads)
    return {"what": "evaluation", "images": count, **measured}


def data_entries(settings: Settings) -> list[Entry]:
    """Conversion, loading, also with augmentation, evaluation."""
    measurements = {
        "conversion": time_conversion,
        "loading": time_loading,
        "augmented loading": partial(time_loading, augmented=True),
        "evaluation": time_evaluation,
    }
    return [Entry(name, partial(measure, settings)) for name, measure in measurements.items()]
