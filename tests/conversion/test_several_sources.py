"""Several prepared splits read as one source, as for training on VOC and COCO together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import REPOSITORY, write_split

caffe = pytest.importorskip("caffe", reason="pycaffe is not built")

FIRST, SECOND = 24, 40  # images


def flat_images(first: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images of one colour and labels of one class, each with its number."""
    return {
        f"image {n}": (np.full((4, 5, 3), n, np.uint8), np.full((4, 5), n, np.uint8))
        for n in range(first, first + count)
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return (
        write_split(folder / "coco/train", flat_images(0, FIRST)),
        write_split(folder / "voc2012/trainvalaug", flat_images(FIRST, SECOND)),
    )


def epochs(folder: Path, sources: tuple[Path, ...], seed: int, batch: int = 4) -> Iterator[list[int]]:
    """The numbers of the images in the order in which a network sees them, epoch by epoch."""
    listed = " ".join(f"source: '{source}'" for source in sources)
    (folder / "net.prototxt").write_text(
        f"layer {{ name: 'data' type: 'SegmentationData' top: 'data' top: 'label' segmentation_data_param {{ {listed} "
        f"batch_size: {batch} crop_height: 3 crop_width: 3 shuffle: true mirror: true seed: {seed} }} }}"
    )
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TRAIN)
    while True:
        seen: list[int] = []
        for _ in range((FIRST + SECOND) // batch):
            net.forward()
            numbers = net.blobs["label"].data[:, 0, 0, 0]
            assert np.array_equal(
                net.blobs["data"].data, np.broadcast_to(numbers[:, None, None, None], (batch, 3, 3, 3))
            )
            seen += numbers.astype(int).tolist()
        yield seen


def test_an_epoch_is_every_image_of_all_sources_once_and_mixed(sources: tuple[Path, Path], tmp_path: Path) -> None:
    reader = epochs(tmp_path, sources, seed=1)
    first, second = next(reader), next(reader)
    for seen in (first, second):
        assert sorted(seen) == list(range(FIRST + SECOND))
        # Each quarter of an epoch has images of both, in about their shares (6 and 10 of 16).
        quarters = np.array(seen).reshape(4, -1) < FIRST
        assert (quarters.sum(axis=1) >= 2).all() and (quarters.sum(axis=1) <= 11).all()
        assert np.count_nonzero(np.diff(np.array(seen) < FIRST)) > 15
    assert first != second
    assert next(epochs(tmp_path, sources, seed=1)) == first
    assert next(epochs(tmp_path, sources, seed=2)) != first


def test_train_takes_two_sources(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done

    for name, seed in (("one", 0), ("two", 1)):
        sizes = ("--train", 3, "--test", 1, "--size", "48x64", "--seed", seed)
        run("data_prep/synthetic_scenes.py", *sizes, "--out", name)
    run(
        "prototxt/generate.py", "--model", "conv_small", "--dataset", "one", "--out", "net",
        "--crop", "24x24", "--batch", 2, "--iterations", 4,
    )  # fmt: skip
    network = tmp_path / "net/train_val.prototxt"
    text = network.read_text()
    source = next(line for line in text.splitlines() if "source:" in line and "train" in line)
    network.write_text(text.replace(source, f"{source}\n{source.replace('one/', 'two/')}", 1))
    run("tools/train.py", "--solver", "net/solver.prototxt", "--run", "run")
    metadata = json.loads((tmp_path / "run/run.json").read_text())
    assert metadata["state"] == "finished" and metadata["dataset"] == str(tmp_path / "one")
    assert "6 images from 2 source(s)" in (tmp_path / "run/train.log").read_text()
