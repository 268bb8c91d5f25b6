"""A trained network as one folder, read: its files, checked against the SHA-256 that model.json holds of each.

`tools/pack.py` writes such a folder of a run (renet/training/packing.py), and `tools/import_model.py` of another
Caffe's network (renet/exchange/model_import.py). It stands for deploy.prototxt, weights and dataset wherever a network
is asked for; so does the folder of a training.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from typing_extensions import NotRequired, TypedDict

from renet.common.errors import UserError
from renet.common.files import file_sha256, hold, partial_name, sync_folder, write_atomically
from renet.common.json_schema import STRICT, read_json_as
from renet.common.repository import shipped_file
from renet.data.dataset import FILE_NAME as DATASET
from renet.data.dataset import Dataset
from renet.networks.trained_run import BEST, NEWEST, RUN, read_metadata, weights_of_run

MODEL = "model.json"
DEPLOY, DEPLOY_CRF, WEIGHTS, CARD = "deploy.prototxt", "deploy_crf.prototxt", "weights.caffemodel", "README.md"
FORMAT = 1
NEEDED = (DEPLOY, WEIGHTS, DATASET)


class _Description(TypedDict):
    """model.json, as far as a reader of the folder needs it."""

    __pydantic_config__ = STRICT
    format: int
    files: NotRequired[dict[str, str]]


_DESCRIPTION: TypeAdapter[dict[str, Any]] = TypeAdapter(_Description)


@dataclass(frozen=True)
class TrainedNetwork:
    """A deploy network and its weights.

    Attributes:
        deploy: the prototxt.
        weights: .caffemodel, or Caffe's HDF5 file.
        dataset: names and colours of the classes, where they are known.
        deploy_crf: the prototxt with a dense CRF in the softmax's place, where there is one.
        description: what model.json says; None outside a model folder.
    """

    deploy: Path
    weights: Path
    dataset: Dataset | None = None
    deploy_crf: Path | None = None
    description: Mapping[str, Any] | None = None


def find_network(model: Path, weights: Path | None) -> TrainedNetwork:
    """Find a network as people name it: a model folder alone, a run's folder, or a deploy prototxt with its weights.

    Args:
        model: folder or file.
        weights: of a prototxt; of a run also `newest` or `best`, or None (see `weights_of_run`).

    Raises:
        UserError: a file is missing or damaged, the weights are missing, or a model folder is given weights.
    """
    if (model / RUN).is_file():
        return _network_of_run(model, weights)
    if model.is_dir():
        if weights is not None:
            raise UserError(f"{model}: a model folder has its own weights; leave {weights} out, or name {DEPLOY}")
        return read_model_folder(model)
    model = shipped_file(model)
    if not model.is_file():
        raise UserError(f"{model}: no such file or model folder")
    if weights is None:
        raise UserError(f"{model}: needs its weights (a .caffemodel); only a model folder or a run's has them with it")
    if not weights.is_file():
        raise UserError(f"{weights}: no such file")
    return TrainedNetwork(model, weights)


def _network_of_run(run: Path, weights: Path | None) -> TrainedNetwork:
    if not (run / DEPLOY).is_file():
        raise UserError(f"{run / DEPLOY}: missing: the training had no {DEPLOY} beside its network")
    if weights is None or str(weights) in (NEWEST, BEST):
        weights = weights_of_run(run, None if weights is None else str(weights))
    elif not weights.is_file():
        raise UserError(f"{weights}: no such file; of a run, --weights is also {NEWEST} or {BEST}")
    data = read_metadata(run).get("dataset")
    described = Dataset.open(data) if isinstance(data, str) and (Path(data) / DATASET).is_file() else None
    crf = run / DEPLOY_CRF
    return TrainedNetwork(run / DEPLOY, weights, described, crf if crf.is_file() else None)


@contextmanager
def new_model_folder(out: Path) -> Iterator[Path]:
    """Make a model folder whole or not at all: give a folder to write into, which becomes `out` at the end.

    Raises:
        UserError: `out` is there already; names it.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = partial_name(out)
    beside.mkdir()
    held = os.open(beside, os.O_RDONLY)
    hold(held)
    try:
        yield beside
        beside.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(held)


def seal_model_folder(folder: Path, description: Mapping[str, Any], more: Sequence[str] = ()) -> None:
    """Write model.json: the description, with the SHA-256 of a model folder's files and of those named in `more`."""
    names = (DEPLOY, DEPLOY_CRF, WEIGHTS, DATASET, CARD, *more)
    files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    content = {**description, "files": files}
    write_atomically(folder / MODEL, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def read_model_folder(folder: Path) -> TrainedNetwork:
    """Read a model folder and check every file in it.

    Raises:
        UserError: no model folder, or one of another format; or a file is missing, or is not the one that was packed.
            Names the file.
    """
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder}: not a model folder (no {MODEL} in it); tools/pack.py makes one of a run")
    description = read_json_as(folder / MODEL, _DESCRIPTION)
    if description["format"] != FORMAT:
        raise UserError(f"{folder / MODEL}: has the format {description['format']}, and {FORMAT} is known here")
    files = description.get("files", {})
    if not set(NEEDED) <= set(files):
        raise UserError(f"{folder / MODEL}: damaged: files must list {', '.join(NEEDED)}")
    outside = next((name for name in files if Path(name).name != name), None)
    if outside is not None:
        raise UserError(f"{folder / MODEL}: damaged: {outside!r} is no name of a file in this folder")
    for name, sha256 in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing from the model folder")
        if name != CARD and file_sha256(file) != sha256:  # the card is for people, who may edit it
            raise UserError(
                f"{file}: is not the file that was packed (its SHA-256 is not the one in {MODEL}): damaged or edited; "
                "copy the folder anew, or pack the run again"
            )
    return TrainedNetwork(
        folder / DEPLOY,
        folder / WEIGHTS,
        Dataset.open(folder / DATASET),
        folder / DEPLOY_CRF if DEPLOY_CRF in files else None,
        description,
    )
