"""Differences between an experiment's runs and the paper, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from renet.common.repository import product_path
from renet.common.text_layout import shape_text
from renet.experiments.results import Report
from renet.experiments.training import Settings, Training
from renet.networks.models import COMPARISONS, MODELS, VGG16_WEIGHTS
from renet.networks.spec import Options

PAPER_N_RENET = "n_renet"
PAPER_BATCH = 10


def differences(report: Report) -> list[str]:
    """Describe what is not as in the paper."""
    settings = report.settings
    others = [training for training in report.trainings if training.model in COMPARISONS]
    trainings = [training for training in report.trainings if training.model not in COMPARISONS]
    fine_tuned = [training for training in trainings if MODELS[training.model].weights is not None]
    lines = []
    if settings.equal_iterations is not None:
        lines.append(f"Every run has {settings.equal_iterations:,} iterations; how many the paper gives each is above.")
    elif settings.budget != 1:
        lines.append(
            f"Budget {settings.budget:g}: each run has this share of the paper's iterations, at least one (above)."
        )
    if settings.crop is not None or report.experiment.name != "training_size":
        lines += _crop_differences(trainings)
    lines += _other_systems(others)
    if any(_images(training) != PAPER_BATCH for training in trainings):
        lines.append(f"Images of an iteration: {_list(map(_images, trainings))}, where the paper has {PAPER_BATCH}.")
    if settings.iter_size > 1 and any(MODELS[training.model].batch_norm for training in trainings):
        lines.append(f"Batch normalisation sees a pass's {_list(t.options.batch for t in trainings)} images, not 10.")
    lines += _learning_differences(settings, trainings)
    if fine_tuned:
        lines += _fine_tuning_differences(settings, fine_tuned)
    if any(MODELS[training.model].weights is None for training in trainings):
        lines.append("The paper gives no solver for N-ReNet: the 36,000 iterations are the authors' code's.")
    if settings.n_renet != PAPER_N_RENET and any(training.model == settings.n_renet for training in trainings):
        lines.append(
            f"{settings.n_renet} in place of {PAPER_N_RENET}: {MODELS[settings.n_renet].headline.splitlines()[0]}"
        )
    if settings.flip:
        lines.append("Predictions are averaged with those of the mirrored image.")
    return lines


def _crop_differences(trainings: Sequence[Training]) -> Iterator[str]:
    others = [training for training in trainings if training.options.crop != _paper_crop(training)]
    if others:
        ours, theirs = (
            _list(shape_text(each.options.crop) for each in others),
            _list(map(shape_text, map(_paper_crop, others))),
        )
        yield f"Training crops of {ours}; the paper's are {theirs}."


def _other_systems(trainings: Sequence[Training]) -> Iterator[str]:
    """What of the other systems is not as their authors have it."""

    def learnt(images: int, options: Options) -> str:
        if options.whole_images:
            return "whole images, one at a time"
        return options.crop_text.replace("crops", "one crop", 1) if images == 1 else f"{images} {options.crop_text}"

    for training in trainings:
        usual = MODELS[training.model].options()
        ours, theirs = learnt(_images(training), training.options), learnt(usual.batch, usual)
        if ours != theirs:
            yield f"{training.name}: an iteration learns from {ours}, its authors' from {theirs}."


def _learning_differences(settings: Settings, trainings: Sequence[Training]) -> Iterator[str]:
    if any(training.schedule.rule.get("type") == "Adam" for training in trainings):
        yield "Adam, the rate falling linearly to 0, in place of SGD."
    if any(training.schedule.rule.get("type") == "AdamW" for training in trainings):
        yield "AdamW, the rate climbing at first and falling to 0 along a cosine, in place of SGD."
    if any(training.schedule.rule.get("average_decay") for training in trainings):
        yield "Scores are those of the weights' running average."
    if any(training.options.augment for training in trainings):
        yield "Training images change their scale, rotation and colour, too."
    if any(training.options.dropout for training in trainings):
        yield "Dropout between the recurrent groups."
    if settings.precision is not None:
        yield f"The ReNet layers' products have factors of precision {settings.precision}."
    if settings.rate is not None:
        yield f"Learning rate {settings.rate:g}."
    if settings.mean is not None:
        yield "Mean taken off the images (B, G, R): {:g}, {:g}, {:g}.".format(*settings.mean)


def _fine_tuning_differences(settings: Settings, trainings: Sequence[Training]) -> Iterator[str]:
    default = Options((1, 1), 1)
    if settings.weights is None:
        yield "Nothing was pretrained: all weights start at random, where the paper's start from VGG-16."
    elif product_path(settings.weights) != VGG16_WEIGHTS:
        yield f"The networks start from {product_path(settings.weights)}."
    options = trainings[0].options
    if options.frozen != default.frozen:
        kept = (
            "No layer keeps its weights" if options.frozen == 0 else f"conv1 to conv{options.frozen} keep their weights"
        )
        yield f"{kept}; in the paper conv1 and conv2 do."
    if options.new_rate != default.new_rate:
        yield f"Layers that do not come from VGG-16 learn at {options.new_rate:g} times the rate."
    if options.batch_norm_memory != default.batch_norm_memory and any(MODELS[t.model].batch_norm for t in trainings):
        yield f"Batch normalisation's running mean and variance keep {options.batch_norm_memory:g} of themselves."
    if any(training.model != "h_renet_bn_from_pool4" for training in trainings):
        yield f"conv6 and conv7 start with a deviation of {options.gaussian_std:g}; with the paper's 0.1 they explode."


def _images(training: Training) -> int:
    return training.options.batch * training.iter_size


def _list(values: Any) -> str:
    return " or ".join(str(value) for value in dict.fromkeys(values))


def _paper_crop(training: Training) -> tuple[int, int]:
    return MODELS[training.model if MODELS[training.model].weights else PAPER_N_RENET].crop
