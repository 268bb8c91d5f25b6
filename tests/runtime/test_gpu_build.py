"""A GPU that is asked for: which build serves it, and what is said where none can."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from renet.runtime import builds

REPOSITORY = Path(__file__).resolve().parents[2]
NO_SUCH_GPU = "99"
SOLVER = 'net: "net.prototxt"\nbase_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 1\nsnapshot_prefix: "x"\n'
NET = """name: "tiny"
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""

BUILDS = [
    pytest.param(
        folder,
        marks=pytest.mark.skipif(not (folder / "bin/caffe").is_file(), reason=f"{folder.name} is not built here"),
        id=folder.name,
    )
    for folder in (REPOSITORY / "build/cpu", REPOSITORY / "build/gpu")
]


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path / "solver.prototxt"


def errors_of(command: list[object], folder: Path) -> tuple[int, list[str]]:
    """Exit status, and the lines of stderr that are no log of Caffe's."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, [line for line in done.stderr.splitlines() if not re.match(r"[IWE]\d{4,8} ", line)]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    "command",
    [
        ["train", "-solver", "solver.prototxt"],
        ["time", "-model", "net.prototxt"],
        ["device_query"],
    ],
    ids=lambda command: command[0],
)
def test_caffe_says_in_one_line_that_there_is_no_such_gpu(build: Path, command: list[str], solver: Path) -> None:
    status, lines = errors_of([build / "bin/caffe", *command, "-gpu", NO_SUCH_GPU], solver.parent)
    assert status == 2
    (line,) = [line for line in lines if line.startswith("caffe: ")]
    assert line.startswith(f"caffe: GPU {NO_SUCH_GPU}: ")
    assert not any("*** Check failure" in line or "@ " in line for line in lines)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("gpus", ["first", "0,", "0x1"])
def test_caffe_says_what_no_number_of_a_gpu_is(build: Path, gpus: str, tmp_path: Path) -> None:
    status, lines = errors_of([build / "bin/caffe", "device_query", "-gpu", gpus], tmp_path)
    assert status == 2
    assert lines[-1] == f"caffe: -gpu takes numbers of GPUs, such as 0 or 0,1, or all; this is '{gpus}'"


def test_cpu_build_says_that_it_is_one(solver: Path) -> None:
    caffe = REPOSITORY / "build/cpu/bin/caffe"
    for gpus in ("0", "all"):
        _, lines = errors_of([caffe, "device_query", "-gpu", gpus], solver.parent)
        assert "caffe: GPU 0: this Caffe is built for the CPU only; `make gpu` builds one with CUDA" in lines
    solver.write_text(SOLVER + "solver_mode: GPU\n")
    status, lines = errors_of([caffe, "train", "-solver", solver], solver.parent)
    assert status == 2
    assert "caffe: GPU 0: this Caffe is built for the CPU only; `make gpu` builds one with CUDA" in lines


@pytest.mark.parametrize("build", BUILDS)
def test_pycaffe_tells_the_fault_and_set_device_dies_with_it(build: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(build / "python"), "GLOG_minloglevel": "2"}
    # Caffe ends the process before Python writes what it has printed
    code = (
        f"import caffe; print(caffe.__file__, caffe.gpu_fault({NO_SUCH_GPU}), sep='|', flush=True); "
        f"caffe.set_device({NO_SUCH_GPU})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    file, fault = done.stdout.strip().split("|")
    assert Path(file).is_relative_to(build)
    assert fault
    assert f"GPU {NO_SUCH_GPU}: {fault}" in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize("how", ["--gpu", "solver_mode"])
def test_training_says_it_before_it_makes_a_folder(how: str, solver: Path) -> None:
    arguments: list[object] = ["--solver", solver, "--run", solver.parent / "run"]
    if how == "--gpu":
        arguments += ["--gpu", NO_SUCH_GPU]
    else:
        solver.write_text(f"{SOLVER}solver_mode: GPU\ndevice_id: {NO_SUCH_GPU}\n")
    status, lines = errors_of([sys.executable, REPOSITORY / "tools/train.py", *arguments], solver.parent)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"train.py: GPU {NO_SUCH_GPU} cannot be used: ")
    assert not (solver.parent / "run").exists()


def test_command_lines_that_ask_for_a_gpu(tmp_path: Path) -> None:
    on_gpu, on_cpu = tmp_path / "gpu.prototxt", tmp_path / "cpu.prototxt"
    on_gpu.write_text("max_iter: 5\nsolver_mode: GPU  # here\n")
    on_cpu.write_text("max_iter: 5 # solver_mode: GPU\nsolver_mode: CPU\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "solver.prototxt").write_text("solver_mode: GPU\n")
    asks = builds.training_asks_for_gpu
    assert asks(["--solver", str(on_cpu), "--gpu", "0"])
    assert asks(["--solver", str(on_cpu), "--gpu=1", "--keep", "2"])
    assert asks(["--solver", str(on_gpu)])
    assert asks(["--resume", "--run", str(run)])
    assert not asks(["--solver", str(on_cpu)])
    assert not asks(["--solver", str(on_cpu), "--run", str(run)])
    assert not asks(["--solver", str(tmp_path / "missing")])
    assert not asks(["--gpu"])
    assert not asks([])


def fake_pycaffe(folder: Path) -> Path:
    (folder / "caffe").mkdir(parents=True)
    (folder / "caffe/__init__.py").write_text("")
    (folder / "caffe/_caffe.so").write_text("")
    return folder


def test_cuda_build_is_taken_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert builds.other_pycaffe(tmp_path / "nothing") is None
    built = fake_pycaffe(tmp_path / "gpu")
    assert builds.other_pycaffe(built) == str(built)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}")
    assert builds.other_pycaffe(built) == str(built)
    monkeypatch.setenv("PYTHONPATH", str(fake_pycaffe(tmp_path / "mine")))
    assert builds.other_pycaffe(built) is None


def test_program_starts_again_with_the_cuda_build(tmp_path: Path) -> None:
    built = fake_pycaffe(tmp_path / "gpu")
    (built / "caffe/__init__.py").write_text("print('CUDA build')\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, caffe\n"
        "from pathlib import Path\n"
        "from renet.runtime import builds\n"
        "other = builds.other_pycaffe\n"
        f"builds.other_pycaffe = lambda: other(Path({str(built)!r}))\n"
        "builds.restart_with_gpu_build()\n"
        "print(caffe.__file__, sys.argv[1:])\n"
    )
    done = subprocess.run([sys.executable, program, "--gpu", "0"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["CUDA build", f"{built / 'caffe/__init__.py'} ['--gpu', '0']"]
