"""Finding a complete CUDA toolkit, and making one of packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cuda_toolkit
import pypi_packages
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

NOWHERE = Path("/nonexistent/cuda")


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_toolkit(home: Path, version: int = 12080, libraries: str = "lib64") -> Path:
    """A folder with all that a toolkit is known by."""
    write(home / "bin/nvcc")
    (home / "bin/nvcc").chmod(0o755)
    for header in cuda_toolkit.HEADERS:
        write(home / "include" / header)
    write(home / "include/cuda_runtime_api.h", f"#define CUDART_VERSION  {version}\n")
    for library in cuda_toolkit.LIBRARIES:
        write(home / libraries / f"lib{library}.so")
    return home


def add_cudnn(home: Path, major: int = 9) -> None:
    write(home / "include/cudnn_version.h", f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR 1\n")
    write(home / "lib64/libcudnn.so")


def add_nccl(home: Path) -> None:
    write(home / "include/nccl.h")
    write(home / "lib64/libnccl.so")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of pip: makes files as the packages have them, and keeps the lines that were asked for."""
    state = SimpleNamespace(calls=[], error="", interrupt=False)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        target = next(Path(word.removeprefix("--target=")) for word in command if word.startswith("--target="))
        lines = command[command.index(f"--target={target}") + 1 :]
        state.calls.append(lines)
        names = [line.split("==")[0] for line in lines]
        if any(name == "nvidia-cuda-nvcc" for name in names):
            home = make_toolkit(target / "nvidia/cu13", 13000, "lib")
            for library in cuda_toolkit.LIBRARIES:
                (home / f"lib/lib{library}.so").rename(home / f"lib/lib{library}.so.13")
        for name in names:
            if name.startswith("nvidia-cudnn"):
                write(target / "nvidia/cudnn/include/cudnn_version.h", "#define CUDNN_MAJOR 9\n")
                write(target / "nvidia/cudnn/lib/libcudnn.so.9", "cudnn")
            if name.startswith("nvidia-nccl"):
                write(target / "nvidia/nccl/include/nccl.h")
                write(target / "nvidia/nccl/lib/libnccl.so.2")
        if state.interrupt:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, bool(state.error), "", state.error)

    monkeypatch.setattr(pypi_packages.subprocess, "run", run)
    return state


@pytest.fixture(autouse=True)
def no_system_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_toolkit.candidates, "__defaults__", (NOWHERE,))


def provide(folder: Path, *, compiler_only: bool = False, system: Path = NOWHERE, **environment: str) -> list[Path]:
    return cuda_toolkit.provide(folder, {"PATH": "", **environment}, compiler_only, system)


def test_complete_toolkit_that_is_named_is_used(tmp_path: Path, pip: SimpleNamespace) -> None:
    home = make_toolkit(tmp_path / "cuda")
    add_cudnn(home)
    add_nccl(home)
    assert provide(tmp_path / "made", CUDA_HOME=str(home)) == [home, home, home]
    assert pip.calls == []
    assert not (tmp_path / "made").exists()


def test_toolkit_beside_nvcc_in_path_is_used(tmp_path: Path, pip: SimpleNamespace) -> None:
    home = make_toolkit(tmp_path / "cuda-12.8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(home / "bin/nvcc")
    assert provide(tmp_path / "made", compiler_only=True, PATH=str(tmp_path / "bin")) == [home]
    assert pip.calls == []


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("bin/nvcc", "bin/nvcc"),
        ("include/cublas_v2.h", "include/cublas_v2.h"),
        ("include/thrust/device_vector.h", "include/thrust/device_vector.h"),
        ("lib64/libcurand.so", "lib64/libcurand.so"),
    ],
)
def test_incomplete_toolkit_is_named_and_packages_serve(
    tmp_path: Path, pip: SimpleNamespace, capsys: pytest.CaptureFixture[str], lost: str, told: str
) -> None:
    home = make_toolkit(tmp_path / "cuda")
    (home / lost).unlink()
    made = tmp_path / "made"
    assert provide(made, compiler_only=True, CUDA_HOME=str(home)) == [made]
    assert f"CUDA: not used: {home} lacks {told}\n" in capsys.readouterr().err
    assert cuda_toolkit.inspect(made).fault is None


@pytest.mark.parametrize(
    ("number", "serves"), [(11070, False), (11080, True), (12090, True), (13020, True), (14000, False)]
)
def test_versions_that_serve(tmp_path: Path, number: int, serves: bool) -> None:
    fault = cuda_toolkit.inspect(make_toolkit(tmp_path / "cuda", number)).fault
    assert (fault is None) == serves
    if fault:
        assert fault == f"is CUDA {number // 1000}.{number % 1000 // 10}; 11.8 to 13.x serve"


def test_headers_of_cuda_13_and_debians_library_folder_are_known(tmp_path: Path) -> None:
    home = make_toolkit(tmp_path / "cuda", 13000, "lib/x86_64-linux-gnu")
    thrust = home / "include/thrust"
    thrust.rename(tmp_path / "thrust")
    (home / "include/cccl").mkdir()
    (tmp_path / "thrust").rename(home / "include/cccl/thrust")
    assert cuda_toolkit.inspect(home).fault is None


def test_packages_become_a_toolkit_once(tmp_path: Path, pip: SimpleNamespace) -> None:
    made = tmp_path / "made"
    assert provide(made) == [made, made, made]
    assert (made / "lib64/libcublas.so").resolve() == made / "lib/libcublas.so.13"
    assert (made / "lib/libcudnn.so").read_text() == "cudnn"
    assert (made / "include/nccl.h").is_file()
    assert (made / "bin/nvcc").stat().st_mode & 0o111
    pins = pypi_packages.read_pins(cuda_toolkit.REQUIREMENTS)
    expected = [*cuda_toolkit.compiler_packages(pins), "nvidia-cudnn-cu13", "nvidia-nccl-cu13"]
    assert pip.calls == [[pins[name] for name in expected]]
    assert provide(made) == [made, made, made]
    assert provide(made, compiler_only=True) == [made]
    assert len(pip.calls) == 1


def test_compiler_alone_takes_no_cudnn_and_gets_it_later(tmp_path: Path, pip: SimpleNamespace) -> None:
    made = tmp_path / "made"
    assert provide(made, compiler_only=True) == [made]
    assert not any("cudnn" in line or "nccl" in line for line in pip.calls[0])
    provide(made)
    assert set(pip.calls[0]) < set(pip.calls[1])


def test_system_toolkit_gets_the_libraries_of_its_version(tmp_path: Path, pip: SimpleNamespace) -> None:
    home = make_toolkit(tmp_path / "cuda", 12080)
    add_nccl(home)
    add_cudnn(home, major=8)  # too old
    made = tmp_path / "made"
    assert provide(made, CUDA_HOME=str(home)) == [home, made, home]
    assert pip.calls == [[pypi_packages.read_pins(cuda_toolkit.REQUIREMENTS)["nvidia-cudnn-cu12"]]]


def test_systems_cudnn_serves_the_systems_toolkit_alone(tmp_path: Path, pip: SimpleNamespace) -> None:
    home, system, made = make_toolkit(tmp_path / "cuda"), tmp_path / "usr", tmp_path / "made"
    add_cudnn(system)
    add_nccl(system)
    assert provide(made, system=system, CUDA_HOME=str(home)) == [home, system, system]
    assert provide(made, system=system) == [made, made, made]


def test_killed_installation_is_done_again(tmp_path: Path, pip: SimpleNamespace) -> None:
    made = tmp_path / "made"
    pip.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        provide(made)
    assert not made.exists()
    pip.interrupt = False
    assert provide(made) == [made, made, made]
    assert cuda_toolkit.inspect(made).fault is None


def test_changed_pin_replaces_the_toolkit(
    tmp_path: Path, pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    provide(made)
    other = tmp_path / "requirements.txt"
    other.write_text(cuda_toolkit.REQUIREMENTS.read_text().replace("nvidia-cublas==", "nvidia-cublas==0."))
    pins = pypi_packages.read_pins(other)
    monkeypatch.setattr(cuda_toolkit, "REQUIREMENTS", other)
    provide(made, compiler_only=True)
    assert pins["nvidia-cublas"] in pip.calls[1]
    assert pins["nvidia-cudnn-cu13"] in pip.calls[1], "what was there before is not lost"


def test_error_is_one_line_that_names_the_way_out(
    tmp_path: Path, pip: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.error = "WARNING: a proxy\nERROR: No matching distribution found for nvidia-cublas==13.0.2.14\n"
    monkeypatch.setenv("CUDA_HOME", "")
    monkeypatch.setenv("PATH", "")
    assert cuda_toolkit.main([str(tmp_path / "made")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("installing")]
    assert len(errors) == 1
    assert "No matching distribution found for nvidia-cublas==13.0.2.14" in errors[0]
    assert "11.8 to 13.x" in errors[0] and "CUDA_HOME" in errors[0]
    assert not (tmp_path / "made").exists()


def test_every_package_is_pinned() -> None:
    pins = pypi_packages.read_pins(cuda_toolkit.REQUIREMENTS)
    assert all(line.count("==") == 1 and line.split("==")[1] for line in pins.values())
    assert {f"nvidia-{what}-cu{major}" for what in ("cudnn", "nccl") for major in (11, 12, 13)} <= set(pins)


def test_a_compiler_too_new_for_cuda_11_is_told(repository: Path, tmp_path: Path) -> None:
    home = make_toolkit(tmp_path / "cuda", 11080)
    write(home / "bin/nvcc", "#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n")
    command = ["cmake", "-G", "Ninja", "-S", str(repository / "caffe_layers"), "-B", str(tmp_path / "build")]
    command += [
        "-DGPU=KERNELS",
        "-DCUDA_ARCHS=75",
    ]
    environment = os.environ | {"CUDA_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    if shutil.which("g++-11") is None:
        assert "install g++-11, or name a compiler in CUDAHOSTCXX" in " ".join(done.stderr.split())
