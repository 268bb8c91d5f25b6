"""The prototxt files of a training: read, checked without Caffe (it would abort), written into a run's folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from caffe.proto import caffe_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from data_prep.command_line import UserError
from data_prep.dataset import write_atomically
from data_prep.split_reader import IMAGES, LABELS

ROOT = Path(__file__).resolve().parent.parent
SOLVER, TRAIN_VAL, DEPLOY = "solver.prototxt", "train_val.prototxt", "deploy.prototxt"
AnyMessage = TypeVar("AnyMessage", bound=Message)


def read_prototxt(file: Path, message: AnyMessage) -> AnyMessage:
    """Fill `message` from a prototxt.

    Raises:
        UserError: no such file, or not such a message; names file, line and column.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a prototxt (no UTF-8 text)") from None
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise UserError(f"{file}:{error}") from None


def find_file(name: str, file: Path) -> Path:
    """Where the path `name` that stands in the prototxt `file` leads: from the current folder, else from the
    repository's root.

    Raises:
        UserError: to nothing.
    """
    for base in (Path(), ROOT):
        if (base / name).exists():
            # Relative to the root is what stock Caffe reads there; elsewhere only a full path is safe.
            return Path(name) if Path.cwd() == ROOT else (base / name).absolute()
    raise UserError(f"{file}: {name!r} leads to nothing, neither from the current folder nor from {ROOT}")


@dataclass
class TrainingFiles:
    """What is trained, and how.

    Attributes:
        solver: without the paths, which belong to a run (see `write`).
        network: with data sources that exist.
        deploy: text of the deploy network beside it, or None.
    """

    solver: caffe_pb2.SolverParameter
    network: caffe_pb2.NetParameter
    deploy: str | None
    _network_text: str
    _network_as_read: caffe_pb2.NetParameter

    @classmethod
    def read(cls, solver_file: Path, network_file: Path | None = None) -> TrainingFiles:
        """Read a solver and its network (or `network_file` in its place), and look for what they name.

        Raises:
            UserError: a file is missing or no such prototxt, data is missing, or the solver lacks something.
        """
        solver = read_prototxt(solver_file, caffe_pb2.SolverParameter())
        if not solver.net and network_file is None:
            raise UserError(f"{solver_file}: needs the field net: a train_val network with both phases in one file")
        if solver.max_iter < 1:
            raise UserError(f"{solver_file}: needs max_iter, the number of iterations")
        if not solver.lr_policy or solver.base_lr <= 0:
            raise UserError(f'{solver_file}: needs base_lr and lr_policy, such as lr_policy: "fixed"')
        file = network_file or find_file(solver.net, solver_file)
        network = read_prototxt(file, caffe_pb2.NetParameter())
        as_read = caffe_pb2.NetParameter()
        as_read.CopyFrom(network)
        _check_sources(network, file)
        deploy = file.with_name(DEPLOY)
        return cls(
            solver,
            network,
            deploy.read_text(encoding="utf-8") if deploy.is_file() else None,
            file.read_text(encoding="utf-8"),
            as_read,
        )

    def set_seed(self, seed: int) -> None:
        """Start weights and samples from `seed`."""
        self.solver.random_seed = seed
        for layer in self.network.layer:
            if layer.type == "SegmentationData":
                layer.segmentation_data_param.seed = seed

    def data_folder(self) -> Path | None:
        """The folder with a dataset.json above the first training source; None where there is none."""
        for layer in self.network.layer:
            for source in layer.segmentation_data_param.source:
                for folder in Path(source).absolute().parents:
                    if (folder / "dataset.json").is_file():
                        return folder
        return None

    def write(self, folder: Path, prefix: str) -> None:
        """Write all three files into a run's folder; snapshots go to `snapshots/<prefix>_iter_...`."""
        text = self._network_text
        if self.network != self._network_as_read:
            text = text_format.MessageToString(self.network)
        write_atomically(folder / TRAIN_VAL, text.encode())
        if self.deploy is not None:
            write_atomically(folder / DEPLOY, self.deploy.encode())
        self.solver.net = path_for_caffe(folder / TRAIN_VAL)
        self.solver.snapshot_prefix = path_for_caffe(folder / "snapshots" / prefix)
        self.solver.snapshot_format = caffe_pb2.SolverParameter.BINARYPROTO
        write_atomically(folder / SOLVER, text_format.MessageToString(self.solver).encode())

    def solver_for_steps(self) -> str:
        """The solver's text for pycaffe: without tests, snapshots and first weights, which train.py does itself."""
        solver = caffe_pb2.SolverParameter()
        solver.CopyFrom(self.solver)
        for field in ("test_iter", "test_interval", "test_initialization", "snapshot", "weights"):
            solver.ClearField(field)
        return text_format.MessageToString(solver)


def path_for_caffe(path: Path) -> str:
    """`path` from the repository's root where this process stands there and the path lies inside, else in full."""
    absolute = Path(os.path.abspath(path))
    inside = Path.cwd() == ROOT and absolute.is_relative_to(ROOT)
    return str(absolute.relative_to(ROOT) if inside else absolute)


def _check_sources(network: caffe_pb2.NetParameter, file: Path) -> None:
    """Make sure that data sources exist, and let them lead there from the current folder.

    Raises:
        UserError: names the layer and what is missing.
    """
    for layer in network.layer:
        if layer.type == "SegmentationData":
            sources = layer.segmentation_data_param.source
            for index, source in enumerate(sources):
                try:
                    found = find_file(source, file)
                except UserError:
                    raise UserError(
                        f"{file}: layer {layer.name!r}: no prepared split {source!r} (data_prep/*.py --help says how"
                        " to prepare one)"
                    ) from None
                for part in (IMAGES, LABELS):
                    if not (found / part).is_dir():
                        raise UserError(f"{file}: layer {layer.name!r}: {source!r} has no {part}")
                sources[index] = str(found)
        elif layer.type in ("Data", "ImageData", "HDF5Data"):
            fields = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}
            parameter = getattr(layer, fields[layer.type])
            parameter.source = str(find_file(parameter.source, file))
