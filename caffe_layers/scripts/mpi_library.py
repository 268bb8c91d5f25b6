"""Compile the library that knows MPI, by MPI's own compiler.

Usage: ``python3 mpi_library.py MPICXX LIBRARY``. `make mpi` calls it. The library remembers which MPI it was built for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

LAYERS = Path(__file__).resolve().parent.parent
SOURCE = LAYERS / "src/caffe/distributed/mpi_collective.cpp"
# tells the version of the MPI that a program finds when it runs
VERSION_SOURCE = """
#include <mpi.h>
#include <cstdio>
int main() {
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(version, &length);
  fwrite(version, 1, length, stdout);
}
"""


def version_of(compiler: str) -> str:
    """Ask the compiler's MPI for its name and version, such as `Open MPI v5.0.11`."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "version.cpp", Path(folder) / "version"
        source.write_text(VERSION_SOURCE)
        subprocess.run([compiler, "-o", program, source], check=True)
        told = subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout
    return " ".join(told.split(",")[0].split("\n")[0].replace("\0", "").split())


def build(compiler: str, library: Path) -> None:
    """Write the library, whole or not at all."""
    version = version_of(compiler)
    beside = library.with_name(f".{library.name}.{os.getpid()}")
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", f'-DCAFFE_MPI_VERSION="{version}"']
    subprocess.run([compiler, *options, f"-I{LAYERS / 'include'}", "-o", beside, SOURCE], check=True)
    beside.replace(library)
    print(f"{library}: for {version}")


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
