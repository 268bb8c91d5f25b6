"""The bundle for a GPU machine, made of the CPU's build: it runs elsewhere, alone, and says what it misses."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import call_tool, only_line, write_dataset_json, write_split

from renet.common.errors import UserError
from renet.gpu_check import launcher
from renet.gpu_check.launcher import Unusable
from renet.packaging import gpu_bundle as bundle_parts
from renet.packaging import libraries

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("RENET_BUILD", REPOSITORY / "build" / "cpu"))
NETWORK = "prototxt/n_renet_small/synthetic_scenes/deploy.prototxt"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU's build, packed and unpacked in another folder."""
    for program in bundle_parts.PROGRAMS:
        if not (BUILD / "bin" / program).is_file():
            pytest.skip(f"{BUILD}/bin/{program} is not built: make caffe-tests")
    folder = tmp_path_factory.mktemp("a machine")
    archive = folder / "bundle.tar.xz"
    options = ["--build", BUILD, "--out", archive, "--compression", "0"]
    done = call_tool("gpu_bundle.py", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"{archive.stat().st_size / 1e6:.1f} MB; needs glibc 2." in done.stdout
    subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, folder], check=True)
    return folder / "renet-caffe"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose manifest may be changed; programs and libraries are links."""
    folder = tmp_path / "renet-caffe"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("lib", "programs", "test"), symlinks=True)
    for name in ("lib", "programs"):
        (folder / name).symlink_to(bundle / name)
    return folder


def alone(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the bundle with an emptied environment."""
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)


def test_caffe_runs(bundle: Path) -> None:
    done = alone(bundle, "bin/caffe", "-version")
    assert (done.returncode, done.stdout.strip()) == (0, "caffe version 1.0.0, oneDNN 2.6.0"), done.stderr


def test_a_network_is_timed(bundle: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = ["-inputs", "data:2,3,10,14", "-repeats", "3", "-json", str(result)]
    done = alone(bundle, "bin/benchmark_net", "-model", NETWORK, *options)
    assert done.returncode == 0, done.stderr
    assert "forward: " in done.stdout
    written = json.loads(result.read_text())
    assert len(written["milliseconds"]) == 3
    assert min(written["milliseconds"]) > 0
    assert [layer["type"] for layer in written["layers"]].count("ReNetLSTM") == 4


def test_tests_run_from_their_folder(bundle: Path) -> None:
    wanted = [
        *("IOTest.TestReadImageToCVMat", "HDF5DataLayerTest/0.TestRead", "DataLayerTest/0.TestReadLMDB"),
        "ReNetLayerTest/0.GradientLSTMCell",
    ]
    done = alone(bundle / "test", "../bin/caffe-tests", f"--gtest_filter={':'.join(wanted)}", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-2000:]
    assert set(re.findall(r"OK \] ([\w/.]+)", done.stdout)) == set(wanted)


def test_no_library_but_the_c_library_is_found_outside(bundle: Path) -> None:
    environment = launcher.find_environment(bundle, {})
    for program in bundle_parts.PROGRAMS:
        listed = alone(bundle, "/usr/bin/ldd", f"programs/{program}", **environment.variables).stdout
        places = dict(re.findall(r"(\S+) => (.+) \(0x", listed))
        assert "libcaffe.so.1.0.0" in places
        assert "not found" not in listed
        for name, place in places.items():
            if not libraries.C_LIBRARY.fullmatch(name) and name not in bundle_parts.COMPILER_LIBRARIES:
                assert Path(place).is_relative_to(bundle), f"{program}: {name} => {place}"


def test_the_compilers_libraries_lie_apart(bundle: Path) -> None:
    assert {file.name for file in (bundle / "lib" / "gcc").iterdir()} == set(bundle_parts.COMPILER_LIBRARIES)
    assert not set(bundle_parts.COMPILER_LIBRARIES) & {file.name for file in (bundle / "lib").iterdir()}


def test_what_only_a_left_out_library_reads_is_told(bundle: Path, tmp_path: Path) -> None:
    """A map in GDAL's format, by its first bytes, and a broken PNG: Caffe tells both, without the library."""
    assert json.loads((bundle / "manifest.json").read_text())["left_out"]
    listing, model = tmp_path / "list.txt", tmp_path / "net.prototxt"
    model.write_text(
        f'layer {{ name: "d" type: "ImageData" top: "d" top: "l" image_data_param {{ source: "{listing}" }} }}'
    )
    for name, content, words in (
        ("map.ntf", b"NITF02.10" + bytes(400), "is in no format that is read"),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + bytes(40), "Could not load"),
    ):
        (tmp_path / name).write_bytes(content)
        listing.write_text(f"{tmp_path / name} 0\n")
        done = alone(bundle, "bin/benchmark_net", "-model", str(model))
        assert done.returncode != 0
        assert words in done.stderr, done.stderr


def test_a_missing_library_is_named(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.update(needs={"libcublas.so.97": "cuBLAS 97", "libnccl.so.96": "NCCL 96"}, cuda_major=97)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = alone(copy, "bin/caffe", "-version")
    assert done.returncode == 2
    assert done.stderr.startswith("caffe: not found on this machine: libcublas.so.97 (cuBLAS 97), libnccl.so.96 (NCCL")
    assert done.stderr.count("\n") == 1


def test_found_libraries_are_on_the_path(copy: Path, tmp_path: Path) -> None:
    home = tmp_path / "cuda"
    (home / "lib64").mkdir(parents=True)
    (home / "lib64" / "libcublas.so.97").touch()
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.update(needs={"libcublas.so.97": "cuBLAS 97"}, cuda_major=97)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = alone(copy, "renet/gpu_check/launcher.py", CUDA_HOME=str(home), LD_LIBRARY_PATH="/mine")
    assert done.returncode == 0, done.stderr
    first, path = done.stdout.splitlines()
    assert first == str(home / "lib64" / "libcublas.so.97")
    places = path.partition("=")[2].split(":")
    assert places[0] == str(copy / "lib")
    assert str(home / "lib64") in places
    assert places[-1] == "/mine"


def test_a_broken_bundle_is_told(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    done = alone(copy, "bin/caffe", "-version")
    assert done.returncode == 2
    assert re.fullmatch(r"caffe: .*manifest\.json: not readable: .*\n", done.stderr)


@pytest.fixture
def python(tmp_path: Path) -> dict[str, str]:
    """A Python on PATH that has one folder of packages; the environment's variables."""
    program = tmp_path / "bin" / "python3"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho \'["", "{tmp_path / "site"}"]\'\n')
    program.chmod(0o755)
    return {"PATH": str(program.parent)}


def wheel(folder: Path, package: str, library: str, made_for: str = "") -> Path:
    """A Python package of NVIDIA's with a library; the library's folder."""
    libraries = folder / "site" / "nvidia" / package / "lib"
    libraries.mkdir(parents=True)
    (libraries / library).touch()
    if made_for:
        (folder / "site" / f"nvidia_{package}_{made_for}-1.0.dist-info").mkdir()
    return libraries


def test_python_packages_are_searched(tmp_path: Path, python: dict[str, str]) -> None:
    expected = {
        "libcublas.so.97": str(wheel(tmp_path, "cu97", "libcublas.so.97")),
        "libcudnn.so.97": str(wheel(tmp_path, "cudnn", "libcudnn.so.97", "cu97")),
    }
    wheel(tmp_path, "nccl", "libnccl.so.97", "cu12")  # for another CUDA, under the same name
    found = launcher.folders_of([*expected, "libnccl.so.97"], python, 97, {})
    assert found == expected


def test_order_of_places(tmp_path: Path, python: dict[str, str]) -> None:
    """LD_LIBRARY_PATH, the toolkit, the loader's list, Python packages."""
    name = "libcublas.so.97"
    packages = wheel(tmp_path, "cu97", name)
    own, toolkit = tmp_path / "own", tmp_path / "cuda" / "lib64"
    cache = {name: "/loader/libcublas.so.97"}
    found = [launcher.folders_of([name], python, 97, known)[name] for known in ({}, cache)]
    for folder in (toolkit, own):
        folder.mkdir(parents=True)
        (folder / name).touch()
    variables = {**python, "CUDA_HOME": str(tmp_path / "cuda")}
    found.append(launcher.folders_of([name], variables, 97, cache)[name])
    found.append(launcher.folders_of([name], {**variables, "LD_LIBRARY_PATH": str(own)}, 97, cache)[name])
    assert found == [str(packages), "/loader", str(toolkit), str(own)]


def test_c_library_is_compared_by_numbers() -> None:
    launcher.check_c_library("2.36", "glibc 2.36")
    launcher.check_c_library("2.9", "glibc 2.10")
    for present in ("glibc 2.35", "glibc 1.99", "musl 1.2", None):
        with pytest.raises(Unusable, match=r"need glibc 2\.36 or newer; this system has (glibc|musl|another)"):
            launcher.check_c_library("2.36", None if present == "musl 1.2" else present)


def test_an_old_cxx_library_gives_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libstdc++.so.6"
    library.write_bytes(b"\x7fELF\0GLIBCXX_3.4.29\0GLIBCXX_3.4.3\0CXXABI_1.3.13\0")
    monkeypatch.setattr(launcher, "SYSTEM_FOLDERS", (str(tmp_path / "none"),))
    cache = {"libstdc++.so.6": str(library)}
    assert not launcher.needs_own_cxx_library(["CXXABI_1.3.13", "GLIBCXX_3.4.29"], cache)
    assert launcher.needs_own_cxx_library(["GLIBCXX_3.4.30"], cache)
    assert launcher.needs_own_cxx_library(["GLIBCXX_3.4.2"], cache), "no part of a longer version's name"
    assert launcher.needs_own_cxx_library(["GLIBCXX_3.4.29"], {})


def test_names_of_cudas_libraries() -> None:
    names = bundle_parts.cuda_names(["libcublasLt.so.13", "libcudnn.so.9", "libcudart.so.13", "libcuda.so.1"])
    assert names == {
        "libcublasLt.so.13": "cuBLAS 13",
        "libcudnn.so.9": "cuDNN 9",
        "libcudart.so.13": "CUDA's runtime 13",
        "libcuda.so.1": "the driver",
    }


def test_cudas_libraries_stay_and_what_only_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "program": ["libcaffe.so.1", "libc.so.6"],
        "libcaffe.so.1": ["libcublas.so.13", "libglog.so.1", "libgdal.so.32", "libstdc++.so.6"],
        "libcublas.so.13": ["libcublasLt.so.13", "librt.so.1", "libonlycuda.so.1"],
        "libcublasLt.so.13": [],
        "libglog.so.1": ["libunwind.so.8"],
    }
    monkeypatch.setattr(libraries, "needed_by", lambda file: needs.get(file.name, []))
    names = {name for wanted in needs.values() for name in wanted}
    monkeypatch.setattr(libraries, "resolved", lambda program: {name: Path("/usr/lib") / name for name in names})
    closure = libraries.Closure([Path("program")])
    assert set(closure.bundled) == {"libcaffe.so.1", "libglog.so.1", "libstdc++.so.6", "libunwind.so.8"}
    assert closure.cuda == {"libcublas.so.13", "libcublasLt.so.13"}
    assert closure.left_out == {"libgdal.so.32": [Path("/usr/lib/libcaffe.so.1")]}


def test_our_suites_are_told_from_caffes(tmp_path: Path) -> None:
    (tmp_path / "test_a.cpp").write_text(
        "TEST(PlainTest, One) {}\nTYPED_TEST(TypedTest, Two) {\nTEST_F(\n    FixtureTest, Three) {}\n"
        "// TEST(Not, This)\n"
    )
    assert bundle_parts.our_test_suites(tmp_path) == ["FixtureTest", "PlainTest", "TypedTest"]
    assert "ReNetLayerTest" in bundle_parts.our_test_suites(REPOSITORY / "caffe_layers" / "tests")


def test_code_of_the_bundle_is_for_old_pythons_too() -> None:
    library = sorted((REPOSITORY / bundle_parts.LIBRARY).glob("*.py"))
    with_pytorch = {"pytorch_networks.py", "pytorch_peer.py"}
    assert with_pytorch < {file.name for file in library}
    for file in (REPOSITORY / bundle_parts.COMMAND, *library):
        text = file.read_text()
        ast.parse(text, feature_version=(3, 8))
        imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.M))
        others = {"renet", "torch"} if file.name in with_pytorch else {"renet"}
        assert imported <= {*sys.stdlib_module_names, *others}, file
        assert {"gpu_check"} >= set(re.findall(r"^from renet\.(\w+)", text, re.M)), file


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    done = call_tool("gpu_bundle.py", "--build", tmp_path, "--out", tmp_path / "b.tar.xz", cwd=tmp_path)
    assert "bin/caffe: not built" in only_line(done, "gpu_bundle.py")
    assert not list(tmp_path.iterdir())


def test_wrong_compression_is_told(tmp_path: Path) -> None:
    done = call_tool("gpu_bundle.py", "--compression", "10", cwd=tmp_path)
    assert "--compression: invalid choice: " in only_line(done, "gpu_bundle.py")


def test_an_archive_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content")
    assert libraries.pack(tmp_path / "in", tmp_path / "out" / "a.tar.xz") > 0
    with tarfile.open(tmp_path / "out" / "a.tar.xz") as tar:
        assert [(entry.name, entry.uname) for entry in tar] == [("renet-caffe/file", "root")]

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tarfile.TarFile, "add", fail)
    with pytest.raises(OSError, match="disk full"):
        libraries.pack(tmp_path / "in", tmp_path / "out" / "b.tar.xz")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.tar.xz"]


def test_a_stand_in_replaces_functions_alone(tmp_path: Path) -> None:
    def library(name: str, code: str, *options: str) -> Path:
        source, place = tmp_path / f"{name}.c", tmp_path / f"lib{name}.so"
        source.write_text(code)
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,lib{name}.so", "-o", place, source, *options]
        subprocess.run(command, check=True)
        return place

    def user(name: str, code: str) -> Path:
        return library(name, code, f"-L{tmp_path}", "-lreal", f"-Wl,-rpath,{tmp_path}")

    library("real", "int called(void) { return 1; }\nint value = 1;\nint unused(void) { return 2; }\n")
    caller = user("caller", "int called(void);\nint call(void) { return called(); }\n")
    reader = user("reader", "extern int value;\nint read_it(void) { return value; }\n")
    libraries.make_stand_in("libreal.so", [caller], tmp_path / "stand_in.so")
    assert re.findall(r" T (\w+)", libraries.output_of(["nm", "-D", tmp_path / "stand_in.so"])) == ["called"]
    with pytest.raises(UserError, match="'value', which is no function"):
        libraries.make_stand_in("libreal.so", [reader], tmp_path / "other.so")


def write_dataset(folder: Path, splits: tuple[str, ...]) -> None:
    """A prepared dataset with one small sample in each split."""
    sample = (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8))
    for split in splits:
        write_split(folder / split, {"one": sample})
    write_dataset_json(folder, splits={split: {"count": 1, "sha256": "0"} for split in splits})


def test_data_beside_the_bundle(tmp_path: Path) -> None:
    write_dataset(tmp_path / "mine", splits=("fold0/train", "fold0/test", "fold1/train"))
    archive = tmp_path / "data.tar.xz"
    done = call_tool("gpu_data.py", "--dataset", tmp_path / "mine", "--out", archive, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fold0/train (" in done.stdout
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        description = next(name for name in names if name.endswith("dataset.json"))
        content = json.load(tar.extractfile(description))
        assert all(entry.isdir() or entry.isreg() for entry in tar), "no links to this machine"
    assert set(content["splits"]) == {"fold0/train", "fold0/test"}
    base = description.removesuffix("dataset.json")
    assert base == f"renet-caffe/data/{content['name']}/"
    assert f"{base}fold0/train/images.lmdb/data.mdb" in names
    assert not any("fold1" in name for name in names)


def test_an_unknown_split_is_told(tmp_path: Path) -> None:
    write_dataset(tmp_path / "mine", splits=("train",))
    options = ["--dataset", tmp_path / "mine", "--splits", "val", "--out", tmp_path / "data.tar.xz"]
    done = call_tool("gpu_data.py", *options, cwd=tmp_path)
    assert "no split 'val'; there are train" in only_line(done, "gpu_data.py")
    assert not (tmp_path / "data.tar.xz").exists()
