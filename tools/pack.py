#!/usr/bin/env python3
"""Pack a trained network as one folder that goes anywhere: network, weights, classes, and where it comes from."""

from __future__ import annotations

import argparse
from pathlib import Path

from renet.common.command_line import run
from renet.networks.trained_run import BEST, NEWEST
from renet.training.packing import pack


def main(arguments: argparse.Namespace) -> None:
    """Pack what the command line names.

    Raises:
        UserError: bad input, named.
    """
    out = pack(
        arguments.run,
        arguments.out,
        weights=arguments.weights,
        dataset=arguments.dataset,
        scores=arguments.scores,
    )
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {size / 2**20:.1f} MiB")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="pack.py",
        description=__doc__,
        epilog="""examples:
  .venv/bin/python tools/pack.py --run runs/n_renet_stanford_background --out my_model
  .venv/bin/python tools/pack.py --run runs/mine --weights best --scores runs/mine/evaluation.json --out my_model
  .venv/bin/python tools/predict.py --model my_model --input holiday/ --out predictions

The folder has deploy.prototxt (and deploy_crf.prototxt), weights.caffemodel, dataset.json (classes, colours, mean),
README.md for people, and model.json: scores, how it was trained, and the SHA-256 of every file. It is written whole
or not at all, and never over another. renet.Predictor and the tools' --model take it; each checks the files first.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run's folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--weights",
        metavar=f"{NEWEST}|{BEST}|FILE",
        help=f"the {NEWEST} whole snapshot, the {BEST} by its test of those that are kept, or a .caffemodel "
        f"(default: the {BEST} of a run with --keep-best, else the {NEWEST})",
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="DATASET.JSON",
        help="the training's dataset, or its folder, where it has moved (default: where the run found it)",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="what evaluate.py --json wrote (default: the run's evaluation.json, where its predictions/ are of these "
        "weights)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
