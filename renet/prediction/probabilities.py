"""Class probabilities, and how they are told from what is none."""

from __future__ import annotations

import numpy as np

from renet.common.errors import UserError

# How far from 1 the sum of a pixel's probabilities may be; half precision adds up to less.
SUM_TOLERANCE = 1e-2


def check_probabilities(maps: np.ndarray, where: str) -> None:
    """Make sure that C x H x W floating point values are probabilities of C classes.

    Raises:
        UserError: one is infinite or no number or below 0, or those of a pixel do not sum to 1; begins with `where`.
    """
    if not np.isfinite(maps).all():
        raise UserError(f"{where} has values that are infinite or no numbers")
    sums = maps.sum(axis=0, dtype=np.float32)
    worst = sums.flat[np.abs(sums - 1).argmax()]
    if maps.min() < 0 or abs(worst - 1) > SUM_TOLERANCE:
        raise UserError(
            f"{where} holds no probabilities: the values of one pixel sum to {worst:g}, the least of all is "
            f"{maps.min():g}; a last layer of type Softmax makes probabilities of scores"
        )
