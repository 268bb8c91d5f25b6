"""Scores along the boundaries of the classes: the trimap curve, and the boundary F score.

Trimap (Kohli, Ladicky and Torr, "Robust higher order potentials for enforcing label consistency", 2009; as DeepLab
does it on VOC): the usual scores of those pixels alone that lie within so many pixels of a boundary. VOC's truth has a
band of ignored pixels along every boundary, and the distance counts from it; where classes touch, from the other class.

Boundary F (Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", 2013): of each
class's boundary in truth and prediction, how much lies near the other's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from renet.common.errors import UserError
from renet.evaluation.bootstrap import plain
from renet.evaluation.image_counts import ClassCounts, mean_of_numbers, ratio, rows_of

WIDTHS = tuple(range(1, 41))  # of the trimap's bands, in pixels
BAND = 5  # pixels: VOC's bands of ignored pixels are as wide, so their middle is nearer to either side


# How far apart boundaries may lie, as a share of the image's diagonal: 5 pixels of VOC's images, as in Csurka's paper.
TOLERANCE = 0.0075


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no share.

    Raises:
        UserError: it is not from 0 to 1.
    """
    if not 0 <= tolerance <= 1:
        raise UserError(f"a boundary's tolerance is a share of the image's diagonal from 0 to 1, not {tolerance}")


@dataclass(frozen=True)
class ImageBoundaries:
    """Boundary scores of one image with C classes.

    Attributes:
        tolerance: with which they were made.
        trimap: counts within each of the `WIDTHS`, widths x C.
        f: boundary F of each class; not a number where the truth has no boundary of it.
    """

    tolerance: float
    trimap: ClassCounts
    f: np.ndarray


def score_boundaries(
    truth: np.ndarray, prediction: np.ndarray, classes: int, ignore_label: int, tolerance: float
) -> ImageBoundaries:
    """Score one image; the first four are those of `confusion_matrix`, which has checked them."""
    ignored = truth == ignore_label
    trimap = _trimap(truth, prediction, ignored, classes)
    return ImageBoundaries(tolerance, trimap, _boundary_f(truth, prediction, ignored, classes, tolerance))


def distances(truth: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Measure how far each labelled pixel is from the nearest one of another class, or ignored.

    Distances are those of a square (the greater of rows and columns), as where a band is made by dilation with squares.
    The image's edge is no boundary.

    Returns:
        H x W float32; 0 where the truth is ignored, infinite where there is no such pixel.
    """
    found = np.zeros(truth.shape, np.float32)
    for label in np.unique(truth[~ignored]):
        mask = ((truth == label) & ~ignored).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        # With one pixel around it, where the image has it, which is nearer than anything beyond.
        box = np.s_[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1]
        part = mask[box]
        inside = np.full(part.shape, np.inf, np.float32) if part.all() else cv2.distanceTransform(part, cv2.DIST_C, 3)
        np.copyto(found[box], inside, where=part.astype(bool))
    return found


def _trimap(truth: np.ndarray, prediction: np.ndarray, ignored: np.ndarray, classes: int) -> ClassCounts:
    distance = distances(truth, ignored)
    band = (distance > 0) & (distance <= WIDTHS[-1])
    place = (distance[band].astype(np.int64) - 1) * classes
    true, predicted = truth[band], prediction[band]

    def counted(labels: np.ndarray) -> np.ndarray:
        at_distance = np.bincount(labels, minlength=len(WIDTHS) * classes).reshape(len(WIDTHS), classes)
        return at_distance.cumsum(axis=0, dtype=np.int32)

    right = true == predicted
    return ClassCounts(counted(place[right] + true[right]), counted(place + true), counted(place + predicted))


def nearest_labels(truth: np.ndarray, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give ignored pixels the label of the nearest one that has a label; some must have.

    Returns:
        The labels H x W, and H x W float32: how far away (in a straight line) each found its own.
    """
    mask = ignored.astype(np.uint8)
    if not ignored.any():
        return truth, np.zeros(truth.shape, np.float32)
    _, number = cv2.distanceTransformWithLabels(mask, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    label_of = np.zeros(int(number.max()) + 1, truth.dtype)
    label_of[number[~ignored]] = truth[~ignored]
    return label_of[number], cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def counted_depth(reach: float) -> float:
    """Compute how deep in ignored pixels a boundary still counts: its band is thin, an unlabelled region is not."""
    return max(reach, BAND)


def edges(labels: np.ndarray) -> np.ndarray:
    """Find the pixels with another label above, below, to the left or to the right: H x W bool."""
    found = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    found[1:] |= down
    found[:-1] |= down
    found[:, 1:] |= across
    found[:, :-1] |= across
    return found


def _boundary_f(
    truth: np.ndarray, prediction: np.ndarray, ignored: np.ndarray, classes: int, tolerance: float
) -> np.ndarray:
    found = np.full(classes, np.nan)
    if ignored.all():
        return found
    reach = tolerance * math.hypot(*truth.shape)
    truth, depth = nearest_labels(truth, ignored)
    counts = depth <= counted_depth(reach)
    true_edges, predicted_edges = edges(truth) & counts, edges(prediction) & counts
    margin = math.floor(reach) + 1
    for label in np.unique(truth[true_edges]):
        true = true_edges & (truth == label)
        predicted = predicted_edges & (prediction == label)
        total = np.count_nonzero(predicted)
        if not total:
            found[label] = 0.0
            continue
        # Nothing outside of this box is near enough to a boundary of the truth.
        left, top, width, height = cv2.boundingRect(true.astype(np.uint8))
        box = np.s_[max(top - margin, 0) : top + height + margin, max(left - margin, 0) : left + width + margin]
        recalled = _near(true[box], predicted[box], reach)
        precise = _near(predicted[box], true[box], reach)
        recall, precision = recalled / np.count_nonzero(true), precise / total
        found[label] = 2 * precision * recall / (precision + recall) if precise else 0.0
    return found


def _near(these: np.ndarray, those: np.ndarray, reach: float) -> int:
    """How many of these pixels have one of those within reach."""
    if not those.any():
        return 0
    distance = cv2.distanceTransform((~those).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return int(np.count_nonzero(distance[these] <= reach))


@dataclass(frozen=True)
class Boundaries:
    """Boundary scores of N images.

    Attributes:
        tolerance: with which they were made.
        image_ids: the images.
        trimap: counts N x widths x C.
        f: N x C; not a number where the image's truth has no boundary of the class.
    """

    tolerance: float
    image_ids: tuple[str, ...]
    trimap: ClassCounts
    f: np.ndarray

    @classmethod
    def of(cls, image_ids: Sequence[str], images: Sequence[ImageBoundaries]) -> Boundaries:
        """Put single images of one tolerance together; at least one."""
        columns = [
            np.array([getattr(image.trimap, name) for image in images]) for name in ("right", "truth", "predicted")
        ]
        f = np.array([image.f for image in images])
        return cls(images[0].tolerance, tuple(image_ids), ClassCounts(*columns), f)

    @classmethod
    def joined(cls, several: Sequence[Boundaries]) -> Boundaries:
        """Put those of several sets of images of one tolerance together, in their order; at least one."""
        image_ids = tuple(image_id for each in several for image_id in each.image_ids)
        trimap = ClassCounts.joined([each.trimap for each in several])
        return cls(several[0].tolerance, image_ids, trimap, np.concatenate([each.f for each in several]))

    def select(self, image_ids: Sequence[str]) -> Boundaries:
        """Take these images, in this order; each is one of them."""
        rows = rows_of(image_ids, self.image_ids)
        return Boundaries(self.tolerance, tuple(image_ids), self.trimap.select(rows), self.f[rows])

    @property
    def class_f(self) -> np.ndarray:
        """C: mean over the images whose truth has a boundary of the class; not a number where none has."""
        return mean_of_numbers(self.f.T)

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the measures of B selections in which each of the N images counts `weights` (B x N) times.

        Returns:
            `boundary_f`, mean over the classes, B; `trimap_pixel_accuracy` and `trimap_mean_iou`, B x widths.
        """
        there = ~np.isnan(self.f)
        f = mean_of_numbers(ratio(weights @ np.where(there, self.f, 0.0), weights @ there))
        trimap = self.trimap
        drawn = ClassCounts(*(np.tensordot(weights, n, 1) for n in (trimap.right, trimap.truth, trimap.predicted)))
        scores = drawn.measures()
        return {"boundary_f": f} | {f"trimap_{name}": scores[name] for name in ("pixel_accuracy", "mean_iou")}

    def scores(self) -> dict[str, np.ndarray]:
        """Compute the measures of all images, each once."""
        return {name: value[0] for name, value in self.measures(np.ones((1, len(self.image_ids)))).items()}

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Convert to fractions, null for what is not known."""
        scores = {name: plain(value) for name, value in self.scores().items()}
        by_class = dict(zip(classes, plain(self.class_f)))
        return {"tolerance": self.tolerance, **scores, "class_boundary_f": by_class, "trimap_widths": list(WIDTHS)}
