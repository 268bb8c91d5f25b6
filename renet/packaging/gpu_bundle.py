"""GPU bundle: programs, their libraries, networks and tests for a bare machine."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.files import write_json
from renet.common.repository import ROOT, commit
from renet.packaging.libraries import (
    CUDA_LIBRARY,
    NAME,
    Closure,
    cache_entry,
    check_size,
    copy_libraries,
    output_of,
    pack,
    versions_wanted,
)

LIMIT_MB = 40

PROGRAMS = ("caffe", "caffe-tests", "benchmark_net")
COMMAND = "tools/gpu_check.py"
LIBRARY = "renet/gpu_check"
NETWORKS = ("prototxt", "solvers")
TEST_FILES = ("src/caffe/test/test_data", "examples/images")  # what Caffe's tests read, by their paths in its source
CUDA_NAMES = {"cuda": "the driver", "cublas": "cuBLAS", "cublasLt": "cuBLAS", "curand": "cuRAND", "nccl": "NCCL"}


# The compiler's own, of which the system's may be newer: the launcher decides.
COMPILER_LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1")


def cuda_names(libraries: Iterable[str]) -> dict[str, str]:
    """Name each of CUDA's libraries as people do: {"libcublas.so.13": "cuBLAS 13"}."""
    names = {}
    for library in sorted(libraries):
        kind, version = CUDA_LIBRARY.fullmatch(library).groups()
        product = "cuDNN" if kind.startswith("cudnn") else CUDA_NAMES.get(kind, "CUDA's runtime")
        names[library] = product if kind == "cuda" else f"{product} {version}"
    return names


def our_test_suites(folder: Path) -> list[str]:
    """List the names of the test suites in our own C++ tests."""
    names: set[str] = set()
    for file in folder.glob("test_*.cpp"):
        names |= set(re.findall(r"^(?:TYPED_)?TEST(?:_F|_P)?\(\s*(\w+)\s*,", file.read_text(), re.M))
    return sorted(names)


def fill(folder: Path, build: Path, source: Path) -> dict[str, Any]:
    """Lay the bundle out in `folder`.

    Args:
        folder: an empty folder.
        build: the build to pack, with its test program.
        source: Caffe's source, for the files that its tests read.

    Returns:
        The manifest, as written to manifest.json.

    Raises:
        UserError: something is missing in the build, or a library on this machine.
    """
    programs = [build / "bin" / name for name in PROGRAMS]
    for program in programs:
        if not program.is_file():
            raise UserError(f"{program}: not built; build it first (targets all and caffe-tests)")
    closure = Closure(programs)
    libraries, compiler_libraries = folder / "lib", folder / "lib" / "gcc"
    for new in (folder / "programs", folder / "bin", folder / "tools", folder / "runs", compiler_libraries):
        new.mkdir(parents=True)
    for program in programs:
        shutil.copy2(program, folder / "programs" / program.name)
        (folder / "bin" / program.name).symlink_to("../renet/gpu_check/launcher.py")
    copy_libraries(closure, libraries)
    for name in COMPILER_LIBRARIES:
        (libraries / name).rename(compiler_libraries / name)
    binaries = [f for f in [*libraries.rglob("*.so*"), *(folder / "programs").iterdir()] if not f.is_symlink()]
    output_of(["strip", "--strip-unneeded", *binaries])
    shutil.copy2(ROOT / COMMAND, folder / "tools")
    shutil.copytree(ROOT / LIBRARY, folder / LIBRARY, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / LIBRARY / "launcher.py").chmod(0o755)
    for name in NETWORKS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    for name in TEST_FILES:
        shutil.copytree(source / name, folder / "test" / name)
    shutil.copy2(ROOT / "docs" / "gpu.md", folder / "README.md")

    ours = [file for file in binaries if file.parent != compiler_libraries]
    cublas = next((name for name in closure.cuda if name.startswith("libcublas.so.")), None)
    manifest = {
        "name": NAME,
        "commit": commit(),
        "caffe": cache_entry(build, "CMAKE_PROJECT_VERSION") or "1.0.0",
        "cuda_architectures": cache_entry(build, "CUDA_ARCHS") if closure.cuda else None,
        "cuda_major": int(cublas.rsplit(".", 1)[1]) if cublas else None,
        "needs": cuda_names(closure.cuda),
        "glibc": versions_wanted(binaries, "GLIBC")[0].partition("_")[2],
        "cxx_versions": versions_wanted(ours, "GLIBCXX|CXXABI"),
        "left_out": sorted(closure.left_out),
        "our_test_suites": our_test_suites(ROOT / "caffe_layers" / "tests"),
        "bytes": {str(f.relative_to(folder)): f.stat().st_size for f in sorted(binaries)},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def write_bundle(archive: Path, build: Path, source: Path, compression: int = 9) -> str:
    """Fill a folder and pack it; see `fill`.

    Returns:
        The bundle's name, its size and what it needs, as text.

    Raises:
        UserError: see `fill`; or the bundle is larger than `LIMIT_MB`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / NAME
        folder.mkdir()
        manifest = fill(folder, build.resolve(), source.resolve())
        print(f"packing {sum(manifest['bytes'].values()) / 1e6:.0f} MB of programs and libraries", file=sys.stderr)
        size = pack(folder, archive, compression)
    check_size(archive, size, LIMIT_MB)
    needs = ", ".join(manifest["needs"]) or "nothing of CUDA"
    return f"{archive}: {size / 1e6:.1f} MB; needs glibc {manifest['glibc']} and {needs}"
