"""The build: source, manifest, overlay of patches and messages, and what the built tree offers."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import fetch_source
import merge_proto
import prepare_source
import pytest
import python_messages
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]

CAFFE_PROTO = """syntax = "proto2";

package caffe;

message LayerParameter {
  optional string name = 1;
  optional SwishParameter swish_param = 147;
}

message SwishParameter {
  optional float beta = 1;
}

message BatchNormParameter {
}

message ConvolutionParameter {
}

message ImageDataParameter {
}

message LossParameter {
}

message SolverParameter {
}

message SolverState {
}

message V1LayerParameter {
}
"""


def small_tree(folder: Path) -> dict[str, str]:
    """A tree of three files that stands for Caffe's; its manifest."""
    for name, text in {
        "src/caffe/net.cpp": "int net;\n",
        "src/caffe/proto/caffe.proto": CAFFE_PROTO,
        "include/with a space.hpp": "\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {str(path.relative_to(folder)): fetch_source.sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree that is taken for the pinned source, with no patches."""
    source = tmp_path / "source"
    manifest = small_tree(source)
    listing = tmp_path / "manifest.sha256"
    listing.write_text("".join(f"{digest}  {name}\n" for name, digest in manifest.items()))
    monkeypatch.setattr(fetch_source, "read_manifest", lambda: manifest)
    monkeypatch.setattr(prepare_source, "MANIFEST", listing)
    monkeypatch.setattr(prepare_source, "patches", list)
    monkeypatch.setenv("CAFFE_SOURCE", str(source))
    return source


def test_manifest_lists_what_is_compiled() -> None:
    manifest = fetch_source.read_manifest()
    assert {"src/caffe/net.cpp", "python/caffe/_caffe.cpp", "tools/caffe.cpp", "LICENSE"} <= set(manifest)
    assert "examples/images/cat gray.jpg" in manifest
    assert all(len(digest) == 64 for digest in manifest.values())


@pytest.mark.parametrize("form", ["folder", "flat tarball", "repository tarball"])
def test_each_form_of_the_source_gives_the_manifests_files(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    manifest = small_tree(source)
    (source / "notes.txt").write_text("not in the manifest")
    given = source
    if form != "folder":
        given = tmp_path / "caffe.tar.gz"
        with tarfile.open(given, "w:gz") as archive:
            archive.add(source, arcname="." if form == "flat tarball" else "caffe-99bd997")
    target = tmp_path / "target"
    fetch_source.unpack(given, target, manifest)
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == set(manifest)


def test_changed_or_incomplete_source_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    manifest = small_tree(source)
    (source / "src/caffe/net.cpp").write_text("int other;\n")
    with pytest.raises(fetch_source.SourceError, match=r"changed: src/caffe/net\.cpp"):
        fetch_source.unpack(source, tmp_path / "target", manifest)
    (source / "src/caffe/net.cpp").unlink()
    with pytest.raises(fetch_source.SourceError, match=r"missing: src/caffe/net\.cpp"):
        fetch_source.unpack(source, tmp_path / "target", manifest)
    assert not (tmp_path / "target").exists()


def test_broken_tarball_and_wrong_path_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "caffe.tar.gz"
    broken.write_bytes(b"\x1f\x8b not a tarball")
    with pytest.raises(fetch_source.SourceError, match=r"caffe\.tar\.gz: cannot be unpacked"):
        fetch_source.unpack(broken, tmp_path / "target", {})
    with pytest.raises(fetch_source.SourceError, match="no such folder or tarball"):
        fetch_source.unpack(tmp_path / "nowhere", tmp_path / "target", {})


def test_mirror_is_read_from_both_formats_of_apt(tmp_path: Path) -> None:
    deb822, one_line = tmp_path / "debian.sources", tmp_path / "sources.list"
    deb822.write_text("Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\n")
    one_line.write_text("# a comment\ndeb [signed-by=/key.gpg] https://other.test/debian bookworm main\n")
    assert fetch_source.system_mirror((deb822, one_line))[0] == "http://mirror.test/debian"
    assert fetch_source.system_mirror((tmp_path / "absent", one_line))[0] == "https://other.test/debian"
    with pytest.raises(fetch_source.SourceError, match="no Debian mirror"):
        fetch_source.system_mirror((tmp_path / "absent",))


def test_upstream_is_asked_when_the_mirror_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path) -> None:
    def no_mirror(downloads: Path) -> Path:
        raise fetch_source.SourceError("no mirror")

    monkeypatch.setattr(fetch_source, "fetch_from_debian", no_mirror)
    monkeypatch.setattr(fetch_source, "fetch_from_upstream", lambda folder: pinned)
    fetch_source.fetch(tmp_path / "target", tmp_path / "downloads")
    assert (tmp_path / "target/src/caffe/net.cpp").read_text() == "int net;\n"

    def no_network(folder: Path) -> Path:
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(fetch_source, "fetch_from_upstream", no_network)
    with pytest.raises(fetch_source.SourceError, match="CAFFE_SOURCE"):
        fetch_source.fetch(tmp_path / "other", tmp_path / "downloads")


def test_upstream_checkout_is_the_repositorys_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@test"]
        return subprocess.run(
            ["git", "-C", str(tmp_path / "upstream"), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    manifest = small_tree(tmp_path / "upstream")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    git("config", "uploadpack.allowAnySHA1InWant", "true")
    monkeypatch.setattr(fetch_source, "UPSTREAM", str(tmp_path / "upstream"))
    monkeypatch.setattr(fetch_source, "COMMIT", git("rev-parse", "HEAD"))
    fetch_source.verify(fetch_source.fetch_from_upstream(tmp_path / "clone"), manifest)


OURS = """syntax = "proto2";

package caffe;

// Of Caffe's own.
extend LayerParameter {
  // what it is
  optional ReNetParameter renet_param = 149;
  repeated float weight = 150 [default = 2];
}

message ReNetParameter {
  optional uint32 num_output = 1;
}
"""


def test_merge_adds_fields_and_messages() -> None:
    merged = merge_proto.merge(CAFFE_PROTO, [OURS, 'syntax = "proto2";\nmessage Other {\n}\n'])
    layer = merged[merged.index("message LayerParameter") : merged.index("message SwishParameter")]
    assert "  // what it is\n  optional ReNetParameter renet_param = 149;\n  repeated float weight = 150" in layer
    assert "extend" not in merged
    assert merged.count("syntax =") == merged.count("package caffe;") == 1
    assert merged.endswith("message ReNetParameter {\n  optional uint32 num_output = 1;\n}\n\nmessage Other {\n}\n")


@pytest.mark.parametrize(
    "taken", ["optional float other = 149;", "optional ReNetParameter renet_param = 160;", "repeated int32 weight = 3;"]
)
def test_merge_refuses_a_taken_number_or_name(taken: str) -> None:
    with pytest.raises(merge_proto.MergeError, match="already"):
        merge_proto.merge(CAFFE_PROTO.replace("optional string name = 1;", taken), [OURS])
    with pytest.raises(merge_proto.MergeError, match="no message LayerParameter"):
        merge_proto.merge("message Other {\n}\n", [OURS])


def test_prepared_tree_keeps_the_times_of_what_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path
) -> None:
    tree = tmp_path / "tree"
    prepare_source.prepare(tree, tmp_path / "downloads")
    net, proto = tree / "src/caffe/net.cpp", tree / "src/caffe/proto/caffe.proto"
    assert "renet_param = 149" in proto.read_text()
    for path in (net, proto):
        os.utime(path, (1, 1))
    (tree / "stale.cpp").write_text("")

    patch = tmp_path / "01_more.patch"
    header = "A reason.\n\n--- a/src/caffe/net.cpp\n+++ b/src/caffe/net.cpp\n"
    patch.write_text(header + "@@ -1 +1 @@\n-int net;\n+int two;\n")
    monkeypatch.setattr(prepare_source, "patches", lambda: [patch])
    prepare_source.prepare(tree, tmp_path / "downloads")
    assert net.read_text() == "int two;\n"
    assert net.stat().st_mtime != 1
    assert proto.stat().st_mtime == 1
    assert not (tree / "stale.cpp").exists()


def test_stock_tree_has_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path) -> None:
    """But what this system would not compile or import without; the two kinds of tree have stamps of their own."""
    header = "A reason.\n\n--- a/src/caffe/net.cpp\n+++ b/src/caffe/net.cpp\n@@ -1 +1 @@\n"
    wanted, ours = tmp_path / prepare_source.STOCK_PATCHES[0], tmp_path / "02_ours.patch"
    wanted.write_text(header + "-int net;\n+int wanted;\n")
    ours.write_text(header + "-int wanted;\n+int ours;\n")
    monkeypatch.setattr(prepare_source, "patches", lambda: [wanted, ours])
    tree = tmp_path / "tree"
    assert prepare_source.main([str(tree), str(tmp_path / "downloads"), "--stock"]) == 0
    assert (tree / "src/caffe/net.cpp").read_text() == "int wanted;\n"
    assert (tree / "src/caffe/proto/caffe.proto").read_text() == CAFFE_PROTO
    prepare_source.prepare(tree, tmp_path / "downloads")
    assert (tree / "src/caffe/net.cpp").read_text() == "int ours;\n"
    assert "renet_param" in (tree / "src/caffe/proto/caffe.proto").read_text()


def test_patches_of_stock_caffe_are_there() -> None:
    applied, appended = prepare_source.parts(stock=True)
    assert [patch.name for patch in applied] == list(prepare_source.STOCK_PATCHES)
    assert appended == []


def test_half_prepared_tree_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path) -> None:
    tree = tmp_path / "tree"

    def killed(new: Path, old: Path) -> None:
        (old / "half.cpp").write_text("")
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(prepare_source, "synchronise", killed)
        prepare_source.prepare(tree, tmp_path / "downloads")
    prepare_source.prepare(tree, tmp_path / "downloads")
    assert sorted(path.name for path in tree.rglob("*.*p*")) == ["caffe.proto", "net.cpp", "with a space.hpp"]


def test_patch_that_does_not_apply_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = tmp_path / "07_wrong.patch"
    patch.write_text("A reason.\n\n--- a/src/caffe/net.cpp\n+++ b/src/caffe/net.cpp\n@@ -1 +1 @@\n-int x;\n+int y;\n")
    monkeypatch.setattr(prepare_source, "patches", lambda: [patch])
    assert prepare_source.main([str(tmp_path / "tree"), str(tmp_path / "downloads")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "07_wrong.patch does not apply" in lines[0]
    assert not (tmp_path / "tree.stamp").exists()


def test_every_patch_begins_with_its_reason() -> None:
    assert prepare_source.patches()
    for patch in prepare_source.patches():
        reason = patch.read_text().split("--- a/")[0].strip()
        assert len(reason) > 40, f"{patch.name} does not say why it is there"


def in_venv(code: str, folder: Path) -> str:
    """What a fresh interpreter of .venv prints, started in another folder with no variables that help it."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "GLOG_minloglevel": "2"}
    python = REPOSITORY / ".venv/bin/python"
    return subprocess.run(
        [python, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_import_caffe_from_any_folder_with_numpy_2(tmp_path: Path) -> None:
    printed = in_venv(
        "import caffe, numpy, data_prep, tools\n"
        "print(numpy.__version__.split('.')[0], caffe.__file__, sep='\\n')\n"
        "blob = caffe.io.array_to_blobproto(numpy.arange(6.0).reshape(1, 1, 2, 3))\n"
        "print(caffe.io.blobproto_to_array(blob).sum())",
        tmp_path,
    ).splitlines()
    assert printed == ["2", str(REPOSITORY / "build/cpu/python/caffe/__init__.py"), "15.0"]


def test_layers_and_messages_are_registered(tmp_path: Path) -> None:
    printed = in_venv(
        "import caffe\n"
        "from caffe.proto import caffe_pb2\n"
        "fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name\n"
        "print(*(fields[name].number for name in ('renet_param', 'segmentation_data_param', 'dense_crf_param')))\n"
        "print(*caffe.layer_type_list())",
        tmp_path,
    ).split()
    assert printed[:3] == ["149", "150", "151"]
    ours = {"ReNetLSTM", "ReNetGRU", "ReNetIRNN", "SegmentationData", "BilinearInterpolation", "DenseCRF"}
    of_forks = {"Interp", "Upsample", "Unpooling", "Permute", "Normalize", "MultiStageMeanfield"}
    assert ours | of_forks <= set(printed)


def test_datum_and_image_functions_work_on_todays_packages(tmp_path: Path) -> None:
    printed = in_venv(
        "import caffe, numpy\n"
        "image = numpy.arange(24, dtype=numpy.uint8).reshape(3, 2, 4)\n"
        "back = caffe.io.datum_to_array(caffe.io.array_to_datum(image))\n"
        "back += 0\n"
        f"grey = caffe.io.load_image({str(REPOSITORY / 'build/caffe-source/examples/images/cat.jpg')!r}, color=False)\n"
        "print((back == image).all(), grey.shape)",
        tmp_path,
    )
    assert printed.split() == ["True", "(360,", "480,", "1)"]


def test_detector_crops_with_context(tmp_path: Path) -> None:
    printed = in_venv(
        "import caffe, numpy\n"
        "class Crop(caffe.Detector):\n"
        "    def __init__(self):\n"
        "        self.context_pad, self.crop_dims, self.crop_mean = 4, (32, 32, 3), 0\n"
        "    inputs, blobs = ['data'], {'data': type('Blob', (), {'width': 32})()}\n"
        "image = numpy.ones((40, 50, 3), dtype=numpy.float32)\n"
        "crop = Crop().crop(image, numpy.array([0.0, 0.0, 20.0, 24.0]).astype(int))\n"
        "print(crop.shape, 0 < crop.mean() < 1)",
        tmp_path,
    )
    assert printed.split() == ["(32,", "32,", "3)", "True"]


def test_caffe_program_runs_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [REPOSITORY / "build/cpu/bin/caffe", "-version"], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.stdout == "caffe version 1.0.0, oneDNN 2.6.0\n"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True)


def test_make_help_lists_the_targets() -> None:
    done = make(REPOSITORY, "help")
    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"setup", "caffe", "test", "demo", "bench", "gpu", "kernels", "lint", "clean", "help"} <= listed
    assert {"dist", "image", "image-gpu", "image-test"} <= listed


def os_release(folder: Path, name: str, version: str) -> str:
    """The argument of make by which the system is of that name and version."""
    (folder / "os-release").write_text(f'NAME="{name} Linux"\nID={name.lower()}\nVERSION_ID="{version}"\n')
    return f"OS_RELEASE={folder / 'os-release'}"


@pytest.mark.parametrize(
    ("name", "version"), [("Debian", "12"), ("Debian", "13"), ("Ubuntu", "22.04"), ("Ubuntu", "24.04")]
)
def test_set_up_knows_the_system(tmp_path: Path, name: str, version: str) -> None:
    done = make(REPOSITORY, "system", os_release(tmp_path, name, version))
    assert (done.returncode, done.stdout) == (0, f"set-up knows this system: {name} Linux {version}\n"), done.stderr


@pytest.mark.parametrize(("name", "version"), [("Fedora", "44"), ("Debian", "1"), ("Ubuntu", "23.10")])
def test_another_system_is_told_what_serves(tmp_path: Path, name: str, version: str) -> None:
    done = make(REPOSITORY, "system", os_release(tmp_path, name, version))
    assert done.returncode != 0
    line = f"this system is {name} Linux {version}; what serves instead: the image of 'make image'"
    assert line in done.stderr.splitlines()[0]


def test_a_missing_os_release_is_an_unknown_system(tmp_path: Path) -> None:
    done = make(REPOSITORY, "system", f"OS_RELEASE={tmp_path / 'absent'}")
    assert done.returncode != 0
    assert "this system is unknown" in done.stderr.splitlines()[0]


def test_packages_are_those_that_the_system_has(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text() + "\nlisted:\n\t@echo $(PACKAGES)\n")
    (tmp_path / "packages.txt").write_text("# a comment\nall\nold debian-1\nsome debian-13 ubuntu-22.04\n")
    for name, version, expected in (
        ("Debian", "13", "all some\n"),
        ("Ubuntu", "22.04", "all some\n"),
        ("Debian", "12", "all\n"),
    ):
        assert make(tmp_path, "listed", os_release(tmp_path, name, version)).stdout == expected


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_each_python_gets_one_version_of_a_package(file: str, version: str) -> None:
    lines = [line for line in (REPOSITORY / file).read_text().splitlines() if not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert all(re.fullmatch(r"==[^,*]+", str(one.specifier)) for one in requirements)
    python = {"python_version": version}
    taken = [one.name for one in requirements if one.marker is None or one.marker.evaluate(python)]
    assert len(taken) == len(set(taken))
    # what Python 3.10 alone needs is missing elsewhere, and nothing else
    spared = {one.name for one in requirements} - set(taken)
    assert spared <= ({"exceptiongroup", "tomli", "typing_extensions"} if version != "3.10" else set())


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize(
    ("lock", "files"),
    [
        ("requirements.lock", ["requirements.txt", "requirements-dev.txt"]),
        ("requirements-run.lock", ["requirements.txt"]),
    ],
)
def test_the_lock_has_every_package_with_its_hashes(lock: str, files: list[str], version: str) -> None:
    """As `make lock` writes it: the same versions, and nothing that is not named."""
    python = {"python_version": version, "python_full_version": f"{version}.1"}

    def taken(lines: list[str]) -> dict[str, str]:
        requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
        return {
            re.sub(r"[-_.]+", "-", one.name).lower(): str(one.specifier)
            for one in requirements
            if one.marker is None or one.marker.evaluate(python)
        }

    named = [line for file in files for line in (REPOSITORY / file).read_text().splitlines()]
    locked = (REPOSITORY / lock).read_text().replace("\\\n", "").splitlines()
    pins = [line.partition(" --hash=")[0].strip() for line in locked]
    assert taken(pins) == taken(named), "make lock"
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", line) for line in locked)


def test_messages_of_one_file_make_a_module() -> None:
    file = {"name": "small.proto", "package": "small", "message_type": [{"name": "Pair"}]}
    names = {"__name__": "small_pb2"}
    exec(python_messages.module_text(FileDescriptorSet(file=[file]).SerializeToString()), names)
    assert names["Pair"].DESCRIPTOR.full_name == "small.Pair"
    assert names["Pair"].__module__ == "small_pb2"
    with pytest.raises(ValueError):
        python_messages.module_text(FileDescriptorSet(file=[file, file]).SerializeToString())


def test_a_root_folder_without_proc_is_told_what_to_mount(tmp_path: Path) -> None:
    done = make(REPOSITORY, "system", f"PROC={tmp_path}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"make: {tmp_path} is not mounted: mount -t proc proc /proc"


@pytest.fixture
def failing_clone(tmp_path: Path) -> Path:
    """A folder with this Makefile, a .venv that needs nothing and a CMake project that cannot be configured."""
    for name in ("Makefile", "packages.txt", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path)
    site = f".venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (tmp_path / site).mkdir(parents=True)
    (tmp_path / ".venv/bin").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    shutil.copy(REPOSITORY / "requirements.lock", tmp_path / ".venv/requirements.installed")
    (tmp_path / "caffe_layers").mkdir()
    (tmp_path / "caffe_layers/CMakeLists.txt").write_text(
        'cmake_minimum_required(VERSION 3.22)\nproject(broken NONE)\nmessage(FATAL_ERROR "the reason")\n'
    )
    return tmp_path


def test_failed_step_names_itself_and_its_log(failing_clone: Path) -> None:
    done = make(failing_clone, "caffe")
    assert done.returncode != 0
    line = "make: the step 'configuring Caffe' failed; its log is build/logs/configure.log"
    assert line in done.stderr.splitlines()
    assert "the reason" in (failing_clone / "build/logs/configure.log").read_text()


def test_venv_of_another_python_is_made_anew(failing_clone: Path) -> None:
    for name in ("requirements.lock", ".venv/requirements.installed"):
        (failing_clone / name).write_text("")
    (site,) = (failing_clone / ".venv/lib").iterdir()
    site.rename(failing_clone / ".venv/lib/python3.2")
    make(failing_clone, "caffe")
    assert not (failing_clone / ".venv/lib/python3.2").exists()
    done = subprocess.run(
        [failing_clone / ".venv/bin/python", "-m", "pip", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_build_folder_of_another_place_is_made_anew(failing_clone: Path) -> None:
    (failing_clone / "build/cpu").mkdir(parents=True)
    (failing_clone / "build/cpu/CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere/caffe_layers\n")
    (failing_clone / "build/cpu/build.ninja").write_text("")
    make(failing_clone, "caffe")
    assert str(failing_clone) in (failing_clone / "build/cpu/CMakeCache.txt").read_text()


def test_gpu_build_is_configured_once_and_follows_its_options(failing_clone: Path) -> None:
    (failing_clone / "caffe_layers/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\n"
        "project(fine NONE)\n"
        'set(CUDA_ARCHS "" CACHE STRING "")\n'
        'file(APPEND ${PROJECT_SOURCE_DIR}/configured "${GPU} ${CUDA_ARCHS} $ENV{CUDA_HOME}\\n")\n'
    )
    for arguments in (["CUDA_ARCHS=75 80"], ["CUDA_ARCHS=75 80"], ["CUDA_ARCHS=75 90", "CUDA_HOME=toolkit"]):
        done = make(failing_clone, "gpu", *arguments)
        assert done.returncode == 0, done.stderr
    lines = (failing_clone / "caffe_layers/configured").read_text().splitlines()
    assert [line.split(" /")[0].strip() for line in lines] == ["ON 75 80", "ON 75 90"]
    assert lines[1].endswith(f" {failing_clone / 'toolkit'}")


def test_second_make_waits_for_the_first(failing_clone: Path) -> None:
    (failing_clone / "build").mkdir()
    with (failing_clone / "build/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(["make", "clean"], cwd=failing_clone, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == "waiting for another make in this folder\n"
        assert waiting.poll() is None
    assert waiting.wait(timeout=30) == 0
