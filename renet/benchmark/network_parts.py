"""Parts of the benchmark: whole networks beside PyTorch's and stock Caffe's, layer by layer, and as images grow."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.benchmark.layer_tasks import FORWARD, STEP
from renet.benchmark.network_tasks import DECAY, MOMENTUM, RATE
from renet.benchmark.settings import CAFFE, DIRECT, PLAIN, PYTORCH, RELEASING, STOCK, Entry, Settings
from renet.benchmark.sides import PAUSE_SECONDS, Side, Worker, compare, started
from renet.benchmark.tables import largest_difference
from renet.common.errors import UserError
from renet.common.repository import ROOT
from renet.gpu_check.speed import BRANCHING_TOLERANCE, GRADIENT
from renet.gpu_check.work import FLOAT32
from renet.networks.analysis import receptive_fields, without_data
from renet.runtime.prototxt import read_network

MODELS = ("fcn", "h_renet", "h_renet_bn_mlfb")
SCORES = "fcn scores"  # what stock Caffe has all layers of
LAYERED = "h_renet_bn_mlfb"
GROWING = ("fcn", "h_renet_bn_mlfb")
CLASSES = 21
OUTPUT_TOLERANCE = 1e-3  # of results, relative to the largest value; the sides add in other orders
PLAIN_VARIABLES = {"CAFFE_ONEDNN": "0"}
DIRECT_VARIABLES = {"CAFFE_WINOGRAD": "0"}


def network(model: str, passes: str, shape: tuple[int, int, int, int]) -> Any:
    """The caffe_pb2.NetParameter of one of MODELS, or SCORES, fed by Input layers.

    Args:
        model: a key of MODELS, or SCORES: the FCN without the interpolation, its loss at the scores' own size.
        passes: FORWARD for the deploy network, STEP for the training network.
        shape: N x 3 x H x W of the images.
    """
    folder = ROOT / "prototxt" / model.split()[0] / "voc2012"
    train = passes == STEP
    file = folder / f"{'train_val' if train else 'deploy'}.prototxt"
    read = read_network(file)
    fed = without_data(read, caffe_pb2.TRAIN if train else caffe_pb2.TEST, shape)
    return without_interpolation(fed) if model == SCORES else fed


def without_interpolation(read: Any) -> Any:
    """A copy of a NetParameter whose scores keep their own size, as labels that are compared with them do."""
    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(read)
    del changed.layer[:]
    seen, instead = receptive_fields(read), {}
    for layer in read.layer:
        if layer.type == "BilinearInterpolation":
            instead[layer.top[0]] = layer.bottom[0]
            continue
        kept = changed.layer.add()
        kept.CopyFrom(layer)
        kept.bottom[:] = [instead.get(name, name) for name in layer.bottom]
    shrunk = {int(seen[name].jump) for name in instead.values()}
    for layer in changed.layer if len(shrunk) == 1 else ():
        if layer.type == "Input" and layer.top[0] == "label":
            size = layer.input_param.shape[0].dim
            size[2:] = [-(-side // min(shrunk)) for side in size[2:]]
    return changed


def inputs_of(fed: Any) -> str:
    """The inputs of a network as benchmark_net -inputs has them."""
    words = []
    for layer in fed.layer:
        if layer.type == "Input":
            sizes = ",".join(map(str, layer.input_param.shape[0].dim))
            words.append(f"{layer.top[0]}:{sizes}" + (f":{CLASSES}" if layer.top[0] == "label" else ""))
    return " ".join(words)


class Jobs(NamedTuple):
    """Files with what the sides of a network are to do: draw its values, read them, read them and let maps go."""

    draw: Path
    read: Path
    release: Path


def write_jobs(fed: Any, folder: Path) -> Jobs:
    """Write what the sides of a network take."""
    model, solver = folder / "net.prototxt", folder / "solver.prototxt"
    model.write_text(text_format.MessageToString(fed))
    schedule = caffe_pb2.SolverParameter(
        net=str(model), base_lr=RATE, lr_policy="fixed", momentum=MOMENTUM, weight_decay=DECAY, max_iter=1 << 20
    )
    solver.write_text(text_format.MessageToString(schedule))
    job = {"model": str(model), "solver": str(solver), "inputs": inputs_of(fed), "values": str(folder)}
    jobs = Jobs(*(folder / f"job_{name}.json" for name in Jobs._fields))
    for name, file in jobs._asdict().items():
        file.write_text(json.dumps({**job, "draw": name == "draw", "release": name == "release"}))
    return jobs


def network_sides(settings: Settings, fed: Any, folder: Path, passes: str, stock: bool, alone: bool) -> dict[str, Side]:
    """The sides that there are: ours, ours with release_maps, ours without oneDNN, stock Caffe, PyTorch.

    Args:
        settings: of the run.
        fed: the network.
        folder: for the jobs' files.
        passes: FORWARD or STEP.
        stock: whether stock Caffe has all layers of the network.
        alone: leave out what only explains: ours in other ways.
    """
    jobs = write_jobs(fed, folder)
    task = "caffe-network"
    sides = {CAFFE: Side(task, settings.python, jobs.draw, caffe=settings.build)}
    if passes == FORWARD and not alone:
        sides[RELEASING] = Side(task, settings.python, jobs.release, caffe=settings.build)
    if settings.onednn and not alone:
        sides[PLAIN] = Side(task, settings.python, jobs.read, PLAIN_VARIABLES, settings.build)
    if stock and settings.stock:
        sides[STOCK] = Side(task, settings.python, jobs.read, caffe=settings.stock)
    if settings.peer:
        sides[PYTORCH] = Side("pytorch-network", settings.peer, jobs.read)
    return sides


def check_networks(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """The largest difference of two sides' outputs, relative to the largest value of each.

    Gradients must agree but for what rounding decides the other way at a ReLU or a maximum.

    Raises:
        UserError: they differ by more than TOLERANCE, or gradients by more than BRANCHING_TOLERANCE.
    """
    if ours.keys() != theirs.keys():
        raise UserError(f"the networks do not give the same: {sorted(ours.keys() ^ theirs.keys())} on one side alone")
    outputs = {name for name in ours if not name.endswith(GRADIENT)}
    worst = 0.0
    for name in ours:
        difference = largest_difference({name: ours[name]}, {name: theirs[name]})
        allowed = OUTPUT_TOLERANCE if name in outputs else BRANCHING_TOLERANCE[FLOAT32]
        if difference > allowed:
            raise UserError(f"the networks do not compute the same: {name} differs by {difference:.1e} of its largest")
        worst = max(worst, difference) if name in outputs else worst
    return worst


def time_network(
    settings: Settings, model: str, passes: str, shape: tuple[int, int, int, int], runs: int, alone: bool = False
) -> dict[str, Any]:
    """A network on all sides; `alone` leaves out what only explains (Caffe without oneDNN, stock Caffe)."""
    with TemporaryDirectory() as scratch:
        fed = network(model, passes, shape)
        sides = network_sides(settings, fed, Path(scratch), passes, model == SCORES and not alone, alone)
        measured = compare(sides, passes, runs, settings.threads, check_networks)
    return {"model": model, "pass": passes, "shape": list(shape), **measured}


def network_entries(settings: Settings) -> list[Entry]:
    """FCN, up to its scores and whole, and the H-ReNets: a forward pass, and a training step."""
    scale = settings.scale
    shapes = {FORWARD: (1, 3, *scale.image), STEP: (scale.batch, 3, *scale.crop)}
    return [
        Entry(f"{model}, {passes}", partial(time_network, settings, model, passes, shape, settings.runs))
        for passes, shape in shapes.items()
        for model in (SCORES, *MODELS)
    ]


def time_layers(settings: Settings) -> dict[str, Any]:
    """Each layer of LAYERED in a forward pass, on each of Caffe's sides: the median time of the runs."""
    shape = (1, 3, *settings.scale.image)
    with TemporaryDirectory() as scratch:
        fed = network(LAYERED, FORWARD, shape)
        sides = network_sides(settings, fed, Path(scratch), FORWARD, stock=False, alone=False)
        for name in (RELEASING, PYTORCH):  # whose layers are the same, and whose are not Caffe's
            sides.pop(name, None)
        with started(sides, FORWARD, settings.threads) as workers:
            whole: dict[str, list[float]] = {name: [] for name in workers}
            passes: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in workers}
            for number in range(settings.runs + 1):
                for name, worker in workers.items():
                    time.sleep(PAUSE_SECONDS)
                    milliseconds, layers = worker.run(), worker.layers()
                    if number > 0:
                        whole[name].append(milliseconds)
                        passes[name].append(layers)
    rows = []
    for index, layer in enumerate(passes[CAFFE][0]):
        times = {
            name: statistics.median(each[index]["milliseconds"] for each in of_side) for name, of_side in passes.items()
        }
        rows.append({**layer, "milliseconds": times})
    return {"model": LAYERED, "shape": list(shape), "whole": whole, "layers": rows}


def layer_entries(settings: Settings) -> list[Entry]:
    """The one network layer by layer."""
    return [Entry(f"{LAYERED}, layer by layer", partial(time_layers, settings))]


def measure_errors(settings: Settings) -> dict[str, Any]:
    """How far LAYERED's convolutions are from double precision, and how many labels that changes.

    The sides are ours, ours without Winograd's convolutions, and ours without oneDNN; for each of them `layers` as in
    CaffeNetwork.errors, and `labels_changed`, the share of pixels with another label than the last one's.
    """
    shape = (1, 3, *settings.scale.image)
    with TemporaryDirectory() as scratch:
        jobs = write_jobs(network(LAYERED, FORWARD, shape), Path(scratch))
        task = "caffe-network"
        sides = {CAFFE: Side(task, settings.python, jobs.draw, caffe=settings.build)}
        if settings.onednn:
            for name, variables in ((DIRECT, DIRECT_VARIABLES), (PLAIN, PLAIN_VARIABLES)):
                sides[name] = Side(task, settings.python, jobs.read, variables, settings.build)
        with started(sides, FORWARD, settings.threads) as workers:
            found = {name: worker.errors() for name, worker in workers.items()}
    last = found[list(found)[-1]]["labels"]
    errors = {
        name: {
            "layers": each["layers"],
            "labels_changed": sum(a != b for a, b in zip(each["labels"], last, strict=True)) / len(last),
        }
        for name, each in found.items()
    }
    return {"model": LAYERED, "shape": list(shape), "errors": errors}


def accuracy_entries(settings: Settings) -> list[Entry]:
    """The one network's convolutions beside double precision."""
    return [Entry(f"{LAYERED}, errors", partial(measure_errors, settings))]


def growth_entries(settings: Settings) -> list[Entry]:
    """Forward passes of the two ends of the range of networks, by size of the image and by batch."""
    scale = settings.scale
    shapes = [("size", (1, 3, *size)) for size in scale.sizes]
    shapes += [("batch", (batch, 3, *scale.crop)) for batch in scale.batches]
    return [
        Entry(
            f"{model}, {axis} {'x'.join(map(str, shape))}", partial(grown, settings, model, axis, shape)
        )
        for axis, shape in shapes
        for model in GROWING
    ]  # fmt: skip


def grown(settings: Settings, model: str, axis: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """One point of a growth curve; `axis` is "size" or "batch"."""
    measured = time_network(settings, model, FORWARD, shape, min(settings.runs, settings.scale.growth_runs), alone=True)
    return {"axis": axis, **measured}


def has_onednn(python: Path | str, build: Path | None, thread_count: int) -> bool:
    """Whether the Caffe of a build folder computes by oneDNN."""
    with TemporaryDirectory() as scratch:
        jobs = write_jobs(network(SCORES, FORWARD, (1, 3, 16, 16)), Path(scratch))
        worker = Worker(python, "caffe-network", jobs.draw, FORWARD, thread_count, caffe=build)
        worker.close()
        return worker.onednn
