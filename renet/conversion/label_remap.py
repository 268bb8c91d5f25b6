"""Remapping of labels: a data set's numbers, such as 11 or 255, to the lines of a class file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from renet.common.errors import UserError
from renet.data.dataset import IGNORE_LABEL

_LARGEST = 65535  # label PNGs may have 16 bits
_FORM = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?=(\d{1,3})(?:-(\d{1,3}))?")
_NAMED = 5  # how many values a piece of advice names


@dataclass(frozen=True)
class LabelRemap:
    """New numbers for labels, all given at once: 0=255 and 1=0 leave no label at 0 that was 1's neighbour.

    Attributes:
        pairs: old and new numbers, by the old one; what is not in it keeps its number.
    """

    pairs: tuple[tuple[int, int], ...] = ()

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Give the labels (H x W, uint8 or uint16) their new numbers."""
        if not self.pairs:
            return labels
        table = np.arange(_LARGEST + 1, dtype=np.uint16)
        old, new = np.array(self.pairs).T
        table[old] = new
        return table[labels]

    def __str__(self) -> str:
        return " ".join(f"{old}={new}" for old, new in self.pairs)

    def check(self, classes: int) -> None:
        """Make sure that every new number is a class or the ignored label.

        Raises:
            UserError: one is neither.
        """
        for old, new in self.pairs:
            if new >= classes and new != IGNORE_LABEL:
                raise UserError(
                    f"--map {old}={new}: there is no class {new} (0..{classes - 1}, or {IGNORE_LABEL} to ignore)"
                )

    def emptied(self, classes: int) -> list[int]:
        """List the classes that no label has any more."""
        moved, filled = {old for old, _ in self.pairs}, {new for _, new in self.pairs}
        return [label for label in range(classes) if label in moved - filled]


def old_and_new(text: str) -> list[tuple[int, int]]:
    """Read OLD=NEW, 0-2=255 (all to one) or 1-150=0-149 (one by one)."""
    match = _FORM.fullmatch(text)
    if match is not None:
        first, last, to_first, to_last = (int(part) if part else None for part in match.groups())
        assert first is not None and to_first is not None, "the form has both"
        olds = range(first, (first if last is None else last) + 1)
        news = [to_first] * len(olds) if to_last is None else list(range(to_first, to_last + 1))
        if olds and len(olds) == len(news) and olds[-1] <= _LARGEST and news[-1] <= IGNORE_LABEL:
            return list(zip(olds, news))
    raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW, such as 11=255, 0-2=255 or 1-150=0-149")


def make_label_remap(pairs: Sequence[Sequence[tuple[int, int]]], ignored: Sequence[int]) -> LabelRemap:
    """Combine what --map (`old_and_new` of each) and --ignore-label say.

    Raises:
        UserError: one label gets two numbers.
    """
    table: dict[int, int] = {}
    for old, new in [pair for several in pairs for pair in several] + [(old, IGNORE_LABEL) for old in ignored]:
        if table.setdefault(old, new) != new:
            raise UserError(f"--map, --ignore-label: the label {old} would become {table[old]} and {new}")
    return LabelRemap(tuple(sorted(table.items())))


def advise_on_labels(present: Collection[int], classes: int) -> str:
    """Advise a user of --map on labels with values that are no class.

    Args:
        present: all values in the labels that have such ones.
        classes: number of classes C.
    """
    wrong = sorted(value for value in present if value >= classes and value != IGNORE_LABEL)
    if wrong == [classes] and 0 not in present:
        return f"do the labels begin with 1? --map 1-{classes}=0-{classes - 1} makes them begin with 0"
    told = " ".join(f"{value}={IGNORE_LABEL}" for value in wrong[:_NAMED]) + (" ..." if len(wrong) > _NAMED else "")
    return f"--map {told} lets such pixels count nowhere; or is a class missing in the class file?"
