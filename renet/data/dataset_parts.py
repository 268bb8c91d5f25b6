"""Parts of a prepared dataset, each prepared by a process of its own, and the whole that is joined of them.

Part 3 of 8 of the dataset `data/x` is the dataset `data/x/parts/3_of_8`, with a share of each split.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renet.common.errors import UserError
from renet.common.parts import WHOLE, Part, find_parts
from renet.data.dataset import FILE_NAME, Dataset, check_unedited
from renet.data.split_writer import WrittenSplit, exclusive, joined_split, mean_of

PARTS = "parts"
_SHARED = ("name", "classes", "ignore_label", "image_scale", "distant_context_classes")


def place_of(folder: Path, part: Part) -> Path:
    """Find the folder of a part of the dataset in `folder`; of the whole that is `folder` itself."""
    return folder if part == WHOLE else folder / PARTS / part.name


def join_dataset(folder: Path) -> tuple[Dataset, dict[str, WrittenSplit]]:
    """Join the parts in `folder / "parts"` to the dataset `folder`, which is what one conversion writes.

    Records, checksums and dataset.json are the same byte for byte. Parts stay; a second call goes on, or takes over
    what is there.

    Returns:
        The dataset and its splits.

    Raises:
        UserError: a part is missing, not finished, damaged, or of another dataset; or `folder` holds something else.
    """
    parts = [_open(place) for place in find_parts(folder / PARTS)]
    first = parts[0]
    for part in parts:
        _check_same(part, first)
    assert first.part is not None, "_open saw it"
    with exclusive(folder):
        check_unedited(folder)
        written = {
            split: joined_split(folder / split, [part.folder / split for part in parts]) for split in first.splits
        }
        training = [written[split] for split in first.part.training]
        whole = replace(
            first,
            mean=mean_of(training) if training else first.mean,
            splits={split: result.summary for split, result in written.items()},
            folder=folder,
            skipped={split: result.skipped for split, result in written.items()},
            part=None,
        )
        whole.save()
    return whole, written


def _open(place: Path) -> Dataset:
    if not (place / FILE_NAME).exists():
        raise UserError(f"{place}: is not finished (no {FILE_NAME}); give its command again")
    dataset = Dataset.open(place)
    if dataset.part is None or dataset.part.part.name != place.name:
        raise UserError(f"{place / FILE_NAME}: is not of part {place.name.replace('_', ' ')}")
    return dataset


def _check_same(part: Dataset, first: Dataset) -> None:
    """Make sure that a part is of the same dataset as the first."""
    assert part.part is not None and first.part is not None, "_open saw them"
    differing = [name for name in _SHARED if getattr(part, name) != getattr(first, name)]
    differing += ["palette"] if part.palette.tolist() != first.palette.tolist() else []
    differing += ["splits"] if list(part.splits) != list(first.splits) else []
    differing += ["training splits"] if part.part.training != first.part.training else []
    differing += ["mean"] if not first.part.training and part.mean != first.mean else []
    if differing:
        raise UserError(f"{part.folder / FILE_NAME}: is of another dataset than {first.folder}: {differing[0]} differs")
