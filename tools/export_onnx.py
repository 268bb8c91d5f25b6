#!/usr/bin/env python3
"""Write a trained network as ONNX, for onnxruntime, OpenVINO and other programs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.data.catalog import KNOWN, load_dataset
from renet.exchange.onnx_export import OnnxExport, export_onnx
from renet.networks.deploy_network import add_deploy_options, deploy_options
from renet.networks.model_folder import find_network
from renet.networks.trained_run import BEST, NEWEST

EXAMPLES = """examples:
  tools/export_onnx.py --model my_model --out my_model.onnx
  tools/export_onnx.py --model deploy.prototxt --weights net.caffemodel --dataset voc2012 --out net.onnx
  tools/export_onnx.py --model deploy_crf.prototxt --weights net.caffemodel --until upsample --out scores.onnx
  tools/predict.py --model my_model.onnx --input holiday/ --out predictions

Height, width and batch stay open. Mean, scale, order of channels, classes and colours are in the file's metadata, each
as JSON. docs/foreign_networks.md tells how to use the file."""


def main(arguments: argparse.Namespace) -> None:
    """Export, and say what was written.

    Raises:
        UserError: bad input, named.
    """
    network = find_network(arguments.model, arguments.weights)
    if arguments.out.is_dir():
        raise UserError(f"{arguments.out}: is a folder; name the file to write")
    exported = export_onnx(
        OnnxExport(
            network.deploy,
            network.weights,
            arguments.out,
            network.dataset if arguments.dataset is None else load_dataset(arguments.dataset),
            arguments.until,
            arguments.allow_missing,
            deploy_options(arguments),
        )
    )
    print(f"{arguments.out}: {exported.layers} layers as {exported.nodes} nodes, {exported.megabytes:.1f} MB")
    print(f"  from {', '.join(exported.inputs)} to {', '.join(exported.outputs)}")
    if exported.fixed_by is not None:
        print(f'  for images of that size alone: the layer "{exported.fixed_by}" takes no other')
    for name, kind in exported.left_out:
        print(f'  left out: "{name}" ({kind}); its prototxt is in the metadata')
    if exported.metadata.transform is None:
        print("  mean and scale are not known; --mean B,G,R and --scale write them into the file")
    if exported.metadata.dataset is None:
        print("  the classes' names and colours are not known; --dataset writes them into the file")


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="export_onnx.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="deploy.prototxt, a model folder of pack.py, or a run's folder",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help=f".caffemodel, or .h5; a model folder has its own, and of a run this may be {NEWEST} or {BEST}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="NET.ONNX", help="the file to write")
    parser.add_argument(
        "--dataset",
        metavar="NAME|DATASET.JSON",
        help=f"names and colours: {', '.join(KNOWN)}, or a dataset.json (default: the model folder's)",
    )
    parser.add_argument(
        "--until", metavar="LAYER", help="the last layer: leave out what follows, such as a DenseCRF or Python layer"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="keep initial values where the weights lack a layer"
    )
    add_deploy_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
