"""The wheel: what pip installs of it works alone, beside other packages, and writes where its user stands."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from renet.common import commands, repository
from renet.common.commands import COMMANDS, as_typed
from renet.common.errors import UserError
from renet.packaging.libraries import C_LIBRARY, needed_by
from renet.packaging.wheel import write_wheel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# what every wheel of this kind may count on, of what is not the C library's
ON_EVERY_SYSTEM = {"libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"}
# what each package computes, once all are imported
PASSES = {
    "torch": ["torch.ones(300, 300).mm(torch.ones(300, 300)).sum()"],
    "cv2": [
        "cv2.solve(numpy.eye(99), numpy.ones((99, 1)), flags=cv2.DECOMP_SVD)",
        "cv2.resize(numpy.ones((99, 99)), (300, 300))",
    ],
    "onnx": [
        """model = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'""",
        "onnx.checker.check_model(onnx.parser.parse_model(model))",
    ],
    "caffe": [
        f"folder = {str(REPOSITORY / 'prototxt/n_renet_small/synthetic_scenes')!r}",
        "caffe.Net(folder + '/deploy.prototxt', caffe.TEST).forward()",
    ],
}
TORCH = os.environ.get("RENET_TORCH")  # where PyTorch is installed, which is no part of the tests' environment


def is_there(package: str) -> bool:
    return package == "caffe" or find_spec(package) is not None or bool(TORCH and (Path(TORCH) / package).is_dir())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, REPOSITORY / "tools" / "wheel.py", "--build", BUILD, "--out", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    assert done.stdout.startswith(f"{made}: ")
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the wheel into, with the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("site packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--target", folder, wheel], check=True, timeout=300)
    return folder


def call(installed: Path, folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the installation, or this Python with it, in a folder."""
    program, *arguments = command
    if (installed / "bin" / program).exists():
        arguments = [installed / "bin" / program, *arguments]
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, *arguments]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_it_is_named_for_this_python_and_an_old_enough_c_library(wheel: Path) -> None:
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    found = re.fullmatch(rf"renet_caffe-([\d.]+)-{python}-{python}-manylinux_2_(\d+)_x86_64\.whl", wheel.name)
    assert found, wheel.name
    assert found[1] == repository.version()
    assert int(found[2]) <= int(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])


def test_it_has_licences_and_no_file_of_the_repository_alone(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    licences = {Path(name).name for name in names if name.startswith("renet_caffe/licences/")}
    assert {"caffe-LICENSE", "renet-caffe-LICENSE"} <= licences
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    scripts = {name.removeprefix("renet_caffe/") for name in names if re.match(r"renet_caffe/.*\.py$", name)}
    assert scripts == set(COMMANDS.values())
    assert not [name for name in names if "__pycache__" in name]
    assert "renet_caffe/solvers/n_renet_stanford_background.prototxt" in names
    assert "renet_caffe/prototxt/n_renet/stanford_background/deploy.prototxt" in names


def test_no_library_but_every_systems_is_found_outside(installed: Path) -> None:
    inside = {file.name for file in installed.rglob("*.so*")}
    assert len(inside) > 40
    for file in installed.rglob("*.so*"):
        outside = {name for name in needed_by(file) if name not in inside and not C_LIBRARY.fullmatch(name)}
        assert outside <= ON_EVERY_SYSTEM, file


def test_caffe_and_the_library_are_the_installations(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "python", "-c", "import caffe, renet; print(caffe.__file__, renet.__file__)")
    assert done.stdout.split("\n")[0].count(str(installed)) == 2, done
    assert call(installed, tmp_path, "caffe", "-version").stdout == "caffe version 1.0.0, oneDNN 2.6.0\n"


def test_caffes_program_runs_layers_in_python(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "doubling.py").write_text(
        "import caffe\n\n\nclass Doubling(caffe.Layer):\n    def setup(self, bottom, top):\n        pass\n\n"
        "    def reshape(self, bottom, top):\n        top[0].reshape(*bottom[0].shape)\n\n"
        "    def forward(self, bottom, top):\n        top[0].data[...] = 2 * bottom[0].data\n\n"
        "    def backward(self, top, propagate_down, bottom):\n        pass\n"
    )
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 3 } '
        'data_filler { type: "constant" value: 21 } } }\n'
        'layer { name: "y" type: "Python" bottom: "x" top: "y" python_param { module: "doubling" '
        'layer: "Doubling" } }\n'
    )
    environment = os.environ | {"PYTHONPATH": f"{installed}:{tmp_path}"}
    command = [sys.executable, installed / "bin" / "caffe", "time", "-model", "net.prototxt", "-iterations", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "*** Benchmark ends ***" in done.stderr


def test_caffes_program_answers_as_it_does_elsewhere(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "caffe", "train", "-solver", "missing.prototxt")
    assert done.returncode == -6  # Caffe's CHECK
    assert "missing.prototxt" in done.stderr


def test_the_whole_path_leaves_everything_where_its_user_stands(installed: Path, tmp_path: Path) -> None:
    before = sorted(installed.rglob("*"))
    done = call(installed, tmp_path, "renet-demo", "--short", "demo")
    assert done.returncode == 0, done.stderr
    assert "$ renet-train --solver " in done.stdout
    assert "tools/" not in done.stdout and ".venv" not in done.stdout
    assert (tmp_path / "demo" / "index.html").is_file()
    assert sorted(installed.rglob("*")) == before
    assert [file.name for file in tmp_path.iterdir()] == ["demo"]


def test_a_shipped_solver_is_found_under_its_name_in_the_repository(installed: Path, tmp_path: Path) -> None:
    scenes = ("--out", "data/synthetic_scenes", "--train", "4", "--test", "2")
    done = call(installed, tmp_path, "renet-convert-synthetic-scenes", *scenes)
    assert done.returncode == 0, done.stderr
    solver = ("--solver", "solvers/conv_small_synthetic_scenes.prototxt", "--iterations", "2")
    done = call(installed, tmp_path, "renet-train", *solver)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/conv_small_synthetic_scenes/snapshots").is_dir()


def test_commands_are_named_as_they_are_typed(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "renet-train", "--solver", "none.prototxt")
    assert (done.returncode, done.stderr) == (2, "renet-train: none.prototxt: no such file\n")
    for name in COMMANDS:
        done = call(installed, tmp_path, name, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {name} ")
        assert not re.search(r"\.venv|tools/\w+\.py|prototxt/generate", done.stdout), name


@pytest.mark.parametrize("order", list(itertools.permutations(PASSES)), ids="-".join)
def test_nothing_clashes_with_other_packages_libraries(order: tuple[str, ...], installed: Path, tmp_path: Path) -> None:
    """One process imports them in every order, and computes with each, twice."""
    missing = [name for name in order if not is_there(name)]
    if missing and order[: len(missing)] != tuple(missing):
        pytest.skip(f"without {', '.join(missing)} this order is another one, too")
    if missing and TORCH is None:
        print(f"without {', '.join(missing)}: RENET_TORCH names a folder that has it")
    there = [name for name in order if name not in missing]
    lines = [f"import {name}" for name in there] + ["import numpy"]
    lines += 2 * [line for name in there for line in PASSES[name]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(installed), TORCH]))}
    words = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_entry_points_are_the_commands_of_the_table() -> None:
    assert PROJECT["scripts"] == dict.fromkeys(COMMANDS, "renet.common.commands:main")
    scripts = {
        file.relative_to(REPOSITORY).as_posix()
        for folder in ("tools", "data_prep")
        for file in (REPOSITORY / folder).glob("*.py")
    }
    of_the_repository = {
        f"tools/{name}.py" for name in ("benchmark", "dist", "gpu_bundle", "gpu_check", "gpu_data", "results", "wheel")
    }
    assert scripts | {"prototxt/generate.py"} == set(COMMANDS.values()) | of_the_repository


def test_dependencies_are_those_of_requirements_txt() -> None:
    text = (REPOSITORY / "requirements.txt").read_text()
    library = text.partition("# What those need")[0]
    service = text.partition("(the extra `serve`)")[2].partition("# What that needs")[0]
    of_service = PROJECT["optional-dependencies"]["serve"]
    for part, declared in ((library, PROJECT["dependencies"]), (service, of_service)):
        pinned = {Requirement(line).name for line in part.splitlines() if line and not line.startswith("#")}
        wanted = {each.name: each for each in map(Requirement, declared)}
        assert set(wanted) == pinned
        for name, each in wanted.items():
            assert installed_version(name) in each.specifier


def test_only_installations_name_commands_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ".venv/bin/python tools/train.py --resume, folder.py, prototxt/generate.py, pack.py and setup.py"
    assert as_typed(text) == text
    monkeypatch.setattr(commands, "INSTALLED", True)
    assert as_typed(text) == "renet-train --resume, renet-convert-folder, renet-generate, renet-pack and setup.py"


def test_without_a_build_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no whole build; make it first \(make caffe\)"):
        write_wheel(tmp_path, tmp_path / "build", tmp_path)


def test_the_build_of_another_repository_is_left_alone(tmp_path: Path) -> None:
    build = tmp_path / "build"
    (build / "python/caffe").mkdir(parents=True)
    (build / "python/caffe/_caffe.so").touch()
    cache = build / "CMakeCache.txt"
    cache.write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere/caffe_layers\n")
    with pytest.raises(UserError, match=r"is made of /elsewhere/caffe_layers, not of this repository"):
        write_wheel(tmp_path / "dist", build, tmp_path)
    assert sorted(tmp_path.rglob("*.*")) == [cache, build / "python/caffe/_caffe.so"]
