#!/usr/bin/env python3
"""Fuzzing of the readers of files from elsewhere: whatever the bytes, a reader reads them or raises UserError.

With atheris (`make fuzz-readers` gets it) the mutations are led by coverage; without it, they are drawn at random.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "build/cpu/python")]
try:
    import atheris
except ImportError:
    atheris = None

with nullcontext() if atheris is None else atheris.instrument_imports(include=["renet", "PIL"]):
    import numpy as np
    from PIL import Image
    from scipy.io import savemat

    from renet.common.archives import load_npz, open_tar
    from renet.common.errors import UserError
    from renet.conversion.class_file import read_classes
    from renet.conversion.coco_annotations import read_annotations
    from renet.conversion.cvat import read_cvat
    from renet.conversion.label_formats import read_coloured_png
    from renet.conversion.stanford_background import read_regions
    from renet.conversion.voc2012 import read_sbd_label
    from renet.data.dataset import Dataset
    from renet.data.datum import pack_encoded, unpack_encoded
    from renet.data.image_ids import read_list
    from renet.data.images import normalise, read_index_png
    from renet.evaluation.scores import Evaluation
    from renet.exchange.weight_tensors import read_weights
    from renet.networks.trained_run import METRICS, RUN, read_metadata, read_metrics
    from renet.weights.array_pickle import read_array_pickle

LONGEST = 1 << 16
PIECES = (b"\0", b"\xff", b"-", b"9" * 30, b"9" * 5000, b"1e999", b"\n", b'"', b"{", b"[" * 3000, b"NaN", b"null")


@dataclass(frozen=True)
class Reader:
    """A reader, and files that it reads, to begin with.

    Attributes:
        read: gets a file, and its bytes.
        name: of the file.
        seeds: sound files' bytes.
        told: errors that it may raise.
    """

    read: Callable[[Path, bytes], object]
    name: str
    seeds: tuple[bytes, ...]
    told: tuple[type[Exception], ...] = (UserError,)


def image(form: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("images/one.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    return stream.getvalue()


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **{"conv/0": np.ones((2, 3, 1, 1), np.float32), "metadata": np.array("{}")})
    return stream.getvalue()


def matlab(**options: bool) -> bytes:
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": np.ones((3, 4), np.uint8)}}, **options)
    return stream.getvalue()


def pickled() -> bytes:
    import pickle

    return pickle.dumps({"Conv_0": {"bias": np.ones(3, np.float32)}})


def members(file: Path) -> list[bytes]:
    with open_tar(file, 1 << 20) as tar:
        return [tar.extractfile(member).read() for member in tar if member.isreg()]  # type: ignore[union-attr]


DATASET = {
    "name": "things",
    "classes": ["a", "b"],
    "palette": [[1, 2, 3], [4, 5, 6]],
    "mean": [1.0, 2.0, 3.0],
    "ignore_label": 255,
    "splits": {"train": {"count": 1, "sha256": "0"}},
}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 3, 0, 3, 2]]}],
    "categories": [{"id": 1, "name": "cat"}],
}
CVAT = (
    b'<annotations><image id="0" name="a.jpg" width="4" height="3"><polygon label="a" points="0,0;3,0;3,2"/></image>'
    b"</annotations>"
)
READERS = {
    "dataset": Reader(lambda file, _: Dataset.open(file), "dataset.json", (json.dumps(DATASET).encode(),)),
    "run": Reader(lambda file, _: read_metadata(file.parent), RUN, (b'{"name": "a", "iteration": 3}',)),
    "metrics": Reader(lambda file, _: read_metrics(file.parent), METRICS, (b'{"iteration": 1, "loss": 1}\n{"it',)),
    "evaluation": Reader(
        lambda _, data: Evaluation.from_json(json.loads(data)), "x", (b'{"confusion": [[1]]}',), (ValueError, UserError)
    ),
    "classes": Reader(lambda file, _: read_classes(file), "classes.txt", (b"0 sky 1 2 3\n1 tree #ffeedd\n",)),
    "list": Reader(lambda file, _: read_list(file), "list.txt", (b"a.jpg b.png\nc\n# no\n",)),
    "coco": Reader(lambda file, _: read_annotations(file), "coco.json", (json.dumps(COCO).encode(),)),
    "cvat": Reader(lambda file, _: read_cvat(file), "annotations.xml", (CVAT,)),
    "regions": Reader(lambda _, data: read_regions(data, "x"), "x", (b"0 1 -1\n2 3 7\n",)),
    "image": Reader(
        lambda _, data: normalise(data, "x"),
        "x",
        tuple(map(image, ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000")))
        + (image("TIFF", compression="jpeg"),),
    ),
    "label": Reader(lambda _, data: read_index_png(data, "x"), "x", (image("PNG", "P"), image("PNG", "L"))),
    "colours": Reader(lambda _, data: read_coloured_png(data, "x", {}), "x", (image("PNG"), image("PNG", "P"))),
    "datum": Reader(lambda _, data: unpack_encoded(data), "x", (pack_encoded(image("PNG"), 3, 9, 12),), (ValueError,)),
    "tar": Reader(lambda file, _: members(file), "x.tgz", (archive(),)),
    "npz": Reader(lambda file, _: load_npz(file, 1 << 20, "arrays"), "x.npz", (arrays(),)),
    "weights": Reader(lambda file, _: read_weights(file), "w.npz", (arrays(),)),
    "matlab": Reader(lambda _, data: read_sbd_label(data, "x"), "x", (matlab(), matlab(do_compression=True))),
    "pickle": Reader(lambda _, data: read_array_pickle(data, "x"), "x", (pickled(),)),
}


@contextmanager
def trial(reader: Reader) -> Iterator[Callable[[bytes], None]]:
    """A function that gives bytes to a reader, which may raise what it tells and nothing else."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / reader.name

        def attempt(data: bytes) -> None:
            file.write_bytes(data)
            try:
                reader.read(file, data)
            except reader.told as error:
                assert isinstance(error, ValueError) or "\n" not in str(error), str(error)

        yield attempt


def mutated(draw: random.Random, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with a few changes: bytes, cuts, repetitions, and pieces that often matter."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 6)):
        place, length = draw.randrange(len(data) + 1), draw.choice((1, 1, 1, 2, 4, 8, 50))
        match draw.randrange(5):
            case 0:
                data[place : place + length] = draw.randbytes(length)
            case 1:
                del data[place : place + length]
            case 2:
                data[place:place] = data[place : place + length] * draw.choice((1, 2, 300))
            case 3:
                data[place : place + 1] = draw.choice(
                    (b"\0", b"\xff", b"-", b"9" * 30, b"1e999", b"\n", b'"', b"{", b"NaN")
                )
            case _:
                del data[draw.randrange(len(data) + 1) :]
    return bytes(data[:LONGEST])


def fuzz_at_random(name: str, count: int, seed: int) -> None:
    """Try a reader on so many mutations.

    Raises:
        AssertionError: it raised something else than it tells; holds the bytes.
    """
    draw = random.Random(f"{name} {seed}")
    with trial(READERS[name]) as attempt:
        for _ in range(count):
            data = mutated(draw, READERS[name].seeds)
            try:
                attempt(data)
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}: {data!r}") from error


def main() -> None:
    """Fuzz readers, one after the other; status 1 where one raised what it should not."""
    parser = argparse.ArgumentParser(prog="fuzz_readers.py", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="of each (default: 60)")
    parser.add_argument(
        "--corpus", type=Path, required=True, metavar="DIR", help="a folder that grows, for all readers"
    )
    arguments = parser.parse_args()
    if not READERS.keys() >= set(arguments.readers):
        parser.error(f"readers are {', '.join(READERS)}")
    if atheris is None:
        raise SystemExit("fuzz_readers.py: needs atheris: make fuzz-readers")
    if len(arguments.readers) != 1:
        more = ["--seconds", str(arguments.seconds), "--corpus", str(arguments.corpus)]
        statuses = [
            subprocess.run([sys.executable, __file__, name, *more]).returncode for name in arguments.readers or READERS
        ]
        raise SystemExit(1 if any(statuses) else 0)
    reader = READERS[arguments.readers[0]]
    corpus = arguments.corpus / arguments.readers[0]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    with trial(reader) as attempt:
        options: list[Any] = [sys.argv[0], str(corpus), f"-max_total_time={arguments.seconds}", f"-max_len={LONGEST}"]
        options += ["-timeout=20", "-rss_limit_mb=2048", f"-artifact_prefix={corpus}-", "-print_final_stats=1"]
        atheris.Setup(options, attempt)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
