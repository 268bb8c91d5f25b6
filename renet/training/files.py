"""The prototxt files of a training: read, checked without Caffe (it would abort), written into a run's folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.repository import find_file, path_for_caffe
from renet.common.text_files import read_text
from renet.data.dataset import folder_of_split
from renet.data.split_reader import IMAGES, LABELS
from renet.networks.net_state import layers_in, state_of
from renet.runtime.prototxt import read_network, read_solver
from renet.training import solver_settings

SOLVER, TRAIN_VAL, DEPLOY = "solver.prototxt", "train_val.prototxt", "deploy.prototxt"
DEPLOY_CRF = "deploy_crf.prototxt"
DEPLOYED = (DEPLOY, DEPLOY_CRF)
TRAIN = "train.prototxt"
TEST = "test"  # kind of a solver's first test in the metrics; those after it are test_1, test_2, ... (Caffe's numbers)

# Fields of layers that name a file or folder.
_FILE_FIELDS = {
    "Data": ("data_param", "source"),
    "ImageData": ("image_data_param", "source"),
    "ImageSegData": ("image_data_param", "source"),
    "DenseImageData": ("dense_image_data_param", "source"),
    "HDF5Data": ("hdf5_data_param", "source"),
    "WindowData": ("window_data_param", "source"),
    "InfogainLoss": ("infogain_loss_param", "source"),
}


@dataclass
class NetworkFile:
    """A network of a training.

    Attributes:
        parameter: the network, with files that exist.
        name: of its file in the run's folder.
        origin: the file that it was read from, or the solver where it stands in there.
    """

    parameter: caffe_pb2.NetParameter
    name: str
    origin: Path
    _text: str | None
    _as_read: caffe_pb2.NetParameter

    @classmethod
    def of(cls, parameter: caffe_pb2.NetParameter, name: str, origin: Path, text: str | None) -> NetworkFile:
        """A network as it was read, with the text that says it (None: there is none to keep)."""
        as_read = caffe_pb2.NetParameter()
        as_read.CopyFrom(parameter)
        return cls(parameter, name, origin, text, as_read)

    @property
    def text(self) -> str:
        """The prototxt: as it was written, where nothing had to be changed."""
        if self._text is None or self.parameter != self._as_read:
            return text_format.MessageToString(self.parameter)
        return self._text


@dataclass(frozen=True)
class TestNetwork:
    """One of the solver's tests.

    Attributes:
        kind: its name in the metrics: `test`, `test_1`, ...
        network: with the layers of all phases.
        state: phase, level and stages that choose among them.
        more_stages: those of `state` that the solver names, not the network.
        batches: of one test.
    """

    kind: str
    network: NetworkFile
    state: caffe_pb2.NetState
    more_stages: tuple[str, ...]
    batches: int

    @property
    def layers(self) -> list[caffe_pb2.LayerParameter]:
        """The network's layers in this test's state."""
        return layers_in(self.network.parameter, self.state)

    @property
    def title(self) -> str:
        """What a person calls it: the kind, and the stages where it has some."""
        return f"{self.kind} ({', '.join(self.state.stage)})" if self.state.stage else self.kind


@dataclass
class TrainingFiles:
    """What is trained, and how.

    Attributes:
        solver: without the networks and paths, which belong to a run (see `write`).
        training: the network that is trained.
        tests: in Caffe's order.
        deployed: texts of the deploy networks beside it, by file name.
        file: the solver's.
    """

    solver: caffe_pb2.SolverParameter
    training: NetworkFile
    tests: list[TestNetwork]
    deployed: dict[str, str]
    file: Path

    @classmethod
    def read(cls, solver_file: Path, own: bool = False) -> TrainingFiles:
        """Read a solver and its networks, and look for what they name.

        Args:
            solver_file: the solver.
            own: it lies in a run's folder, where `write` put it beside its networks: these are read, wherever the
                folder has been moved or copied to.

        Raises:
            UserError: a file is missing or no such prototxt, data is missing, or a setting of the solver is wrong.
        """
        solver = read_solver(solver_file)
        solver_settings.check(solver, solver_file)
        training, tests = _networks(solver, solver_file, own)
        prepared: set[str] = set()  # blobs of 8-bit labels
        for layer, file in _used_layers(solver, training, tests):
            _find_files(layer, file)
            if layer.type == "SegmentationData":
                prepared.update(layer.top[1:])
            _check_ignored_label(layer, prepared, file)
        beside = (training.origin.with_name(name) for name in DEPLOYED)
        deployed = {file.name: read_text(file) for file in beside if file.is_file()}
        return cls(solver, training, tests, deployed, solver_file)

    @property
    def network(self) -> caffe_pb2.NetParameter:
        """The network that is trained, with the layers of all phases."""
        return self.training.parameter

    @property
    def training_layers(self) -> list[caffe_pb2.LayerParameter]:
        """The layers that are trained."""
        return _training_layers(self.solver, self.training)

    @property
    def networks(self) -> list[NetworkFile]:
        """All networks, each once."""
        return list({one.name: one for one in (self.training, *(test.network for test in self.tests))}.values())

    def place(self) -> str | None:
        """A line that names the network where it does not lie in the solver's folder."""
        origin, folder = self.training.origin, self.file.parent
        if origin.resolve().parent == folder.resolve():
            return None
        beside = folder / origin.name
        other = f" ({beside} is not what is trained)" if beside.exists() else ""
        return f"network: {origin}{other}"

    def set_seed(self, seed: int) -> None:
        """Start weights and samples from `seed`."""
        self.solver.random_seed = seed
        for network in self.networks:
            for layer in network.parameter.layer:
                if layer.type == "SegmentationData":
                    layer.segmentation_data_param.seed = seed

    def data_folder(self) -> Path | None:
        """The folder with a dataset.json above the first training source; None where there is none."""
        return next((folder for layer in self.training_layers for folder in dataset_folders(layer)), None)

    def write(self, folder: Path, prefix: str) -> None:
        """Write all files into a run's folder; snapshots go to `snapshots/<prefix>_iter_...`."""
        for network in self.networks:
            write_atomically(folder / network.name, network.text.encode())
        for name, text in self.deployed.items():
            write_atomically(folder / name, text.encode())
        for field in solver_settings.FILES_OF_THE_RUN:
            self.solver.ClearField(field)
        field = "net" if self.training.name == TRAIN_VAL else "train_net"
        setattr(self.solver, field, path_for_caffe(folder / self.training.name))
        others = (test.network.name for test in self.tests if test.network is not self.training)
        self.solver.test_net.extend(path_for_caffe(folder / name) for name in others)
        self.solver.snapshot_prefix = path_for_caffe(folder / "snapshots" / prefix)
        self.solver.snapshot_format = caffe_pb2.SolverParameter.BINARYPROTO
        write_atomically(folder / SOLVER, text_format.MessageToString(self.solver).encode())

    def solver_for_steps(self) -> str:
        """The solver's text for pycaffe: without tests, snapshots and first weights, which train.py does itself."""
        solver = caffe_pb2.SolverParameter()
        solver.CopyFrom(self.solver)
        for field in (*solver_settings.DONE_WITHOUT_CAFFE, "test_net"):
            solver.ClearField(field)
        return text_format.MessageToString(solver)


def read_training_layers(file: Path) -> list[caffe_pb2.LayerParameter]:
    """Read the layers of a network's TRAIN phase, with paths that lead to their files from the current folder.

    Raises:
        UserError: no network, or data is missing.
    """
    network = read_network(file)
    layers = layers_in(network, state_of(network, caffe_pb2.TRAIN))
    for layer in layers:
        _find_files(layer, file)
    return layers


def dataset_folders(layer: caffe_pb2.LayerParameter) -> Iterator[Path]:
    """The folders of prepared datasets (those with a dataset.json) that a data layer reads, one for each source."""
    sources = list(layer.segmentation_data_param.source) if layer.type == "SegmentationData" else []
    if layer.type == "Data":
        sources = [layer.data_param.source]
    for source in sources:
        folder = folder_of_split(Path(source))
        if folder is not None:
            yield folder


def _networks(solver: caffe_pb2.SolverParameter, file: Path, own: bool) -> tuple[NetworkFile, list[TestNetwork]]:
    """The network to train and those to test, as Caffe finds them: one of `net`, `net_param`, `train_net` and
    `train_net_param`; tests of `test_net_param`, `test_net`, and as many of `net` or `net_param` as `test_iter` has
    further entries."""
    named = [field for field in ("net", "net_param", "train_net", "train_net_param") if solver.HasField(field)]
    if len(named) != 1:
        has = f"has {' and '.join(named)}" if named else "has none"
        raise UserError(
            f"{file}: needs one network to train, as net, net_param, train_net or train_net_param; it {has}"
        )
    is_generic = named[0] in ("net", "net_param")
    training = _network(getattr(solver, named[0]), TRAIN_VAL if is_generic else TRAIN, file, own)
    tested = [
        _network(value, f"{TEST}.prototxt" if not number else f"{TEST}_{number}.prototxt", file, own)
        for number, value in enumerate([*solver.test_net_param, *solver.test_net])
    ]
    rest = len(solver.test_iter) - len(tested)
    if rest < 0 or (rest > 0 and not is_generic):
        raise UserError(
            f"{file}: test_iter has {len(solver.test_iter)} entries for {len(tested)} test networks; it needs one for"
            " each"
        )
    tested += rest * [training]
    states = list(solver.test_state) or [None] * len(tested)
    if len(states) != len(tested):
        raise UserError(
            f"{file}: test_state has {len(states)} entries for {len(tested)} tests (test_iter); it needs one for each,"
            " or none"
        )
    tests = [
        TestNetwork(
            f"{TEST}_{number}" if number else TEST,
            network,
            state_of(network.parameter, caffe_pb2.TEST, more),
            tuple(more.stage) if more is not None else (),
            batches,
        )
        for number, (network, more, batches) in enumerate(zip(tested, states, solver.test_iter))
    ]
    return training, tests


def _network(value: str | caffe_pb2.NetParameter, name: str, solver_file: Path, own: bool) -> NetworkFile:
    """A network that a solver names or holds."""
    if isinstance(value, caffe_pb2.NetParameter):
        parameter = caffe_pb2.NetParameter()
        parameter.CopyFrom(value)
        return NetworkFile.of(parameter, name, solver_file, None)
    file = solver_file.with_name(Path(value).name) if own else find_file(value, solver_file)
    parameter = read_network(file)
    try:
        text = read_text(file)
    except UserError:
        text = None  # a binary network
    return NetworkFile.of(parameter, name, file, text)


def _training_layers(solver: caffe_pb2.SolverParameter, training: NetworkFile) -> list[caffe_pb2.LayerParameter]:
    state = state_of(training.parameter, caffe_pb2.TRAIN, solver.train_state)
    return layers_in(training.parameter, state)


def _used_layers(
    solver: caffe_pb2.SolverParameter, training: NetworkFile, tests: Iterable[TestNetwork]
) -> Iterator[tuple[caffe_pb2.LayerParameter, Path]]:
    """The layers that will be built, each once, with the files that they stand in."""
    seen: list[caffe_pb2.LayerParameter] = []
    for origin, layers in (
        (training.origin, _training_layers(solver, training)),
        *((test.network.origin, test.layers) for test in tests),
    ):
        for layer in layers:
            if not any(layer is other for other in seen):
                seen.append(layer)
                yield layer, origin


def _check_ignored_label(layer: caffe_pb2.LayerParameter, prepared: Collection[str], file: Path) -> None:
    """Make sure that the label to ignore is one that prepared data can hold.

    Raises:
        UserError: it is not; names the layer.
    """
    fields = {"SegmentationData": layer.segmentation_data_param, "Accuracy": layer.accuracy_param}
    parameter = fields.get(layer.type, layer.loss_param)
    is_concerned = layer.type == "SegmentationData" or not prepared.isdisjoint(layer.bottom)
    if is_concerned and parameter.HasField("ignore_label") and not -1 <= parameter.ignore_label <= 255:
        raise UserError(
            f"{file}: layer {layer.name!r}: ignore_label is {parameter.ignore_label}, and labels are 0 to 255"
        )


def _find_files(layer: caffe_pb2.LayerParameter, file: Path) -> None:
    """Make sure that what a layer reads exists, and let its paths lead there from the current folder.

    Raises:
        UserError: names the layer and what is missing.
    """
    if layer.type == "SegmentationData":
        sources = layer.segmentation_data_param.source
        for index, source in enumerate(sources):
            try:
                found = find_file(source, file)
            except UserError:
                raise UserError(
                    f"{file}: layer {layer.name!r}: no prepared split {source!r} (data_prep/*.py --help says how to"
                    " prepare one)"
                ) from None
            for part in (IMAGES, LABELS):
                if not (found / part).is_dir():
                    raise UserError(f"{file}: layer {layer.name!r}: {source!r} has no {part}")
            sources[index] = str(found)
    if layer.type in _FILE_FIELDS:
        message, field = _FILE_FIELDS[layer.type]
        _find_in(getattr(layer, message), field, layer, file)
    if layer.HasField("transform_param"):
        _find_in(layer.transform_param, "mean_file", layer, file)


def _find_in(message: object, field: str, layer: caffe_pb2.LayerParameter, file: Path) -> None:
    name = getattr(message, field)
    if not name:
        return
    try:
        setattr(message, field, str(find_file(name, file)))
    except UserError as error:
        raise UserError(f"{str(error).replace(str(file), f'{file}: layer {layer.name!r}', 1)}") from None
