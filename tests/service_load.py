"""Load on the service, beside a bare loop of `renet.Predictor`; needs Debian's `hey`.

    nice -n 5 .venv/bin/python tests/service_load.py --network n_renet --images 32 --rounds 3
    nice -n 5 .venv/bin/python tests/service_load.py --network n_renet --soak 3600

prints a row for the bare loop and one for each number of clients: images a second, the processors' milliseconds for one
image (which a busy machine changes less), and the milliseconds within which half, 95 and 99 of 100 requests were
answered. Weights are drawn, images are JPEGs of 375 x 500. Each round measures all of them one after another, and the
rows have the medians of the rounds, for what else a machine does falls on all alike. The soak sends four sizes in turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import cv2
from segmentation_helpers import REPOSITORY
from service_helpers import Served, served

import renet
from renet.common.argument_types import whole_number
from renet.conversion.synthetic_scenes import draw

NETWORKS = {"n_renet": "stanford_background", "h_renet": "voc2012"}
CLIENTS = [1, 8, 64]
SIZE = (375, 500)
SOAK_SIZES = [SIZE, (240, 320), (333, 500), (500, 375)]  # in turn, for a service meets many
LINES = {"rate": r"Requests/sec:\s+([\d.]+)", **{p: rf" {p}% in ([\d.]+) secs" for p in ("50", "95", "99")}}


def processor_seconds(*processes: int) -> float:
    """That processes have computed for."""
    fields = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes]
    return sum(int(of_one[11]) + int(of_one[12]) for of_one in fields) / os.sysconf("SC_CLK_TCK")


def children() -> set[int]:
    """This process's own."""
    return {int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()}


def predictor_numbers(
    predictor: renet.Predictor, processes: tuple[int, int], image: Path, images: int
) -> dict[str, float]:
    """Measure a bare loop that reads and predicts the file; `processes` are this one and the predictor's."""
    computed, start = processor_seconds(*processes), time.perf_counter()
    for _ in range(images):
        predictor.predict(image)
    seconds = time.perf_counter() - start
    return {"rate": images / seconds, "processor": (processor_seconds(*processes) - computed) / images}


def service_numbers(service: Served, image: Path, clients: int, images: int) -> dict[str, float]:
    """What hey measures of so many clients, each of which asks anew when it is answered."""
    images = -(-max(images, clients) // clients) * clients
    command = [
        "hey",
        "-n",
        str(images),
        "-c",
        str(clients),
        "-t",
        "0",
        "-m",
        "POST",
        "-T",
        "image/jpeg",
        "-D",
        str(image),
    ]
    processes = service.process.pid, service.network()
    computed = processor_seconds(*processes)
    said = subprocess.run([*command, f"{service.url}/predict"], capture_output=True, text=True, check=True).stdout
    answered = re.search(r"\[200\]\s+(\d+) responses", said)
    assert answered and int(answered[1]) == images, said
    found = {name: re.search(pattern, said) for name, pattern in LINES.items()}
    numbers = {name: float(match[1]) if match else float("nan") for name, match in found.items()}
    return numbers | {"processor": (processor_seconds(*processes) - computed) / images}


def megabytes(service: Served) -> str:
    """Of the server and of its network, resident."""
    statuses = [Path(f"/proc/{process}/status").read_text() for process in (service.process.pid, service.network())]
    resident = [re.search(r"VmRSS:\s+(\d+)", status) for status in statuses]
    return " + ".join(f"{int(match[1]) / 1024:.0f}" for match in resident if match)


def soak(service: Served, folder: Path, seconds: int) -> None:
    """Ask for so long with images of several sizes, and tell the memory at ten times."""
    images = [write_image(folder / f"{index}.jpg", size) for index, size in enumerate(SOAK_SIZES)]
    end, shown = time.monotonic() + seconds, 0
    for image in itertools.cycle(images):
        if (left := end - time.monotonic()) <= 0:
            break
        service_numbers(service, image, 8, 8)
        if left <= seconds * (1 - shown / 10):
            shown += 1
            print(
                f"after {seconds - left:.0f} s: {service.count('renet_requests_total'):.0f} requests, "
                f"{megabytes(service)} MB",
                flush=True,
            )


def write_image(file: Path, size: tuple[int, int]) -> Path:
    """A drawn scene as JPEG."""
    assert cv2.imwrite(str(file), draw(7, 1, 1, size).image)
    return file


def main(arguments: argparse.Namespace) -> None:
    """Measure one network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = write_image(folder / "image.jpg", SIZE)
        dataset = NETWORKS[arguments.network]
        deploy = REPOSITORY / "prototxt" / arguments.network / dataset / "deploy.prototxt"
        (folder / "deploy.prototxt").write_text(deploy.read_text())
        weights = folder / "drawn.caffemodel"
        program = f"import caffe; caffe.Net({str(deploy)!r}, caffe.TEST).save({str(weights)!r})"
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        options = ("--queue", max(arguments.clients), "--timeout", 600, "--dataset", dataset)
        with served(folder, *options, weights="drawn") as service:
            if arguments.soak:
                soak(service, folder, arguments.soak)
                return
            numbers = defaultdict(list)
            before = children()
            with renet.Predictor(deploy, weights) as predictor:
                processes = os.getpid(), (children() - before).pop()
                predictor.predict(image)
                service_numbers(service, image, 1, 1)
                for _ in range(arguments.rounds):
                    bare = predictor_numbers(predictor, processes, image, arguments.images)
                    numbers[0].append(bare)
                    for clients in arguments.clients:
                        found = service_numbers(service, image, clients, arguments.images)
                        shares = {name: found[name] / bare[name] for name in bare}
                        numbers[clients].append(found | {f"{name}, share": share for name, share in shares.items()})
            print(f"{arguments.network}: {megabytes(service)} MB")
        for clients, found in numbers.items():
            row = {name: statistics.median(each[name] for each in found) for name in found[0]}
            print(
                f"{clients} clients" if clients else "bare loop", {name: round(each, 3) for name, each in row.items()}
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="n_renet")
    parser.add_argument("--clients", type=whole_number(1), nargs="+", default=CLIENTS, help="default: 1 8 64")
    parser.add_argument("--images", type=whole_number(1), default=32, help="of a measurement, at least (default: 32)")
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="default: 3")
    parser.add_argument("--soak", type=whole_number(1), metavar="SECONDS", help="tell the memory over time instead")
    main(parser.parse_args())
