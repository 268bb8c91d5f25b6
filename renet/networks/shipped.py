"""Files that come with the repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from renet.common.repository import ROOT, product_path
from renet.data.catalog import STANFORD_BACKGROUND, SYNTHETIC_SCENES, VOC2012
from renet.data.dataset import IGNORE_LABEL
from renet.networks.class_weights import ClassWeights
from renet.networks.files import TRAIN_VAL, Data, network_texts, solver_file_text
from renet.networks.models import (
    AFTER_COCO_ITERATIONS,
    BEST,
    COCO_ITERATIONS,
    COCO_STEP,
    FCN_ITERATIONS,
    FCN_RATES,
    H_RENETS,
    MODELS,
)
from renet.networks.recipe import ITERATIONS, RECIPE
from renet.networks.schedules import Schedule, adam, h_renet_sgd


@dataclass(frozen=True)
class Shipped:
    """Training whose solver, and network whose files, come with the repository.

    Attributes:
        model: of `MODELS`.
        data: the network's; its name is that of the network's folder.
        schedule: in place of the model's own.
        crop: in place of the model's own.
        solver: what the solver's name has in place of the data's.
        weights: what the solver starts from, in place of the model's own.
        weights_comment: above it.
        class_weights: of the loss.
        augment: kinds of augmentation of the training images.
        dropout: between two recurrent groups.
    """

    model: str
    data: Data
    schedule: Schedule | None = None
    crop: tuple[int, int] | None = None
    solver: str | None = None
    weights: str | None = None
    weights_comment: str | None = None
    class_weights: ClassWeights | None = None
    augment: tuple[str, ...] = ()
    dropout: float | None = None

    @property
    def name(self) -> str:
        """Name the training."""
        return f"{self.model}_{self.solver or self.data.name}"

    @property
    def folder(self) -> Path:
        """Name the folder of the network's files."""
        return ROOT / "prototxt" / self.model / self.data.name

    def files(self) -> dict[Path, str]:
        """Write the texts by absolute path."""
        model = MODELS[self.model]
        options = model.options(self.crop, class_weights=self.class_weights, augment=self.augment, dropout=self.dropout)
        networks = network_texts(model, f"{self.model}_{self.data.name}", self.data, options)
        solver = solver_file_text(
            self.name,
            f"{self.model} on {self.solver or self.data.name}",
            model,
            self.data,
            options,
            self.schedule or model.schedule(),
            product_path(self.folder / TRAIN_VAL),
            weights=self.weights,
            iter_size=model.iter_size,
            **({} if self.weights_comment is None else {"weights_comment": self.weights_comment}),
        )
        return {
            **{self.folder / file: text for file, text in networks.items()},
            ROOT / "solvers" / f"{self.name}.prototxt": solver,
        }


def _data(name: str, classes: int, train: str, test: str, test_images: int) -> Data:
    return Data(name, classes, IGNORE_LABEL, (f"data/{name}/{train}",), f"data/{name}/{test}", test_images)


_STANFORD_CLASSES = len(STANFORD_BACKGROUND.classes)
_STANFORD = _data("stanford_background", _STANFORD_CLASSES, "fold0/train", "fold0/test", 143)
_STANFORD_AUGMENTED = replace(_STANFORD, name="stanford_background_augmented")
_SCENES = _data("synthetic_scenes", len(SYNTHETIC_SCENES.classes), "train", "test", 100)
_VOC = _data("voc2012", len(VOC2012.classes), "trainaug", "val", 1449)
_SEEN = "They are among the images that it learns from: the score says how far learning has come, and no more."
_VOC_ALL = replace(_VOC, name="voc2012_trainval", train=("data/voc2012/trainvalaug",), test_comment=_SEEN)
_COCO = replace(_VOC_ALL, name="coco_voc2012", train=("data/voc2012/trainvalaug", "data/coco/train"))


def _training_sizes() -> Iterator[Shipped]:
    """The two smaller crops of section 4.2, for the two networks that the paper compares."""
    for model in ("fcn", BEST):
        for crop in ((256, 320), (320, 400)):
            data = replace(_VOC, name=f"voc2012_{crop[0]}x{crop[1]}")
            yield Shipped(model, data, crop=crop)


# SegNet's authors: their 11 classes of CamVid, and what weighs them.
_CAMVID = _data("camvid", 11, "train", "test", 233)
_CAMVID_WEIGHTS = ClassWeights(
    (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614),
    "sky, building, pole, road, pavement, tree, sign,\nfence, car, pedestrian, cyclist. By median frequency",
)


def _fcns() -> Iterator[Shipped]:
    """FCN-32s, which starts from VGG-16, and the finer ones, each of which starts from the one before."""
    before = None
    for model in FCN_RATES:
        weights = None if before is None else _result(before, FCN_ITERATIONS)
        comment = None if before is None else f"What {before} has learnt, by the layers' names."
        yield Shipped(model, _VOC, weights=weights, weights_comment=comment)
        before = model


def _result(model: str, iterations: int) -> str:
    name = f"{model}_{_VOC.name}"
    return f"runs/{name}/snapshots/{name}_iter_{iterations}.caffemodel"


def _augmented(model: str) -> Shipped:
    """N-ReNet by the recipe of docs/training.md in the paper's place."""
    return Shipped(model, _STANFORD_AUGMENTED, RECIPE.schedule(ITERATIONS[model]), **RECIPE.options)


SHIPPED = (
    Shipped("n_renet", _STANFORD),
    *map(_augmented, ITERATIONS),
    Shipped("n_renet_released", _STANFORD),
    Shipped("n_renet_quarter", _STANFORD, schedule=adam(4500)),
    Shipped("n_renet_small", _SCENES, schedule=adam(600)),
    Shipped("conv_small", _SCENES, schedule=adam(600)),
    Shipped("conv_small_crf", _SCENES, schedule=adam(600)),
    Shipped("multi_scale_convnet", _STANFORD),
    *(Shipped(model, _VOC) for model in H_RENETS),
    *_training_sizes(),
    # Table 7: for the test server the network learns from val, too; with COCO first and then, finer, from VOC alone.
    Shipped(BEST, _VOC_ALL),
    Shipped(BEST, _COCO, h_renet_sgd(COCO_ITERATIONS, COCO_STEP, ", before VOC 2012 alone")),
    Shipped(
        BEST,
        _VOC_ALL,
        h_renet_sgd(AFTER_COCO_ITERATIONS),
        solver="voc2012_after_coco",
        weights=f"runs/{BEST}_coco_voc2012/snapshots/{BEST}_coco_voc2012_iter_{COCO_ITERATIONS}.caffemodel",
        weights_comment="What the training on COCO and VOC 2012 together has learnt.",
    ),
    # Table 6's other systems.
    Shipped("deeplab_largefov", _VOC),
    *_fcns(),
    Shipped(
        "crf_as_rnn",
        _VOC,
        weights=_result("fcn8s", FCN_ITERATIONS),
        weights_comment="What fcn8s has learnt, by the layers' names; score2, which is not there, starts bilinear.",
    ),
    Shipped("segnet", _CAMVID, class_weights=_CAMVID_WEIGHTS),
    Shipped("deconvnet", _VOC),
)


def shipped_files() -> dict[Path, str]:
    """Write every file that the repository ships, by absolute path, as the generator does."""
    files: dict[Path, str] = {}
    for item in SHIPPED:
        files |= item.files()
    return files
