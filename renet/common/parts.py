"""Parts of a work that several machines or processes share: contiguous shares I of N, together the whole."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from renet.common.errors import UserError

T = TypeVar("T")
AUTO = "auto"
# Of MPI's launchers, then of srun: an mpirun within a Slurm job also passes srun's on.
_RANKS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
_ARRAY = "SLURM_ARRAY_TASK_"
_BY_HAND = "say --part I/N"


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `count`."""

    number: int = 1
    count: int = 1

    def bounds(self, total: int) -> tuple[int, int]:
        """Find where the share of `total` things begins and ends; the shares differ by one thing at most."""
        return (self.number - 1) * total // self.count, self.number * total // self.count

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Take this part's share, in its order; it may be empty."""
        start, stop = self.bounds(len(items))
        return items[start:stop]

    @property
    def name(self) -> str:
        """The name of its file or folder, such as `3_of_8`."""
        return f"{self.number}_of_{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Part()


def part_or_auto(text: str) -> Part | str:
    """Read I/N with I from 1 to N, or `auto`; an argparse type."""
    if text == AUTO:
        return AUTO
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part I/N with I from 1 to N, such as 3/8, nor {AUTO}")
    return Part(int(found[1]), int(found[2]))


def add_part_argument(parser: argparse._ActionsContainer, what: str) -> None:
    """Add --part; `what` says what it does."""
    parser.add_argument(
        "--part",
        type=part_or_auto,
        default=WHOLE,
        metavar="I/N",
        help=f"{what}, such as 3/8; {AUTO} takes I and N from Slurm's or MPI's variables",
    )


def chosen_part(arguments: argparse.Namespace) -> Part:
    """Take the part that the command line says; what `auto` found is printed.

    Raises:
        UserError: as `part_of_environment`.
    """
    if arguments.part != AUTO:
        return arguments.part
    part, variables = part_of_environment(os.environ)
    print(f"part {part}, by {variables}", flush=True)
    return part


def part_of_environment(environment: Mapping[str, str]) -> tuple[Part, str]:
    """Find which part the process is by the variables of Open MPI, MPICH and the like, srun, or a Slurm job array.

    Returns:
        The part, and the variables that say so.

    Raises:
        UserError: there are none, or they can be read in two ways; a part that is taken wrongly would be missing.
    """
    ranks = [_rank(environment, *names) for names in _RANKS if names[0] in environment and names[1] in environment]
    several = next((found for found in ranks if found[0].count > 1), None)
    array = _array_task(environment) if f"{_ARRAY}ID" in environment else None
    if several is not None and array is not None:
        raise UserError(f"--part {AUTO}: both {several[1]} and {array[1]} are set; {_BY_HAND}")
    found = several or array
    if found is None and not ranks:
        raise UserError(f"--part {AUTO}: no variables of Slurm or MPI; {_BY_HAND}")
    if found is None and _number(environment, "SLURM_NTASKS", 1) > 1:
        raise UserError(f"--part {AUTO}: SLURM_NTASKS is {environment['SLURM_NTASKS']}, but one runs; start it by srun")
    return found or ranks[0]


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(f"--part {AUTO}: {name} is {text!r}, no whole number; {_BY_HAND}")
    return int(text)


def _rank(environment: Mapping[str, str], rank: str, size: str) -> tuple[Part, str]:
    number, count = _number(environment, rank), _number(environment, size)
    if number >= count:
        raise UserError(f"--part {AUTO}: {rank} is {number} and {size} is {count}; {_BY_HAND}")
    return Part(number + 1, count), f"{rank}={number} and {size}={count}"


def _array_task(environment: Mapping[str, str]) -> tuple[Part, str]:
    """The part of a task of a job array, where the array is a whole one: from 0 or 1 on, without gaps.

    A job array that repeats what failed has other numbers, and its tasks would be taken for parts of a smaller whole.
    """
    task, count = (_number(environment, f"{_ARRAY}{name}") for name in ("ID", "COUNT"))
    least = _number(environment, f"{_ARRAY}MIN")
    if count < 2 or least > 1 or not least <= task < least + count:
        told = ", ".join(f"{_ARRAY}{name}={environment[f'{_ARRAY}{name}']}" for name in ("ID", "MIN", "COUNT"))
        raise UserError(f"--part {AUTO}: {told} is not of an array 0-{count - 1} or 1-{count}; {_BY_HAND}")
    return Part(task - least + 1, count), f"{_ARRAY}ID={task} and {_ARRAY}COUNT={count}"


def find_parts(folder: Path, ending: str = "") -> list[Path]:
    """Find the files or folders of all parts, `1_of_N`, `2_of_N`, ... with `ending`, in order.

    Raises:
        UserError: there are none, one is missing, or they are of several N; names them.
    """
    found: dict[Part, Path] = {}
    for file in folder.iterdir() if folder.is_dir() else ():
        name = re.fullmatch(rf"([1-9][0-9]*)_of_([1-9][0-9]*){re.escape(ending)}", file.name)
        if name is not None:
            found[Part(int(name[1]), int(name[2]))] = file
    if not found:
        raise UserError(f"{folder}: no parts there, such as 1_of_8{ending}")
    counts = sorted({part.count for part in found})
    if len(counts) > 1:
        raise UserError(f"{folder}: has parts of {' and of '.join(map(str, counts))}; remove those that are not meant")
    wanted = [Part(number, counts[0]) for number in range(1, counts[0] + 1)]
    missing = [part for part in wanted if part not in found]
    if missing:
        more = f" and {len(missing) - 1} more of {counts[0]}" if len(missing) > 1 else ""
        raise UserError(f"{folder / missing[0].name}{ending}: missing{more}; make it with --part {missing[0]}")
    return [found[part] for part in wanted]
