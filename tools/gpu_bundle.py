"""Pack a build with its libraries, networks and tests, so that a bare machine with a GPU runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.repository import ROOT
from renet.packaging.gpu_bundle import write_bundle

EXAMPLES = """examples:
  tools/gpu_bundle.py --build build/gpu --out build/renet-caffe-gpu.tar.xz
  tools/gpu_bundle.py --build build/cpu --out build/renet-caffe-cpu.tar.xz --compression 1"""


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "gpu", metavar="DIR", help="what to pack")
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "caffe-source", metavar="DIR", help="Caffe's")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "renet-caffe-gpu.tar.xz", metavar="FILE")
    parser.add_argument(
        "--compression", type=int, choices=range(10), default=9, metavar="0..9", help="of xz (default 9: small, slow)"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write the bundle, and tell its size."""
    print(write_bundle(arguments.out, arguments.build, arguments.source, arguments.compression))


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
