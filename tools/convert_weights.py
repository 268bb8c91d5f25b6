#!/usr/bin/env python3
"""Convert weights between Caffe's files, NumPy's .npz and .safetensors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.text_layout import aligned, shape_text
from renet.exchange.name_table import find_table
from renet.exchange.weight_tensors import READ, WRITTEN, convert_weights

EXAMPLES = """examples:
  tools/convert_weights.py --weights net.caffemodel --out net.safetensors
  tools/convert_weights.py --weights net.npz --out net.caffemodel
  tools/convert_weights.py --weights vgg16.safetensors --names vgg16_torchvision --out vgg16.caffemodel
  tools/convert_weights.py --weights VGG_ILSVRC_16_layers.caffemodel --names vgg16_fc_reduced --out reduced.caffemodel
  tools/convert_weights.py --weights resnet.safetensors --names resnet.txt --out resnet.caffemodel

The blob N of a layer is the tensor LAYER.N, float32: conv1_1.0 are the weights of conv1_1, conv1_1.1 its bias. Values
and shapes stay as they are.

--names names the tensors of another program, such as those of a PyTorch state dict, or of another network of Caffe's. A
line is one of
  conv1.0 = features.0.weight                                     # as it is
  conv1.0 = features.0.weight / 58.395,57.12,57.375 reversed      # each input channel divided, R, G, B to B, G, R
  fc6.0 = classifier.0.weight as 4096x512x7x7                     # in another shape
  fc6.0 = fc6.0 as 4096x512x7x7 every 4,1,3,3                     # then every 4th, 1st, 3rd, 3rd along the axes
  bn1.2 = 1                                                       # a number: the count of Caffe's BatchNorm"""


def main(arguments: argparse.Namespace) -> None:
    """Convert, and list the tensors.

    Raises:
        UserError: bad input, named.
    """
    names = None if arguments.names is None else find_table(arguments.names)
    weights = convert_weights(arguments.weights, arguments.out, names)
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
    parser.add_argument(
        "--names", metavar="FILE|NAME", help="table of the tensors' names, or the name of a shipped one"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
