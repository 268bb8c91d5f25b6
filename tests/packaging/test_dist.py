"""The portable archive: what is in it runs elsewhere, alone, and its set-up says what it misses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from segmentation_helpers import call_tool, only_line, write_dataset_json

from renet.common import repository
from renet.common.errors import UserError
from renet.packaging import archive
from renet.packaging.libraries import C_LIBRARY, output_of, resolved

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu"))
NETWORK = "prototxt/n_renet_small/synthetic_scenes/deploy.prototxt"
COMMIT = "0123abc"
VERSION = ".".join(map(str, sys.version_info[:2]))  # of the Python that pycaffe is built for


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the CPU's build, unpacked in another folder."""
    folder = tmp_path_factory.mktemp("a machine")
    archive = folder / "dist.tar.xz"
    command = [sys.executable, REPOSITORY / "tools" / "dist.py", "--build", BUILD, "--out", archive]
    options = ["--compression", "0", "--commit", COMMIT]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"dist\.tar\.xz: [\d.]+ MB, unpacked \d+ MB, needs glibc 2\.\d+\n", done.stdout)
    with tarfile.open(archive) as tar:
        assert not [name for name in tar.getnames() if "__pycache__" in name]
        tar.extractall(folder)
    return folder / f"renet-caffe-{repository.version()}"


def alone(folder: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the archive's folder with an emptied environment."""
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def test_programs_run(unpacked: Path) -> None:
    done = alone(unpacked, "bin/caffe", "-version")
    assert (done.returncode, done.stdout.strip()) == (0, "caffe version 1.0.0, oneDNN 2.6.0"), done.stderr
    done = alone(unpacked, "bin/benchmark_net", "-model", NETWORK, "-inputs", "data:1,3,12,16", "-repeats", "1")
    assert done.returncode == 0, done.stderr
    names = {file.name for file in (unpacked / "bin").iterdir()}
    assert {"convert_imageset", "compute_image_mean"} <= names
    assert "caffe-tests" not in names


def test_no_library_but_the_c_library_is_found_outside(unpacked: Path) -> None:
    files = [*(unpacked / "bin").iterdir(), *(unpacked / "python/caffe").glob("*.so"), *(unpacked / "lib").iterdir()]
    for file in files:
        for name, place in resolved(file).items():
            assert C_LIBRARY.fullmatch(name) or place.is_relative_to(unpacked), f"{file}: {place}"
        assert "/usr" not in output_of(["readelf", "-dW", file]), file


def test_pycaffe_and_tools_are_the_archives_own(unpacked: Path) -> None:
    code = (
        "import caffe, renet.common.repository as r; print(caffe.__file__, r.ROOT, r.version(), r.commit(), sep='\\n')"
    )
    paths = os.pathsep.join([str(unpacked), str(unpacked / "python")])
    done = alone(unpacked, sys.executable, "-c", code, PYTHONPATH=paths, GLOG_minloglevel="2")
    assert done.returncode == 0, done.stderr
    pycaffe = str(unpacked / "python/caffe/__init__.py")
    assert done.stdout.splitlines() == [pycaffe, str(unpacked), repository.version(), COMMIT]


def test_everything_has_its_place(unpacked: Path) -> None:
    assert {"LICENSE", "README.md", "INSTALL.md", "VERSION", "requirements-run.lock", "setup"} <= {
        f.name for f in unpacked.iterdir()
    }
    for name in ("tools/train.py", "data_prep/folder.py", "solvers/n_renet_stanford_background.prototxt", NETWORK):
        assert (unpacked / name).is_file()
    assert all((unpacked / name).is_dir() for name in ("data", "models", "runs"))
    licences = {file.name for file in (unpacked / "licences").iterdir()}
    assert {"renet-caffe-LICENSE", "caffe-LICENSE"} <= licences
    assert "libstdc++6-copyright" in licences
    assert any(name.startswith("libprotobuf") for name in licences)
    of_onednn = {name.rpartition("-2022.2.1-")[2] for name in licences if name.startswith("onednn_cpu_gomp-")}
    assert of_onednn == {"LICENSE", "THIRD-PARTY-PROGRAMS"}


def test_a_broken_build_is_told(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = call_tool("dist.py", "--build", tmp_path, "--folder", tmp_path / "out", cwd=tmp_path)
    assert "there is no whole build; make it first" in only_line(done, "dist.py")
    assert [file.name for file in tmp_path.iterdir()] == ["bin"]


def test_a_used_folder_is_left_alone(tmp_path: Path) -> None:
    write_dataset_json(tmp_path)
    done = call_tool("dist.py", "--folder", tmp_path, cwd=tmp_path)
    assert only_line(done, "dist.py").endswith("exists already and is not empty")


def test_without_a_licence_nothing_is_packed(tmp_path: Path) -> None:
    (tmp_path / "libmine.so.1").touch()
    with pytest.raises(UserError, match=r"libmine\.so\.1: its licence is not known"):
        archive.copy_licences(tmp_path / "licences", [tmp_path / "libmine.so.1"], REPOSITORY)
    with pytest.raises(UserError, match="nowhere/LICENSE: this licence is not there"):
        archive.copy_licences(tmp_path / "others", [], tmp_path / "nowhere")


def make_cuda_build(folder: Path) -> Path:
    """A build of empty programs that want CUDA's libraries, which are beside it as a toolkit made of wheels."""
    build, libraries = folder / "build", folder / "cuda" / "lib"
    for new in (build / "bin", build / "python/caffe", libraries):
        new.mkdir(parents=True)
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    names = ("libcudart.so.13", "libcudnn.so.9", "libcudnn_ops.so.9", "libcuda.so.1")
    for name in names:
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", source, "-o", libraries / name]
        output_of(command)
        notes = folder / "cuda" / f"nvidia_{name.partition('.')[0]}-13.0.dist-info"
        (notes / "licenses").mkdir(parents=True)
        (notes / "RECORD").write_text(f"nvidia/lib/{name},sha256=x,1\n")
        (notes / "licenses/License.txt").write_text(f"the licence of {name}\n")
    openblas = next(Path("/usr/lib").glob("*/openblas-openmp/libopenblas.so.0"))
    wanted = [libraries / names[0], libraries / names[1], libraries / names[3], openblas]
    link = ["-Wl,--no-as-needed", f"-Wl,-rpath,{libraries}:{openblas.parent}", *wanted, "-lstdc++"]
    output_of(["cc", source, "-o", build / "bin/caffe", *link])
    output_of(["cc", "-shared", "-fPIC", source, "-o", build / "python/caffe/_caffe.so", *link])
    return build


def test_cuda_libraries_are_taken_along_without_the_driver(tmp_path: Path) -> None:
    build = make_cuda_build(tmp_path)
    archive.fill_programs(tmp_path / "out", build, REPOSITORY, with_cuda=True)
    cuda = tmp_path / "out/lib/cuda"
    # no program asks for cuDNN's part: cuDNN opens it
    assert {file.name for file in cuda.iterdir()} == {"libcudart.so.13", "libcudnn.so.9", "libcudnn_ops.so.9"}
    (tmp_path / "cuda").rename(tmp_path / "gone")
    places = resolved(tmp_path / "out/bin/caffe")
    assert places["libcudart.so.13"].resolve() == cuda / "libcudart.so.13"
    text = (tmp_path / "out/licences/nvidia_libcudnn_ops-13.0-License.txt").read_text()
    assert text == "the licence of libcudnn_ops.so.9\n"


def test_cuda_libraries_stay_where_they_are_unless_asked_for(tmp_path: Path) -> None:
    archive.fill_programs(tmp_path / "out", make_cuda_build(tmp_path), REPOSITORY, with_cuda=False)
    assert not (tmp_path / "out/lib/cuda").exists()
    assert not list((tmp_path / "out/licences").glob("nvidia*"))


@pytest.fixture
def small(unpacked: Path, tmp_path: Path) -> Path:
    """The archive with requirements-run.lock emptied, to be set up in seconds; what is compiled is linked."""
    folder = tmp_path / "renet caffe"
    shutil.copytree(unpacked, folder, ignore=shutil.ignore_patterns("lib", "docs", "licences"))
    (folder / "lib").symlink_to(unpacked / "lib")
    (folder / "requirements-run.lock").write_text("")
    return folder


def bare_python() -> str:
    """A Python that has no .venv's packages."""
    return os.path.join(sysconfig.get_config_var("BINDIR"), f"python{VERSION}")


def test_set_up_once_and_wherever_it_is_moved(small: Path, tmp_path: Path) -> None:
    packages = {"PATH": os.environ["PATH"], "PYTHONPATH": sysconfig.get_path("purelib"), "GLOG_minloglevel": "2"}
    done = alone(tmp_path, small / "setup", "--python", bare_python(), "--wheels", tmp_path, **packages)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ready: bin/caffe, and 'import caffe'")
    moved = small.rename(tmp_path / "moved")
    assert alone(tmp_path, moved / "setup", **packages).stdout == "ready already: .venv\n"
    done = alone(tmp_path, moved / ".venv/bin/python", "-c", "import caffe, renet; print(caffe.__file__)", **packages)
    assert done.stdout.strip() == str(moved / "python/caffe/__init__.py"), done.stderr


def test_set_up_says_why_pycaffe_does_not_load(small: Path, tmp_path: Path) -> None:
    done = alone(tmp_path, small / "setup", "--python", bare_python(), PATH=os.environ["PATH"])
    assert done.returncode == 2
    assert done.stderr == "setup: pycaffe cannot be loaded: ModuleNotFoundError: No module named 'numpy'\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], f"there is no Python {VERSION} on the PATH"),
        (["--python", "/bin/true"], f"--python: /bin/true is no Python {VERSION}"),
        (["--wheels", "nowhere"], "--wheels: nowhere is no folder"),
        (["--wheels"], "--wheels needs a value"),
        (["--wheel=x"], "unknown argument '--wheel=x'"),
    ],
)
def test_set_up_tells_in_one_line(small: Path, tmp_path: Path, arguments: list[str], reason: str) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("dirname", "sh"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    done = alone(small, "./setup", *arguments, PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"setup: {reason}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_without_pip_is_told(small: Path, tmp_path: Path) -> None:
    python = tmp_path / f"python{VERSION}"
    python.write_text(f'#!/bin/sh\ncase "$*" in *pip*) exit 1 ;; esac\nexec {bare_python()} "$@"\n')
    python.chmod(0o755)
    done = alone(small, "./setup", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 2
    assert "has neither pip nor ensurepip: install pip for it" in done.stderr
    assert done.stderr.count("\n") == 1
