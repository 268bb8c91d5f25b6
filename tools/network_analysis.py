"""What a network costs and sees: receptive fields, parameters, operations, and memory measured."""

from __future__ import annotations

import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WHOLE_IMAGE = math.inf
_RECURRENT = ("ReNetLSTM", "ReNetGRU", "ReNetIRNN")
_DATA = ("SegmentationData", "Data", "ImageData", "HDF5Data")
# One pass over these mixes all positions of a map.
_SEES_ALL = (*_RECURRENT, "InnerProduct", "L2Normalization", "DenseCRF")


@dataclass(frozen=True)
class View:
    """How a position of a map sees the image.

    Attributes:
        field: side of the square of pixels that it depends on; WHOLE_IMAGE where it depends on all.
        jump: pixels between the centres of two neighbouring positions' squares.
    """

    field: float = 1
    jump: float = 1


def views(network: Any) -> dict[str, View]:
    """The view of every blob of a network (a caffe_pb2.NetParameter), by blob name, as convolutions, poolings and ReNet
    layers make it; along a recurrent layer's axis a position sees everything, and so after a group in both.

    A layer in place replaces its blob's view. Normalisation over the batch counts as none: in a test it is fixed.
    """
    seen: dict[str, View] = {}
    for layer in network.layer:
        bottoms = [seen.get(name, View()) for name in layer.bottom]
        view = View(max((v.field for v in bottoms), default=1), max((v.jump for v in bottoms), default=1))
        if layer.type == "BilinearInterpolation":
            view = View(bottoms[0].field, bottoms[-1].jump)
        elif layer.type == "Convolution":
            parameter = layer.convolution_param
            kernel = _side(parameter.kernel_size, parameter.kernel_h, parameter.kernel_w, 1)
            stride = _side(parameter.stride, parameter.stride_h, parameter.stride_w, 1)
            view = _through(view, (kernel - 1) * _side(parameter.dilation, 0, 0, 1) + 1, stride)
        elif layer.type == "Pooling":
            parameter = layer.pooling_param
            if parameter.global_pooling:
                view = View(WHOLE_IMAGE, view.jump)
            else:
                kernel = parameter.kernel_size or max(parameter.kernel_h, parameter.kernel_w)
                view = _through(view, kernel, parameter.stride_h or parameter.stride)
        elif layer.type in _RECURRENT:
            patch = max(layer.renet_param.patch_height, layer.renet_param.patch_width)
            view = View(WHOLE_IMAGE, view.jump * patch)
        elif layer.type in _SEES_ALL:
            view = View(WHOLE_IMAGE, view.jump)
        for name in layer.top:
            seen[name] = view
    return seen


def _side(both: Any, height: int, width: int, default: int) -> int:
    values = [*both, height, width] if not isinstance(both, int) else [both, height, width]
    return max(values) or default


def _through(view: View, kernel: int, stride: int) -> View:
    return View(view.field + (kernel - 1) * view.jump, view.jump * stride)


@dataclass(frozen=True)
class LayerCost:
    """A layer of a built network.

    Attributes:
        name: of the layer.
        type: of the layer.
        shape: of its first top.
        field: receptive field in pixels.
        parameters: how many it has.
        operations: of a forward pass, a multiplication with its addition as two; products with weights alone.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    field: float
    parameters: int
    operations: int


def layer_costs(built: Any, network: Any) -> list[LayerCost]:
    """The costs of the layers of a built caffe.Net, in order, with the receptive fields of its NetParameter.

    In-place layers without parameters are left out.
    """
    seen = views(network)
    costs = []
    for index, name in enumerate(built._layer_names):
        tops = [built._blob_names[i] for i in built._top_ids(index)]
        bottoms = [built._blob_names[i] for i in built._bottom_ids(index)]
        blobs = list(built.layers[index].blobs)
        if not tops or built.layers[index].type == "Split" or (tops == bottoms and not blobs):
            continue
        shape = tuple(built.blobs[tops[0]].shape)
        operations = 0
        if built.layers[index].type in (*_RECURRENT, "Convolution", "InnerProduct"):
            weights = sum(blob.count for blob in blobs if len(blob.shape) >= 2)
            operations = 2 * weights * shape[0] * math.prod(shape[2:])
        costs.append(
            LayerCost(
                name,
                built.layers[index].type,
                shape,
                seen.get(tops[0], View()).field,
                sum(blob.count for blob in blobs),
                operations,
            )
        )
    return costs


def without_data(network: Any, phase: int, shape: tuple[int, int, int, int]) -> Any:
    """A copy of a NetParameter for one phase, its data layers replaced by inputs `data` of this shape (N x 3 x H x W)
    and `label` (N x 1 x H x W)."""
    from caffe.proto import caffe_pb2

    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(network)
    del changed.layer[:]
    given = False
    for layer in network.layer:
        if any(rule.HasField("phase") and rule.phase != phase for rule in layer.include):
            continue
        if layer.type not in (*_DATA, "Input"):
            changed.layer.add().CopyFrom(layer)
            continue
        if given:
            continue
        given = True
        for name, size in zip(layer.top, (shape, (shape[0], 1, *shape[2:]))):
            source = changed.layer.add(name=name, type="Input", top=[name])
            source.input_param.shape.add(dim=size)
    return changed


@dataclass(frozen=True)
class Measured:
    """What a pass took.

    Attributes:
        mebibytes: the most memory that the process held, beyond what it held before the network was built.
        milliseconds: of one pass, the fastest of those after the first.
        costs: of the layers.
    """

    mebibytes: float
    milliseconds: float
    costs: list[LayerCost]


def measure(text: str, train: bool, shape: tuple[int, int, int, int], passes: int) -> Iterator[Measured]:
    """Build a network, run it on noise, and yield what that took; to be run in a process of its own
    (`tools.native_process.run_native`), as it measures the process's memory.

    Args:
        text: the network's prototxt.
        train: a training step (forward, backward, SGD's update with its history); else a forward pass of phase TEST.
        shape: N x 3 x H x W of the images.
        passes: how many to run; the first one counts for memory alone, unless it is the only one.
    """
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    caffe.set_mode_cpu()
    network = text_format.Parse(text, caffe_pb2.NetParameter())
    network = without_data(network, caffe.TRAIN if train else caffe.TEST, shape)
    before = _peak_mebibytes()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "net.prototxt"
        file.write_text(text_format.MessageToString(network))
        if train:
            solver_file = Path(scratch) / "solver.prototxt"
            solver = caffe_pb2.SolverParameter(
                net=str(file), base_lr=1e-6, lr_policy="fixed", momentum=0.9, max_iter=passes, display=0
            )
            solver_file.write_text(text_format.MessageToString(solver))
            kept = caffe.get_solver(str(solver_file))  # while it lives, its network does
            built, step = kept.net, lambda: kept.step(1)
        else:
            built = caffe.Net(str(file), caffe.TEST)
            step = built.forward
    random = np.random.default_rng(0)
    built.blobs["data"].data[...] = random.uniform(-100, 100, shape)
    if "label" in built.blobs:
        built.blobs["label"].data[...] = random.integers(0, 2, built.blobs["label"].data.shape)
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    yield Measured(_peak_mebibytes() - before, 1000 * min(seconds[1:] or seconds), layer_costs(built, network))


def _peak_mebibytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
