"""Parts I of N: shares, what the command line and Slurm's and MPI's variables say, and files of parts."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from data_prep_helpers import complaint, convert

from renet.common.errors import UserError
from renet.common.parts import AUTO, Part, find_parts, part_of_environment, part_or_auto


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 60])
@pytest.mark.parametrize("total", [0, 1, 5, 7, 23, 200])
def test_shares_are_contiguous_even_and_together_the_whole(count: int, total: int) -> None:
    things = list(range(total))
    shares = [Part(number, count).share(things) for number in range(1, count + 1)]
    assert [thing for share in shares for thing in share] == things
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_are_read() -> None:
    assert part_or_auto("1/1") == Part() and part_or_auto("3/8") == Part(3, 8) and part_or_auto("auto") == AUTO


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "a/b", "", "3", "3/", "/4", "-1/4", "1/0", "1/4/2", "1.5/4", "٣/٨", "1/9999999", " 1/2"]
)
def test_what_is_no_part_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no part I/N with I from 1 to N"):
        part_or_auto(text)


def test_a_command_tells_it_in_one_line(tmp_path: Path) -> None:
    said = complaint(convert("synthetic_scenes.py", "--out", tmp_path / "x", "--part", "0/4"))
    assert said.startswith("synthetic_scenes.py: argument --part: '0/4' is no part I/N")
    said = complaint(convert("synthetic_scenes.py", "--out", tmp_path / "x", "--part", "auto", env={}))
    assert said == "synthetic_scenes.py: --part auto: no variables of Slurm or MPI; say --part I/N"


def array(task: int, least: int, count: int) -> dict[str, str]:
    values = {"ID": task, "MIN": least, "COUNT": count, "MAX": least + count - 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
ORTED = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (array(1, 1, 8), "1/8"),
        (array(8, 1, 8), "8/8"),
        (array(0, 0, 8), "1/8"),
        (array(7, 0, 8), "8/8"),
        (SRUN, "3/4"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "1/2"),
        ({"OMPI_COMM_WORLD_RANK": "4", "OMPI_COMM_WORLD_SIZE": "5"}, "5/5"),
        ({"OMPI_COMM_WORLD_RANK": "4", "OMPI_COMM_WORLD_SIZE": "5"} | ORTED, "5/5"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, "1/1"),
        (array(3, 1, 4) | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "3/4"),
        (array(3, 1, 4) | ORTED, "3/4"),
    ],
)
def test_variables_of_slurm_and_mpi(environment: dict[str, str], part: str) -> None:
    found, variables = part_of_environment(environment)
    assert str(found) == part
    assert all(f"{name}=" not in variables or f"{name}={environment[name]}" in variables for name in environment)
    assert "=" in variables


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "no variables of Slurm or MPI; say --part I/N"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "no variables of Slurm or MPI"),
        ({"SLURM_NTASKS": "8"} | ORTED, "SLURM_NTASKS is 8, but one runs; start it by srun"),
        (array(3, 3, 1), "ID=3, .*MIN=3, .*COUNT=1 is not of an array"),
        (array(5, 3, 2) | {"SLURM_ARRAY_TASK_ID": "5"}, "is not of an array 0-1 or 1-2"),
        (array(3, 2, 2), "is not of an array"),
        (array(1, 1, 1), "is not of an array"),
        (array(7, 1, 3), "is not of an array"),
        (array(2, 1, 8) | SRUN, "both SLURM_PROCID=2 .* and SLURM_ARRAY_TASK_ID=2 .* are set"),
        ({"PMI_RANK": "2", "PMI_SIZE": "2"}, "PMI_RANK is 2 and PMI_SIZE is 2"),
        ({"PMI_RANK": "x", "PMI_SIZE": "2"}, "PMI_RANK is 'x', no whole number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT is '', no whole number"),
    ],
)
def test_variables_that_can_be_read_in_two_ways_are_refused(environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        part_of_environment(environment)


def test_files_of_parts_are_found_in_order_and_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no parts there, such as 1_of_8\.npz"):
        find_parts(tmp_path / "none", ".npz")
    for number in (10, 2, 1, *range(3, 10)):
        (tmp_path / f"{number}_of_10.npz").touch()
    (tmp_path / ".1_of_10.npz.1.partial").touch()
    assert [file.name for file in find_parts(tmp_path, ".npz")] == [f"{n}_of_10.npz" for n in range(1, 11)]
    (tmp_path / "4_of_10.npz").unlink()
    with pytest.raises(UserError, match=r"4_of_10.npz: missing; make it with --part 4/10"):
        find_parts(tmp_path, ".npz")
    (tmp_path / "9_of_10.npz").unlink()
    with pytest.raises(UserError, match=r"4_of_10.npz: missing and 1 more of 10; make it with --part 4/10"):
        find_parts(tmp_path, ".npz")
    (tmp_path / "1_of_2.npz").touch()
    with pytest.raises(UserError, match="has parts of 2 and of 10; remove those that are not meant"):
        find_parts(tmp_path, ".npz")
