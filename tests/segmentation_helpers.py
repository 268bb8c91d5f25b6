"""Small prepared datasets and tool calls for the tests of the tools."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
from PIL import Image

from renet.data.datum import pack_encoded

REPOSITORY = Path(__file__).resolve().parents[1]
PALETTE = [[200, 30, 30], [30, 160, 30], [30, 60, 220]]
CLASSES = ["brick", "leaf", "lake"]


def call_tool(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool as a user does, from a folder that is not the repository's."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )


def only_line(result: subprocess.CompletedProcess[str], tool: str) -> str:
    """The one line on stderr that a user's error gives, after progress; asserts that it is so."""
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{tool}: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.splitlines()[-1] == lines[0]
    return lines[0]


def save_labels(file: Path, labels: np.ndarray, mode: str = "P") -> None:
    """Write an H x W label map as a palette (P) or grey (L) PNG."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":
        image.putpalette(np.pad(np.ravel(PALETTE), (0, 768 - 9)).tolist())
    image.save(file)


def write_dataset_json(
    folder: Path, classes: list[str] = CLASSES, palette: list[list[int]] = PALETTE, **more: object
) -> Path:
    """A dataset.json of the contract's form."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "three_things",
        "classes": classes,
        "palette": palette,
        "ignore_label": 255,
        "mean": [10.0, 20.0, 30.0],
        "splits": {"test": {"count": 0, "sha256": ""}},
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def write_split(folder: Path, samples: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> Path:
    """A prepared split from BGR images and labels, by image id."""
    for name, column in (("images.lmdb", 0), ("labels.lmdb", 1)):
        (folder / name).mkdir(parents=True)
        with (
            lmdb.open(str(folder / name), map_size=1 << 26) as environment,
            environment.begin(write=True) as transaction,
        ):
            for index, (image_id, pair) in enumerate(samples.items()):
                pixels = pair[column]
                if pixels is None:
                    continue
                encoded = cv2.imencode(".png", pixels)[1].tobytes()
                channels = 1 if pixels.ndim == 2 else 3
                transaction.put(f"{index:08d}_{image_id}".encode(), pack_encoded(encoded, channels, *pixels.shape[:2]))
    if all(label is None for _, label in samples.values()):
        for file in (folder / "labels.lmdb").iterdir():
            file.unlink()
        (folder / "labels.lmdb").rmdir()
    return folder


def png_of_zeros(width: int, height: int, bits: int = 8, kind: int = 0) -> bytes:
    """A grey PNG of one value: small, whatever its size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer = zlib.compressobj(9)
    line = bytes(1 + width * bits // 8)
    lines = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def write_weights(file: Path, blobs: Mapping[str, Sequence[np.ndarray]]) -> Path:
    """A caffemodel, or HDF5 as Caffe writes it where the name ends in .h5, of layers that no network need have."""
    if file.suffix == ".h5":
        with h5py.File(file, "w") as content:
            for name, arrays in blobs.items():
                layer = content.create_group(f"data/{name}")
                for number, array in enumerate(arrays):
                    layer.create_dataset(str(number), data=array.astype(np.float32))
        return file
    from caffe.proto import caffe_pb2

    network = caffe_pb2.NetParameter(name="tiny")
    for name, arrays in blobs.items():
        layer = network.layer.add(name=name, type="Convolution")
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.extend(array.ravel().tolist())
    file.write_bytes(network.SerializeToString())
    return file
