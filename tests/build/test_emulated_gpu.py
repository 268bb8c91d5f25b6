"""The build whose GPU the processor plays: what it compiles, and how launches become calls of the emulation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "caffe_layers" / "scripts" / "emulate_kernels.py"
CONFIGURED = "::caffe::emulation::Configured"


def rewritten(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a source, whose result is folder/out/kernel.cpp."""
    (folder / "kernel.cu").write_text(text)
    command = [sys.executable, SCRIPT, folder / "kernel.cu", folder / "out" / "kernel.cpp"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Fill<Dtype><<<1, 2>>>(n, x);", f"{CONFIGURED}(Fill<Dtype>, 1, 2)(n, x);"),
        ("Fill<int, A<B> >  <<<\n  blocks(n), 64, 0, stream>>>(x);",
         f"{CONFIGURED}(Fill<int, A<B> >, \n  blocks(n), 64, 0, stream)(x);"),
        ("a::Fill<<<1, 2>>>(x);", f"{CONFIGURED}([=](auto... arguments) {{ a::Fill(arguments...); }}, 1, 2)(x);"),
        ("name##_kernel<float><<<1, 2>>>( \\\n x);", f"{CONFIGURED}(name##_kernel<float>, 1, 2)( \\\n x);"),
        ("Fill<Dtype>  // of all\n    <<<1, 2>>>(x); Fill<Dtype><<<3, 4>>>(y);",
         f"{CONFIGURED}(Fill<Dtype>, 1, 2)(x); {CONFIGURED}(Fill<Dtype>, 3, 4)(y);"),
        ("int shifted = 1 << 3 >> 2;", "int shifted = 1 << 3 >> 2;"),
    ],
)  # fmt: skip
def test_launches(tmp_path: Path, source: str, expected: str) -> None:
    assert rewritten(tmp_path, source).returncode == 0
    first, line, text = (tmp_path / "out" / "kernel.cpp").read_text().split("\n", 2)
    assert first == "#include <cuda_runtime.h>"
    assert line == f'#line 1 "{tmp_path / "kernel.cu"}"'
    assert text == expected


@pytest.mark.parametrize(("source", "message"), [("<<<1, 2>>>(x);", "no kernel before"), ("F<<<1, 2", "no >>> after")])
def test_what_is_not_understood_is_told(tmp_path: Path, source: str, message: str) -> None:
    done = rewritten(tmp_path, source)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "out" / "kernel.cpp").exists()


def compiled(folder: Path) -> set[str]:
    """What a build folder makes libcaffe of: the names below src/caffe."""
    commands = json.loads((folder / "compile_commands.json").read_text())
    files = [command["file"] for command in commands if " -o CMakeFiles/caffe.dir/" in command["command"]]
    return {found[1] for file in files if (found := re.search(r"/src/caffe/(.*)", file))}


def test_gpu_builds_have_all_layers_of_the_cpus(tmp_path: Path) -> None:
    if not (REPOSITORY / "build" / "cpu" / "compile_commands.json").is_file():
        pytest.skip("there is no build/cpu: make caffe")
    command = ["cmake", "-G", "Ninja", "-S", REPOSITORY / "caffe_layers", "-B", tmp_path, "-DGPU=EMULATED"]
    subprocess.run(command, check=True, capture_output=True)
    sources = compiled(tmp_path)
    assert len(sources) > 200
    assert compiled(REPOSITORY / "build" / "cpu") - sources == set()
    assert {"layers/crop_layer.cpp", "layers/crop_layer_cu.cpp"} <= sources  # ours is the GPU's part alone
