#!/usr/bin/env python3
"""Import another Caffe's network with its weights as a model folder, which every tool here takes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import crop_size
from renet.common.command_line import run
from renet.data.catalog import KNOWN, load_dataset
from renet.exchange.model_import import ORDERS, REPORT, ModelImport, import_model, report_text
from renet.networks.deploy_network import add_deploy_options, deploy_options

EXAMPLES = f"""examples:
  tools/import_model.py fcn8s/deploy.prototxt fcn8s-heavy-pascal.caffemodel --mean 104.007,116.669,122.679 \\
      --dataset voc2012 --out fcn8s
  tools/import_model.py H_ReNet_densecrf_deploy.prototxt H_ReNet_iter_36000.caffemodel --dataset voc2012 --out h_renet
  tools/import_model.py config/DeepLab-LargeFOV/test.prototxt train_iter_6000.caffemodel --set EXP=voc12 \\
      --set NUM_LABELS=21 --dataset voc2012 --out deeplab
  tools/predict.py --model fcn8s --input holiday/ --out predictions

What is changed is printed, and saved as {REPORT} in the folder: data layers, losses and scores go, the image's blob is
called data and the probabilities prob. The network is run once on an image of zeros. docs/foreign_networks.md tells
which layers of other Caffes there are here."""


def main(arguments: argparse.Namespace) -> None:
    """Import, and say what was changed.

    Raises:
        UserError: bad input, named.
    """
    job = ModelImport(
        arguments.network,
        arguments.weights,
        arguments.out,
        deploy_options(arguments),
        None if arguments.dataset is None else load_dataset(arguments.dataset),
        arguments.channel_order,
        arguments.size,
        arguments.fold_batch_norm,
        arguments.allow_missing,
        dict(arguments.set),
    )
    print(report_text(job, import_model(job)), end="")
    print(f"{arguments.out}: a model folder")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="import_model.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", type=Path, metavar="NET", help="prototxt, for deployment or training, of any Caffe")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help=".caffemodel, .h5, .npz or .safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the model folder to make")
    parser.add_argument(
        "--dataset",
        metavar="NAME|DATASET.JSON",
        help=f"names and colours of the classes: {', '.join(KNOWN)}, or a dataset.json (default: numbers)",
    )
    parser.add_argument(
        "--channel-order",
        choices=ORDERS,
        default=ORDERS[0],
        help="of the images that the network learnt from; RGB puts the swap into its first convolution (default: BGR)",
    )
    parser.add_argument("--size", type=crop_size, metavar="HxW", help="of the input, where the network does not say it")
    parser.add_argument(
        "--fold-batch-norm",
        action="store_true",
        help="compute batch normalisation into the convolutions before it (default: keep its layers)",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="keep initial values where the weights lack a layer"
    )
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="what ${NAME} stands for in NET"
    )
    add_deploy_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
