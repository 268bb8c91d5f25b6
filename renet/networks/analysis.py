"""Analysis of networks: receptive fields, parameters, operations, and memory measured."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from renet.common.scratch import scratch_folder
from renet.networks.net_state import layers_in, state_of

WHOLE_IMAGE = math.inf
_RECURRENT = ("ReNetLSTM", "ReNetGRU", "ReNetIRNN")
# Layers without a bottom that need no data: they say themselves what they hold.
_FILLED = ("DummyData", "Parameter")
# Losses whose second bottom has the first one's shape; the others compare scores with a label for each position.
_ALIKE = ("EuclideanLoss", "SigmoidCrossEntropyLoss")
_WITH_WEIGHTS = ("Convolution", "Deconvolution", "InnerProduct", "Embed", *_RECURRENT)
# One pass over these mixes all positions of a map.
_SEES_ALL = (*_RECURRENT, "InnerProduct", "L2Normalization", "DenseCRF", "MultiStageMeanfield")


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive field of a position of a map.

    Attributes:
        size: side of the square of pixels that it depends on; WHOLE_IMAGE where it depends on all.
        jump: pixels between the centres of two neighbouring positions' squares.
    """

    size: float = 1
    jump: float = 1


def receptive_fields(network: Any) -> dict[str, ReceptiveField]:
    """Compute the receptive field of every blob of a network (a caffe_pb2.NetParameter), by blob name, as convolutions,
    poolings and ReNet layers make it; along a recurrent layer's axis a position sees everything, and so after a group
    in both.

    A layer in place replaces its blob's receptive field. Normalisation over the batch counts as none: it is fixed
    in a test.
    """
    seen: dict[str, ReceptiveField] = {}
    for layer in network.layer:
        bottoms = [seen.get(name, ReceptiveField()) for name in layer.bottom]
        field = ReceptiveField(
            max((each.size for each in bottoms), default=1), max((each.jump for each in bottoms), default=1)
        )
        if layer.type == "BilinearInterpolation":
            field = ReceptiveField(bottoms[0].size, bottoms[-1].jump)
        elif layer.type == "Interp":
            factors = layer.interp_param
            jump = bottoms[-1].jump if len(bottoms) > 1 else field.jump * factors.shrink_factor / factors.zoom_factor
            field = ReceptiveField(bottoms[0].size, jump)
        elif layer.type == "Upsample":
            parameter = layer.upsample_param
            field = ReceptiveField(field.size, bottoms[0].jump / (parameter.scale_h or parameter.scale))
        elif layer.type == "Unpooling":
            parameter = layer.unpooling_param
            stride = parameter.stride_h or parameter.stride
            kernel = 1 if parameter.unpool == parameter.MAX else parameter.kernel_h or parameter.kernel_size
            jump = bottoms[0].jump
            field = ReceptiveField(field.size + (-(-kernel // stride) - 1) * jump, jump / stride)
        elif layer.type in ("Convolution", "Deconvolution"):
            parameter = layer.convolution_param
            kernel = _side(parameter.kernel_size, parameter.kernel_h, parameter.kernel_w, 1)
            stride = _side(parameter.stride, parameter.stride_h, parameter.stride_w, 1)
            kernel = (kernel - 1) * _side(parameter.dilation, 0, 0, 1) + 1
            if layer.type == "Convolution":
                field = _through(field, kernel, stride)
            else:  # a position is reached by every stride-th of the kernel's weights
                field = ReceptiveField(field.size + (-(-kernel // stride) - 1) * field.jump, field.jump / stride)
        elif layer.type == "Pooling":
            parameter = layer.pooling_param
            if parameter.global_pooling:
                field = ReceptiveField(WHOLE_IMAGE, field.jump)
            else:
                kernel = parameter.kernel_size or max(parameter.kernel_h, parameter.kernel_w)
                field = _through(field, kernel, parameter.stride_h or parameter.stride)
        elif layer.type == "LRN" and layer.lrn_param.norm_region == layer.lrn_param.WITHIN_CHANNEL:
            field = _through(field, layer.lrn_param.local_size, 1)
        elif layer.type in _RECURRENT:
            patch = max(layer.renet_param.patch_height, layer.renet_param.patch_width)
            field = ReceptiveField(WHOLE_IMAGE, field.jump * patch)
        elif layer.type in _SEES_ALL or (layer.type == "Normalize" and layer.norm_param.across_spatial):
            field = ReceptiveField(WHOLE_IMAGE, field.jump)
        for name in layer.top:
            seen[name] = field
    return seen


def _side(both: Any, height: int, width: int, default: int) -> int:
    values = [*both, height, width] if not isinstance(both, int) else [both, height, width]
    return max(values) or default


def _through(field: ReceptiveField, kernel: int, stride: int) -> ReceptiveField:
    return ReceptiveField(field.size + (kernel - 1) * field.jump, field.jump * stride)


@dataclass(frozen=True)
class LayerCost:
    """Costs of a layer of a built network.

    Attributes:
        name: of the layer.
        type: of the layer.
        shape: of its first top.
        field: receptive field in pixels.
        parameters: how many it has; those that it shares with a layer before it count there.
        operations: of a forward pass, a multiplication with its addition as two; products with weights alone.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    field: float
    parameters: int
    operations: int


def layer_costs(built: Any, network: Any) -> list[LayerCost]:
    """Compute the costs of the layers of a built caffe.Net, in order, with the receptive fields of its NetParameter.

    In-place layers without parameters are left out.
    """
    seen = receptive_fields(network)
    shared = {layer.name: {param.name for param in layer.param if param.name} for layer in network.layer}
    counted: set[str] = set()
    costs = []
    for index, name in enumerate(built._layer_names):
        tops = [built._blob_names[i] for i in built._top_ids(index)]
        bottoms = [built._blob_names[i] for i in built._bottom_ids(index)]
        blobs = list(built.layers[index].blobs)
        if not tops or built.layers[index].type == "Split" or (tops == bottoms and not blobs):
            continue
        shape = tuple(built.blobs[tops[0]].shape)
        names = shared.get(name, set())
        parameters = 0 if names and names <= counted else sum(blob.count for blob in blobs)
        counted |= names
        operations = 0
        if built.layers[index].type in (*_RECURRENT, "Convolution", "Deconvolution", "InnerProduct"):
            weights = sum(blob.count for blob in blobs if len(blob.shape) >= 2)
            positions = shape
            if built.layers[index].type == "Deconvolution":  # each position of the bottom goes through all weights
                positions = tuple(built.blobs[bottoms[0]].shape)
            operations = 2 * weights * positions[0] * math.prod(positions[2:])
        costs.append(
            LayerCost(
                name,
                built.layers[index].type,
                shape,
                seen.get(tops[0], ReceptiveField()).size,
                parameters,
                operations,
            )
        )
    return costs


def losses(layers: Iterable[Any]) -> list[Any]:
    """List those of the layers (caffe_pb2.LayerParameter) that are learnt from: the ones to which Caffe gives a
    weight."""
    return [each for each in layers if any(each.loss_weight) or (each.type.endswith("Loss") and not each.loss_weight)]


def label_blobs(layers: Iterable[Any]) -> dict[str, tuple[Any, int]]:
    """Find the blobs that hold what is to be learnt, not what is seen: those that only losses and accuracies read,
    behind their first bottom, or layers without weights that cut or shrink labels. With one layer that reads each and
    the number of the bottom."""
    found: dict[str, tuple[Any, int]] = {}
    seen: set[str] = set()
    for layer in reversed(list(layers)):
        compares = layer.type in ("Accuracy", "SegAccuracy") or bool(losses([layer]))
        prepares = layer.type not in _WITH_WEIGHTS and bool(layer.top) and all(top in found for top in layer.top)
        for index, name in enumerate(layer.bottom):
            if prepares or (compares and index):
                found.setdefault(name, (layer, index))
            elif layer.top or compares:  # not a Silence
                seen.add(name)
    return {name: reader for name, reader in found.items() if name not in seen}


def without_data(
    network: Any,
    state: Any,
    shape: tuple[int, int, int, int],
    compared: Mapping[str, tuple[int, ...]] | None = None,
) -> Any:
    """Copy a NetParameter with the layers of one state alone, in which Input layers give what came from data.

    A layer without a bottom brings data, whatever its type. Each of its tops becomes an Input: an image of `shape`
    (with the channels that an Input of the network itself says), or labels, N x 1 x H x W. The matrix that an
    InfogainLoss reads from a file becomes one, too.

    Args:
        network: as read, in today's form.
        state: the caffe_pb2.NetState, or a phase.
        shape: N x 3 x H x W of the images.
        compared: shapes of the blobs that losses and accuracies compare with labels (see `compared_shapes`), for any
            batch, which the labels then follow; None: labels have the images' height and width.
    """
    from caffe.proto import caffe_pb2

    layers = layers_in(network, state_of(network, state) if isinstance(state, int) else state)
    labels = label_blobs(layers)
    changed = caffe_pb2.NetParameter(name=network.name)

    def give(name: str, size: Sequence[int]) -> None:
        source = changed.layer.add(name=name, type="Input", top=[name])
        source.input_param.shape.add(dim=size)

    for layer in layers:
        if layer.bottom or layer.type in _FILLED:
            matrix = f"{layer.name}_matrix"
            reads_matrix = layer.type == "InfogainLoss" and len(layer.bottom) == 2
            if reads_matrix:
                give(matrix, _label_shape(layer, 2, shape, compared))
            kept = changed.layer.add()
            kept.CopyFrom(layer)
            del kept.include[:], kept.exclude[:]
            if reads_matrix:
                kept.infogain_loss_param.ClearField("source")
                kept.bottom.append(matrix)
            continue
        shapes = layer.input_param.shape if layer.type == "Input" else ()
        for index, name in enumerate(layer.top):
            own = list(shapes[min(index, len(shapes) - 1)].dim) if shapes else []
            if name in labels:
                give(name, _label_shape(*labels[name], shape, compared))
            elif own and len(own) != 4:
                give(name, own)
            else:
                channels = own[1] if own else 1 if layer.transform_param.force_gray else shape[1]
                give(name, (shape[0], channels, *shape[2:]))
    return changed


def _label_shape(
    reader: Any, index: int, images: tuple[int, int, int, int], compared: Mapping[str, tuple[int, ...]] | None
) -> tuple[int, ...]:
    """Of what is the bottom `index` of the layer `reader`."""
    scores = (compared or {}).get(reader.bottom[0])
    if scores is None:
        return (images[0], 1, *images[2:])
    if reader.type == "InfogainLoss" and index == 2:
        classes = scores[reader.infogain_loss_param.axis]
        return (1, 1, classes, classes)
    return (images[0], *scores[1:]) if reader.type in _ALIKE else (images[0], 1, *scores[2:])


def compared_shapes(text: str) -> Iterator[dict[str, tuple[int, ...]]]:
    """Build a network without what needs labels, and yield the shapes of the blobs that are compared with them; to be
    run in a process of its own.

    Args:
        text: the prototxt, as `without_data` makes it.
    """
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    network = text_format.Parse(text, caffe_pb2.NetParameter())
    labels = label_blobs(network.layer)
    there: set[str] = set()
    kept = []
    compared = [layer.bottom[0] for layer in network.layer if any(name in labels for name in layer.bottom[1:])]
    for layer in network.layer:
        if there.issuperset(layer.bottom) and not any(top in labels for top in layer.top):
            kept.append(layer)
            there.update(layer.top)
    del network.layer[:]
    network.layer.extend(kept)
    with scratch_folder() as scratch:
        file = scratch / "net.prototxt"
        file.write_text(text_format.MessageToString(network))
        built = caffe.Net(str(file), caffe.TEST)
    yield {name: tuple(built.blobs[name].shape) for name in compared if name in built.blobs}


@dataclass(frozen=True)
class Measured:
    """Costs of a pass that was run.

    Attributes:
        mebibytes: the most memory that the process held, beyond what it held before the network was built.
        milliseconds: of one pass, the fastest of those after the first.
        costs: of the layers.
    """

    mebibytes: float
    milliseconds: float
    costs: list[LayerCost]


def measure(text: str, train: bool, passes: int) -> Iterator[Measured]:
    """Build a network, run it on noise, and yield what that took; to be run in a process of its own
    (`renet.runtime.worker_process.run_native`), as it measures the process's memory.

    Args:
        text: the network's prototxt, as `without_data` makes it.
        train: a training step (forward, backward, SGD's update with its history); else a forward pass of phase TEST.
        passes: how many to run; the first one counts for memory alone, unless it is the only one.
    """
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    caffe.set_mode_cpu()
    network = text_format.Parse(text, caffe_pb2.NetParameter())
    before = _peak_mebibytes()
    with scratch_folder() as scratch:
        file = scratch / "net.prototxt"
        file.write_text(text)
        if train:
            solver_file = scratch / "solver.prototxt"
            solver = caffe_pb2.SolverParameter(
                net=str(file), base_lr=1e-6, lr_policy="fixed", momentum=0.9, max_iter=passes, display=0
            )
            solver_file.write_text(text_format.MessageToString(solver))
            kept = caffe.get_solver(str(solver_file))  # while it lives, its network does
            built, step = kept.net, lambda: kept.step(1)
        else:
            built = caffe.Net(str(file), caffe.TEST)
            step = built.forward
    fill_with_noise(built, network)
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    yield Measured(_peak_mebibytes() - before, 1000 * min(seconds[1:] or seconds), layer_costs(built, network))


def fill_with_noise(built: Any, network: Any) -> None:
    """Give the inputs of a built network noise, and labels of the first two classes."""
    random = np.random.default_rng(0)
    labels = label_blobs(network.layer)
    for layer in network.layer:
        if layer.type != "Input":
            continue
        for name in layer.top:
            values = built.blobs[name].data
            reader, index = labels.get(name, (None, 0))
            if reader is not None and reader.type == "InfogainLoss" and index == 2:
                values[...] = np.eye(values.shape[-1])
            elif reader is None or reader.type in _ALIKE:
                values[...] = random.uniform(-100, 100, values.shape)
            else:
                values[...] = random.integers(0, 2, values.shape)


def _peak_mebibytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
