"""A run's metrics as TensorBoard's event files, beside metrics.jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

# The scalars of a line of metrics; what else stands there is no curve.
SCALARS = ("loss", "learning_rate", "images_per_second", "pixel_accuracy", "class_accuracy", "mean_iou")
SECONDS_BETWEEN_FLUSHES = 5


class EventFiles:
    """Scalars `train/loss`, `train/learning_rate`, `test/mean_iou`, ... by iteration."""

    def __init__(self, folder: Path, restored: int, earlier: Iterable[Mapping[str, Any]]) -> None:
        """Begin a new file in `folder`.

        Args:
            folder: of the event files, made where it is missing.
            restored: the iteration that the training goes on from. What an older file says of later ones is void.
            earlier: metrics up to there, for a folder that has no events yet.
        """
        begun = any(folder.glob("events.out.tfevents.*"))
        purge = restored + 1 if begun else None
        # a file's name has the second of its beginning; by the suffix it is never that of an older one
        suffix = f".{restored}.{os.getpid()}"
        self._writer = SummaryWriter(
            str(folder), purge_step=purge, flush_secs=SECONDS_BETWEEN_FLUSHES, filename_suffix=suffix
        )
        for line in () if begun else earlier:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""
        for name in SCALARS:
            if name in line:
                self._writer.add_scalar(f"{line['kind']}/{name}", line[name], line["iteration"])

    def close(self) -> None:
        """Write all of it to the disk."""
        self._writer.close()
