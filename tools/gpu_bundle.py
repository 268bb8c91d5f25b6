"""Pack a build with its libraries, networks and tests, so that a bare machine with a GPU runs it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.packaging.gpu_bundle import fill
from renet.packaging.libraries import (
    NAME,
    pack,
)

LIMIT_MB = 40


EXAMPLES = """examples:
  tools/gpu_bundle.py --build build/gpu --out build/renet-caffe-gpu.tar.xz
  tools/gpu_bundle.py --build build/cpu --out build/renet-caffe-cpu.tar.xz --compression 1"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "gpu", metavar="DIR", help="what to pack")
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "caffe-source", metavar="DIR", help="Caffe's")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "renet-caffe-gpu.tar.xz", metavar="FILE")
    parser.add_argument(
        "--compression", type=whole_number(0), default=9, metavar="0..9", help="of xz (default 9: small and slow)"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Fill, pack, and tell the size."""
    if arguments.compression > 9:
        raise UserError(f"--compression: 0 to 9 expected, {arguments.compression} given")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / NAME
        folder.mkdir()
        manifest = fill(folder, arguments.build.resolve(), arguments.source.resolve())
        print(f"packing {sum(manifest['bytes'].values()) / 1e6:.0f} MB of programs and libraries", file=sys.stderr)
        size = pack(folder, arguments.out, arguments.compression)
    needs = ", ".join(manifest["needs"]) or "nothing of CUDA"
    print(f"{arguments.out}: {size / 1e6:.1f} MB; needs glibc {manifest['glibc']} and {needs}")
    if size > LIMIT_MB * 1e6:
        raise UserError(f"{arguments.out}: {size / 1e6:.1f} MB is more than the {LIMIT_MB} MB that it is meant to have")


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
