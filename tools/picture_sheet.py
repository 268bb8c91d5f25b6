#!/usr/bin/env python3
"""One picture to look at: test images in rows, with their truth and predictions beside them (Figures 4 and 5)."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.data.dataset import Dataset
from renet.data.image_ids import find_labels
from renet.data.label_maps import read_label_map
from renet.data.split_reader import SplitReader
from renet.visualization.sheet import colour, sheet


def main(arguments: argparse.Namespace) -> None:
    """Write the sheet that the command line describes."""
    dataset = Dataset.load(arguments.dataset)
    names = arguments.names or [
        (folder.resolve().parent if folder.resolve().name == "predictions" else folder.resolve()).name
        for folder in arguments.predictions
    ]
    if len(names) != len(arguments.predictions):
        raise UserError(f"{len(names)} names for {len(arguments.predictions)} folders of predictions")
    rows = []
    files = [find_labels(folder) for folder in arguments.predictions]
    with SplitReader(arguments.split) as reader:
        index_of = {image_id: index for index, image_id in enumerate(reader.ids())}
        for image_id in arguments.ids or list(index_of)[: arguments.count]:
            if image_id not in index_of:
                raise UserError(f"{arguments.split}: has no image {image_id}")
            image, truth = reader.image(index_of[image_id]), reader.label(index_of[image_id])
            row = [Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))]
            of_truth = [colour(truth, dataset)] if truth is not None else []
            row += [] if arguments.truth_last else of_truth
            for folder, of_folder in zip(arguments.predictions, files):
                file = of_folder.get(image_id, folder / f"{image_id}.png")
                labels = read_label_map(file)
                if labels.shape != image.shape[:2]:
                    raise UserError(f"{file}: is {labels.shape}, its image {image.shape[:2]}")
                row.append(colour(labels, dataset))
            rows.append(row + (of_truth if arguments.truth_last else []))
    titles = ["image", *names]
    if len(rows[0]) > len(titles):
        titles.insert(len(titles) if arguments.truth_last else 1, "truth")
    buffer = io.BytesIO()
    sheet(rows, titles, dataset, arguments.width).save(buffer, format="PNG", optimize=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, buffer.getvalue())
    print(f"{arguments.out}: {len(rows)} images")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="picture_sheet.py",
        description="Put test images, their truth and predictions into one picture.",
        epilog="""example:
  .venv/bin/python tools/picture_sheet.py --split data/synthetic_scenes/test --dataset data/synthetic_scenes \\
      --predictions runs/demo_n_renet/predictions --names N-ReNet --count 4 --out sheet.png""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", type=Path, required=True, metavar="DIR", help="prepared split with the images")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DATASET.JSON", help="classes and colours")
    parser.add_argument(
        "--predictions", type=Path, nargs="*", default=[], metavar="DIR", help="folders of label maps, one a column"
    )
    parser.add_argument("--names", nargs="*", metavar="NAME", help="titles of the predictions (default: the folders')")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--ids", nargs="+", metavar="ID", help="the images to show")
    chosen.add_argument("--count", type=whole_number(1), default=5, metavar="N", help="the first N (default 5)")
    parser.add_argument(
        "--width", type=whole_number(16), default=200, metavar="PX", help="of one picture (default 200)"
    )
    parser.add_argument("--truth-last", action="store_true", help="the truth after the predictions, not before")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main, make_parser()))
