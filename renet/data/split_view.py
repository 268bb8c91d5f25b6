"""A prepared split as a sequence of arrays, for programs that embed the library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from renet.data.split_reader import SplitReader


class Sample(NamedTuple):
    """An image of a split.

    Attributes:
        image: H x W x 3 uint8, RGB.
        label: H x W uint8, classes and the ignored label; None in a split without labels.
        id: the image's id.
    """

    image: np.ndarray
    label: np.ndarray | None
    id: str


class Split(Sequence[Sample]):
    """The samples of a prepared split, read one by one as they are asked for; also by several threads.

    Attributes:
        folder: of the split.
        ids: of the images, in order.
    """

    def __init__(self, folder: Path) -> None:
        """Open the split.

        Raises:
            UserError: no prepared split.
        """
        self.folder = folder
        self._reader = SplitReader(folder)
        self.ids = tuple(self._reader.ids())

    @property
    def has_labels(self) -> bool:
        """Whether the split holds labels."""
        return self._reader.has_labels

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        """The sample of this number.

        Raises:
            IndexError: there are fewer.
            UserError: the record is damaged.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        image = np.ascontiguousarray(self._reader.image(number)[:, :, ::-1])
        return Sample(image, self._reader.label(number), self.ids[number])

    def labels(self) -> Iterator[np.ndarray | None]:
        """The labels alone, in order.

        Raises:
            UserError: a record is damaged.
        """
        return (self._reader.label(number) for number in range(len(self)))
