#!/usr/bin/env python3
"""List trainings: which run, which are stopped, finished or failed, how far each is, and its best score."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from renet.common.command_line import UserError, run
from renet.networks.files import product_path
from renet.common.repository import ROOT
from renet.training.run_state import RunState, find_runs
from renet.common.text_table import aligned

HEADER = ["run", "state", "iteration", "best test", "at", "trained", "last sign"]


def as_json(state: RunState) -> dict[str, Any]:
    """A run as JSON."""
    best = state.best
    return {
        "run": str(state.folder),
        "state": state.state,
        "iteration": state.iteration,
        "iterations": state.iterations,
        "best": None if best is None else {"measure": best.measure, "value": best.value, "iteration": best.iteration},
        "seconds": state.seconds,
        "written": datetime.fromtimestamp(state.written).astimezone().isoformat(timespec="seconds"),
        "message": state.message,
    }


def row(state: RunState, now: float) -> list[str]:
    """A run's cells of the table."""
    best = state.best
    score = "-"
    if best is not None:
        score = f"mean IoU {100 * best.value:.1f}%" if best.measure == "mean_iou" else f"loss {best.value:.4f}"
    return [
        product_path(state.folder),
        state.state,
        f"{_count(state.iteration)}/{_count(state.iterations)}",
        score,
        "-" if best is None else f"{best.iteration:,}",
        "-" if state.seconds is None else duration(state.seconds),
        f"{duration(max(0.0, now - state.written))} ago",
    ]


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def duration(seconds: float) -> str:
    """A time for a person: its largest unit, and the next below it for hours and days."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def table(states: Sequence[RunState], now: float) -> str:
    """All runs as text; below it what those that failed said."""
    lines = aligned([HEADER, *(row(state, now) for state in states)], left=2)
    lines += [f"{product_path(state.folder)}: {state.message}" for state in states if state.message]
    return "\n".join(lines)


def main(arguments: argparse.Namespace) -> None:
    """Print what the command line asks for.

    Raises:
        UserError: a folder does not exist.
    """
    for folder in arguments.folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    found = dict.fromkeys(run_folder for folder in arguments.folders for run_folder in find_runs(folder))
    states = sorted(map(RunState.of, found), key=lambda state: -state.written)
    if arguments.json:
        print(json.dumps([as_json(state) for state in states], indent=1))
    elif states:
        print(table(states, time.time()))
    else:
        print(f"no runs in {', '.join(map(product_path, arguments.folders))}")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="runs.py",
        description="List trainings: state, iteration, best score, and when each last wrote something.",
        epilog="""examples:
  .venv/bin/python tools/runs.py
  .venv/bin/python tools/runs.py runs/experiments --json

running: a process trains there; stopped: tools/train.py --resume --run goes on; finished; failed: it says why; unknown:
its run.json is damaged. The best score is the highest mean IoU of the tests while training (of a network without
class scores the lowest loss), on the images that the solver's test_iter takes. The newest run stands first.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", type=Path, nargs="*", default=[ROOT / "runs"], metavar="DIR", help="where to look (default: runs)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, with all figures unrounded")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
