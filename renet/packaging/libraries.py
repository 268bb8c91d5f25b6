"""Libraries that a build's programs need: which those are, and how they are packed."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from renet.common.errors import UserError

NAME = "renet-caffe"  # the archive's one folder

# Never taken along: the C library, which belongs to the system's kernel and loader ...
C_LIBRARY = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|resolv|util|anl|nss_\w+|mvec))\.so\.\d+")
# ... and CUDA's, which are large and lie on every machine with a GPU that is used for computing.
CUDA_LIBRARY = re.compile(r"lib(cuda|cudart|cublas|cublasLt|curand|cudnn\w*|nccl|nvrtc|nvJitLink)\.so\.(\d+)")
# The driver is missing where there is no GPU.
DRIVER = re.compile(r"libcuda\.so\.\d+")
# OpenCV is linked with readers of maps and X-ray images, which bring more than half of all libraries' bytes, and with
# OpenGL for windows. They are replaced by libraries of the same names whose functions end the program with a line that
# says so.
LEFT_OUT = re.compile(r"lib(gdal|gdcm\w+|GLX)\.so\.[\d.]+")
CALLED_AT_START = {"GDALAllRegister"}  # by OpenCV when it lists its readers: must do nothing rather than end
# Debian's libraries of LAPACK and BLAS in this flavour have nothing that OpenBLAS itself has not.
SAME_AS_OPENBLAS = {"liblapack.so.3", "libblas.so.3"}


def output_of(command: Sequence[str | Path]) -> str:
    """Run a command and return what it prints.

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
    """List the names of the libraries that an ELF file itself asks for."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", output_of(["readelf", "-dW", file]))


def resolved(program: Path, may_miss: re.Pattern[str] = DRIVER) -> dict[str, Path]:
    """Find each library that a program needs, directly or not, as the loader does.

    Raises:
        UserError: one is missing whose name is not among those that `may_miss` matches.
    """
    places = {}
    for line in output_of(["ldd", program]).splitlines():
        name, arrow, place = line.strip().partition(" => ")
        if not arrow:
            continue
        if place.startswith("not found"):
            if not may_miss.fullmatch(name):
                raise UserError(f"{program}: its library {name} is not found")
            continue
        places[name] = Path(place.split(" (0x")[0])
    return places


class Closure:
    """Libraries that some programs need, all of them.

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


def stand_in_source(symbols: Iterable[str], library: str) -> str:
    """Write C code of a library whose functions end the program, and say why."""
    functions = "\n".join(
        f"void {symbol}(void) {{}}" if symbol in CALLED_AT_START else f'void {symbol}(void) {{ left_out("{symbol}"); }}'
        for symbol in sorted(symbols)
    )
    return f"""#include <stdio.h>
#include <stdlib.h>
static void left_out(const char* function) {{
  fprintf(stderr, "{library} is left out of this bundle: what needs it cannot be done (%s)\\n", function);
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


def make_forwarder(library: str, real: Path, place: Path) -> None:
    """Build a `library` in the file `place` that has nothing but a need of the library `real`, whose functions serve.

    Raises:
        UserError: it could not be built.
    """
    output_of(["cc", "-shared", f"-Wl,-soname,{library}", "-Wl,--no-as-needed", "-o", place, "-x", "none", real])


def copy_libraries(closure: Closure, folder: Path) -> None:
    """Copy all that is to be bundled into `folder`, and build there what replaces the rest.

    Raises:
        UserError: a replacement could not be built.
    """
    openblas = closure.bundled["libopenblas.so.0"].resolve()
    for name, place in closure.bundled.items():
        if name in SAME_AS_OPENBLAS and place.resolve().parent == openblas.parent:
            (folder / name).symlink_to("libopenblas.so.0")
        else:
            shutil.copy2(place, folder / name)
    for name, users in closure.left_out.items():
        make_stand_in(name, users, folder / name)


def versions_wanted(files: Iterable[Path], prefix: str) -> list[str]:
    """Find the newest version of each kind (GLIBC, or GLIBCXX and CXXABI) that the files ask of a library."""
    newest: dict[str, tuple[int, ...]] = {}
    for file in files:
        for kind, version in re.findall(rf"Name: ({prefix})_([\d.]+)\b", output_of(["readelf", "-VW", file])):
            newest[kind] = max(newest.get(kind, ()), tuple(map(int, version.split("."))))
    return [f"{kind}_{'.'.join(map(str, version))}" for kind, version in sorted(newest.items())]


def cache_entry(build: Path, name: str) -> str | None:
    """Read an entry of a build's CMakeCache.txt."""
    found = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    return found[1] if found else None


def pack(folder: Path, archive: Path, compression: int = 9, follow_links: bool = False, name: str = NAME) -> int:
    """Write what is in `folder` into a .tar.xz as the folder `name`, whole or not at all; return the archive's
    bytes."""
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
                tar.add(file, f"{name}/{file.name}", filter=anonymous)
        os.replace(partial, archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive.stat().st_size


def check_size(archive: Path, size: int, limit_mb: int, advice: str = "") -> None:
    """Make sure that an archive of `size` bytes is not larger than it is meant to be.

    Raises:
        UserError: it is; ends in `advice`.
    """
    if size > limit_mb * 1e6:
        raise UserError(
            f"{archive}: {size / 1e6:.1f} MB is more than the {limit_mb} MB that it is meant to have{advice}"
        )
