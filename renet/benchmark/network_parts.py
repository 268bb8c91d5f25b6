"""Parts of the benchmark: ReNet groups and whole networks beside PyTorch's and stock Caffe's, layer by layer, and as
images grow."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from caffe import blas_kernels
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.benchmark.foreign_networks import CLASSES, FOREIGN
from renet.benchmark.network_tasks import DECAY, MOMENTUM, RATE
from renet.benchmark.settings import CAFFE, DIRECT, KEEPING, PLAIN, PYTORCH, STOCK, Entry, Settings, in_precision
from renet.benchmark.sides import (
    BFLOAT16_TOLERANCE,
    TOLERANCE,
    Check,
    Side,
    Worker,
    check_results,
    check_whole_gradient,
    compare,
    in_turn,
    started,
)
from renet.common.machine import multiplies_bfloat16
from renet.common.repository import ROOT
from renet.gpu_check.entries import VOC_CLASSES, group_text, with_precision
from renet.gpu_check.work import BF16, FLOAT32, FORWARD, FORWARD_BACKWARD, STEP
from renet.networks.analysis import receptive_fields, without_data
from renet.runtime.prototxt import read_network

MODELS = ("fcn", "h_renet", "h_renet_bn_mlfb")
SCORES = "fcn scores"  # what stock Caffe has all layers of
LAYERED = "h_renet_bn_mlfb"
SHIPPED_OF_OTHERS = "fcn8s"
GROWING = ("fcn", "h_renet_bn_mlfb")


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


def inputs_of(fed: Any, classes: int = VOC_CLASSES) -> str:
    """The inputs of a network as benchmark_net -inputs has them, its labels of so many classes."""
    words = []
    for layer in fed.layer:
        if layer.type == "Input":
            sizes = ",".join(map(str, layer.input_param.shape[0].dim))
            words.append(f"{layer.top[0]}:{sizes}" + (f":{classes}" if layer.top[0] == "label" else ""))
    return " ".join(words)


def network_sides(
    settings: Settings,
    text: str,
    inputs: str,
    folder: Path,
    passes: str,
    stock: bool = False,
    alone: bool = False,
    check: Check = check_results,
) -> dict[str, Side]:
    """The sides that there are: ours, ours without share_maps, ours without oneDNN, stock Caffe, PyTorch.

    Args:
        settings: of the run.
        text: the network's.
        inputs: its inputs as benchmark_net -inputs has them.
        folder: for the sides' files.
        passes: FORWARD, FORWARD_BACKWARD or STEP.
        stock: whether stock Caffe has all layers of the network.
        alone: leave out what only explains: ours in other ways.
        check: of the results.
    """
    model, solver = folder / "net.prototxt", folder / "solver.prototxt"
    model.write_text(text)
    schedule = caffe_pb2.SolverParameter(
        net=str(model), base_lr=RATE, lr_policy="fixed", momentum=MOMENTUM, weight_decay=DECAY, max_iter=1 << 20
    )
    solver.write_text(text_format.MessageToString(schedule))
    job = {"model": str(model), "solver": str(solver), "inputs": inputs, "values": str(folder), "passes": passes}
    job |= {"draw": False, "share": True}

    def side(variables: Mapping[str, str], build: Path | None = settings.build, **changes: bool) -> Side:
        return Side("caffe", "network_tasks.CaffeNetwork", settings.python, job | changes, variables, build, check)

    sides = {CAFFE: side({}, draw=True)}
    if not alone:
        sides[KEEPING] = side({}, share=False)
    if settings.onednn and not alone:
        sides[PLAIN] = side({"CAFFE_ONEDNN": "0"})
    if stock and settings.stock:
        sides[STOCK] = side(blas_kernels.variables(), settings.stock, share=False)  # as ours does by itself
    if settings.peer:
        sides[PYTORCH] = Side("torch", "network_tasks.PyTorchNetwork", settings.peer, job, check=check)
    return sides


def time_group(settings: Settings, shape: Sequence[int], passes: str, precision: str = FLOAT32) -> dict[str, Any]:
    """A ReNet layer group, its products in a precision, beside the same made of PyTorch's LSTM in float32."""
    tolerance = TOLERANCE if precision == FLOAT32 else BFLOAT16_TOLERANCE
    with TemporaryDirectory() as scratch:
        text = with_precision(group_text(shape), precision)
        check = partial(check_results, tolerance=tolerance)
        sides = network_sides(settings, text, "", Path(scratch), passes, alone=True, check=check)
        measured = compare(sides, settings.runs, settings.threads, repeats=True)
    return {"shape": list(shape), "pass": passes, "precision": precision, **measured}


def group_entries(settings: Settings) -> list[Entry]:
    """Every shape, forward alone and with backward, in bfloat16, too, where the processor multiplies it."""
    return [
        Entry(
            in_precision(f"{','.join(map(str, shape))}, {passes}", precision),
            partial(time_group, settings, shape, passes, precision),
        )
        for shape in settings.scale.groups
        for passes in (FORWARD, FORWARD_BACKWARD)
        for precision in ((FLOAT32, BF16) if multiplies_bfloat16() else (FLOAT32,))
    ]


def time_network(
    settings: Settings, model: str, passes: str, shape: tuple[int, int, int, int], runs: int, alone: bool = False
) -> dict[str, Any]:
    """A network on all sides; `alone` leaves out what only explains (Caffe without oneDNN, stock Caffe)."""
    with TemporaryDirectory() as scratch:
        fed = network(model, passes, shape)
        text, stock = text_format.MessageToString(fed), model == SCORES and not alone
        check = partial(check_results, branching=True)
        sides = network_sides(settings, text, inputs_of(fed), Path(scratch), passes, stock, alone, check)
        measured = compare(sides, runs, settings.threads, repeats=passes == FORWARD)
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


def time_foreign(settings: Settings, model: str, passes: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """A network of FOREIGN, FORWARD or a STEP: with and without oneDNN, and in PyTorch."""
    text = FOREIGN[model](shape, passes == STEP)
    inputs = inputs_of(text_format.Parse(text, caffe_pb2.NetParameter()), CLASSES) if passes == STEP else ""
    with TemporaryDirectory() as scratch:
        sides = network_sides(settings, text, inputs, Path(scratch), passes, check=check_whole_gradient)
        compared = {name: sides[name] for name in (CAFFE, PLAIN, PYTORCH) if name in sides}
        measured = compare(compared, settings.runs, settings.threads, repeats=passes == FORWARD)
    return {"model": model, "pass": passes, "shape": list(shape), **measured}


def foreign_entries(settings: Settings) -> list[Entry]:
    """Each of FOREIGN, a forward pass and a training step; and FCN-8s, forward."""
    scale = settings.scale
    shapes = {FORWARD: (1, 3, *scale.foreign), STEP: (scale.foreign_batch, 3, *scale.foreign)}
    entries = [
        Entry(f"{model}, {passes}", partial(time_foreign, settings, model, passes, shape))
        for passes, shape in shapes.items()
        for model in FOREIGN
    ]
    fcn8s = partial(time_network, settings, SHIPPED_OF_OTHERS, FORWARD, (1, 3, *scale.image), settings.runs)
    return [*entries, Entry(SHIPPED_OF_OTHERS, fcn8s)]


@contextmanager
def layered(settings: Settings, *names: str) -> Iterator[tuple[tuple[int, int, int, int], dict[str, Worker]]]:
    """The shape of LAYERED's image, and its sides of these names that there are, started."""
    shape = (1, 3, *settings.scale.image)
    with TemporaryDirectory() as scratch:
        fed = network(LAYERED, FORWARD, shape)
        sides = network_sides(settings, text_format.MessageToString(fed), inputs_of(fed), Path(scratch), FORWARD)
        if settings.onednn:
            sides[DIRECT] = sides[PLAIN]._replace(variables={"CAFFE_WINOGRAD": "0"})
        chosen = {name: sides[name] for name in names if name in sides}
        with started(chosen, settings.threads) as workers:
            yield shape, workers


def time_layers(settings: Settings) -> dict[str, Any]:
    """Each layer of LAYERED in a forward pass, with and without oneDNN: the median time of the runs."""
    with layered(settings, CAFFE, PLAIN) as (shape, workers):
        whole: dict[str, list[float]] = {name: [] for name in workers}
        passes: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in workers}
        for name, worker, milliseconds in in_turn(workers, settings.runs):
            whole[name].append(milliseconds)
            passes[name].append(worker.ask("layers")["layers"])
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
    with layered(settings, CAFFE, DIRECT, PLAIN) as (shape, workers):
        found = {name: worker.ask("errors") for name, worker in workers.items()}
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
