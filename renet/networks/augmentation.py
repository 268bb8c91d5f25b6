"""Augmentation of training images: the ranges that the generator writes into a SegmentationData layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from renet.common.errors import UserError

# Fields of segmentation_data_param by kind, in ranges that are usual for segmentation.
AUGMENTATIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "scale": {"scale_min": 0.5, "scale_max": 2},
        "aspect": {"aspect": 1.2},
        "rotation": {"rotation": 10},
        "colour": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 10},
        "blur": {"blur": 1},
        "cutout": {"cutout": 2, "cutout_size": 0.25},
    }
)


def augmentation_fields(choices: Sequence[str]) -> dict[str, float]:
    """Collect the fields of `segmentation_data_param` that switch these kinds on.

    Args:
        choices: each a kind of `AUGMENTATIONS`, or with values in place of its first fields' own: `scale=0.7,1.5`.

    Raises:
        UserError: there is no such kind, or the values are none of its own.
    """
    fields: dict[str, float] = {}
    for choice in choices:
        kind, given, values = choice.partition("=")
        if kind not in AUGMENTATIONS:
            raise UserError(f"no augmentation {kind!r}; there are {', '.join(AUGMENTATIONS)}")
        fields |= AUGMENTATIONS[kind]
        if given:
            fields |= _chosen(choice, values.split(","), AUGMENTATIONS[kind])
    return fields


def _chosen(choice: str, values: Sequence[str], kind: Mapping[str, float]) -> dict[str, float]:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if not 0 < len(numbers) <= len(kind) or not all(0 <= number < math.inf for number in numbers):
        raise UserError(f"augmentation {choice!r}: up to {len(kind)} numbers, of {', '.join(kind)}")
    return dict(zip(kind, numbers, strict=False))


def augmentation_names(choices: Sequence[str]) -> str:
    """Name the kinds, for a comment."""
    return ", ".join(choice.partition("=")[0] for choice in choices)
