"""oneDNN: making its folder of packages, and what the build has of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import onednn_library
import pypi_packages
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = "lib/libdnnl.so.2"
NOTES = "onednn_cpu_gomp-1.dist-info"


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of pip: makes files below the prefix as the packages have them."""
    state = SimpleNamespace(calls=0, version=(2, 6), lost="", error="", interrupt=False)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        state.calls += 1
        prefix = next(Path(word.removeprefix("--prefix=")) for word in command if word.startswith("--prefix="))
        major, minor = state.version
        for name in ("libdnnl.so", f"libdnnl.so.{major}", f"libdnnl.so.{major}.{minor}"):
            write(prefix / "lib" / name, "the library")
        text = f"#define DNNL_VERSION_MAJOR {major}\n#define DNNL_VERSION_MINOR {minor}\n"
        write(prefix / onednn_library.VERSION_HEADER, text)
        write(prefix / "include/oneapi/dnnl/dnnl.hpp")
        for name in onednn_library.LICENCES:
            write(prefix / "share/doc/onednn" / name, name)
        write(prefix / "lib/python3.11/site-packages" / NOTES / "RECORD", "../../../lib/libdnnl.so.2,sha256=x,1\n")
        if state.lost:
            (prefix / state.lost).unlink()
        if state.interrupt:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, bool(state.error), "", state.error)

    monkeypatch.setattr(pypi_packages.subprocess, "run", run)
    return state


def error_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which making a folder ends that cannot be made."""
    assert onednn_library.main([str(folder)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("installing")]
    assert not folder.exists()
    return line


def test_packages_become_a_folder_once(tmp_path: Path, pip: SimpleNamespace) -> None:
    folder = tmp_path / "onednn"
    onednn_library.provide(folder)
    assert (folder / "include/oneapi/dnnl/dnnl.hpp").is_file()
    assert [file.name for file in (folder / "lib").iterdir()] == ["libdnnl.so.2"]
    licences = {file.name for file in (folder / NOTES / "licenses").iterdir()}
    assert licences == {"LICENSE", "THIRD-PARTY-PROGRAMS"}
    onednn_library.provide(folder)
    assert pip.calls == 1


def test_folder_of_another_clone_serves_without_network(tmp_path: Path, pip: SimpleNamespace) -> None:
    onednn_library.provide(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    pip.error = "no network"
    assert onednn_library.main([str(tmp_path / "two")]) == 0


def test_killed_installation_is_done_again(tmp_path: Path, pip: SimpleNamespace) -> None:
    folder = tmp_path / "onednn"
    pip.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        onednn_library.provide(folder)
    assert not folder.exists()
    pip.interrupt = False
    onednn_library.provide(folder)
    assert (folder / LIBRARY).read_text() == "the library"


def test_changed_pin_replaces_the_folder(tmp_path: Path, pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    onednn_library.provide(tmp_path / "onednn")
    other = tmp_path / "requirements.txt"
    other.write_text("onednn-cpu-gomp==1\n")
    monkeypatch.setattr(onednn_library, "REQUIREMENTS", other)
    onednn_library.provide(tmp_path / "onednn")
    assert pypi_packages.installed(tmp_path / "onednn") == {"onednn-cpu-gomp": "onednn-cpu-gomp==1"}


def test_without_network_what_serves_is_told(
    tmp_path: Path, pip: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.error = "WARNING: a proxy\nERROR: No matching distribution found for onednn-cpu-gomp==2022.2.1\n"
    line = error_of(tmp_path / "onednn", capsys)
    assert line.startswith("oneDNN: packages cannot be installed (No matching distribution found for onednn-cpu-gomp")
    assert line.endswith(f"without network, copy {tmp_path / 'onednn'} from another clone")


@pytest.mark.parametrize("version", [(3, 2), (3, 7), (2, 5), (1, 9)])
def test_another_onednn_is_refused(
    tmp_path: Path, pip: SimpleNamespace, capsys: pytest.CaptureFixture[str], version: tuple[int, int]
) -> None:
    pip.version = version
    line = error_of(tmp_path / "onednn", capsys)
    assert line.startswith(f"oneDNN: this is {version[0]}.{version[1]}, and 2.6 or a later 2.x is needed: ")


@pytest.mark.parametrize("lost", [LIBRARY, "share/doc/onednn/LICENSE", onednn_library.VERSION_HEADER])
def test_packages_that_lack_something_are_refused(
    tmp_path: Path, pip: SimpleNamespace, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    pip.lost = lost
    assert Path(lost).name in error_of(tmp_path / "onednn", capsys)


def test_both_packages_are_pinned_to_one_version() -> None:
    pins = pypi_packages.read_pins(onednn_library.REQUIREMENTS)
    assert set(pins) == {"onednn-cpu-gomp", "onednn-devel-cpu-gomp"}
    assert len({line.partition("==")[2] for line in pins.values()}) == 1


def test_the_build_runs_on_the_pinned_onednn_and_on_one_openmp() -> None:
    command = ["ldd", REPOSITORY / "build/cpu/bin/caffe"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    places = dict(re.findall(r"(\S+) => (\S+)", said.stdout))
    pinned = (REPOSITORY / "build/cpu").resolve().parent / "onednn" / LIBRARY
    assert Path(places["libdnnl.so.2"]).resolve() == pinned
    assert [name for name in places if re.match(r"lib(gomp|iomp5|omp)\.", name)] == ["libgomp.so.1"]
