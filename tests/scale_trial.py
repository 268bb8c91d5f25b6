"""Trial of scale: many small images prepared in parts, joined, read, predicted and scored, with rates and memory.

    nice -n 10 .venv/bin/python tests/scale_trial.py --images 200000 --parts 8 --predict 8 --out /tmp/scale

prints a row for each step: images a second, processor time, and the memory (without what the system keeps of files) of
its process and its children at a tenth and at the end of its time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import cv2
import numpy as np

from renet.common.argument_types import whole_number
from renet.common.parts import Part, part_or_auto
from renet.conversion.prepare import OutputOptions, prepare
from renet.data.images import EncodedImage
from renet.data.split_reader import SplitReader
from renet.data.split_writer import Pair, Sample

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ("brick", "leaf", "lake")
HEIGHT, WIDTH = 24, 32
NETWORK = """
layer { name: "data" type: "Input" top: "data" transform_param { mean_value: 100 scale: 0.02 }
        input_param { shape { dim: 1 dim: 3 dim: 24 dim: 32 } } }
layer { name: "scores" type: "Convolution" bottom: "data" top: "scores"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }
"""


def draw(number: int) -> Pair:
    """One image: two regions in their classes' colours, and noise."""
    rng = np.random.default_rng(number)
    label = np.full((HEIGHT, WIDTH), number % 3, np.uint8)
    label[:, rng.integers(4, WIDTH) :] = (number + 1) % 3
    image = (np.eye(3)[label] * 150 + rng.integers(0, 60, (HEIGHT, WIDTH, 1))).astype(np.uint8)
    return Pair(EncodedImage(cv2.imencode(".png", image)[1].tobytes(), HEIGHT, WIDTH), label)


def prepare_part(out: Path, images: int, part: Part) -> None:
    """The converter of this trial."""
    samples = [Sample(f"image{number:07d}", "1", partial(draw, number), f"{number}") for number in range(images)]
    prepare(
        OutputOptions(out, part=part),
        name="scale",
        classes=CLASSES,
        palette=np.eye(3, dtype=np.uint8) * 200,
        splits={"test": samples},
        training=["test"],
    )


def read_all(split: Path) -> None:
    """Decode every image and label."""
    with SplitReader(split) as reader:
        for number in range(len(reader)):
            reader.image(number)
            reader.label(number)


def make_weights(folder: Path) -> None:
    """The network and its weights."""
    import caffe

    (folder / "deploy.prototxt").write_text(NETWORK)
    caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST).save(str(folder / "net.caffemodel"))


def anonymous_memory(process: int) -> int:
    """MiB of a process and its descendants, without files that are mapped."""
    found, left = 0, [process]
    while left:
        one = left.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            found += int(status.partition("RssAnon:")[2].split()[0])
            for task in os.listdir(f"/proc/{one}/task"):
                left += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except (OSError, IndexError):
            continue  # it has just ended
    return found >> 10


def measured(name: str, images: int, *words: object) -> None:
    """Run a command and print its row."""
    command = [sys.executable, *map(str, words)]
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    memory: list[int] = []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    # Threads that wait for one another on a busy machine would take most of the processor time.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, **quiet) as child:
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.append(child.stderr.read()))
        reader.start()
        while child.poll() is None:
            memory.append(anonymous_memory(child.pid))
            time.sleep(0.2)
        reader.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: {said[0]}")
    seconds, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tenth, end = max(memory[: len(memory) // 10 + 1]), max(memory[-(len(memory) // 10 + 1) :])
    load = os.getloadavg()[0]
    figures = f"{images:8} {seconds:9.1f} {images / seconds:9.1f} {processor:11.1f} {tenth:9} {end:9} {load:6.1f}"
    print(f"{name:<12} {figures}", flush=True)


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=whole_number(1), default=2000)
    parser.add_argument("--parts", type=whole_number(1), default=8)
    parser.add_argument(
        "--predict", type=whole_number(0), default=8, help="so many of the parts are predicted and scored"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", type=part_or_auto, help=argparse.SUPPRESS)
    parser.add_argument("--read", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out, images, count = arguments.out.absolute(), arguments.images, arguments.parts
    if arguments.step:
        return prepare_part(out, images, arguments.step)
    if arguments.read:
        return read_all(out / "test")
    out.mkdir(parents=True)
    heads = ("images", "seconds", "a second", "processor s", "MiB, 10%", "MiB, end", "load")
    print(f"{'':<12} " + " ".join(f"{head:>{width}}" for head, width in zip(heads, (8, 9, 9, 11, 9, 9, 6))), flush=True)
    parts = [Part(number, count) for number in range(1, count + 1)]
    sizes = {part: len(part.share(range(images))) for part in parts}
    for part in parts:
        measured(f"part {part}", sizes[part], __file__, "--out", out, "--images", images, "--step", part)
    measured("join", images, "tools/merge.py", "dataset", out)
    measured("read", images, __file__, "--out", out, "--read")
    split, predictions = out / "test", out / "predictions"
    if arguments.predict:
        make_weights(out)
    for part in parts[: arguments.predict]:
        model = ["--model", out / "deploy.prototxt", "--weights", out / "net.caffemodel", "--split", split]
        measured(f"predict {part}", sizes[part], "tools/predict.py", *model, "--out", predictions, "--part", part)
    for part in parts[: arguments.predict]:
        truth = ["--predictions", predictions, "--labels", split, "--dataset", out, "--processes", 1]
        scores = ["--json", out / "scores.json", "--part", part]
        measured(f"score {part}", sizes[part], "tools/evaluate.py", *truth, *scores)
    if arguments.predict == count:
        measured("join scores", images, "tools/merge.py", "scores", out / "scores.json")
    return None


if __name__ == "__main__":
    main()
