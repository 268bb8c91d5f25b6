"""Scores by the size of what is to be found: small regions of the truth apart from large ones.

A region is a connected part of one class in the truth (8 neighbours), its size the share of the image that it covers.
Where context is what a network gains by, the gain lies in some sizes more than in others, which one score hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from renet.common.errors import UserError
from renet.evaluation.bootstrap import plain
from renet.evaluation.boundaries import nearest_labels
from renet.evaluation.image_counts import ClassCounts, mean_of_numbers, rows_of

SHARES = (0.01, 0.04, 0.16)  # between the bands: of an image of VOC's size, regions of 43, 87 and 173 pixels squared
_NO_BAND = 255


def check_shares(shares: Sequence[float]) -> None:
    """Refuse what does not part sizes.

    Raises:
        UserError: not one to 20 increasing numbers between 0 and 1.
    """
    bounds = [0, *shares, 1]
    if not 1 <= len(shares) <= 20 or any(low >= high for low, high in pairwise(bounds)):
        told = " ".join(f"{share:g}" for share in shares)
        raise UserError(f"sizes are parted by 1 to 20 increasing shares of the image between 0 and 1, not by {told!r}")


def band_names(shares: Sequence[float]) -> list[str]:
    """Name the bands, from the smallest regions to the largest."""
    texts = [f"{100 * share:g}" for share in shares]
    between = (f"{low} to {high}%" for low, high in pairwise(texts))
    return [f"below {texts[0]}%", *between, f"{texts[-1]}% and more"]


@dataclass(frozen=True)
class ImageSizes:
    """Scores by size of one image with C classes.

    Attributes:
        shares: between the bands.
        counts: pixels, bands x C.
        regions: number of regions, bands x C.
    """

    shares: tuple[float, ...]
    counts: ClassCounts
    regions: np.ndarray


def score_sizes(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_label: int, shares: tuple[float, ...]
) -> ImageSizes:
    """Score one image; the first four are those of `confusion_matrix`, which has checked them.

    A pixel that is wrongly predicted as a class counts for the band of that class's nearest region; where the image
    has no region of the class, for none.
    """
    bands = len(shares) + 1
    right, true, predicted, regions = (np.zeros((bands, classes), np.int64) for _ in range(4))
    labelled = truth != ignore_label
    for label in np.flatnonzero(np.bincount(truth[labelled], minlength=classes)):
        mask = (truth == label) & labelled
        number, region, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        areas = stats[1:number, cv2.CC_STAT_AREA]
        band_of = np.searchsorted(shares, areas / truth.size, side="right").astype(np.uint8)
        band = np.append(np.uint8(_NO_BAND), band_of)[region]
        regions[:, label] = np.bincount(band_of, minlength=bands)
        true[:, label] = np.bincount(band[mask], minlength=bands)
        found = (prediction == label) & labelled
        right[:, label] = np.bincount(band[found & mask], minlength=bands)
        wrong = found & ~mask
        if wrong.any() and (band_of != band_of[0]).any():
            of_wrong = nearest_labels(band, ~mask)[0][wrong]
        else:
            of_wrong = np.full(np.count_nonzero(wrong), band_of[0])
        predicted[:, label] = right[:, label] + np.bincount(of_wrong, minlength=bands)
    return ImageSizes(shares, ClassCounts(right, true, predicted), regions)


@dataclass(frozen=True)
class Sizes:
    """Scores by size of N images.

    Attributes:
        shares: between the bands.
        image_ids: the images.
        counts: pixels, N x bands x C.
        regions: number of regions, bands x C.
    """

    shares: tuple[float, ...]
    image_ids: tuple[str, ...]
    counts: ClassCounts
    regions: np.ndarray

    @classmethod
    def of(cls, image_ids: Sequence[str], images: Sequence[ImageSizes]) -> Sizes:
        """Put single images of the same bands together; at least one."""
        columns = (np.array([getattr(image.counts, name) for image in images]) for name in ClassCounts.__annotations__)
        regions = np.sum([image.regions for image in images], axis=0)
        return cls(images[0].shares, tuple(image_ids), ClassCounts(*columns), regions)

    @classmethod
    def joined(cls, several: Sequence[Sizes]) -> Sizes:
        """Put those of several sets of images of the same bands together, in their order; at least one."""
        image_ids = tuple(image_id for each in several for image_id in each.image_ids)
        counts = ClassCounts.joined([each.counts for each in several])
        return cls(several[0].shares, image_ids, counts, np.sum([each.regions for each in several], axis=0))

    def select(self, image_ids: Sequence[str]) -> Sizes:
        """Take these images, in this order; each is one of them. `regions` stays that of all."""
        rows = rows_of(image_ids, self.image_ids)
        return Sizes(self.shares, tuple(image_ids), self.counts.select(rows), self.regions)

    @property
    def total(self) -> ClassCounts:
        """Pixels of all images, bands x C."""
        return self._weighted(np.ones((1, len(self.image_ids)))).select(0)

    def _weighted(self, weights: np.ndarray) -> ClassCounts:
        counts = self.counts
        return ClassCounts(*(np.tensordot(weights, n, 1) for n in (counts.right, counts.truth, counts.predicted)))

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the measures of B selections in which each of the N images counts `weights` (B x N) times.

        Returns:
            `size_recall` and `size_mean_iou`, means over the classes that have regions of the band, B x bands.
        """
        drawn = self._weighted(weights)
        there = drawn.truth > 0
        return {
            "size_recall": mean_of_numbers(drawn.recall),
            "size_mean_iou": mean_of_numbers(np.where(there, drawn.iou, np.nan)),
        }

    def scores(self) -> dict[str, np.ndarray]:
        """Compute the measures of all images, each once."""
        return {name: value[0] for name, value in self.measures(np.ones((1, len(self.image_ids)))).items()}

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Convert to fractions, null for what is not known; lists go from the smallest band to the largest."""
        total = self.total
        return {
            "shares": list(self.shares),
            **{name: plain(value) for name, value in self.scores().items()},
            "iou": dict(zip(classes, plain(total.iou.T))),
            "recall": dict(zip(classes, plain(total.recall.T))),
            "regions": dict(zip(classes, self.regions.T.tolist())),
        }
