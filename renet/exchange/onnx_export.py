"""Export of a deploy network with its weights as ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.repository import version
from renet.data.dataset import Dataset
from renet.exchange.graph import IR_VERSION, OPSET, Graph, Layer, NoOnnxForm
from renet.exchange.onnx_metadata import OnnxMetadata
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, PROBABILITIES, DeployNetwork, DeployOptions
from renet.runtime.worker_process import NativeCrash, run_native
from renet.weights.weight_files import load

LARGEST = 2**31 - 2**20  # bytes; protobuf's limit for one file, less what is not weights
LARGEST_SHAPE = 64  # numbers of a constant that shapes are computed with


@dataclass(frozen=True)
class OnnxExport:
    """What to export.

    Attributes:
        model: deploy prototxt.
        weights: .caffemodel, or Caffe's HDF5 file.
        out: the file to write.
        dataset: names and colours of the classes, where they are known.
        until: the last layer; None: all of them.
        allow_missing: layers without weights in the file keep their initial values.
        deploy: what the network does not say of itself.
    """

    model: Path
    weights: Path
    out: Path
    dataset: Dataset | None = None
    until: str | None = None
    allow_missing: bool = False
    deploy: DeployOptions = AS_THE_NETWORK_SAYS


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        layers: how many layers it has.
        nodes: how many nodes of ONNX they became.
        megabytes: the file's size.
        inputs: names of the inputs, with their shapes as text.
        outputs: likewise.
        metadata: what the file says of the network.
        fixed_by: the layer for which the image's size is fixed; None: it is free.
        left_out: names and types of the layers that were left out.
    """

    layers: int
    nodes: int
    megabytes: float
    inputs: list[str]
    outputs: list[str]
    metadata: OnnxMetadata
    fixed_by: str | None
    left_out: list[tuple[str, str]]


def export_onnx(job: OnnxExport) -> Exported:
    """Write a network as ONNX, in a process of its own.

    Height, width and batch stay open, but for a network with a layer that takes one size only. The file is checked
    by `onnx.checker` before it is written.

    Raises:
        UserError: a layer has no ONNX form (names it, its type and what serves instead), the network or its weights
            do not serve, or they are too large for one file.
    """
    if not job.out.parent.is_dir():
        raise UserError(f"{job.out}: there is no folder {job.out.parent}")
    try:
        (exported,) = run_native(perform, job)
    except NativeCrash as crash:
        raise UserError(f"{job.model}: Caffe cannot make this network: {crash}") from None
    return exported


def perform(job: OnnxExport) -> Iterator[Exported]:
    """Export, and yield what was written; meant for a process of its own (see `export_onnx`).

    Raises:
        UserError: as `export_onnx`.
    """
    import caffe

    caffe.set_mode_cpu()
    network = DeployNetwork.read(job.model, job.deploy, any_channels=True)
    left_out = _choose_layers(network, job.until)
    built = network.build()
    load(built, job.weights, not job.allow_missing, advice="--allow-missing keeps initial values")
    size = sum(blob.data.nbytes for blobs in built.params.values() for blob in blobs)
    if size > LARGEST:
        raise UserError(f"{job.weights}: {size / 1e9:.1f} GB of weights, and one ONNX file holds 2 GB at most")
    metadata = OnnxMetadata(
        network.input,
        _probabilities(job, list(built.outputs)),
        _transform(network),
        job.dataset,
        tuple(str(layer) for layer in left_out),
    )
    graph, model = _convert(network, built)
    helper.set_model_props(model, metadata.properties())
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    write_atomically(job.out, content)
    yield Exported(
        len(network.description.layer),
        len(model.graph.node),
        len(content) / 1e6,
        [_described(each) for each in model.graph.input],
        [_described(each) for each in model.graph.output],
        metadata,
        graph.fixed_by,
        [(layer.name, layer.type) for layer in left_out],
    )


def _choose_layers(network: DeployNetwork, until: str | None) -> list[Any]:
    """Keep in a description only the layers that a prediction takes and, up to the layer `until`, that it needs.

    Returns:
        The layers that were left out, which a prediction takes.

    Raises:
        UserError: there is no such layer, or a layer has no ONNX form.
    """
    from caffe.proto import caffe_pb2

    from renet.exchange.converters import CONVERTERS, instead_of
    from renet.networks.net_state import layers_in, state_of

    state = state_of(network.description, caffe_pb2.TEST, caffe_pb2.NetState(stage=["deploy"]))
    layers = layers_in(network.description, state)
    kept = layers
    if until is not None:
        place = next((place for place, layer in enumerate(layers) if layer.name == until), None)
        if place is None:
            raise UserError(f'{network.file}: the network has no layer "{until}" to end with')
        kept = _needed(layers[: place + 1])
    for layer in kept:
        if layer.type != "Input" and layer.type not in CONVERTERS:
            before = next((other.name for other in layers if set(other.top) & set(layer.bottom[:1])), None)
            hint = "" if before is None else f"; --until {before} leaves it out"
            raise UserError(
                f'{network.file}: the layer "{layer.name}" ({layer.type}) has no ONNX form: '
                f"{instead_of(layer.type)}{hint}"
            )
    left_out = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in layers if layer not in kept]
    copies = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in kept]
    for copy in copies:
        del copy.include[:], copy.exclude[:]
    del network.description.layer[:]
    network.description.layer.extend(copies)
    return left_out


def _needed(layers: list[Any]) -> list[Any]:
    """Those of `layers` that the last one needs, and the inputs."""
    last = layers[-1]
    wanted = set(last.top)
    kept = []
    for layer in reversed(layers):
        if layer is last or wanted & set(layer.top) or layer.type == "Input":
            kept.append(layer)
            wanted = (wanted - set(layer.top)) | set(layer.bottom)
    return kept[::-1]


def _probabilities(job: OnnxExport, outputs: list[str]) -> str | None:
    name = job.deploy.output_blob
    if name is not None and name not in outputs:
        raise UserError(f'{job.model}: the network has no output "{name}" (it has: {", ".join(outputs)})')
    return name or (PROBABILITIES if PROBABILITIES in outputs else outputs[0] if len(outputs) == 1 else None)


def _transform(network: DeployNetwork) -> Any:
    """The input's transform, None where nobody says it: who runs the file has to know it then."""
    try:
        return network.transform
    except UserError:
        return None


def _convert(network: DeployNetwork, built: Any) -> tuple[Graph, onnx.ModelProto]:
    """The built network as ONNX.

    Raises:
        UserError: a layer has a setting that ONNX does not know.
    """
    from renet.exchange.converters import CONVERTERS

    inputs = [top for layer in network.description.layer if layer.type == "Input" for top in layer.top]
    outputs = list(built.outputs)
    graph = Graph(frozenset(inputs) | frozenset(outputs))
    values = {name: name for name in inputs}
    sized = {name: name == network.input for name in inputs}
    for layer in network.description.layer:
        if layer.type == "Input":
            continue
        seen = Layer(
            layer,
            [values[bottom] for bottom in layer.bottom],
            [tuple(built.blobs[bottom].shape) for bottom in layer.bottom],
            list(layer.top),
            [tuple(built.blobs[top].shape) for top in layer.top],
            [blob.data for blob in built.params.get(layer.name, ())],
            [sized[bottom] for bottom in layer.bottom],
        )
        graph.begin(layer.name)
        try:
            tensors = CONVERTERS[layer.type](graph, seen)
        except NoOnnxForm as error:
            raise UserError(
                f'{network.file}: the layer "{layer.name}" ({layer.type}) has no ONNX form: {error}'
            ) from None  # fmt: skip
        values.update(zip(layer.top, tensors, strict=True))
        follows = any(seen.sized) and layer.type != "InnerProduct" and not layer.pooling_param.global_pooling
        sized.update(dict.fromkeys(layer.top, follows))
    for name in outputs:
        graph.nodes.append(helper.make_node("Identity", [values[name]], [name], name=f"output/{name}"))
    free = graph.fixed_by is None
    given = []
    for name in inputs:
        shape: list[int | str] = ["batch", *tuple(built.blobs[name].shape)[1:]]
        if free and sized[name] and len(shape) == 4:
            shape[2:] = "height", "width"
        given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = [_initializer(name, array) for name, array in graph.constants.items()]
    content = helper.make_graph(graph.nodes, network.description.name or network.file.stem, given, found, constants)
    model = helper.make_model(
        content,
        producer_name="renet-caffe",
        producer_version=version(),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    # The shapes of the outputs, as far as they are known; those between would only make the file larger
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for ours, theirs in zip(model.graph.output, inferred.graph.output, strict=True):
        ours.CopyFrom(theirs)
    for tensor in model.graph.initializer:
        tensor.raw_data = graph.constants[tensor.name].tobytes()
    return graph, model


def _initializer(name: str, array: np.ndarray) -> TensorProto:
    """A constant, without its values where they are many: shapes do not follow from these, and each step from here to
    the file would copy them."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if array.size <= LARGEST_SHAPE else b""
    return TensorProto(name=name, dims=array.shape, data_type=kind, raw_data=values)


def _described(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    sizes = [str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
    sizes = ["?" if size.startswith("unk__") else size for size in sizes]
    return f"{value.name} ({' x '.join(sizes)})"
