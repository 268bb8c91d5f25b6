"""Choice between the two builds that `import caffe` may give: the CPU's, and the one with CUDA.

Set-up makes build/cpu's pycaffe importable, and `make gpu` builds another beside it. A process has one of them only, so
that must be chosen before the first `import caffe`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import ROOT

PYCAFFE = ROOT / "build/gpu/python"


def other_pycaffe(pycaffe: Path = PYCAFFE) -> str | None:
    """Find the folder to import `caffe` from in place of the CPU build's.

    None where there is no CUDA build, or PYTHONPATH names a `caffe` already.
    """
    named = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if any(Path(place, "caffe").is_dir() for place in named) or not any(pycaffe.glob("caffe/_caffe*.so")):
        return None
    return str(pycaffe)


def import_gpu_build() -> None:
    """Make the `import caffe` to come, and that of Python processes started from here, give the CUDA build."""
    folder = other_pycaffe()
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)


def restart_with_gpu_build() -> None:
    """Start this program again with the CUDA build's `caffe`, for a process that has imported the CPU's already.

    Returns where there is nothing to choose.
    """
    folder = other_pycaffe()
    if folder is not None:
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONPATH": path})


def training_asks_for_gpu(arguments: Sequence[str]) -> bool:
    """Tell whether train.py's command line asks for a GPU: by --gpu, or by the solver that it names or goes on with."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--gpu")
    parser.add_argument("--solver", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--resume", action="store_true")
    try:
        asked, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        return False  # train.py itself says what is wrong
    if asked.gpu is not None:
        return True
    return solver_asks_for_gpu(asked.solver, asked.run if asked.resume else None)


def solver_asks_for_gpu(solver: Path | None, resumed: Path | None) -> bool:
    """Tell, without Caffe, whether a solver asks for a GPU: that of the run's folder `resumed` where it has one."""
    for file in filter(None, (resumed and resumed / "solver.prototxt", solver)):
        if file.is_file():
            text = re.sub(r"#.*", "", file.read_text(encoding="utf-8", errors="replace"))
            return re.search(r"\bsolver_mode\s*:\s*(GPU|1)\b", text) is not None
    return False


def check_gpu(gpu: int) -> None:
    """Make sure that this process can compute on a GPU.

    Raises:
        UserError: it cannot; says why.
    """
    import caffe

    fault = caffe.gpu_fault(gpu)
    if fault:
        raise UserError(f"GPU {gpu} cannot be used: {fault}")
