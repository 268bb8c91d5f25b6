"""Augmentation of training images: the ranges that the generator writes into a SegmentationData layer."""

from __future__ import annotations

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


def augmentation_fields(kinds: Sequence[str]) -> dict[str, float]:
    """Collect the fields of `segmentation_data_param` that switch these kinds on.

    Raises:
        UserError: there is no such kind.
    """
    for kind in kinds:
        if kind not in AUGMENTATIONS:
            raise UserError(f"no augmentation {kind!r}; there are {', '.join(AUGMENTATIONS)}")
    return {name: value for kind in kinds for name, value in AUGMENTATIONS[kind].items()}
