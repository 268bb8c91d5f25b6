"""Pack a build with its libraries, networks and tests, so that a bare machine with a GPU runs it."""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.command_line import UserError, run
from data_prep.prepare import whole_number
from tools.repository import ROOT, commit

NAME = "renet-caffe"  # the archive's one folder
PROGRAMS = ("caffe", "caffe-tests", "benchmark_net")
TOOLS = (
    *("__init__", "gpu_check", "gpu_launcher", "gpu_limits", "gpu_machine", "gpu_peer", "gpu_speed", "gpu_stages"),
    *("gpu_tests", "peer_networks"),
)
NETWORKS = ("prototxt", "solvers")
TEST_FILES = ("src/caffe/test/test_data", "examples/images")  # what Caffe's tests read, by their paths in its source
LIMIT_MB = 40

# Never taken along: the C library, which belongs to the system's kernel and loader ...
C_LIBRARY = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|anl|nss_\w+|mvec))\.so\.\d+")
# ... and CUDA's, which are large and lie on every machine with a GPU that is used for computing.
CUDA_LIBRARY = re.compile(r"lib(cuda|cudart|cublas|cublasLt|curand|cudnn\w*|nccl|nvrtc|nvJitLink)\.so\.(\d+)")
CUDA_NAMES = {"cuda": "the driver", "cublas": "cuBLAS", "cublasLt": "cuBLAS", "curand": "cuRAND", "nccl": "NCCL"}
# The compiler's own, of which the system's may be newer: the launcher decides.
COMPILER_LIBRARIES = ("libstdc++.so.6", "libgcc_s.so.1")
# OpenCV is linked with readers of maps and X-ray pictures, which bring more than half of all libraries' bytes. They are
# replaced by libraries of the same names whose functions end the program with a line that says so.
LEFT_OUT = re.compile(r"lib(gdal|gdcm\w+)\.so\.[\d.]+")
CALLED_AT_START = {"GDALAllRegister"}  # by OpenCV when it lists its readers: must do nothing rather than end
# Debian's libraries of LAPACK and BLAS in this flavour have nothing that OpenBLAS itself has not.
SAME_AS_OPENBLAS = {"liblapack.so.3", "libblas.so.3"}

EXAMPLES = """examples:
  tools/gpu_bundle.py --build build/gpu --out build/renet-caffe-gpu.tar.xz
  tools/gpu_bundle.py --build build/cpu --out build/renet-caffe-cpu.tar.xz --compression 1"""


def output_of(command: Sequence[str | Path]) -> str:
    """What a command prints.

    Raises:
        UserError: it failed or is not installed.
    """
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not installed; the packages g++ and binutils bring what this needs") from None
    if done.returncode:
        raise UserError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout).strip() or 'failed'}")
    return done.stdout


def needed_by(file: Path) -> list[str]:
    """The names of the libraries that an ELF file itself asks for."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", output_of(["readelf", "-dW", file]))


def resolved(program: Path) -> dict[str, Path]:
    """Where the loader finds each library that a program needs, directly or not.

    Raises:
        UserError: one is missing.
    """
    places = {}
    for line in output_of(["ldd", program]).splitlines():
        name, arrow, place = line.strip().partition(" => ")
        if not arrow:
            continue
        if place.startswith("not found"):
            if not name.startswith("libcuda.so"):  # the driver is missing where there is no GPU
                raise UserError(f"{program}: its library {name} is not found")
            continue
        places[name] = Path(place.split(" (0x")[0])
    return places


class Closure:
    """All libraries that some programs need.

    Attributes:
        bundled: those to take along, by name.
        cuda: the names of CUDA's.
        left_out: names to be replaced -> the libraries that ask for them.
    """

    def __init__(self, programs: Iterable[Path]) -> None:
        """Follow what the programs need.

        Raises:
            UserError: a library is missing.
        """
        self.bundled: dict[str, Path] = {}
        self.cuda: set[str] = set()
        self.left_out: dict[str, list[Path]] = {}
        for program in programs:
            self._follow(program, resolved(program))

    def _follow(self, file: Path, places: dict[str, Path]) -> None:
        for name in needed_by(file):
            if C_LIBRARY.fullmatch(name) or name in self.bundled:
                continue
            if CUDA_LIBRARY.fullmatch(name):
                if name not in self.cuda:
                    self.cuda.add(name)
                    if name in places:
                        self._follow(places[name], places)
            elif LEFT_OUT.fullmatch(name):
                self.left_out.setdefault(name, []).append(file)
            else:
                # CUDA's libraries are not ours, and neither is what only they need
                if CUDA_LIBRARY.match(file.name):
                    continue
                self.bundled[name] = places[name]
                self._follow(places[name], places)


def cuda_names(libraries: Iterable[str]) -> dict[str, str]:
    """What a person calls each of CUDA's libraries: {"libcublas.so.13": "cuBLAS 13"}."""
    names = {}
    for library in sorted(libraries):
        kind, version = CUDA_LIBRARY.fullmatch(library).groups()
        product = "cuDNN" if kind.startswith("cudnn") else CUDA_NAMES.get(kind, "CUDA's runtime")
        names[library] = product if kind == "cuda" else f"{product} {version}"
    return names


def stand_in_source(symbols: Iterable[str], library: str) -> str:
    """C code of a library whose functions end the program, and say why."""
    functions = "\n".join(
        f"void {symbol}(void) {{}}" if symbol in CALLED_AT_START else f'void {symbol}(void) {{ left_out("{symbol}"); }}'
        for symbol in sorted(symbols)
    )
    return f"""#include <stdio.h>
#include <stdlib.h>
static void left_out(const char* function) {{
  fprintf(stderr, "{library} is left out of this bundle: images in its formats cannot be read (%s)\\n", function);
  exit(1);
}}
{functions}
"""


def make_stand_in(library: str, users: Iterable[Path], place: Path) -> None:
    """Build a replacement for `library` in the file `place`.

    Raises:
        UserError: it could not be built, or something other than a function is asked of the library.
    """
    real = None
    wanted: set[str] = set()
    for user in users:
        real = real or resolved(user)[library]
        asked = set(re.findall(r" U (\S+)", output_of(["nm", "-D", "--undefined-only", user])))
        defined = output_of(["nm", "-D", "--defined-only", real])
        kinds = {symbol.split("@")[0]: kind for kind, symbol in re.findall(r"^\w+ (\w) (\S+)", defined, re.M)}
        for symbol in asked & kinds.keys():
            if kinds[symbol] not in "TWi":
                raise UserError(f"{user}: asks {library} for '{symbol}', which is no function: it cannot be replaced")
            wanted.add(symbol)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "stand_in.c"
        source.write_text(stand_in_source(wanted, library))
        output_of(["cc", "-w", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", place, source])


def versions_wanted(files: Iterable[Path], prefix: str) -> list[str]:
    """The newest version of each kind (GLIBC, or GLIBCXX and CXXABI) that the files ask of a library."""
    newest: dict[str, tuple[int, ...]] = {}
    for file in files:
        for kind, version in re.findall(rf"Name: ({prefix})_([\d.]+)\b", output_of(["readelf", "-VW", file])):
            newest[kind] = max(newest.get(kind, ()), tuple(map(int, version.split("."))))
    return [f"{kind}_{'.'.join(map(str, version))}" for kind, version in sorted(newest.items())]


def our_test_suites(folder: Path) -> list[str]:
    """The names of the test suites in our own C++ tests."""
    names: set[str] = set()
    for file in folder.glob("test_*.cpp"):
        names |= set(re.findall(r"^(?:TYPED_)?TEST(?:_F|_P)?\(\s*(\w+)\s*,", file.read_text(), re.M))
    return sorted(names)


def cache_entry(build: Path, name: str) -> str | None:
    """An entry of a build's CMakeCache.txt."""
    found = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    return found[1] if found else None


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
        (folder / "bin" / program.name).symlink_to("../tools/gpu_launcher.py")
    openblas = closure.bundled["libopenblas.so.0"].resolve()
    for name, place in closure.bundled.items():
        if name in SAME_AS_OPENBLAS and place.resolve().parent == openblas.parent:
            (libraries / name).symlink_to("libopenblas.so.0")
        else:
            shutil.copy2(place, (compiler_libraries if name in COMPILER_LIBRARIES else libraries) / name)
    for name, users in closure.left_out.items():
        make_stand_in(name, users, libraries / name)
    binaries = [f for f in [*libraries.rglob("*.so*"), *(folder / "programs").iterdir()] if not f.is_symlink()]
    output_of(["strip", "--strip-unneeded", *binaries])
    for name in TOOLS:
        shutil.copy2(ROOT / "tools" / f"{name}.py", folder / "tools")
    (folder / "tools" / "gpu_launcher.py").chmod(0o755)
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
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def pack(folder: Path, archive: Path, compression: int = 9, follow_links: bool = False) -> int:
    """Write what is in `folder` into a .tar.xz as the folder NAME, whole or not at all; the archive's bytes."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f"{archive.name}.part")

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    try:
        # the first filter makes the addresses in x86 code alike, and every xz undoes it
        filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": compression}]
        with (
            lzma.open(partial, "wb", filters=filters) as stream,
            tarfile.open(fileobj=stream, mode="w|", dereference=follow_links) as tar,
        ):
            for file in sorted(folder.iterdir()):
                tar.add(file, f"{NAME}/{file.name}", filter=anonymous)
        os.replace(partial, archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive.stat().st_size


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
