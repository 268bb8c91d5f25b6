#!/usr/bin/env python3
"""Convert weights between Caffe's files, NumPy's .npz and .safetensors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.text_layout import aligned, shape_text
from renet.exchange.weight_tensors import READ, WRITTEN, convert_weights

EXAMPLES = """examples:
  tools/convert_weights.py --weights net.caffemodel --out net.safetensors
  tools/convert_weights.py --weights net.npz --out net.caffemodel

The blob N of a layer is the tensor LAYER.N, float32: conv1_1.0 are the weights of conv1_1, conv1_1.1 its bias. Values
and shapes stay as they are."""


def main(arguments: argparse.Namespace) -> None:
    """Convert, and list the tensors.

    Raises:
        UserError: bad input, named.
    """
    weights = convert_weights(arguments.weights, arguments.out)
    rows = [[name, shape_text(tensor.shape) or "1"] for name, tensor in weights.tensors.items()]
    print("\n".join(aligned(rows)))
    values = sum(tensor.size for tensor in weights.tensors.values())
    print(f"{arguments.out}: {len(weights.layers())} layers, {len(rows)} tensors, {values:,} values")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="convert_weights.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help=f"to read: {', '.join(READ)}")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"to write: {', '.join(WRITTEN)}")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
