"""Find a complete CUDA toolkit on this system, or make one of PyPI's pinned packages.

Usage: ``python3 cuda_toolkit.py FOLDER [--compiler-only]``. Prints three lines: the toolkit's folder (what CUDA_HOME
means: bin, include and lib64 or lib below it), and the folders whose include and lib hold cuDNN 9 and NCCL. CMake calls
it at every configuration of a GPU build. With ``--compiler-only`` cuDNN and NCCL are left out, and so are their lines.

A toolkit is looked for where the environment variable CUDA_HOME says, beside the nvcc of PATH, and in /usr/local/cuda.
Where none is complete, the packages of ``requirements-cuda.txt`` are installed into FOLDER; so are cuDNN and NCCL where
the system's toolkit comes without them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pypi_packages import PackageError, defined_number, install, installed, read_pins

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-cuda.txt"
PYPI_MAJOR = 13  # the CUDA version of the compiler in REQUIREMENTS
OLDEST, NEWEST_MAJOR = (11, 8), 13
SERVE = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST_MAJOR}.x"
HEADERS = ("cuda_runtime.h", "cublas_v2.h", "curand.h", "thrust/device_vector.h")
LIBRARIES = ("cudart", "cublas", "curand")
LIBRARY_FOLDERS = ("lib64", "lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")
INCLUDE_FOLDERS = ("include", "include/cccl")


@dataclass(frozen=True)
class Toolkit:
    """A folder that should be a CUDA toolkit.

    Attributes:
        home: the folder.
        version: (major, minor); None where no header tells it.
        missing: what a complete toolkit has and this one has not, by the path below `home`.
    """

    home: Path
    version: tuple[int, int] | None
    missing: tuple[str, ...]

    @property
    def fault(self) -> str | None:
        """Why this toolkit cannot be used, or None."""
        if self.missing:
            return f"lacks {', '.join(self.missing)}"
        if self.version is None:
            return "tells no version"
        if self.version < OLDEST or self.version[0] > NEWEST_MAJOR:
            return f"is CUDA {self.version[0]}.{self.version[1]}; {SERVE} serve"
        return None


def has_header(home: Path, name: str) -> bool:
    """Whether a header is there (CUDA 13 keeps thrust below include/cccl)."""
    return any((home / folder / name).is_file() for folder in INCLUDE_FOLDERS)


def has_library(home: Path, name: str) -> bool:
    """Whether lib<name>.so, as the linker looks for it, is there."""
    return any((home / folder / f"lib{name}.so").is_file() for folder in LIBRARY_FOLDERS)


def inspect(home: Path) -> Toolkit:
    """Look what a folder has of a toolkit."""
    missing = [] if os.access(home / "bin/nvcc", os.X_OK) else ["bin/nvcc"]
    missing += [f"include/{name}" for name in HEADERS if not has_header(home, name)]
    missing += [f"lib64/lib{name}.so" for name in LIBRARIES if not has_library(home, name)]
    number = defined_number(home / "include/cuda_runtime_api.h", "CUDART_VERSION")
    version = None if number is None else (number // 1000, number % 1000 // 10)
    return Toolkit(home, version, tuple(missing))


def candidates(environment: Mapping[str, str], default: Path = Path("/usr/local/cuda")) -> list[Path]:
    """Folders where a system's toolkit may be, in the order in which they are tried."""
    nvcc = shutil.which("nvcc", path=environment.get("PATH", os.defpath))
    named = [Path(environment["CUDA_HOME"]).expanduser()] if environment.get("CUDA_HOME") else []
    beside = [Path(nvcc).parents[1], Path(nvcc).resolve().parents[1]] if nvcc else []
    return list(dict.fromkeys([*named, *beside, default]))


def find_toolkit(environment: Mapping[str, str]) -> Toolkit | None:
    """The first complete toolkit of `candidates`; says on stderr why those before it cannot be used."""
    folders = candidates(environment)
    for home in folders:
        toolkit = inspect(home)
        if toolkit.fault is None:
            return toolkit
        if has_header(home, "cuda_runtime.h") or (environment.get("CUDA_HOME") and home == folders[0]):
            print(f"CUDA: not used: {home} {toolkit.fault}", file=sys.stderr)
    return None


def find_cudnn(folders: list[Path]) -> Path | None:
    """The first folder with cuDNN 9's headers and library."""
    return next(
        (
            folder
            for folder in folders
            if defined_number(folder / "include/cudnn_version.h", "CUDNN_MAJOR") == 9 and has_library(folder, "cudnn")
        ),
        None,
    )


def find_nccl(folders: list[Path]) -> Path | None:
    """The first folder with NCCL's header and library."""
    return next((folder for folder in folders if has_header(folder, "nccl.h") and has_library(folder, "nccl")), None)


def compiler_packages(pins: Mapping[str, str]) -> list[str]:
    """The packages of a whole toolkit: those whose name carries no CUDA version."""
    return [name for name in pins if not re.search(r"-cu\d+$", name)]


def move_into(source: Path, target: Path) -> None:
    """Move all that is below `source` to the same place below `target`."""
    for child in sorted(source.iterdir()):
        place = target / child.name
        if place.is_dir():
            move_into(child, place)
        else:
            target.mkdir(parents=True, exist_ok=True)
            child.rename(place)


def lay_out(folder: Path) -> None:
    """Give installed packages (``nvidia/<part>/{bin,include,lib}``) the layout of a toolkit.

    The packages have only ``libx.so.13``: links give the linker the names that it looks for.
    """
    for part in sorted((folder / "nvidia").iterdir()):
        if part.is_dir():
            move_into(part, folder)
    shutil.rmtree(folder / "nvidia")
    for library in sorted((folder / "lib").glob("lib*.so.*")):
        link = library.with_name(library.name.split(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    (folder / "lib64").symlink_to("lib")


def install_packages(folder: Path, names: list[str], pins: Mapping[str, str]) -> None:
    """Make `folder` of the named packages, and of those that it was made of before; end at once where it is.

    Raises PackageError.
    """
    there = installed(folder)
    if any(there.get(name) != pins[name] for name in names):
        lines = [pins[name] for name in pins if name in names or name in there]
        otherwise = f"or name a toolkit {SERVE} with nvcc, cuBLAS and cuRAND in CUDA_HOME"
        install(folder, lines, "--target", lay_out, otherwise)


def provide(
    folder: Path, environment: Mapping[str, str], compiler_only: bool, system: Path = Path("/usr")
) -> list[Path]:
    """A toolkit's home, and unless `compiler_only` the folders of cuDNN and of NCCL. Raises PackageError."""
    pins = read_pins(REQUIREMENTS)
    toolkit = find_toolkit(environment)
    major = toolkit.version[0] if toolkit and toolkit.version else PYPI_MAJOR
    wanted = [] if toolkit else compiler_packages(pins)
    home = toolkit.home if toolkit else folder
    places = [home]
    if not compiler_only:
        # a library that stands in the system's folders goes with the system's toolkit, not with PyPI's
        theirs = [toolkit.home, system] if toolkit else []
        for package, find in (("nvidia-cudnn", find_cudnn), ("nvidia-nccl", find_nccl)):
            found = find(theirs)
            if found is None:
                wanted.append(f"{package}-cu{major}")
            places.append(found or folder)
    install_packages(folder, wanted, pins)
    if toolkit is None and (fault := inspect(folder).fault):
        raise PackageError(f"{folder}: the toolkit made of PyPI's packages {fault}; remove the folder and try again")
    return places


def main(arguments: list[str] | None = None) -> int:
    """Provide what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(description="Find a CUDA toolkit, or make one of PyPI's packages.")
    parser.add_argument("folder", type=Path, help="where a toolkit is made, if the system has none")
    parser.add_argument("--compiler-only", action="store_true", help="without cuDNN and NCCL")
    options = parser.parse_args(arguments)
    try:
        for place in provide(options.folder.resolve(), os.environ, options.compiler_only):
            print(place)
    except (PackageError, OSError) as error:
        print(f"CUDA: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
