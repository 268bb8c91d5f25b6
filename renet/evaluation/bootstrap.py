"""Bootstrap over images: how far scores, and differences between two predictions, depend on which images were scored.

Images are drawn with replacement, as many as there are, and every measure is computed of the drawn ones (Efron's
percentile intervals). Two predictions are compared on the same draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from renet.common.argument_types import whole_number
from renet.evaluation.image_counts import ratio

RESAMPLES = 1000
LEVEL = 0.95
_AT_ONCE = 100  # resamples, which bounds the memory; the draws are the same for any


def add_draw_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --resamples and --seed."""
    parser.add_argument(
        "--resamples",
        type=whole_number(0),
        default=RESAMPLES,
        metavar="N",
        help="of the bootstrap over images; 0 leaves intervals out (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the bootstrap (default: %(default)s)"
    )


class Measured(Protocol):
    """Scores of single images that can be weighted: see `ImageCounts`."""

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The N images."""

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Values of B selections (weights B x N) by the measure's name: B, or B x K; not a number where undefined."""


def draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw: how often each image is in each resample, some resamples (rows) at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        yield random.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)


def interval(values: np.ndarray) -> np.ndarray:
    """Find where the middle 95% of B resamples lie, of B or B x K values.

    Returns:
        2 or K x 2: lower and upper bound; not a number where no resample has the measure.
    """
    shares = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    bounds = np.full((*values.shape[1:], 2), np.nan)
    for place in np.ndindex(values.shape[1:]):
        column = values[(slice(None), *place)]
        known = column[~np.isnan(column)]
        if known.size:
            bounds[place] = np.quantile(known, shares)
    return bounds


def intervals(measured: Measured, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Compute the `interval` of every measure; none of a single image, which says nothing of others."""
    images = len(measured.image_ids)
    if images < 2 or resamples < 1:
        return {}
    found = [measured.measures(weights) for weights in draws(images, resamples, seed)]
    return {name: interval(np.concatenate([each[name] for each in found])) for name in found[0]}


@dataclass(frozen=True)
class Difference:
    """Difference of one measure between two predictions of the same images; arrays of K for a measure of K values.

    Attributes:
        this: value of the one, of all images.
        other: value of the other.
        interval: of this minus the other over the resamples; None where there are none.
        better: share of the resamples in which this is higher, of those that have the measure.
        worse: share in which the other is.
    """

    this: np.ndarray
    other: np.ndarray
    interval: np.ndarray | None = None
    better: np.ndarray | None = None
    worse: np.ndarray | None = None

    @property
    def value(self) -> np.ndarray:
        """This minus the other."""
        return self.this - self.other

    def at(self, place: int) -> Difference:
        """Take one of K values."""
        parts = (self.interval, self.better, self.worse)
        of_resamples = (None if part is None else part[place] for part in parts)
        return Difference(self.this[place], self.other[place], *of_resamples)

    def as_json(self) -> dict[str, Any]:
        """Convert to fractions, null for what is not known."""
        values = {"this": self.this, "other": self.other, "difference": self.value, "interval": self.interval}
        values |= {"better": self.better, "worse": self.worse}
        return {name: None if value is None else plain(value) for name, value in values.items()}


def differences(this: Measured, other: Measured, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare measure by measure; both have the same images in the same order, and the same are drawn of both."""
    assert this.image_ids == other.image_ids, "paired by image"
    images = len(this.image_ids)
    once = np.ones((1, images))
    ours, theirs = this.measures(once), other.measures(once)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in ours}
    for weights in draws(images, resamples if images > 1 else 0, seed):
        a, b = this.measures(weights), other.measures(weights)
        for name, values in drawn.items():
            values.append(a[name] - b[name])
    found = {}
    for name, parts in drawn.items():
        found[name] = Difference(ours[name][0], theirs[name][0])
        if parts:
            values = np.concatenate(parts)
            known = (~np.isnan(values)).sum(axis=0)
            better, worse = ratio((values > 0).sum(axis=0), known), ratio((values < 0).sum(axis=0), known)
            found[name] = replace(found[name], interval=interval(values), better=better, worse=worse)
    return found


def plain(values: np.ndarray) -> Any:
    """Convert to numbers and lists of them for JSON, None for what is not a number."""
    if np.ndim(values):
        return [plain(value) for value in values]
    return None if np.isnan(values) else float(values)
