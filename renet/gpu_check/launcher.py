#!/usr/bin/env python3
"""Starts the bundle's programs on a machine that has none of Caffe's dependencies.

`bin/caffe`, `bin/caffe-tests` and `bin/benchmark_net` are links to this file: it finds CUDA's libraries where they are,
sets LD_LIBRARY_PATH and becomes the program of its own name in `programs/`. Called as itself it tells what it found.

It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

BUNDLE = Path(__file__).resolve().parents[2]
EXIT_UNUSABLE = 2
SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib")
# Mounted there by container runtimes, without an entry in the loader's cache.
DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/lib/wsl/lib")


class Unusable(Exception):
    """This machine cannot run the bundle; the message is one line that says what is missing."""


class Environment(NamedTuple):
    """What a program of the bundle needs to start.

    Attributes:
        variables: the environment's variables, LD_LIBRARY_PATH among them.
        libraries: the folder in which each of CUDA's libraries was found.
    """

    variables: dict[str, str]
    libraries: dict[str, str]


def read_manifest(bundle: Path = BUNDLE) -> dict:
    """The content of manifest.json; raises Unusable where there is none."""
    try:
        return json.loads((bundle / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise Unusable(f"{bundle / 'manifest.json'}: not readable: {error}") from None


def loader_cache() -> dict[str, str]:
    """Every library that the system's loader finds by itself: name -> path (`ldconfig -p`)."""
    for program in ("ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"):
        try:
            listed = subprocess.run([program, "-p"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        found: dict[str, str] = {}
        for line in listed.stdout.decode(errors="replace").splitlines():
            match = re.match(r"\s+(\S+) \(libc6,x86-64.*\) => (\S+)", line)
            if match:
                found.setdefault(match.group(1), match.group(2))
        return found
    return {}


def toolkit_folders(variables: Mapping[str, str]) -> Iterator[str]:
    """Where CUDA toolkits keep their libraries; CUDA_HOME's first, then newer before older ones."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variables.get(variable):
            for name in ("lib64", "lib", "targets/x86_64-linux/lib"):
                yield os.path.join(variables[variable], name)
    for pattern in ("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/x86_64-linux/lib", "/opt/cuda*/lib64"):
        yield from sorted(glob.glob(pattern), reverse=True)


def pythons(variables: Mapping[str, str]) -> Iterator[str]:
    """Every Python of this machine that a command can name, each once; the one that runs this first."""
    seen = set()
    folders = variables.get("PATH", os.defpath).split(os.pathsep)
    for python in [sys.executable, *(os.path.join(f, name) for f in folders for name in ("python3", "python"))]:
        # not the link's end: a virtual environment's python is a link, and has other packages than what it leads to
        if python and python not in seen and os.access(python, os.X_OK):
            seen.add(python)
            yield python


def wheel_folders(variables: Mapping[str, str], cuda_major: int | None) -> Iterator[str]:
    """The libraries' folders of NVIDIA's Python packages (`nvidia/*/lib`), such as PyTorch brings.

    Args:
        variables: the environment's variables.
        cuda_major: packages made for another CUDA are left out, for their libraries' names can be the same.
    """
    seen = set()
    for python in pythons(variables):
        try:
            asked = subprocess.run(
                [python, "-c", "import json, sys; print(json.dumps(sys.path))"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=60,
            )
            places = json.loads(asked.stdout.decode())
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        for place in places:
            if not place or place in seen:
                continue
            seen.add(place)
            for folder in sorted(glob.glob(os.path.join(glob.escape(place), "nvidia", "*", "lib"))):
                package = os.path.basename(os.path.dirname(folder))
                made_for = [
                    int(re.search(r"_cu(\d+)-", path).group(1))
                    for path in glob.glob(os.path.join(glob.escape(place), f"nvidia_{package}_cu[0-9]*-*.dist-info"))
                ]
                if cuda_major is None or not made_for or cuda_major in made_for:
                    yield folder


def folders_of(
    needed: Iterable[str], variables: Mapping[str, str], cuda_major: int | None, cache: Mapping[str, str]
) -> dict[str, str]:
    """The folder of each library of `needed` that this machine has.

    LD_LIBRARY_PATH's folders come first, then toolkits, the loader's own places, and Python packages.
    """
    missing = set(needed)
    found: dict[str, str] = {}

    def look(folders: Iterable[str]) -> None:
        for folder in folders:
            if not missing:
                return
            for name in sorted(missing):
                if os.path.isfile(os.path.join(folder, name)):
                    found[name] = folder
                    missing.discard(name)

    look(folder for folder in variables.get("LD_LIBRARY_PATH", "").split(":") if folder)
    look(toolkit_folders(variables))
    for name in sorted(missing & set(cache)):
        found[name] = os.path.dirname(cache[name])
        missing.discard(name)
    look(DRIVER_FOLDERS)
    look(wheel_folders(variables, cuda_major))
    return found


def needs_own_cxx_library(wanted: Iterable[str], cache: Mapping[str, str]) -> bool:
    """Whether the system's libstdc++ is missing or lacks one of the versions `wanted` (`GLIBCXX_3.4.30`).

    A newer one of the system is taken rather than the bundle's, for the system's other libraries may need it.
    """
    places = [cache["libstdc++.so.6"]] if "libstdc++.so.6" in cache else []
    places += [os.path.join(folder, "libstdc++.so.6") for folder in SYSTEM_FOLDERS]
    for place in places:
        try:
            content = Path(place).read_bytes()
        except OSError:
            continue
        return not all(version.encode() + b"\0" in content for version in wanted)
    return True


def check_c_library(wanted: str, present: str | None) -> None:
    """Raise Unusable where the C library `present` ("glibc 2.31") is older than `wanted` ("2.36")."""
    match = re.match(r"glibc (\d+)\.(\d+)", present or "")
    if not match or (int(match.group(1)), int(match.group(2))) < tuple(map(int, wanted.split("."))):
        raise Unusable(f"the programs need glibc {wanted} or newer; this system has {present or 'another C library'}")


def c_library() -> str | None:
    """The C library's name and version, as in "glibc 2.36"; None where it is another one."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None


def find_environment(bundle: Path = BUNDLE, variables: Mapping[str, str] | None = None) -> Environment:
    """What the bundle's programs need to start here.

    Raises:
        Unusable: this machine lacks something; the message names it.
    """
    manifest = read_manifest(bundle)
    variables = dict(os.environ if variables is None else variables)
    check_c_library(manifest["glibc"], c_library())
    cache = loader_cache()
    needs: dict[str, str] = manifest["needs"]
    libraries = folders_of(needs, variables, manifest["cuda_major"], cache)
    missing = [f"{name} ({needs[name]})" for name in sorted(needs) if name not in libraries]
    if missing:
        raise Unusable(
            f"not found on this machine: {', '.join(missing)}; looked in LD_LIBRARY_PATH, CUDA_HOME, /usr/local/cuda*,"
            " ldconfig's list and nvidia/*/lib of every python3 on PATH (CUDA_HOME or LD_LIBRARY_PATH can name a place)"
        )
    path = [str(bundle / "lib")]
    if needs_own_cxx_library(manifest["cxx_versions"], cache):
        path.append(str(bundle / "lib" / "gcc"))
    by_itself = {os.path.dirname(place) for place in cache.values()}
    path += sorted({folder for folder in libraries.values() if folder not in by_itself})
    path += [folder for folder in DRIVER_FOLDERS if os.path.isdir(folder)]
    path += [folder for folder in variables.get("LD_LIBRARY_PATH", "").split(":") if folder]
    variables["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys(path))
    return Environment(variables, libraries)


def main(arguments: list[str]) -> int:
    """Become the program that this file was called as, or tell what was found."""
    name = os.path.basename(arguments[0])
    try:
        environment = find_environment()
        program = BUNDLE / "programs" / name
        if name == Path(__file__).resolve().name:
            for library, folder in sorted(environment.libraries.items()):
                print(os.path.join(folder, library))
            print(f"LD_LIBRARY_PATH={environment.variables['LD_LIBRARY_PATH']}")
            return 0
        os.execve(str(program), [str(program), *arguments[1:]], environment.variables)
    except Unusable as error:
        print(f"{name}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{name}: {error.filename}: {error.strerror}", file=sys.stderr)
    return EXIT_UNUSABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv))
