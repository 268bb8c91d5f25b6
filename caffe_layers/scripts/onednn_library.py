"""Make a folder of PyPI's pinned oneDNN: include, lib, and the package's notes with its licences.

Usage: ``python3 onednn_library.py FOLDER``. CMake calls it at every configuration; where the folder is made of the
packages of ``requirements-onednn.txt`` already, it ends at once and needs no network.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from pypi_packages import PackageError, defined_number, install, installed, read_pins

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-onednn.txt"
MAJOR, OLDEST_MINOR = 2, 6
VERSION_HEADER = "include/oneapi/dnnl/dnnl_version.h"
LIBRARY = "libdnnl.so.2"
LICENCES = ("LICENSE", "THIRD-PARTY-PROGRAMS")


def check_version(folder: Path) -> None:
    """Raise PackageError unless the oneDNN of a folder is one that our layers are written for."""
    version = [defined_number(folder / VERSION_HEADER, f"DNNL_VERSION_{part}") for part in ("MAJOR", "MINOR")]
    if None in version:
        raise PackageError(f"no version in {VERSION_HEADER}")
    if version[0] != MAJOR or version[1] < OLDEST_MINOR:
        raise PackageError(
            f"this is {version[0]}.{version[1]}, and {MAJOR}.{OLDEST_MINOR} or a later {MAJOR}.x is needed: "
            "oneDNN 3 has another interface and no Winograd's convolutions"
        )


def lay_out(folder: Path) -> None:
    """Keep of an installation below a prefix the headers, one of the library's three copies, and in the notes its
    licences. Raises PackageError where it is another version or not whole."""
    check_version(folder)
    site = next(folder.glob("lib/python*/site-packages"), folder)
    notes = next(site.glob("onednn_cpu_*.dist-info"), None)
    wanted = [folder / "lib" / LIBRARY, *(folder / "share/doc/onednn" / name for name in LICENCES)]
    if notes is None or not all(file.is_file() for file in wanted):
        raise PackageError(f"the packages lack one of {', '.join(file.name for file in wanted)}")
    (notes / "licenses").mkdir(exist_ok=True)
    for file in wanted[1:]:
        file.rename(notes / "licenses" / file.name)
    notes.rename(folder / notes.name)
    library = wanted[0].rename(folder / LIBRARY)
    for name in ("lib", "share"):
        shutil.rmtree(folder / name)
    (folder / "lib").mkdir()
    library.rename(folder / "lib" / LIBRARY)


def provide(folder: Path) -> None:
    """Make `folder` of the pinned packages; end at once where it is. Raises PackageError."""
    pins = read_pins(REQUIREMENTS)
    if installed(folder) != pins:
        install(folder, pins.values(), "--prefix", lay_out, f"without network, copy {folder} from another clone")


def main(arguments: list[str] | None = None) -> int:
    """Provide oneDNN in the folder that the command line names; the exit status."""
    parser = argparse.ArgumentParser(description="Make a folder of PyPI's pinned oneDNN.")
    parser.add_argument("folder", type=Path, help="where it is made")
    folder = parser.parse_args(arguments).folder.resolve()
    try:
        provide(folder)
    except (PackageError, OSError) as error:
        print(f"oneDNN: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
