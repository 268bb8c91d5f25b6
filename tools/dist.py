#!/usr/bin/env python3
"""Pack a build into an archive that runs wherever it is unpacked: Caffe, pycaffe, networks and tools.

It has every library but the C library, so any Linux with that one or a newer one runs `bin/caffe`. Python packages are
not in it: its `setup` installs them into a .venv beside itself, for any Python 3.11.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.repository import ROOT, commit, version
from renet.packaging.archive import fill_programs, fill_repository
from renet.packaging.libraries import (
    NAME,
    pack,
    versions_wanted,
)

EXAMPLES = """examples:
  tools/dist.py
  tools/dist.py --out renet-caffe.tar.xz --compression 1
  tools/dist.py --folder /opt/renet-caffe --programs"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
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
    """Fill the folder, pack it, and tell what came of it."""
    name = f"{NAME}-{version()}"
    if arguments.folder is not None and arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise UserError(f"{arguments.folder}: exists already and is not empty")
    beside = None
    if arguments.folder is not None:
        beside = arguments.folder.absolute().parent
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        build, source = arguments.build.resolve(), arguments.source.resolve()
        fill_programs(folder, build, source, arguments.cuda_libraries)
        if not arguments.programs:
            fill_repository(folder, arguments.commit or commit())
        binaries = [file for place in ("bin", "lib") for file in (folder / place).rglob("*") if file.is_file()]
        needs = versions_wanted((file for file in binaries if not file.is_symlink()), "GLIBC")[0].replace("_", " ")
        size = sum(file.stat().st_size for file in folder.rglob("*") if not file.is_symlink() and file.is_file())
        made = f"{size / 1e6:.0f} MB, needs {needs.replace('GLIBC', 'glibc')}"
        if arguments.folder is not None:
            folder.replace(arguments.folder)
            print(f"{arguments.folder}: {made}")
            return
        archive = arguments.out or ROOT / "build" / f"{name}.tar.xz"
        print(f"packing {made}", file=sys.stderr)
        packed = pack(folder, archive, arguments.compression, name=name)
        print(f"{archive}: {packed / 1e6:.1f} MB, unpacked {made}")


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
