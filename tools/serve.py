"""Serve a trained network over HTTP: an API for programs, and a page on which people try it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from renet.common.argument_types import positive, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.data.catalog import KNOWN, load_dataset
from renet.exchange.onnx_file import find_network
from renet.networks.deploy_network import deploy_options
from renet.prediction.computation import Setup
from renet.prediction.options import (
    add_engine_options,
    add_model_options,
    add_settings_options,
    crf_parameters_of,
    settings_of,
)

NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "mimeparse")

EXAMPLES = """examples:
  tools/serve.py --model my_model
  tools/serve.py --model deploy.prototxt --weights net.caffemodel --dataset stanford_background --crf --gpu 0
  tools/serve.py --model my_model --host 0.0.0.0 --port 8080 --queue 32 --max-bytes 4000000

The page is at http://127.0.0.1:8000, what programs may ask at http://127.0.0.1:8000/openapi.json. --flip, --scales and
--crf are what a request gets that does not say otherwise. Nothing is written to the disk, unless --keep says so.
Ctrl-C and SIGTERM end it when the images that wait are predicted. TLS and authentication are left to a reverse
proxy; docs/serving.md shows one."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="serve.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    parser.add_argument(
        "--dataset",
        metavar="NAME|DATASET.JSON",
        help=f"names and colours: {', '.join(KNOWN)}, or a dataset.json (default: the model's)",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (default: 127.0.0.1, this machine)"
    )
    serving.add_argument(
        "--port", type=_port, default=8000, metavar="P", help="port to listen at; 0 takes a free one (default: 8000)"
    )
    serving.add_argument(
        "--queue",
        type=whole_number(0),
        default=16,
        metavar="N",
        help="images that may wait; more are told to come again (default: 16)",
    )
    serving.add_argument(
        "--batch",
        type=whole_number(1),
        default=4,
        metavar="N",
        help="waiting images of one size that are predicted together, as far as --max-pixels holds them (default: 4)",
    )
    serving.add_argument(
        "--max-bytes",
        type=whole_number(1),
        default=16 << 20,
        metavar="N",
        help="largest image file (default: 16 MiB)",
    )
    serving.add_argument(
        "--max-pixels",
        type=whole_number(1),
        default=4_000_000,
        metavar="N",
        help="pixels of the largest image, also as --scales make it (default: 4000000)",
    )
    serving.add_argument(
        "--timeout",
        type=positive,
        default=60.0,
        metavar="S",
        help="seconds that sending an image may take, and then predicting it (default: 60)",
    )
    serving.add_argument(
        "--keep", type=Path, metavar="DIR", help="write each image and its labels into DIR/images and DIR/labels"
    )
    serving.add_argument("--verbose", action="store_true", help="tell of each request")
    add_settings_options(parser)
    add_engine_options(parser)
    return parser


def _port(text: str) -> int:
    port = whole_number(0)(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; they go up to 65535")
    return port


def main(arguments: argparse.Namespace) -> None:
    """Serve until a signal comes.

    Raises:
        UserError: bad input, named.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f'needs {", ".join(missing)}: pip install "renet-caffe[serve]"')
    from renet.service.app import Service
    from renet.service.server import serve
    from renet.service.uploads import Limits

    network = find_network(arguments.model, arguments.weights)
    if arguments.dataset is not None:
        network = replace(network, dataset=load_dataset(arguments.dataset))
    if network.dataset is None:
        raise UserError(f"{arguments.model}: does not say its classes; name them with --dataset")
    setup = Setup(
        network=network,
        gpu=arguments.gpu,
        settings=settings_of(arguments, network),
        deploy=deploy_options(arguments),
        allow_missing=arguments.allow_missing,
    )
    service = Service(
        name=(arguments.model if arguments.model.is_dir() else arguments.model.absolute().parent).resolve().name,
        setup=setup,
        crf=crf_parameters_of(arguments.crf, network),
        limits=Limits(arguments.max_bytes, arguments.max_pixels, arguments.timeout),
        queue=arguments.queue,
        together=arguments.batch,
        keep=arguments.keep,
    )
    serve(service, arguments.host, arguments.port, arguments.verbose)


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
