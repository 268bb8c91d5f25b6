#!/usr/bin/env python3
"""List trainings: which run, which are stopped, finished or failed, how far each is, and its best score."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.repository import ROOT, product_path
from renet.training.run_state import RunState, find_runs
from renet.training.run_table import as_json, table


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
    """Make the command's parser."""
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
