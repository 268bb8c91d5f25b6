"""Recipe of today by which N-ReNet learns in the place of the paper's, with which it overfits a few hundred images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from renet.networks.schedules import Schedule, adam, adamw

RATE = 0.002
# Of the solvers that the repository ships: the paper's, and fewer for the network that is made for a processor.
ITERATIONS: Mapping[str, int] = {"n_renet": 36_000, "n_renet_quarter": 12_000}
_WARM_UP = 200
_AVERAGE = 0.999
# Shorter trainings have a shorter warm-up and average: this share of the iterations, and the last twelfth of them.
_SHORT_WARM_UP = 0.1
_AVERAGED_SHARE = 1 / 12


@dataclass(frozen=True)
class Recipe:
    """Parts of the recipe.

    Attributes:
        augment: kinds of augmentation of the training images (see `renet.networks.augmentation`).
        dropout: share of the values that Dropout lets go between two groups.
        weight_decay: AdamW's, in the place of Adam without.
        cosine: a warm-up and half a cosine, in the place of a rate that falls linearly from the start.
        average: tests and snapshots have a running average of the weights.
    """

    augment: tuple[str, ...] = ("scale=0.7,1.5", "rotation", "colour")
    dropout: float = 0.1
    weight_decay: bool = True
    cosine: bool = True
    average: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """Give the network's options (see `renet.networks.spec.Options`)."""
        return {"augment": self.augment, "dropout": self.dropout}

    def schedule(self, iterations: int) -> Schedule:
        """Make the schedule of a training of so many iterations."""
        schedule = adam(iterations, RATE)
        if self.weight_decay:
            schedule = adamw(schedule)
        warm_up = min(_WARM_UP, int(_SHORT_WARM_UP * iterations)) or None
        average = min(_AVERAGE, round(max(0, 1 - 1 / (_AVERAGED_SHARE * iterations)), 4)) or None
        return schedule.adjusted(
            policy="cosine" if self.cosine else None,
            warmup=warm_up if self.cosine else None,
            average=average if self.average else None,
        )


RECIPE = Recipe()
# What each part is worth is seen where it is missing: by the part's name in a run's.
WITHOUT: Mapping[str, Recipe] = {
    "augmentation": replace(RECIPE, augment=()),
    "dropout": replace(RECIPE, dropout=0),
    "weight_decay": replace(RECIPE, weight_decay=False),
    "average": replace(RECIPE, average=False),
    "cosine": replace(RECIPE, cosine=False),
    "all": Recipe((), 0, False, False, False),
    "scale_and_rotation": replace(RECIPE, augment=("colour",)),
    "colour": replace(RECIPE, augment=("scale=0.7,1.5", "rotation")),
}
