"""Training of an experiment: the settings of all, its files, and whether a run's folder has those."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from renet.common.errors import UserError
from renet.common.files import file_sha256, write_json
from renet.common.repository import ROOT, product_path
from renet.data.dataset import Dataset, SplitSummary
from renet.networks.files import WEIGHTS_COMMENT, Data, network_texts, solver_file_text
from renet.networks.models import MODELS
from renet.networks.recipe import Recipe
from renet.networks.schedules import Schedule
from renet.networks.sealed_files import edited, write_texts
from renet.networks.spec import Options
from renet.networks.trained_run import SNAPSHOTS
from renet.runtime.prototxt import read_network, read_solver, upgrade_network
from renet.training.files import SOLVER, TRAIN_VAL

NETWORK = "network"
SOURCES = "sources.json"
# Fields of a solver that say nothing about what is learnt: the run's place and device, tests and snapshots.
_NOT_LEARNT = (
    *("net", "snapshot_prefix", "snapshot_format", "solver_mode", "device_id"),
    *("snapshot", "test_iter", "test_interval", "display", "average_loss"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the command line that every run has.

    Attributes:
        dataset: the prepared dataset.
        out: folder of the runs and tables.
        budget: factor of the paper's iterations.
        equal_iterations: of every run, in place of the budget's share; None: the budget decides.
        seeds: of the trainings; each has runs of its own.
        weights: what the networks with VGG-16's layers start from; None: from nothing.
        train_split: splits in place of the usual ones.
        test_split: a split in place of the usual one.
        coco: prepared splits of COCO (Table 7 b).
        n_renet: the model that stands for N-ReNet.
        crop: of the training, height and width; None: the model's.
        batch: images of a pass; None: the model's.
        iter_size: passes to an iteration.
        solver: `sgd` or `adam`; None: the model's.
        rate: learning rate; None: the solver's usual.
        interval: iterations between two tests and snapshots; None: a tenth of all.
        test_images: at most so many images of the test split are tested while training; None: see
            `affordable_test_images`.
        precision: as in `Options`; None: its default. So are frozen, new_rate, batch_norm_memory and mean.
        frozen: see there.
        new_rate: see there.
        batch_norm_memory: see there.
        mean: see there.
        flip: predictions are averaged with those of the mirrored image.
        gpu: device number; None: the CPU.
        tensorboard: the runs write event files, too.
    """

    dataset: Dataset
    out: Path
    budget: float = 1
    equal_iterations: int | None = None
    seeds: tuple[int, ...] = (0,)
    weights: Path | None = None
    train_split: tuple[str, ...] = ()
    test_split: str | None = None
    coco: tuple[Path, ...] = ()
    n_renet: str = "n_renet"
    crop: tuple[int, int] | None = None
    batch: int | None = None
    iter_size: int = 1
    solver: str | None = None
    rate: float | None = None
    interval: int | None = None
    test_images: int | None = None
    precision: str | None = None
    frozen: int | None = None
    new_rate: float | None = None
    batch_norm_memory: float | None = None
    mean: tuple[float, float, float] | None = None
    flip: bool = False
    gpu: int | None = None
    tensorboard: bool = False

    def iterations(self, paper: int) -> int:
        """Compute the iterations of a run for which the paper has so many: the budget's share, at least one, or what
        all runs have."""
        return self.equal_iterations or max(1, round(self.budget * paper))

    def options(self, model: str, **more: Any) -> Options:
        """Choose the network's options; `more` goes over all."""
        names = ("precision", "frozen", "new_rate", "batch_norm_memory", "mean")
        options = MODELS[model].options(self.crop, self.batch, **{name: getattr(self, name) for name in names})
        return replace(options, **more)

    def schedule(self, model: str, paper: int, sgd: Schedule | None = None, recipe: Recipe | None = None) -> Schedule:
        """Choose a model's schedule for its share of `paper` iterations.

        Args:
            model: of `MODELS`.
            paper: iterations of the whole training.
            sgd: in place of the model's own SGD.
            recipe: gives the schedule, whatever the model's own is.

        Raises:
            UserError: another solver than the recipe's is wanted.
        """
        scaled = self.iterations(paper)
        if recipe is not None:
            if self.solver is not None:
                raise UserError(f"--solver {self.solver}: the recipe has a solver of its own")
            return recipe.schedule(scaled).adjusted(self.rate, self.interval)
        wanted = self.solver or MODELS[model].solver
        schedule = sgd if sgd is not None and wanted == "sgd" else MODELS[model].schedule(wanted, scaled)
        return schedule.adjusted(self.rate, self.interval)


@dataclass(frozen=True)
class HeldOut:
    """Dataset made of a training split (see `renet.data.held_out`) before a training that needs it.

    Attributes:
        splits: what is parted.
        folder: of the new dataset.
    """

    splits: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class Training:
    """Run of tools/train.py.

    Attributes:
        name: the run's, and its folder's.
        model: of `MODELS`.
        data: what it learns from and is tested on while it learns.
        options: of the network.
        schedule: how it learns.
        paper_iterations: what the schedule is a share of.
        iter_size: passes to an iteration.
        seed: of weights and samples.
        weights: what it starts from; None: from nothing, or from `start`.
        start: the training whose result it starts from.
        held_out: what is to be made first.
    """

    name: str
    model: str
    data: Data
    options: Options
    schedule: Schedule
    paper_iterations: int
    iter_size: int = 1
    seed: int = 0
    weights: Path | None = None
    start: Training | None = None
    held_out: HeldOut | None = field(default=None, compare=False)

    @property
    def iterations(self) -> int:
        """Count the iterations of the whole training."""
        return self.schedule.iterations

    @property
    def images_seen(self) -> int:
        """Count the training crops, repetitions included."""
        return self.iterations * self.options.batch * self.iter_size

    def folder(self, out: Path) -> Path:
        """Name the run's folder."""
        return out / self.name

    def solver_file(self, out: Path) -> Path:
        """Name the solver as it is written before the training."""
        return self.folder(out) / NETWORK / SOLVER

    def result(self, out: Path) -> Path:
        """Name the weights that it ends with."""
        return self.folder(out) / SNAPSHOTS / f"{self.name}_iter_{self.iterations}.caffemodel"

    def weights_file(self, out: Path) -> Path | None:
        """Name the weights that it starts from."""
        return self.start.result(out) if self.start is not None else self.weights

    def files(self, out: Path) -> dict[str, str]:
        """Write the networks' and the solver's texts by file name."""
        model = MODELS[self.model]
        weights = self.weights_file(out)
        name = f"{self.model}_{self.data.name}"
        comment = WEIGHTS_COMMENT if self.start is None else f"What the run {self.start.name} has learnt."
        solver = solver_file_text(
            self.name,
            f"{self.model} on {self.data.name}",
            model if weights is not None else replace(model, weights=None),
            self.data,
            self.options,
            self.schedule,
            TRAIN_VAL,
            iter_size=self.iter_size,
            weights=None if weights is None else product_path(weights),
            weights_comment=comment,
        )
        return {**network_texts(model, name, self.data, self.options), SOLVER: solver}

    def sources(self, out: Path) -> dict[str, str]:
        """Compute the SHA-256 of what it learns from, by path: the weights and the splits, as far as they are there."""
        found = {source: summary.sha256 for source in self.data.train if (summary := split_summary(Path(source)))}
        weights = self.weights_file(out)
        if weights is not None and weights.is_file():
            found[product_path(weights)] = file_sha256(weights)
        return found


def split_summary(source: Path) -> SplitSummary | None:
    """Find what the dataset.json above a prepared split (a path as prototxts name it) says of it; None where none
    does."""
    dataset = Dataset.of_split(ROOT / source)
    return None if dataset is None else dataset.summary_of(ROOT / source)


def write_files(training: Training, out: Path) -> None:
    """Write the networks and the solver into the run's folder, and what they stand on.

    Raises:
        UserError: one of them was edited since it was written; names it.
    """
    folder = training.solver_file(out).parent
    files = {folder / name: text for name, text in training.files(out).items()}
    for file in edited(files):
        raise UserError(f"{file}: edited since experiments.py wrote it; move it away, or choose another --out")
    write_texts(files)
    write_json(folder / SOURCES, training.sources(out))


def difference(training: Training, out: Path) -> str | None:
    """Describe how the run in `out` differs from what would be trained now; None where it does not.

    Raises:
        UserError: its files are damaged; names them.
    """
    folder = training.folder(out)
    texts = training.files(out)
    solver = text_format.Parse(texts[SOLVER], caffe_pb2.SolverParameter())
    network = upgrade_network(text_format.Parse(texts[TRAIN_VAL], caffe_pb2.NetParameter()), Path(TRAIN_VAL))
    solver.random_seed = training.seed
    if training.seed:
        for layer in network.layer:
            if layer.type == "SegmentationData":
                layer.segmentation_data_param.seed = training.seed
    solver_then = read_solver(folder / SOLVER)
    network_then = read_network(folder / TRAIN_VAL)
    for name in _NOT_LEARNT:
        solver.ClearField(name)
        solver_then.ClearField(name)
    if solver_then.max_iter != solver.max_iter:  # before what follows from it
        return f"max_iter was {solver_then.max_iter}, and would be {solver.max_iter}"
    return (
        first_difference(solver_then, solver)
        or first_difference(network_then, network)
        or _changed_source(training, out)
    )


def _changed_source(training: Training, out: Path) -> str | None:
    try:
        then = json.loads((training.solver_file(out).with_name(SOURCES)).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    now = training.sources(out)
    changed = [name for name in now if name in then and then[name] != now[name]]
    return f"{changed[0]} has other content than then" if changed else None


def first_difference(then: Message, now: Message, place: str = "") -> str | None:
    """Describe the first field in which two messages differ; None where they are equal."""
    if then == now:
        return None
    for descriptor in now.DESCRIPTOR.fields:
        old, new = getattr(then, descriptor.name), getattr(now, descriptor.name)
        if _present(then, descriptor.name) == _present(now, descriptor.name) and old == new:
            continue
        where = f"{place}{descriptor.name}"
        if isinstance(new, Message):
            found = first_difference(old, new, f"{where}.")
            if found is not None:
                return found
        elif hasattr(new, "extend"):
            return _different_items(old, new, where)
        return f"{where} was {_told(then, descriptor.name)}, and would be {_told(now, descriptor.name)}"
    return f"{place.rstrip('.') or 'a file'} was another"


def _different_items(then: Sequence[Any], now: Sequence[Any], where: str) -> str:
    for index, (old, new) in enumerate(zip(then, now)):
        if old == new:
            continue
        if isinstance(new, Message):
            name = getattr(new, "name", "")
            return first_difference(old, new, f"{f'layer {name!r}: ' if name else f'{where}[{index}].'}") or where
        return f"{where} was {old!r}, and would be {new!r}"
    return f"{where} had {len(then)} entries, and would have {len(now)}"


def _present(message: Message, name: str) -> bool:
    return any(descriptor.name == name for descriptor, _ in message.ListFields())


def _told(message: Message, name: str) -> str:
    value = getattr(message, name)
    if not _present(message, name):
        return "unset"
    return f"{value:g}" if isinstance(value, float) else str(value)


def in_order(trainings: Sequence[Training]) -> Mapping[str, Training]:
    """Sort the trainings by name, each once, after those that it starts from."""
    found: dict[str, Training] = {}
    for training in trainings:
        if training.start is not None:
            found |= {name: other for name, other in in_order([training.start]).items() if name not in found}
        found.setdefault(training.name, training)
    return found
