"""Pack a small prepared dataset, to be unpacked beside the bundle of the GPU build."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from renet.common.command_line import UserError, run
from renet.data.dataset import Dataset
from renet.conversion.prepare import part_of_size
from renet.packaging.libraries import NAME, pack
from renet.common.repository import ROOT

LIMIT_MB = 20
FIRST_FOLD = ("fold0/train", "fold0/test")
STANFORD_BACKGROUND, SYNTHETIC_SCENES = "stanford_background", "synthetic_scenes"

DESCRIPTION = f"""{__doc__}

Without --dataset and --archive it takes data/{STANFORD_BACKGROUND}, else data/{SYNTHETIC_SCENES}, else it draws
scenes. Of a dataset in folds it takes the first one. Networks find it where they look for it in the repository."""

EXAMPLES = """examples:
  tools/gpu_data.py --out build/renet-caffe-data.tar.xz
  tools/gpu_data.py --archive iccv09Data.tar.gz --image-scale 0.5
  tools/gpu_data.py --dataset data/mine --splits train val"""


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


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", type=Path, metavar="DIR", help="a prepared dataset")
    source.add_argument("--archive", type=Path, metavar="FILE", help="Stanford Background's, to be prepared first")
    parser.add_argument(
        "--image-scale", type=part_of_size, default=1.0, metavar="FACTOR", help="of --archive's images (default 1)"
    )
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: the first fold, or all without folds")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "renet-caffe-data.tar.xz", metavar="FILE")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Choose, pack, and tell the size."""
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Dataset.load(choose(arguments, Path(scratch)))
        splits = arguments.splits or [s for s in dataset.splits if s in FIRST_FOLD] or list(dataset.splits)
        staged = Path(scratch) / NAME
        folder = staged / "data" / dataset.name
        folder.mkdir(parents=True)
        lay_out(dataset, splits, folder)
        size = pack(staged, arguments.out, follow_links=True)
    counts = ", ".join(f"{split} ({dataset.splits[split].count} images)" for split in splits)
    print(f"{arguments.out}: {size / 1e6:.1f} MB; {dataset.name}: {counts}")
    if size > LIMIT_MB * 1e6:
        raise UserError(
            f"{arguments.out}: {size / 1e6:.1f} MB is more than the {LIMIT_MB} MB that it is meant to have"
            " (--splits and --image-scale make it smaller)"
        )


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
