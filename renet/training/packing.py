"""A run packed as a model folder: what a trained network needs to be used, and where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from renet.common.commands import as_typed
from renet.common.errors import UserError
from renet.common.files import file_sha256, write_atomically
from renet.common.repository import find_file
from renet.common.text_files import read_json_object
from renet.data.dataset import FILE_NAME as DATASET
from renet.data.dataset import Dataset
from renet.evaluation.score_table import percent
from renet.evaluation.scores import Evaluation
from renet.networks.deploy_network import DeployNetwork
from renet.networks.model_folder import (
    CARD,
    DEPLOY,
    DEPLOY_CRF,
    FORMAT,
    WEIGHTS,
    new_model_folder,
    seal_model_folder,
)
from renet.networks.trained_run import BEST, NEWEST, read_metadata, read_metrics, weights_of_run
from renet.runtime.worker_process import NativeCrash, run_native
from renet.training.run_record import EVALUATION, PREDICTIONS
from renet.weights.weight_files import load

# Of run.json, what says how the training came about; no paths, which lead nowhere elsewhere.
_KEPT = ("started", "finished", "seconds", "parameters", "commit", "versions", "machine", "threads")
_PREDICTION_RECORD = "prediction.json"


def pack(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    dataset: Dataset | str | os.PathLike[str] | None = None,
    scores: str | os.PathLike[str] | None = None,
) -> Path:
    """Pack a run's trained network as a folder that goes anywhere, whole or not at all.

    Args:
        run: the run's folder.
        out: the folder to make.
        weights: `newest` snapshot, the `best` by its test among those that are kept, or a .caffemodel; None: the best
            where the training kept it (`keep_best`), else the newest.
        dataset: the training's, where it does not lie any more where the run found it; or its folder.
        scores: what `evaluate.py --json` wrote; by default the run's evaluation.json, where the predictions beside it
            are of these weights.

    Returns:
        The folder.

    Raises:
        UserError: no run, no whole snapshot, weights that do not fit, no dataset, or `out` is there already; names it.
    """
    run, out = Path(run), Path(out)
    metadata = read_metadata(run)
    if not metadata:
        raise UserError(f"{run}: not a run's folder (no run.json in it)")
    if not (run / DEPLOY).is_file():
        raise UserError(f"{run / DEPLOY}: missing: the training had no {DEPLOY} beside its network")
    tests = {line["iteration"]: line for line in read_metrics(run) if line.get("kind") == "test"}
    chosen = _weights(run, None if weights is None else str(weights))
    described = dataset if isinstance(dataset, Dataset) else _dataset(run, metadata, dataset)
    classes, mean, scale = _tried(run / DEPLOY, chosen)
    if classes != len(described.classes):
        raise UserError(
            f"{run / DEPLOY}: tells {classes} classes apart, the dataset {described.name} has {len(described.classes)}"
        )
    iteration = _iteration(chosen)
    description = {
        "format": FORMAT,
        "name": str(metadata.get("name", run.resolve().name)),
        "network": metadata.get("model"),
        "classes": list(described.classes),
        "input": {"order": "BGR", "mean": list(mean), "scale": scale, "image_scale": described.image_scale},
        "scores": {
            "while_training": tests.get(iteration),
            "evaluation": _evaluation(run, chosen, scores, described),
        },
        "training": _training(run, metadata, described) | {"iteration": iteration},
    }
    with new_model_folder(out) as beside:
        for name, source in ((DEPLOY, run / DEPLOY), (DEPLOY_CRF, run / DEPLOY_CRF), (WEIGHTS, chosen)):
            if source.is_file():
                write_atomically(beside / name, source.read_bytes())
        replace(described, splits={}, skipped={}, folder=beside).save()
        write_atomically(beside / CARD, _card(description, (beside / DEPLOY_CRF).is_file()).encode())
        seal_model_folder(beside, description)
    return out


def _weights(run: Path, wanted: str | None) -> Path:
    """The file of the weights to pack."""
    if wanted in (None, NEWEST, BEST):
        return weights_of_run(run, wanted)
    file = Path(wanted)
    if not file.is_file():
        raise UserError(f"{file}: no such file of weights")
    if file.suffix != ".caffemodel":
        raise UserError(f"{file}: weights to pack are a .caffemodel")
    return file


def _iteration(weights: Path) -> int | None:
    match = re.search(r"_iter_(\d+)$", weights.stem)
    return int(match[1]) if match else None


def _dataset(run: Path, metadata: dict[str, Any], named: str | os.PathLike[str] | None) -> Dataset:
    folder = named or metadata.get("dataset")
    if folder is None:
        raise UserError(f"{run}: its network reads no prepared dataset; name one with --dataset")
    if named is None and not (Path(folder) / DATASET).is_file():
        raise UserError(f"{folder}: the run's dataset is not there any more; name it with --dataset")
    return Dataset.open(folder)


def _tried(deploy: Path, weights: Path) -> tuple[int, tuple[float, ...], float]:
    """Fill the network with the weights; returns its number of classes, and mean and scale of its input."""
    try:
        (found,) = run_native(_filled, deploy, weights)
    except NativeCrash as crash:
        raise UserError(f"{deploy}: Caffe cannot make this network: {crash}") from None
    return found


def _filled(deploy: Path, weights: Path) -> Iterator[tuple[int, tuple[float, ...], float]]:
    network = DeployNetwork.read(deploy)
    built = network.build()
    load(built, weights, every_layer=True)
    transform = network.transform
    yield int(built.blobs[network.output(built)].shape[1]), transform.mean, transform.scale


def _evaluation(
    run: Path, weights: Path, named: str | os.PathLike[str] | None, dataset: Dataset
) -> dict[str, Any] | None:
    """The scores of the weights; of the run's own only those that are known to be of them."""
    file = run / EVALUATION if named is None else Path(named)
    content = read_json_object(file)
    if content is None:
        if named is not None:
            raise UserError(f"{file}: no such file")
        return None
    try:
        evaluation = Evaluation.from_json(content)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    if evaluation.classes != dataset.classes:
        raise UserError(f"{file}: has scores of other classes than the dataset {dataset.name}")
    if named is None:
        record = read_json_object(run / PREDICTIONS / _PREDICTION_RECORD) or {}
        if record.get("weights_sha256") != file_sha256(weights):
            return None
    return evaluation.as_json()


def _training(run: Path, metadata: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """How the weights came about."""
    from caffe.proto import caffe_pb2
    from google.protobuf import text_format

    from renet.networks.net_state import layers_in, state_of
    from renet.runtime.prototxt import read_network, read_solver
    from renet.training.solver_settings import FILES_OF_THE_RUN

    solver = read_solver(run / "solver.prototxt")
    for field in FILES_OF_THE_RUN:
        solver.ClearField(field)
    solver.weights[:] = [Path(name).name for name in solver.weights]
    splits: dict[str, list[dict[str, Any]]] = {"trained_on": [], "tested_on": []}
    for file in sorted(run.glob("*.prototxt")):
        if file.name in ("solver.prototxt", DEPLOY, DEPLOY_CRF):
            continue
        network = read_network(file)
        phases = {"trained_on": caffe_pb2.TRAIN, "tested_on": caffe_pb2.TEST}
        for use, phase in phases.items():
            if file.stem.startswith("train") if phase == caffe_pb2.TRAIN else file.stem != "train":
                for layer in layers_in(network, state_of(network, phase)):
                    if layer.type == "SegmentationData":
                        splits[use] += (_split(name, file, dataset) for name in layer.segmentation_data_param.source)
    return {
        "solver": text_format.MessageToString(solver),
        "seed": metadata.get("seed"),
        "iterations": metadata.get("iterations"),
        **{name: metadata[name] for name in _KEPT if name in metadata},
        "dataset": dataset.name,
        **splits,
    }


def _split(source: str, file: Path, dataset: Dataset) -> dict[str, Any]:
    """A split that the training read: name, dataset, and number and checksum of its samples where they are known."""
    try:
        found = find_file(source, file)
        owner = Dataset.of_split(found) or dataset
    except UserError:
        owner = dataset  # the data has gone, and its description may be left
    fitting = [name for name in owner.splits if f"/{source}".endswith(f"/{name}")]
    name = max(fitting, key=len, default=Path(source).name)
    summary = owner.splits.get(name)
    known = {} if summary is None else {"count": summary.count, "sha256": summary.sha256}
    return {"dataset": owner.name, "split": name, **known}


def _card(description: dict[str, Any], has_crf: bool) -> str:
    """What a person reads first."""
    training, scores, seen = description["training"], description["scores"], description["input"]
    evaluation, tested = scores["evaluation"], scores["while_training"]
    splits = ", ".join(f"{each['dataset']}/{each['split']}" for each in training["trained_on"]) or "(not known)"
    lines = [f"# {description['name']}", ""]
    lines.append(f"`{description['network']}`, a segmentation network with {len(description['classes'])} classes:")
    lines += [", ".join(description["classes"]) + ".", ""]
    lines += ["```python", "import renet", "", 'with renet.Predictor("PATH/OF/THIS/FOLDER") as predictor:']
    lines += ['    labels = predictor.predict("image.jpg")  # H x W uint8, indices of predictor.classes', "```", ""]
    same = as_typed("tools/predict.py --model PATH/OF/THIS/FOLDER --input IMAGES --out PREDICTIONS")
    lines += [f"`{same}` does the same.", ""]
    if seen["image_scale"] != 1:
        lines += [f"It has learnt from images shrunk by {seen['image_scale']:g}: say so (`image_scale`).", ""]
    if has_crf:
        lines += ["`crf=True` (`--crf`) sharpens the result with the dense CRF of `deploy_crf.prototxt`.", ""]
    lines += ["| | |", "|---|---|"]
    if evaluation is not None:
        lines.append(
            f"| scores | mean IoU {percent(evaluation['mean_iou'])}%, pixel accuracy "
            f"{percent(evaluation['pixel_accuracy'])}%, {evaluation['images']} images |"
        )
    if tested is not None and "mean_iou" in tested:
        lines.append(
            f"| test while training | mean IoU {percent(tested['mean_iou'])}%, pixel accuracy "
            f"{percent(tested['pixel_accuracy'])}% |"
        )
    lines.append(f"| trained on | {splits} |")
    lines.append(f"| iterations | {training['iteration'] or '(not known)'} of {training['iterations']} |")
    lines.append(f"| seed | {training['seed']} |")
    lines.append(f"| commit | {training.get('commit') or '(not known)'} |")
    return "\n".join(lines) + "\n\n`model.json` has the solver, the versions and the checksums of data and files.\n"
