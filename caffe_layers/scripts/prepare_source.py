"""Prepare the tree that is compiled: Caffe's verified source, patched, with our messages in its caffe.proto.

Usage: ``python3 prepare_source.py TREE DOWNLOADS [--stock]``. CMake calls it at every configuration; it ends at once
where the tree is up to date. A file that would not change keeps its time, so that only what changed is compiled again.
With --stock the tree is Caffe as it was published, but for what this system would not compile or import.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fetch_source import MANIFEST, SourceError, fetch
from merge_proto import MergeError, merge

SCRIPTS = Path(__file__).resolve().parent
LAYERS = SCRIPTS.parent
PROTO = Path("src/caffe/proto/caffe.proto")
STOCK_PATCHES = ("01_protobuf.patch", "03_pycaffe_image_functions.patch")
STOCK_OPTION = "--stock"


def patches() -> list[Path]:
    """The patches of patches/ in the order in which they are applied."""
    return sorted((LAYERS / "patches").glob("*.patch"))


def messages() -> list[Path]:
    """Our .proto files in the order in which they are appended."""
    return sorted((LAYERS / "proto").glob("*.proto"))


def parts(stock: bool) -> tuple[list[Path], list[Path]]:
    """The patches and the messages that a tree is made with: all of them, or what stock Caffe needs here."""
    if stock:
        return [patch for patch in patches() if patch.name in STOCK_PATCHES], []
    return patches(), messages()


def stamp(stock: bool = False) -> str:
    """One line that changes with anything that the tree is made from."""
    digest = hashlib.sha256()
    applied, appended = parts(stock)
    for path in [MANIFEST, *sorted(SCRIPTS.glob("*.py")), *applied, *appended]:
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def apply_patch(patch: Path, tree: Path) -> None:
    """Apply one patch exactly (no fuzz); raises SourceError that names it."""
    command = ["patch", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch", "-p1", "-i", str(patch)]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SourceError(f"{patch.name} does not apply: {' / '.join(done.stdout.split(chr(10))).strip(' /')}")
    print(f"applied {patch.name}", flush=True)


def synchronise(new: Path, tree: Path) -> None:
    """Make ``tree`` equal to ``new``, writing only the files that differ."""
    wanted = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    for stale in {path.relative_to(tree) for path in tree.rglob("*") if path.is_file()} - wanted:
        (tree / stale).unlink()
    for name in sorted(wanted):
        target = tree / name
        if not (target.is_file() and filecmp.cmp(new / name, target, shallow=False)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(new / name, target)


def prepare(tree: Path, downloads: Path, stock: bool = False) -> None:
    """Bring ``tree`` up to date, with our patches and messages or, for ``stock``, without. Raises SourceError or
    MergeError.

    The stamp is removed first and written last: a tree that was left half done is done again.
    """
    stamp_file = tree.with_name(tree.name + ".stamp")
    wanted = stamp(stock)
    applied, appended = parts(stock)
    if stamp_file.is_file() and stamp_file.read_text(encoding="utf-8") == wanted:
        return
    stamp_file.unlink(missing_ok=True)
    tree.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        new = Path(scratch)
        fetch(new, downloads, os.environ.get("CAFFE_SOURCE"))
        for patch in applied:
            apply_patch(patch, new)
        if appended:
            texts = [path.read_text(encoding="utf-8") for path in appended]
            (new / PROTO).write_text(merge((new / PROTO).read_text(encoding="utf-8"), texts), encoding="utf-8")
        synchronise(new, tree)
    stamp_file.write_text(wanted, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Prepare the tree that the command line names; the exit status."""
    stock = STOCK_OPTION in arguments
    tree, downloads = (Path(argument).resolve() for argument in arguments if argument != STOCK_OPTION)
    try:
        prepare(tree, downloads, stock)
    except (SourceError, MergeError, OSError) as error:
        print(f"preparing Caffe's source failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
