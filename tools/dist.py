#!/usr/bin/env python3
"""Pack a build into an archive that runs wherever it is unpacked: Caffe, pycaffe, networks and tools.

It has every library but the C library, so any Linux with that one or a newer one runs `bin/caffe`. Python packages are
not in it: its `setup` installs them into a .venv beside itself, for a Python of the version that made the archive.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.common.repository import ROOT
from renet.packaging.archive import write_archive, write_folder
from renet.packaging.libraries import NAME

EXAMPLES = """examples:
  tools/dist.py
  tools/dist.py --out renet-caffe.tar.xz --compression 1
  tools/dist.py --folder /opt/renet-caffe --programs"""


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="dist.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cpu", metavar="DIR", help="what to pack")
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "caffe-source", metavar="DIR", help="Caffe's")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the archive (default: build/{NAME}-<version>.tar.xz)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="write this folder in place of an archive")
    parser.add_argument("--programs", action="store_true", help="only what is compiled: bin, lib, python, licences")
    parser.add_argument("--cuda-libraries", action="store_true", help="take CUDA's libraries along (over 1 GB)")
    parser.add_argument("--commit", metavar="TEXT", help="what VERSION says (default: the repository's commit)")
    parser.add_argument(
        "--compression", type=int, choices=range(10), default=9, metavar="0..9", help="of xz (default 9: small, slow)"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Write the folder or the archive, and tell what came of it."""
    build, source = arguments.build, arguments.source
    choices = {
        "programs_only": arguments.programs,
        "with_cuda": arguments.cuda_libraries,
        "made_from": arguments.commit,
    }
    if arguments.folder is not None:
        print(f"{arguments.folder}: {write_folder(arguments.folder, build, source, **choices)}")
    else:
        print(write_archive(arguments.out, build, source, arguments.compression, **choices))


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
