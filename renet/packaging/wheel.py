"""Wheel of a build: Caffe, pycaffe, the library, networks and commands, for `pip install`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import ROOT, commit
from renet.packaging.archive import copy_licences, write_version
from renet.packaging.libraries import (
    SAME_AS_OPENBLAS,
    Closure,
    cache_entry,
    check_size,
    make_forwarder,
    make_stand_in,
)

LIMIT_MB = 60
LAID_BESIDE = "wheel"  # folder of a build whose content is installed beside tools/ and prototxt/


def _run(command: Sequence[str | Path], more_environment: Mapping[str, str], log: Path) -> str:
    """Run a program in the repository's root, and return what it said.

    Raises:
        UserError: it failed; its words are in `log`.
    """
    words = list(map(str, command))
    environment = os.environ | more_environment
    done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "it said nothing")
        raise UserError(f"{' '.join(words[:4])} failed: {last.strip()}; its log is {log}")
    return done.stdout


def replace_libraries(closure: Closure, folder: Path) -> None:
    """Build into `folder` what a wheel has in place of large libraries that Caffe does not use.

    Raises:
        UserError: one could not be built.
    """
    folder.mkdir()
    for name, users in closure.left_out.items():
        make_stand_in(name, users, folder / name)
    for name in SAME_AS_OPENBLAS & closure.bundled.keys():
        make_forwarder(name, closure.bundled["libopenblas.so.0"], folder / name)


def describe(build: Path, closure: Closure, source: Path) -> None:
    """Lay the version and the licences of all that the wheel will hold into the build, to be installed with it.

    Raises:
        UserError: a licence is not to be had.
    """
    beside = build / LAID_BESIDE
    beside.mkdir(exist_ok=True)
    write_version(beside, commit())
    licences = beside / "licences"
    shutil.rmtree(licences, ignore_errors=True)
    taken = [place for name, place in closure.bundled.items() if name not in SAME_AS_OPENBLAS]
    copy_licences(licences, taken, source)


def write_wheel(folder: Path, build: Path, source: Path) -> str:
    """Make the wheel of `build` for the Python that runs this.

    Args:
        folder: where to.
        build: the CPU build; what its wheel holds is built there first.
        source: Caffe's source, for its licence.

    Returns:
        The wheel's name and size, as text.

    Raises:
        UserError: there is no build, or it is another repository's; a step failed, or the wheel is larger than
            `LIMIT_MB`.
    """
    extensions = list(build.glob("python/caffe/_caffe*.so"))
    if not extensions:
        raise UserError(f"{build}: there is no whole build; make it first (make caffe)")
    # of another one it would become this one's
    sources = cache_entry(build, "CMAKE_HOME_DIRECTORY")
    if sources != str(ROOT / "caffe_layers"):
        raise UserError(f"{build}: is made of {sources}, not of this repository; make one of its own (make caffe)")
    closure = Closure(extensions)
    describe(build, closure, source)
    logs = build.parent / "logs"
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain"
        choices = {
            "wheel.cmake": "true",
            "build-dir": build,
            "build.targets": "all;program",
            "install.strip": "true",
        }
        command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", plain]
        for name, value in choices.items():
            command += ["--config-settings", f"{name}={value}"]
        _run([*command, "."], {}, logs / "wheel.log")
        (made,) = plain.glob("*.whl")
        libraries = Path(scratch) / "libraries"
        replace_libraries(closure, libraries)
        found = os.pathsep.join([str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        environment = {
            "LD_LIBRARY_PATH": found,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        repair = ["auditwheel", "repair", "--strip", "--wheel-dir", folder, made]
        said = _run(repair, environment, logs / "auditwheel.log")
    name = re.search(r"(\S+\.whl)\s*$", said.strip())
    wheel = folder / Path(name[1]).name
    check_size(wheel, wheel.stat().st_size, LIMIT_MB)
    return f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB"
