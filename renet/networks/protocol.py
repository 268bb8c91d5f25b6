"""Protocol of a model's authors: on what of the data it learns, and by which loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """Protocol of a training; the defaults are the paper's.

    Attributes:
        data: comment above the training's data.
        test: comment above the test's data.
        mirror: crops are flipped left to right half of the time.
        whole_images: it learns from whole images, one at a time, where no crop is asked for.
        fixed_size: a test sees crops of that size, too, as the network takes no others.
        crop_step: crops have N times so many pixels in both directions, and `crop_rest` more.
        crop_rest: see there.
        smallest_crop: their least side.
        label_step: it learns at every so manieth pixel in both directions, where the scores are; in a test they are
            interpolated to the image's size, like other models' in training, too.
        upsampling: comment above the interpolation.
        interpolated: the scores are brought to the image's size by bilinear interpolation; else the model does it.
        loss: fields of `loss_param`.
        loss_comment: above the loss.
        weighted_loss: how that begins where the classes have weights.
    """

    data: str = "Random crops, flipped left to right half of the time (section 4, training)."
    test: str = "Whole images at their own size (section 4, testing)."
    mirror: bool = True
    whole_images: bool = False
    fixed_size: bool = False
    crop_step: int = 1
    crop_rest: int = 0
    smallest_crop: int = 1
    label_step: int = 1
    upsampling: str = "Bilinear interpolation back to the input's own size (sections 4.1 and 4.2)."
    interpolated: bool = True
    loss: Mapping[str, Any] = field(default_factory=dict)
    loss_comment: str = (
        "Pixelwise cross entropy, all labels weighted alike (section 4); unlabelled pixels count nowhere."
    )

    weighted_loss: str = "Pixelwise cross entropy, where the paper's weighs all labels alike (section 4)"

    @classmethod
    def of_others(cls, **changes: Any) -> Protocol:
        """Make that of another system's authors: comments cite no section of the paper."""
        comments = {
            "data": "Random crops, flipped left to right half of the time.",
            "test": "Whole images at their own size.",
            "upsampling": "Bilinear interpolation back to the input's own size.",
            "weighted_loss": "Pixelwise cross entropy",
            "loss_comment": "Pixelwise cross entropy, all labels weighted alike; unlabelled pixels count nowhere.",
        }
        return cls(**{**comments, **changes})

    def crop(self, wanted: tuple[int, int]) -> tuple[int, int]:
        """Choose the largest crop within `wanted` that the network learns from, or the smallest one."""
        step, rest = self.crop_step, self.crop_rest
        height, width = (max(self.smallest_crop, (side - rest) // step * step + rest) for side in wanted)
        return height, width

    @property
    def crop_rule(self) -> str:
        """Describe which sides crops have."""
        more = f" + {self.crop_rest}" if self.crop_rest else ""
        least = f", at least {self.smallest_crop}" if self.smallest_crop > 1 else ""
        return f"{self.crop_step} N{more} pixels{least}"
