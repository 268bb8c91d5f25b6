"""A run's metrics as TensorBoard's event files, beside metrics.jsonl."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from renet.common.errors import naming

# The scalars of a line of metrics; what else stands there is no curve.
SCALARS = (
    "loss",
    "learning_rate",
    "images_per_second",
    "exposed_communication",
    "pixel_accuracy",
    "class_accuracy",
    "mean_iou",
)


class EventFiles:
    """Scalars `train/loss`, `train/learning_rate`, `test/mean_iou`, ... by iteration.

    Written by the training itself: tensorboardX's own writer has a thread for it, whose errors reach nobody.
    """

    def __init__(self, folder: Path, restored: int, earlier: Iterable[Mapping[str, Any]]) -> None:
        """Begin a new file in `folder`.

        Args:
            folder: of the event files, made where it is missing.
            restored: the iteration that the training goes on from. What an older file says of later ones is void.
            earlier: metrics up to there, for a folder that has no events yet.

        Raises:
            OSError: the folder or a file in it cannot be written; names it. So does `add`.
        """
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        begun = any(folder.glob("events.out.tfevents.*"))
        with naming(folder):
            # a file's name has the second of its beginning; by the suffix it is never that of an older one
            self._writer = EventsWriter(str(folder / "events"), f".{restored}.{os.getpid()}")
            if begun:
                self._write(step=restored + 1, session_log=SessionLog(status=SessionLog.START))
        for line in () if begun else earlier:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""
        with naming(self._folder):
            for name in SCALARS:
                if name in line:
                    tag = f"{line['kind']}/{name}"
                    self._write(step=line["iteration"], summary=scalar(tag, line[name]))
            self._writer.flush()

    def _write(self, **content: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), **content))

    def close(self) -> None:
        """Write all of it to the disk."""
        with naming(self._folder):
            self._writer.close()
