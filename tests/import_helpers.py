"""Imports of other Caffes' networks, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2

SCRIPT = Path(__file__).parent.parent / "tools/import_model.py"


def write_weights(file: Path, blobs: Mapping[str, Sequence[np.ndarray]], legacy: bool = False) -> None:
    """Write a .caffemodel; `legacy`: as of before 2015, with four numbers for each shape."""
    network = caffe_pb2.NetParameter()
    for name, arrays in blobs.items():
        layer = network.layers.add(name=name) if legacy else network.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add(data=array.ravel().tolist())
            if legacy:
                shape = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(array.shape)
    file.write_bytes(network.SerializeToString())


def run_import(network: Path, weights: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """Call the command."""
    words = [sys.executable, str(SCRIPT), str(network), str(weights), "--out", str(out), *map(str, more)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def imported(network: Path, weights: Path, out: Path, *more: object) -> str:
    """Import, and return what the command said."""
    done = run_import(network, weights, out, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(network: Path, weights: Path, out: Path, *more: object) -> str:
    """Fail to import: the one line of the command, which has left nothing behind."""
    done = run_import(network, weights, out, *more)
    assert done.returncode == 2, done.stderr
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))
    (line,) = done.stderr.splitlines()
    assert line.startswith("import_model.py: ")
    return line
