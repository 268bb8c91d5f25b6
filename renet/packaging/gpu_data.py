"""The small prepared dataset that goes beside the GPU bundle."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.data.dataset import Dataset

FIRST_FOLD = ("fold0/train", "fold0/test")
STANFORD_BACKGROUND, SYNTHETIC_SCENES = "stanford_background", "synthetic_scenes"


def made_by(script: str, options: Sequence[str | Path], folder: Path) -> Path:
    """Run a script of data_prep to make a dataset in `folder`; the dataset's folder.

    Raises:
        UserError: it failed; it has told why.
    """
    command = [sys.executable, str(ROOT / "data_prep" / f"{script}.py"), *map(str, options), "--out"]
    if subprocess.run([*command, str(folder / script)]).returncode:
        raise UserError(f"data_prep/{script}.py failed (see above)")
    return folder / script


def choose(arguments: argparse.Namespace, scratch: Path) -> Path:
    """The dataset's folder that the command line asks for; one that must be made first is made in `scratch`.

    Raises:
        UserError: it cannot be made.
    """
    if arguments.dataset:
        return arguments.dataset
    if arguments.archive:
        options = ["--archive", arguments.archive, "--image-scale", str(arguments.image_scale)]
        return made_by(STANFORD_BACKGROUND, options, scratch)
    for name in (STANFORD_BACKGROUND, SYNTHETIC_SCENES):
        if (ROOT / "data" / name / "dataset.json").is_file():
            return ROOT / "data" / name
    return made_by(SYNTHETIC_SCENES, [], scratch)


def lay_out(dataset: Dataset, splits: Sequence[str], folder: Path) -> None:
    """Link the splits into `folder` and describe them there.

    Raises:
        UserError: there is no such split.
    """
    for split in splits:
        if split not in dataset.splits:
            raise UserError(f"{dataset.folder}: no split '{split}'; there are {', '.join(dataset.splits)}")
        (folder / split).parent.mkdir(parents=True, exist_ok=True)
        (folder / split).symlink_to((dataset.folder / split).resolve())
    chosen = {split: dataset.splits[split] for split in splits}
    replace(dataset, splits=chosen, folder=folder).save()
