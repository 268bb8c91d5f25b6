"""Small prepared dataset that goes beside the GPU bundle."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.data.dataset import Dataset
from renet.packaging.libraries import NAME, check_size, pack

LIMIT_MB = 20
FIRST_FOLD = ("fold0/train", "fold0/test")
STANFORD_BACKGROUND, SYNTHETIC_SCENES = "stanford_background", "synthetic_scenes"


def made_by(script: str, options: Sequence[str | Path], folder: Path) -> Path:
    """Run a script of data_prep to make a dataset in `folder`; return the dataset's folder.

    Raises:
        UserError: it failed; it has told why.
    """
    command = [sys.executable, str(ROOT / "data_prep" / f"{script}.py"), *map(str, options), "--out"]
    if subprocess.run([*command, str(folder / script)]).returncode:
        raise UserError(f"data_prep/{script}.py failed (see above)")
    return folder / script


def find_or_make(dataset: Path | None, archive: Path | None, image_scale: float, scratch: Path) -> Path:
    """Find the dataset's folder; one that must be made first is made in `scratch`.

    Args:
        dataset: a prepared dataset.
        archive: Stanford Background's, to be prepared; without both what is prepared already, or drawn scenes.
        image_scale: of the archive's images.
        scratch: an empty folder.

    Raises:
        UserError: it cannot be made.
    """
    if dataset is not None:
        return dataset
    if archive is not None:
        return made_by(STANFORD_BACKGROUND, ["--archive", archive, "--image-scale", str(image_scale)], scratch)
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


def write_data(
    out: Path, dataset: Path | None, archive: Path | None, image_scale: float, names: Sequence[str] | None
) -> str:
    """Pack splits of a dataset (see `find_or_make`), by default its first fold, or all where there are no folds.

    Returns:
        The archive's name, its size and its splits, as text.

    Raises:
        UserError: the dataset cannot be made, has no such split, or the archive is larger than `LIMIT_MB`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        found = Dataset.open(find_or_make(dataset, archive, image_scale, Path(scratch)))
        splits = names or [split for split in found.splits if split in FIRST_FOLD] or list(found.splits)
        staged = Path(scratch) / NAME
        folder = staged / "data" / found.name
        folder.mkdir(parents=True)
        lay_out(found, splits, folder)
        size = pack(staged, out, follow_links=True)
    check_size(out, size, LIMIT_MB, " (--splits and --image-scale make it smaller)")
    counts = ", ".join(f"{split} ({found.splits[split].count} images)" for split in splits)
    return f"{out}: {size / 1e6:.1f} MB; {found.name}: {counts}"
