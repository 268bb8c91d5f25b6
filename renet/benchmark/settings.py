"""What a run of the benchmark is made of: its sides' names, its sizes, and what each part is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from renet.benchmark.kernel_tasks import PHOTOGRAPH
from renet.common.repository import ROOT
from renet.gpu_check.entries import SHAPES
from renet.gpu_check.work import FLOAT32

# Names of sides in the results.
CAFFE, KEEPING, PLAIN = "caffe", "caffe without share_maps", "caffe without oneDNN"
DIRECT, STOCK, PYTORCH = "caffe without winograd", "stock caffe", "pytorch"
PYDENSECRF, NUMPY = "pydensecrf", "numpy"
ONNXRUNTIME, OPENVINO, OPENVINO_BFLOAT16 = "onnxruntime", "openvino", "openvino in bfloat16"
SIDE_TITLES = {
    CAFFE: "Caffe",
    KEEPING: "every map kept",
    DIRECT: "without Winograd's",
    PLAIN: "without oneDNN",
    STOCK: "stock Caffe",
    PYTORCH: "PyTorch",
    PYDENSECRF: "pydensecrf",
    NUMPY: "NumPy loop",
    ONNXRUNTIME: "onnxruntime",
    OPENVINO: "OpenVINO",
    OPENVINO_BFLOAT16: "OpenVINO in bfloat16",
}

CHART = "images/speed_growth.svg"  # beside a document or results


def in_precision(what: str, precision: str) -> str:
    """Name what is timed in a precision; float32 is not named."""
    return what if precision == FLOAT32 else f"{what}, {precision}"


class Scale(NamedTuple):
    """The sizes of everything.

    Attributes:
        groups: N, C, H, W and d of the ReNet groups.
        crfs: classes, height, width and iterations of the CRFs; and PHOTOGRAPH, where the image is no drawn one.
        image: height and width of an image of the networks and of the data.
        foreign: height and width of an image of the classification networks.
        foreign_batch: images of a training step of theirs.
        batch: images of a training step.
        crop: height and width of a training step's images, and of the growing batch's.
        sizes: heights and widths of the growing image.
        batches: numbers of images of the growing batch.
        growth_runs: timed runs of each point of the growth.
        converted: images that are converted and loaded.
        loaded: batches of a run of the loading.
        scored: label maps that are scored.
    """

    groups: tuple[tuple[int, ...], ...]
    crfs: tuple[tuple[int | str, ...], ...]
    image: tuple[int, int]
    foreign: tuple[int, int]
    foreign_batch: int
    batch: int
    crop: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    growth_runs: int
    converted: int
    loaded: int
    scored: int


FULL = Scale(
    groups=SHAPES,
    crfs=tuple((21, 375, 500, iterations, *image) for image in ((), (PHOTOGRAPH,)) for iterations in (2, 10)),
    image=(375, 500),
    foreign=(224, 224),
    foreign_batch=4,
    batch=2,
    crop=(240, 320),
    sizes=((125, 167), (250, 333), (375, 500), (500, 667)),
    batches=(1, 2, 4, 8),
    growth_runs=3,
    converted=200,
    loaded=40,
    scored=1449,
)
QUICK = Scale(
    groups=((2, 3, 11, 9, 5),),
    crfs=((3, 20, 31, 2), (3, 20, 31, 2, PHOTOGRAPH)),
    image=(49, 67),
    foreign=(64, 64),
    foreign_batch=2,
    batch=2,
    crop=(32, 40),
    sizes=((32, 40), (49, 67)),
    batches=(1, 2),
    growth_runs=1,
    converted=20,
    loaded=2,
    scored=30,
)


class Settings(NamedTuple):
    """What a part is given.

    Attributes:
        scale: sizes.
        runs: timed runs of each side.
        threads: of every library.
        python: the Python that imports Caffe.
        build: our build's folder; None for the one that `python` imports by itself.
        stock: stock Caffe's build folder, or None.
        peer: the Python that has PyTorch, pydensecrf, onnxruntime and OpenVINO, or None.
        onednn: whether our build computes by oneDNN.
    """

    scale: Scale
    runs: int
    threads: int
    python: Path | str
    build: Path | None
    stock: Path | None
    peer: Path | None
    onednn: bool


class Entry(NamedTuple):
    """One measurement: its name within its part, and what takes it (a JSON object)."""

    name: str
    measure: Callable[[], dict[str, Any]]


STOCK_BUILD = ROOT / "build" / "stock"


def has_caffe(build: Path) -> bool:
    """Whether a build folder has Caffe for Python."""
    return (build / "python" / "caffe" / "_caffe.so").is_file()
