"""Some of a data set's classes alone: the pixels of the others are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from renet.common.errors import UserError
from renet.conversion.label_remap import LabelRemap
from renet.data.dataset import IGNORE_LABEL
from renet.data.split_writer import LeftOut, Pair, Sample


def kept_numbers(kept: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Find the numbers of the kept classes, in their order.

    Raises:
        UserError: one is no class, or comes twice.
    """
    for name in kept:
        if name not in classes:
            raise UserError(f"--keep-classes: {name!r} is no class; they are {', '.join(classes)}")
        if kept.count(name) > 1:
            raise UserError(f"--keep-classes: {name!r} comes twice")
    return [classes.index(name) for name in kept]


def with_kept(samples: Sequence[Sample], numbers: Sequence[int], classes: int) -> list[Sample]:
    """Give samples labels of these classes alone, numbered 0, 1, ... in their order; the others' pixels are ignored.

    Args:
        samples: with labels 0 .. classes - 1. Those without labels stay as they are.
        numbers: the classes that are kept.
        classes: number of classes C.
    """
    new = dict.fromkeys(range(classes), IGNORE_LABEL) | {old: place for place, old in enumerate(numbers)}
    remap = LabelRemap(tuple(new.items()))
    mark = f"keep {' '.join(map(str, numbers))} of {classes}/"
    return [
        replace(sample, fingerprint=mark + sample.fingerprint, read=partial(_read, sample, remap))
        if sample.label_where is not None
        else sample
        for sample in samples
    ]


def _read(sample: Sample, remap: LabelRemap) -> Pair:
    """The sample's content with its labels' new numbers; what was no class stays a number that is none.

    Raises:
        LeftOut: it has no pixel of these classes.
    """
    pair = sample.read()
    assert pair.label is not None, "the sample says where its label is"
    label = np.asarray(pair.label)
    if label.size and label.min() >= 0:
        label = remap(label)
    if (label == IGNORE_LABEL).all():
        raise LeftOut("no pixel of the classes that are kept")
    return Pair(pair.image, label)
