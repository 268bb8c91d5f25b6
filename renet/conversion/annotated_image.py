"""Image of an annotation file, whatever tool wrote it: regions with names, to be drawn as classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from renet.common.errors import UserError
from renet.conversion.class_file import LABELME_IGNORED
from renet.conversion.regions import covered, paint
from renet.data.dataset import IGNORE_LABEL
from renet.data.image_formats import check_stated_size

BACKGROUNDS = ("_background_", "background")  # labelme's name, and CVAT's


@dataclass(frozen=True)
class Region:
    """Region of an image: what it shows, and a shape for `covered`."""

    name: str
    shape: Any


@dataclass(frozen=True)
class ClassNames:
    """Classes by the names that annotations use.

    Attributes:
        names: of the classes 0, 1, ...
        ignored: names of regions that count nowhere.
        unlabelled: the class of pixels that no region covers, or the ignored label.
    """

    names: tuple[str, ...]
    ignored: frozenset[str] = frozenset()
    unlabelled: int = IGNORE_LABEL

    @classmethod
    def of(cls, names: Sequence[str], ignored: Collection[str] = (), unlabelled: str | None = None) -> ClassNames:
        """Choose the class of unlabelled pixels.

        Args:
            names: of the classes.
            ignored: names of regions that count nowhere; labelme's `__ignore__` is one always.
            unlabelled: the class's name; None: that of the background where there is one, else the ignored label.

        Raises:
            UserError: `unlabelled` is no class, or a name of `ignored` is one.
        """
        for name in ignored:
            if name in names:
                raise UserError(f"--ignore-name {name}: is a class; --ignore-label {names.index(name)} ignores it")
        if unlabelled is None:
            background = (number for number, name in enumerate(names) if name.lower() in BACKGROUNDS)
            ground = next(background, IGNORE_LABEL)
        elif unlabelled in names:
            ground = names.index(unlabelled)
        else:
            raise UserError(f"--unlabelled {unlabelled}: is no class; there are {', '.join(names)}")
        return cls(tuple(names), frozenset({*ignored, LABELME_IGNORED}), ground)

    def label_of(self, name: str) -> int:
        """Give the label of a region's name, which is known (see `unknown`)."""
        name = _plain(name)
        return IGNORE_LABEL if name in self.ignored else self.names.index(name)

    def unknown(self, names: Iterable[str]) -> str | None:
        """Tell the names that are no classes, and the classes; None where all are known."""
        plain = dict.fromkeys(map(_plain, names))
        wrong = [repr(name) for name in plain if name not in self.names and name not in self.ignored]
        if not wrong:
            return None
        return (
            f"{', '.join(wrong)}: no name of the class file, which has {', '.join(self.names)}; --ignore-name lets a "
            "name's regions count nowhere"
        )


@dataclass(frozen=True)
class AnnotatedImage:
    """Image of an annotation file.

    Attributes:
        name: its file's name or path, as the annotations have it.
        height: as the annotations state it.
        width: likewise.
        regions: from the lowest to the topmost.
    """

    name: str
    height: int
    width: int
    regions: list[Region] = field(default_factory=list)

    def label(self, classes: ClassNames, where: str) -> np.ndarray:
        """Draw the classes: H x W uint8.

        Raises:
            UserError: a region does not lie in the image; names `where`.
        """
        check_stated_size(self.height, self.width, where)
        size = (self.height, self.width)
        regions = ((classes.label_of(one.name), covered(one.shape, size, where)) for one in self.regions)
        return paint(regions, size, classes.unlabelled)


def _plain(name: str) -> str:
    return " ".join(name.split())
