"""Import of another Caffe's network with its weights as a model folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.commands import as_typed
from renet.common.errors import UserError
from renet.common.files import file_sha256, write_atomically
from renet.common.progress import progress
from renet.common.text_layout import listed, shape_text
from renet.data.catalog import MEAN_BGR, bit_interleaved_palette
from renet.data.dataset import IGNORE_LABEL, MOST_CLASSES, Dataset
from renet.networks.deploy_network import AS_THE_NETWORK_SAYS, COLOURS, PROBABILITIES, DeployNetwork, DeployOptions
from renet.networks.model_folder import CARD, DEPLOY, DEPLOY_CRF, FORMAT, WEIGHTS, new_model_folder, seal_model_folder
from renet.runtime.worker_process import NativeCrash, run_native

REPORT = "import.txt"
INPUT = "data"
ORDERS = ("BGR", "RGB")
STEPS = 4  # of `perform`


@dataclass(frozen=True)
class ModelImport:
    """What to import, and what its files do not say.

    Attributes:
        network: prototxt of any Caffe.
        weights: .caffemodel of any age, or another file that `weight_tensors.read_weights` reads.
        out: the model folder to make.
        deploy: input, output, mean (B, G, R) and scale, where the network does not say them.
        dataset: names and colours of the classes; None: numbers.
        channel_order: of the images that the network learnt from, `BGR` or `RGB`.
        size: height and width of the input, where the network does not say them.
        fold_batch_norm: batch normalisation becomes part of the convolutions before it.
        allow_missing: layers without weights in the file keep their initial values.
        settings: what stands for `${NAME}` in the prototxt.
    """

    network: Path
    weights: Path
    out: Path
    deploy: DeployOptions = AS_THE_NETWORK_SAYS
    dataset: Dataset | None = None
    channel_order: str = "BGR"
    size: tuple[int, int] | None = None
    fold_batch_norm: bool = False
    allow_missing: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """What was made.

    Attributes:
        name: the network's.
        notes: what was changed, a line each.
        parameters: how many the network has.
        classes: how many it tells apart.
        mean: taken off B, G and R.
        scale: what the rest is multiplied with.
        shape: of the probabilities at the network's own size.
        seconds: that they took.
        has_crf: whether there is a network with a dense CRF, too.
    """

    name: str
    notes: tuple[str, ...]
    parameters: int
    classes: int
    mean: tuple[float, ...]
    scale: float
    shape: tuple[int, ...]
    seconds: float
    has_crf: bool


def import_model(job: ModelImport) -> Imported:
    """Make a model folder of another Caffe's network, whole or not at all.

    The network is run once, on an image of zeros.

    Raises:
        UserError: a file is missing or damaged, the network has a layer that is not built here or does not say what is
            needed, weights are missing or of another shape (told with both), or `out` is there already.
    """
    if job.channel_order not in ORDERS:
        raise UserError(f"channel_order is one of {', '.join(ORDERS)}, not {job.channel_order!r}")
    with new_model_folder(job.out) as folder:
        try:
            steps = run_native(perform, job, folder)
            bar = progress(steps, total=STEPS, description=f"importing {job.network.name}", unit="step", within=True)
            *_, made = bar
        except NativeCrash as crash:
            raise UserError(f"{job.network}: Caffe cannot make this network: {crash}") from None
        dataset = job.dataset or _numbered(made)
        if len(dataset.classes) != made.classes:
            raise UserError(
                f"{job.network}: tells {made.classes} classes apart, the dataset {dataset.name} has "
                f"{len(dataset.classes)}"
            )
        replace(dataset, splits={}, skipped={}, folder=folder).save()
        write_atomically(folder / REPORT, report_text(job, made).encode())
        write_atomically(folder / CARD, _card(job, made, dataset).encode())
        files = {file.name: file_sha256(file) for file in (job.network, job.weights)}
        seal_model_folder(
            folder,
            {
                "format": FORMAT,
                "name": made.name,
                "network": job.network.name,
                "classes": list(dataset.classes),
                "input": {"order": "BGR", "mean": list(made.mean), "scale": made.scale, "image_scale": 1.0},
                "scores": {"while_training": None, "evaluation": None},
                "imported": {"from": files, "changes": list(made.notes)},
            },
            (REPORT,),
        )
    return made


def report_text(job: ModelImport, made: Imported) -> str:
    """Write what was changed, for people."""
    lines = [f"{made.name}: {job.network.name} with {job.weights.name}", ""]
    lines += [f"- {note}" for note in made.notes] or ["- nothing was changed"]
    lines += ["", f"{made.parameters:,} parameters, {made.classes} classes"]
    lines.append(f"input: B, G, R of 0..255, (value - {', '.join(f'{mean:g}' for mean in made.mean)}) * {made.scale:g}")
    lines.append(f"tried: probabilities of {shape_text(made.shape)} in {made.seconds:.1f} s")
    return "\n".join(lines) + "\n"


def perform(job: ModelImport, folder: Path) -> Iterator[Imported | None]:
    """Write networks and weights into `folder`; for a process of its own (see `import_model`).

    Yields:
        None after each step (weights read, network built, tried), and what was made after the last one.

    Raises:
        UserError: as `import_model`.
    """
    import caffe
    from google.protobuf import text_format

    from renet.exchange.authors_release import MEAN_OF_2016, translate_release
    from renet.exchange.batch_norm_folding import fold_batch_norm, split_scaled_batch_norm
    from renet.exchange.crop_offsets import set_crop_offsets
    from renet.exchange.foreign_network import (
        attach_weights,
        check_types,
        give_own_names,
        read_foreign_network,
        settle_batch_norm,
    )
    from renet.exchange.weight_tensors import read_weights

    caffe.set_mode_cpu()
    network = read_foreign_network(job.network, job.settings)
    unused = attach_weights(network, read_weights(job.weights).arrays(), job.weights)
    yield None
    theirs = any(layer.kind == "densecrfmeanfield" for layer in network.layers)
    translate_release(network)
    give_own_names(network)
    settle_batch_norm(network)
    _choose_input(network, job.deploy.input_blob)
    crf = _choose_output(network, job.deploy.output_blob)
    check_types(network)
    mean, scale = _transform(network, job, MEAN_OF_2016 if theirs else None)
    shape = _input_shape(network, job.size)
    description = network.message()
    _add_ends(description, shape, mean, scale, network)
    blobs = {layer.name: layer.blobs for layer in network.layers}
    network.notes += split_scaled_batch_norm(description, blobs)
    network.notes += set_crop_offsets(description, INPUT)
    deploy = folder / DEPLOY
    built = _build(description, deploy)
    yield None
    _check(built, blobs, job)
    if unused:
        network.notes.append(f"weights that the network does not take: {listed(unused)}")
    if job.channel_order == "RGB":
        network.notes.append(_swap_channels(description, blobs, job.network))
    if job.fold_batch_norm:
        network.notes += fold_batch_norm(description, blobs)
        built = _build(description, deploy)
    network.notes += _fill(built, blobs, job)
    begin = time.perf_counter()
    built.blobs[INPUT].data[...] = 0
    built.forward()
    seconds = time.perf_counter() - begin
    output = DeployNetwork.read(deploy).output(built)
    probabilities = built.blobs[output].data
    if not np.isfinite(probabilities).all():
        raise UserError(f"{job.network}: with these weights the probabilities of an image of zeros are no numbers")
    yield None
    built.save(str(folder / WEIGHTS))
    if crf is not None:
        _write(_with_crf(description, crf), folder / DEPLOY_CRF, text_format)
    yield Imported(
        description.name or job.network.stem,
        tuple(network.notes),
        sum(blob.count for name in built.params for blob in built.params[name]),
        probabilities.shape[1],
        mean,
        scale,
        tuple(probabilities.shape),
        seconds,
        crf is not None,
    )


# ------------------------------------------------------------------------------------------------- input and output


def _choose_input(network: Any, wanted: str | None) -> None:
    """Name the image's blob `data`, and leave no other input."""
    if wanted is not None and wanted not in network.inputs:
        raise UserError(f'{network.file}: no input "{wanted}" (there are: {", ".join(network.inputs) or "none"})')
    if not network.inputs:
        raise UserError(f"{network.file}: has no input: neither a layer of type Input, nor a data layer, nor `input`")
    name = wanted or (INPUT if INPUT in network.inputs else next(iter(network.inputs)))
    if wanted is None and name != INPUT and len(network.inputs) > 1:
        raise UserError(
            f"{network.file}: has the inputs {', '.join(network.inputs)}; --input-blob says which is the image"
        )
    if name != INPUT:
        network.notes.append(f'the input "{name}" is called "{INPUT}"')
    network.rename_blob(name, INPUT)
    for layer in network.layers:
        if layer.name == INPUT:  # which the Input layer is called
            layer.node.put("name", f"{INPUT}_layer")


def _choose_output(network: Any, wanted: str | None) -> Any:
    """Name the probabilities `prob`, and leave out what they do not need.

    Returns:
        The dense CRF in which the network ends and which others take the place of, or None.
    """
    blob = wanted or _output(network)
    while (last := network.producer(blob)) is not None and last.kind == "argmax":
        network.layers = [layer for layer in network.layers if layer is not last]
        network.notes.append(f'left out: "{last.name}" (ArgMax), as the probabilities are asked for')
        blob = last.bottoms[0]
    if last is None:
        raise UserError(f'{network.file}: no layer makes the blob "{blob}"')
    network.keep_what_makes(blob)
    others = [name for name in network.inputs if name != INPUT]
    if others or INPUT not in network.inputs:
        raise UserError(f'{network.file}: "{blob}" needs the inputs {", ".join(network.inputs)}; an image is one input')
    crf = None
    if last.kind == "densecrf" and not last.blobs and last.node.node("dense_crf_param").value("learn") != "true":
        network.rename_blob(blob, PROBABILITIES)
        last.node.put("name", PROBABILITIES)
        network.layers = network.layers[:-1]
        crf, blob = last, last.bottoms[0]
        network.notes.append(f'{DEPLOY} ends in a Softmax of "{blob}", {DEPLOY_CRF} in the dense CRF')
    elif last.kind in ("softmax", "sigmoid", "densecrf"):
        if blob != PROBABILITIES:
            network.notes.append(f'the output "{blob}" is called "{PROBABILITIES}"')
        network.rename_blob(blob, PROBABILITIES)
        return None
    else:
        network.notes.append(f'a {network.activation} of "{blob}" was added')
    network.scores = blob
    return crf


def _output(network: Any) -> str:
    outputs = network.outputs()
    if network.scores is not None:
        return network.scores
    if PROBABILITIES in outputs:
        return PROBABILITIES
    if len(outputs) > 1:
        kinds = {name: network.producer(name).kind for name in outputs}
        soft = [name for name, kind in kinds.items() if kind == "softmax"]
        if len(soft) != 1:
            raise UserError(
                f"{network.file}: the network has the outputs {', '.join(outputs)}; --output-blob says which holds the "
                "scores or probabilities"
            )
        return soft[0]
    if not outputs:
        raise UserError(f"{network.file}: has no layer that a prediction takes")
    return outputs[0]


def _transform(network: Any, job: ModelImport, known: tuple[float, ...] | None) -> tuple[tuple[float, ...], float]:
    """Mean (B, G, R) and scale of the image."""
    options, said = job.deploy, network.transform
    scale = options.scale if options.scale is not None else float(said.value("scale", "1"))
    values = tuple(float(value) for value in said.values("mean_value"))
    if options.mean is not None:
        return options.mean, scale
    if len(values) in (1, COLOURS):
        mean = values * (COLOURS // len(values))
        return mean if job.channel_order == "BGR" else mean[::-1], scale
    if known is not None:
        network.notes.append(f"mean {', '.join(f'{value:g}' for value in known)}, as in the authors' notebook")
        return known, scale
    file = said.value("mean_file")
    where = f"names the file {file} for it" if file else "does not say it"
    raise UserError(f"{job.network}: {where}: which mean is taken off the image? say --mean B,G,R (0,0,0: none)")


def _input_shape(network: Any, size: tuple[int, int] | None) -> list[int]:
    shape = network.inputs[INPUT]
    if len(shape) > 1 and shape[1] != COLOURS:
        raise UserError(f"{network.file}: the input has {shape[1]} channels; an image has {COLOURS}")
    height, width = size or tuple(shape[2:4]) or (0, 0)
    if not height or not width:
        raise UserError(f"{network.file}: does not say the image's size: say --size HxW")
    return [1, COLOURS, height, width]


def _add_ends(description: Any, shape: list[int], mean: Any, scale: float, network: Any) -> None:
    """Give the network its Input layer and, where it ends in scores, what makes probabilities of them."""
    from caffe.proto import caffe_pb2

    layers = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in description.layer]
    del description.layer[:]
    first = description.layer.add(name=INPUT, type="Input", top=[INPUT])
    first.transform_param.mean_value.extend(mean)
    if scale != 1:
        first.transform_param.scale = scale
    first.input_param.shape.add().dim.extend(shape)
    names = {layer.name for layer in layers}
    description.layer.extend(layers)
    if not any(PROBABILITIES in layer.top for layer in layers):
        name = PROBABILITIES if PROBABILITIES not in names else f"{PROBABILITIES}_softmax"
        description.layer.add(name=name, type=network.activation, bottom=[network.scores], top=[PROBABILITIES])


def _with_crf(description: Any, crf: Any) -> Any:
    """The network with its dense CRF in the Softmax's place."""
    from caffe.proto import caffe_pb2

    from renet.exchange.foreign_network import ForeignNetwork

    whole = caffe_pb2.NetParameter.FromString(description.SerializeToString())
    del whole.layer[-1]
    alone = ForeignNetwork(Path(DEPLOY_CRF), "", False, [crf], {})
    whole.layer.extend(alone.message().layer)
    return whole


# ------------------------------------------------------------------------------------------------------- weights


def _check(built: Any, blobs: dict[str, list[np.ndarray]], job: ModelImport) -> None:
    """Bring the stored weights to the network's shapes, and look at their values.

    Raises:
        UserError: a layer is missing, has other shapes (told with both), or values that are no numbers.
    """
    has = [name for name in built.params if blobs.get(name)]
    missing = [name for name in built.params if not blobs.get(name)]
    if not has:
        raise UserError(
            f"{job.weights}: fills no layer of {job.network}, which has {listed(list(built.params)) or 'no weights'}"
        )
    if missing and not job.allow_missing:
        raise UserError(
            f"{job.weights}: no weights for {len(missing)} of {len(built.params)} layers: {listed(missing)} "
            "(--allow-missing keeps initial values)"
        )
    for name in has:
        wanted = [tuple(blob.shape) for blob in built.params[name]]
        given = blobs[name]
        if len(wanted) != len(given) or not all(
            _fits(blob.shape, shape) for blob, shape in zip(given, wanted, strict=True)
        ):
            there = " and ".join(shape_text(blob.shape) for blob in given)
            here = " and ".join(map(shape_text, wanted)) or "no weights"
            raise UserError(f'{job.weights}: the layer "{name}" has {there} there and {here} in {job.network}')
        blobs[name] = [blob.reshape(shape) for blob, shape in zip(given, wanted, strict=True)]
        if not all(np.isfinite(blob).all() for blob in given):
            raise UserError(f'{job.weights}: the layer "{name}" has values that are infinite or no numbers')


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a stored blob is the one that is wanted: of this shape but for ones in it, as all shapes had four numbers
    before 2015, or a fully connected layer's matrix for the convolution that computes the same."""
    own, others = ([size for size in shape if size != 1] for shape in (given, wanted))
    matrix = [wanted[0], int(np.prod(wanted[1:]))] if len(wanted) == 4 else others
    return own in (others, [size for size in matrix if size != 1])


def _fill(built: Any, blobs: Mapping[str, list[np.ndarray]], job: ModelImport) -> list[str]:
    for name in built.params:
        for blob, values in zip(built.params[name], blobs.get(name, ()), strict=False):
            blob.data[...] = values
    missing = [name for name in built.params if not blobs.get(name)]
    return [f"without weights in {job.weights.name}, kept at initial values: {listed(missing)}"] if missing else []


def _swap_channels(description: Any, blobs: dict[str, list[np.ndarray]], file: Path) -> str:
    """Make a network of R, G, B one of B, G, R: the swap goes into the convolutions that read the image."""
    swapped = []
    for layer in description.layer:
        if INPUT not in layer.bottom or (layer.type in _BESIDE and layer.bottom[0] != INPUT):
            continue
        if layer.type != "Convolution" or layer.convolution_param.group > 1 or not blobs.get(layer.name):
            raise UserError(
                f'{file}: the image goes into "{layer.name}" ({layer.type}), where --channel-order RGB needs a '
                "convolution"
            )
        weights, *bias = blobs[layer.name]
        blobs[layer.name] = [np.ascontiguousarray(weights[:, ::-1]), *bias]
        swapped.append(layer.name)
    return f"the order of the channels, R, G, B, went into {listed(swapped)}: images are B, G, R as everywhere here"


# Layers that look at the image's size, or at how far apart its colours are, beside what they compute on
_BESIDE = ("Crop", "BilinearInterpolation", "Interp", "DenseCRF", "MultiStageMeanfield")


# --------------------------------------------------------------------------------------------------------- files


def _build(description: Any, file: Path) -> Any:
    import caffe
    from google.protobuf import text_format

    from renet.runtime.python_layers import check_python_layers

    check_python_layers(description.layer)
    _write(description, file, text_format)
    return caffe.Net(str(file), caffe.TEST)


def _write(description: Any, file: Path, text_format: Any) -> None:
    write_atomically(file, text_format.MessageToString(description).encode())


def _numbered(made: Imported) -> Dataset:
    """Classes that are numbers, where nobody has named them."""
    if made.classes > MOST_CLASSES:
        raise UserError(f"{made.name}: tells {made.classes} classes apart; label maps have {MOST_CLASSES} at most")
    mean = tuple(made.mean) if all(0 <= value <= 255 for value in made.mean) else MEAN_BGR
    names = tuple(f"class {number}" for number in range(made.classes))
    return Dataset(made.name, names, bit_interleaved_palette(made.classes), mean, IGNORE_LABEL, {}, Path())


def _card(job: ModelImport, made: Imported, dataset: Dataset) -> str:
    """What a person reads first."""
    same = as_typed("tools/predict.py --model PATH/OF/THIS/FOLDER --input IMAGES --out PREDICTIONS")
    crf = f"`--crf` sharpens the result with the dense CRF of `{DEPLOY_CRF}`.\n\n" if made.has_crf else ""
    return (
        f"# {made.name}\n\nImported from {job.network.name} and {job.weights.name}; {REPORT} says what was changed. "
        f"{len(dataset.classes)} classes:\n{', '.join(dataset.classes)}.\n\n`{same}` predicts.\n\n{crf}"
        "`model.json` has the checksums of the files here and of those that they were made of.\n"
    )
