#!/usr/bin/env python3
"""Train a network: run a Caffe solver with progress, tests, snapshots and a folder that holds all of it."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

from renet.common.argument_types import whole_number, whole_number_or
from renet.common.command_line import run
from renet.networks.trained_run import MEASURES, SNAPSHOTS
from renet.runtime.builds import restart_with_gpu_build, training_asks_for_gpu
from renet.runtime.watched_process import Work, watched
from renet.training.ranks import ALL_GPUS
from renet.training.run_folder import EVENTS
from renet.training.session import TrainingSettings, death_noted, leave_ranks, perform
from renet.weights.initial_weights import split_names


def main(arguments: argparse.Namespace, work: Work) -> int:
    """Train as the command line says; 128 + signal where a signal stopped it."""
    files = () if arguments.weights is None else tuple(map(Path, split_names([arguments.weights])))
    settings = TrainingSettings(**{**vars(arguments), "weights": files})
    result = perform(settings, work)
    return 0 if result.state == "finished" else 128 + (work.stop or signal.SIGTERM)


def perform_command(work: Work) -> int:
    """Run the command as one of the processes that were started together, if there are others."""
    status = run(partial(main, work=work), make_parser())
    leave_ranks(status)
    return status


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a network with a Caffe solver.",
        epilog=f"""examples:
  .venv/bin/python tools/train.py --solver solvers/n_renet_stanford_background.prototxt
  .venv/bin/python tools/train.py --solver my_net/solver.prototxt --run runs/mine --keep-best mean_iou --patience 5
  .venv/bin/python tools/train.py --resume --run runs/n_renet_stanford_background
  mpirun -n 4 .venv/bin/python tools/train.py --solver solvers/n_renet_stanford_background.prototxt

A run's folder holds the prototxts as they were used, metrics.jsonl (loss, learning rate, test scores), train.log (what
Caffe says), run.json (who, what, when, on which machine) and {SNAPSHOTS}/. Ctrl-C ends with a snapshot; a second one
ends at once. On the CPU the same seed, data and number of threads give the same weights, however often a run is
resumed, but for layers that docs/training.md lists.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--solver", type=Path, metavar="FILE", help="solver prototxt")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/<solver's name>)")
    parser.add_argument(
        "--iterations",
        type=whole_number(1),
        metavar="N",
        help="in place of the solver's max_iter, which poly and cosine follow",
    )
    parser.add_argument("--seed", type=whole_number(0), metavar="N", help="of weights and samples (default: solver's)")
    parser.add_argument(
        "--weights", metavar="FILE", help="start from this .caffemodel, by layers' names (several: FILE,FILE)"
    )
    parser.add_argument(
        "--gpu",
        type=whole_number_or(ALL_GPUS),
        metavar="N",
        help=f"train on this GPU (default: on the CPU); {ALL_GPUS}: with mpirun, each process on one",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest whole snapshot")
    parser.add_argument(
        "--keep", type=whole_number(1), default=3, metavar="N", help="keep the newest N snapshots (default 3)"
    )
    parser.add_argument(
        "--keep-best",
        choices=MEASURES,
        metavar="SCORE",
        help=f"also keep the snapshot of the test with the best {', '.join(MEASURES[:-1])} or {MEASURES[-1]}",
    )
    parser.add_argument(
        "--patience", type=whole_number(1), metavar="N", help="finish after N tests without a better --keep-best score"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help=f"also write the metrics as event files, into the run's {EVENTS}/"
    )
    return parser


if __name__ == "__main__":
    if training_asks_for_gpu(sys.argv[1:]):
        restart_with_gpu_build()
    raise SystemExit(watched(perform_command, death_noted))
