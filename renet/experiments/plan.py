"""Plan of the paper's experiments: which networks each needs, trained and predicting on what, for given settings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from renet.common.errors import UserError
from renet.common.repository import ROOT, product_path
from renet.data.catalog import load_dataset
from renet.data.dataset import FILE_NAME, Dataset, SplitSummary
from renet.data.held_out import HELD_OUT, LEARN, held_out_count
from renet.data.split_reader import IMAGES, LABELS
from renet.experiments.training import HeldOut, Settings, Training, in_order, split_summary
from renet.networks.files import Data
from renet.networks.models import AFTER_COCO_ITERATIONS, BEST, COCO_ITERATIONS, COCO_STEP, FCN_RATES, MODELS
from renet.networks.recipe import ITERATIONS, RECIPE, WITHOUT, Recipe
from renet.networks.schedules import h_renet_sgd
from renet.networks.splits import affordable_test_images, chosen_data
from renet.prediction.crf_parameters import CrfParameters

SCALES = (100, 1000, 10000)
FULL_SIZE = (400, 500)
SIZES = ((256, 320), (320, 400), FULL_SIZE)
# Splits that a prepared copy of the paper's datasets has, so that a list needs none.
_EXPECTED = {
    "voc2012": ("train", "val", "test", "trainaug", "trainvalaug"),
    "stanford_background": tuple(f"fold{number}/{part}" for number in range(5) for part in ("train", "test")),
}


@dataclass(frozen=True)
class Inference:
    """Predictions of a split by a trained network.

    Attributes:
        training: gives the network.
        split: the prepared split.
        crf: a dense CRF comes after the network.
    """

    training: Training
    split: Path
    crf: bool = False

    @property
    def crf_parameters(self) -> CrfParameters:
        """Give those of the model's own CRF; what its layer says of the image is left out."""
        settings = MODELS[self.training.model].deploy_crf
        names = (field.name for field in fields(CrfParameters))
        return CrfParameters(**{name: settings[name] for name in names if name in settings})

    @property
    def key(self) -> tuple[str, bool]:
        """Tell it from others: a run predicts one split."""
        return self.training.name, self.crf


@dataclass(frozen=True)
class Row:
    """Row of a table.

    Attributes:
        name: what the table calls it.
        paper: name of the paper's row to stand beside; empty: it has none.
        inferences: by seed; several are folds, whose scores are averaged.
    """

    name: str
    paper: str
    inferences: Mapping[int, tuple[Inference, ...]]


@dataclass(frozen=True)
class Choice:
    """Choice among rows: the one with the best mean IoU decides what is trained then.

    Attributes:
        what: is chosen.
        candidates: by name the row that is compared, and the one that follows.
    """

    what: str
    candidates: Mapping[str, tuple[Row, Row]]


@dataclass(frozen=True)
class Figure:
    """Figure of predictions or feature maps.

    Attributes:
        split: whose images are shown.
        columns: title and predictions.
        others: whether predictions of other systems may stand beside.
        features: the N-ReNet whose feature maps are shown instead.
    """

    split: Path
    columns: tuple[tuple[str, Inference], ...] = ()
    others: bool = False
    features: Training | None = None


@dataclass(frozen=True)
class Experiment:
    """Experiment that has a name on the command line.

    Attributes:
        name: that.
        title: what it is in the paper.
        rows: of its table.
        notes: what is to be said about it.
        choice: made first; its row then comes first.
        figure: what it shows, of a figure.
        tree: whether predictions are also written as a submission to the VOC server.
        folds: by the position in a row's inferences, where there are several.
        by_size: whether scores of small and large regions are told apart.
        paper: the experiment of the paper whose figures stand beside; None: the one of this name.
    """

    name: str
    title: str
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    choice: Choice | None = None
    figure: Figure | None = None
    tree: bool = False
    folds: tuple[str, ...] = ()
    by_size: bool = False
    paper: str | None = None

    def inferences(self) -> Iterator[Inference]:
        """Iterate over all that is to be predicted; of a choice, what is compared."""
        compared = [compared for compared, _ in self.choice.candidates.values()] if self.choice else []
        for row in (*compared, *self.rows):
            for of_seed in row.inferences.values():
                yield from of_seed
        if self.figure:
            yield from (inference for _, inference in self.figure.columns)

    def trainings(self) -> Mapping[str, Training]:
        """Collect all that is to be trained by name, in order; of a choice, what is compared."""
        features = [self.figure.features] if self.figure and self.figure.features else []
        return in_order([*(inference.training for inference in self.inferences()), *features])

    def later_trainings(self) -> int:
        """Count the trainings that come in addition once the choice is made."""
        if self.choice is None:
            return 0
        _, row = next(iter(self.choice.candidates.values()))
        return sum(len(of_seed) for of_seed in row.inferences.values())


# ------------------------------------------------------------------------------------------------------- trainings


def training(
    settings: Settings,
    model: str,
    seed: int,
    *,
    name: str = "",
    data: Data | None = None,
    paper_iterations: int | None = None,
    start: Training | None = None,
    held_out: HeldOut | None = None,
    sgd: Any = None,
    recipe: Recipe | None = None,
    **options: Any,
) -> Training:
    """Plan a model's training on the usual splits, with the paper's options where `settings` have no others.

    Args:
        settings: of all.
        model: of `MODELS`.
        seed: of it; others than 0 are in the run's name.
        name: of the run, in place of the model's.
        data: in place of the usual splits.
        paper_iterations: in place of the model's.
        start: what it starts from, in place of VGG-16.
        held_out: what is to be made first.
        sgd: a schedule in place of the model's.
        recipe: schedule and options in place of the model's.
        options: of the network, which go over the settings.
    """
    paper = paper_iterations or MODELS[model].sgd(None).iterations
    data = data or usual_data(settings)
    network_options = settings.options(model, **(recipe.options if recipe else {}), **options)
    schedule = settings.schedule(model, paper, sgd, recipe)
    tested = settings.test_images or affordable_test_images(data, network_options, schedule, settings.iter_size)
    return Training(
        (name or model) + (f"_seed{seed}" if seed else ""),
        model,
        replace(data, tested_images=min(tested, data.test_images)),
        network_options,
        schedule,
        paper,
        settings.iter_size,
        seed,
        settings.weights if MODELS[model].weights is not None and start is None else None,
        start,
        held_out,
    )


def usual_data(settings: Settings, train: Sequence[str] = (), test: str | None = None) -> Data:
    """Choose the splits of the command line, else those named here, else the generator's usual ones.

    Raises:
        UserError: the dataset has no such split.
    """
    return chosen_data(settings.dataset, settings.train_split or train or None, settings.test_split or test)


def _row(
    settings: Settings, label: str, paper: str, train: Callable[[int], Training], split: Path, crf: bool = False
) -> Row:
    """A row of one inference for each seed."""
    return Row(label, paper, {seed: (Inference(train(seed), split, crf),) for seed in settings.seeds})


def _usual_row(settings: Settings, label: str, paper: str, model: str, crf: bool = False, **options: Any) -> Row:
    split = ROOT / usual_data(settings).test
    return _row(settings, label, paper, lambda seed: training(settings, model, seed, **options), split, crf)


# ----------------------------------------------------------------------------------------------------- experiments


def _folds(settings: Settings) -> Mapping[str, tuple[str, str] | None]:
    """Training and test split by the fold's name; without folds, or with splits chosen, one without a name."""
    splits = settings.dataset.splits
    found = sorted(int(match[1]) for name in splits if (match := re.fullmatch(r"fold(\d+)/train", name)))
    names = {f"fold{number}": (f"fold{number}/train", f"fold{number}/test") for number in found}
    names = {fold: pair for fold, pair in names.items() if pair[1] in splits}
    return {"": None} if settings.train_split or settings.test_split or not names else names


def _of_fold(
    settings: Settings, model: str, seed: int, fold: str, pair: tuple[str, str] | None, name: str = "", **more: Any
) -> Training:
    data = usual_data(settings, *(((pair[0],), pair[1]) if pair else ()))
    return training(settings, model, seed, name="_".join(filter(None, (name or model, fold))), data=data, **more)


def _row_of_folds(settings: Settings, label: str, paper: str, model: str, **more: Any) -> Row:
    """A row whose figures are means of the folds."""
    inferences = {}
    for seed in settings.seeds:
        trainings = [_of_fold(settings, model, seed, fold, pair, **more) for fold, pair in _folds(settings).items()]
        inferences[seed] = tuple(Inference(each, ROOT / each.data.test) for each in trainings)
    return Row(label, paper, inferences)


def _of_folds(settings: Settings, name: str, title: str, rows: tuple[Row, ...], *notes: str) -> Experiment:
    folds = _folds(settings)
    if len(folds) == 5:
        note = "Each figure is the mean of five folds, as the paper's."
    elif "" in folds:
        note = "One division into training and test images; the paper's figure is the mean of five folds."
    else:
        note = f"The dataset has {_list_of(folds)} alone; the paper's figure is the mean of five folds."
    named = tuple(folds) if len(folds) > 1 else ()
    return Experiment(name, title, rows, (note, *notes), folds=named, paper="table1")


def table1(settings: Settings) -> Experiment:
    """Plan N-ReNet on Stanford Background, and the multi-scale ConvNet beside it."""
    rows = (
        _row_of_folds(settings, "N-ReNet", "N-ReNet", settings.n_renet),
        _row_of_folds(settings, "Multi-scale ConvNet", "Multi-scale ConvNet", "multi_scale_convnet"),
    )
    return _of_folds(settings, "table1", "Table 1: N-ReNet on raw pixels", rows)


_RECIPE_NOTE = "The recipe is not the paper's: augmentation, dropout, AdamW, a warm-up, a cosine, averaged weights."


def recipe_folds(settings: Settings) -> Experiment:
    """Plan Table 1's N-ReNet by the recipe of `solvers/n_renet_*_augmented.prototxt`."""
    model = settings.n_renet
    row = _row_of_folds(
        settings, "N-ReNet", "N-ReNet", model, name=f"{model}_recipe",
        paper_iterations=_recipe_iterations(model), recipe=RECIPE,
    )  # fmt: skip
    return _of_folds(settings, "recipe_folds", "Table 1 by a recipe of today", (row,), _RECIPE_NOTE)


def _recipe_iterations(model: str) -> int:
    if model not in ITERATIONS:
        raise UserError(f"the recipe is for {' and '.join(ITERATIONS)}, not for {model} (--n-renet)")
    return ITERATIONS[model]


def recipe_parts(settings: Settings) -> Experiment:
    """Plan the recipe without each of its parts."""
    model = settings.n_renet
    iterations = _recipe_iterations(model)
    fold, pair = next(iter(_folds(settings).items()))

    def row(label: str, part: str, changed: Recipe) -> Row:
        named = {"name": "_".join(filter(None, (model, "recipe", part))), "recipe": changed}

        def train(seed: int) -> Training:
            return _of_fold(settings, model, seed, fold, pair, paper_iterations=iterations, **named)

        return _row(settings, label, "", train, ROOT / train(settings.seeds[0]).data.test)

    rows = [row("the whole recipe", "", RECIPE)]
    rows += [row(f"without {part.replace('_', ' ')}", f"without_{part}", changed) for part, changed in WITHOUT.items()]
    notes = (
        _RECIPE_NOTE,
        "Without all: Adam, the rate falling linearly to 0. Without the cosine: the same, without a warm-up.",
    )
    return Experiment("recipe_parts", "A recipe of today without each of its parts", tuple(rows), notes)


def _list_of(names: Sequence[str] | Mapping[str, Any]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def table4(settings: Settings) -> Experiment:
    """Plan the baseline FCN and H-ReNet's variants."""
    rows = (
        ("(a) baseline FCN", "a", "fcn", False),
        ("(b) H-ReNet", "b", "h_renet", False),
        ("(c) H-ReNet, BN", "c", "h_renet_bn", False),
        ("(d) H-ReNet, BN, MLFB", "d", BEST, False),
        ("(e) baseline FCN, DenseCRF", "e", "fcn", True),
        ("(f) H-ReNet, BN, DenseCRF", "f", "h_renet_bn", True),
        ("(g) H-ReNet, BN, MLFB, DenseCRF", "g", BEST, True),
    )
    return Experiment(
        "table4",
        "Table 4: the baseline FCN and H-ReNet",
        tuple(_usual_row(settings, *row) for row in rows),
        ("BN: batch normalisation. MLFB: multi-layer feature combination. (e) to (g) are (a), (c), (d) and the CRF.",),
    )


def table5(settings: Settings) -> Experiment:
    """Plan H-ReNet with other inputs of the recurrent group."""
    rows = (
        ("pool4", "pool4", "h_renet_bn_from_pool4"),
        ("pool5", "pool5", "h_renet_bn_from_pool5"),
        ("conv7", "conv7", "h_renet_bn"),
        ("conv7 and pool5", "conv7+pool5", "h_renet_bn_conv7_pool5"),
        ("conv7, pool5 and pool4", "conv7+pool5+pool4", BEST),
    )
    title = "Table 5: what H-ReNet's recurrent group sees"
    return Experiment("table5", title, tuple(_usual_row(settings, *row) for row in rows))


def table6(settings: Settings) -> Experiment:
    """Plan testing time beside accuracy, of the paper's systems and those that it compares with."""
    crf = "H-ReNet + DenseCRF (2 iterations)"
    deeplab = "deeplab_largefov"
    split = ROOT / usual_data(settings).test
    rows = (
        _usual_row(settings, "DeepLab-LargeFOV", "DeepLab-LargeFOV", deeplab),
        _usual_row(settings, "DeepLab-CRF-LargeFOV", "DeepLab-CRF-LargeFOV", deeplab, crf=True),
        _row(settings, "CRF-as-RNN", "CRFasRNN", partial(_crf_as_rnn, settings), split),
        _row(settings, "FCN-8s", "", lambda seed: _fcn8s(settings, seed), split),
        _usual_row(settings, "baseline FCN", "baseline FCN", "fcn"),
        _usual_row(settings, "H-ReNet", "H-ReNet", BEST),
        _usual_row(settings, crf, crf, BEST, crf=True),
    )
    notes = (
        "Seconds are from the pixels of one image, at its own size, to its probabilities: the median over the images.",
        "The other systems have their authors' crops, batches and CRFs. CRF-as-RNN starts from FCN-8s (not in the "
        "paper's table), that from FCN-16s, and that from FCN-32s.",
    )
    return Experiment("table6", "Table 6: testing time and accuracy", rows, notes)


def _crf_as_rnn(settings: Settings, seed: int) -> Training:
    return training(settings, "crf_as_rnn", seed, start=_fcn8s(settings, seed))


def _fcn8s(settings: Settings, seed: int) -> Training:
    """FCN-32s, then FCN-16s and FCN-8s, each from what the one before has learnt."""
    trained = None
    for model in FCN_RATES:
        trained = training(settings, model, seed, start=trained)
    return trained


def _table7_data(settings: Settings) -> tuple[Data, Path, tuple[str, ...]]:
    """What Table 7 learns from (tested on a labelled split while it learns), what it predicts, and notes."""
    splits = settings.dataset.splits
    notes = []
    train = ("trainvalaug",) if "trainvalaug" in splits else ()
    data = usual_data(settings, train)
    if not train and not settings.train_split:
        notes.append("The dataset has no split trainvalaug, which the paper learns from here.")
    predicted = settings.test_split or ("test" if "test" in splits else None)
    split = settings.dataset.folder / predicted if predicted else ROOT / data.test
    if not (ROOT / data.test / LABELS).is_dir():
        usual = [name for name in ("val", "test", "fold0/test") if (settings.dataset.folder / name / LABELS).is_dir()]
        tested = product_path(settings.dataset.folder / usual[0]) if usual else data.train[0]
        summary = split_summary(Path(tested))
        data = replace(data, test=tested, test_images=summary.count if summary else data.test_images)
    return data, split, tuple(notes)


def _table7(
    settings: Settings, name: str, title: str, train: Callable[[int], Training], notes: Sequence[str] = ()
) -> Experiment:
    _, split, more = _table7_data(settings)
    rows = (
        _row(settings, "H-ReNet", "H-ReNet", train, split),
        _row(settings, "H-ReNet + DenseCRF", "H-ReNet+ DenseCRF", train, split, crf=True),
    )
    return Experiment(name, title, rows, (*more, *notes), tree=True)


def table7a(settings: Settings) -> Experiment:
    """Plan the test server's images, learnt from VOC alone."""
    data = _table7_data(settings)[0]
    train = partial(training, settings, BEST, name=f"{BEST}_trainval", data=data)
    title = "Table 7 (a): VOC 2012's test images"
    return _table7(settings, "table7a", title, train)


def _coco_source(settings: Settings, split: Path) -> Sequence[str]:
    """The split as prototxts name it; that it is missing is told when a run needs it."""
    if (split / IMAGES).is_dir():
        return chosen_data(settings.dataset, [str(split)], settings.test_split).train
    return [product_path(split)]


def table7b(settings: Settings) -> Experiment:
    """Plan the same as `table7a`, with COCO first."""
    data = _table7_data(settings)[0]
    coco = [source for split in settings.coco for source in _coco_source(settings, split)]
    both = replace(data, name=f"coco_{data.name}", train=(*data.train, *coco))
    iterations = settings.iterations(COCO_ITERATIONS)
    step = max(1, round(iterations * COCO_STEP / COCO_ITERATIONS))
    steps = h_renet_sgd(iterations, step, ", before VOC 2012 alone")

    def train(seed: int) -> Training:
        first = training(
            settings, BEST, seed, name=f"{BEST}_coco", data=both, paper_iterations=COCO_ITERATIONS, sgd=steps
        )
        name, paper = f"{BEST}_after_coco", AFTER_COCO_ITERATIONS
        return training(settings, BEST, seed, name=name, data=data, paper_iterations=paper, start=first)

    note = "First COCO and VOC together, then VOC alone."
    return _table7(settings, "table7b", "Table 7 (b): VOC 2012's test images, with COCO", train, (note,))


def l2_scale(settings: Settings) -> Experiment:
    """Plan L2 normalisation's scale, chosen on held-out images, beside batch normalisation."""
    model = "h_renet_l2_mlfb"
    usual = usual_data(settings)
    folder = settings.out / "held_out"
    counts = [summary.count for split in usual.train if (summary := split_summary(Path(split)))]
    data = replace(
        usual,
        train=(product_path(folder / LEARN),),
        test=product_path(folder / HELD_OUT),
        test_images=held_out_count(sum(counts)),
    )
    held_out = HeldOut(tuple(ROOT / split for split in usual.train), folder)

    def compared(scale: int, seed: int) -> Training:
        name = f"{model}_scale{scale}_held_out"
        return training(settings, model, seed, name=name, data=data, held_out=held_out, l2_scale=scale)

    candidates = {
        str(scale): (
            _row(settings, f"scale {scale}", "", partial(compared, scale), folder / HELD_OUT),
            _usual_row(
                settings, f"L2 normalisation, scale {scale}", "", model, name=f"{model}_scale{scale}", l2_scale=scale
            ),
        )
        for scale in SCALES
    }
    note = (
        "The scale is chosen by the mean IoU on a tenth of the training images, which those networks did not learn "
        "from; the network with the chosen scale learns from all of them."
    )
    return Experiment(
        "l2_scale",
        "Section 4.2: L2 normalisation's scale, and batch normalisation beside it",
        (_usual_row(settings, "batch normalisation", "batch normalisation", BEST),),
        (note,),
        Choice("scale", candidates),
    )


def training_size(settings: Settings) -> Experiment:
    """Plan sizes of the training crops."""
    rows = []
    for model, label in (("fcn", "baseline FCN"), (BEST, "H-ReNet")):
        full = settings.crop or MODELS[model].crop
        for size in SIZES:
            crop = tuple(max(1, round(side * part / whole)) for side, part, whole in zip(full, size, FULL_SIZE))
            name = model if crop == full else f"{model}_{crop[0]}x{crop[1]}"
            paper = f"{model} {size[0]}x{size[1]}"
            row = f"{label}, {crop[0]} x {crop[1]}"
            rows.append(_usual_row(settings, row, paper, model, name=name, crop=crop))
    notes = ()
    if settings.crop is not None:
        notes = ("The crops are to the largest as the paper's 256 x 320, 320 x 400 and 400 x 500 are.",)
    return Experiment("training_size", "Section 4.2: size of the training crops", tuple(rows), notes)


def irnn(settings: Settings) -> Experiment:
    """Plan kinds of recurrent units."""
    rows = (
        ("LSTM (H-ReNet, BN)", "LSTM", "h_renet_bn"),
        ("IRNN", "IRNN", "h_renet_bn_irnn"),
        ("GRU", "", "h_renet_bn_gru"),
    )
    note = "IRNN and GRU groups have as many parameters as the LSTM group. The paper has no GRU."
    title = "Section 4.2: IRNN and GRU units in the LSTM's place"
    return Experiment("irnn", title, tuple(_usual_row(settings, *row) for row in rows), (note,))


def capacity(settings: Settings) -> Experiment:
    """Plan H-ReNet beside an FCN of its size, which the paper does not have."""
    rows = (
        ("baseline FCN", "", "fcn"),
        ("FCN with as many parameters as H-ReNet", "", "fcn_deeper"),
        ("H-ReNet", "", "h_renet"),
        ("FCN with as many parameters, BN", "", "fcn_deeper_bn"),
        ("H-ReNet, BN", "", "h_renet_bn"),
    )
    notes = (
        "The second and fourth networks have a 3 x 3 convolution of as many parameters in the place of H-ReNet's "
        "recurrent group. What H-ReNet gains over them is for the context, not for its size or (BN) for batch "
        "normalisation.",
        "`tools/evaluate.py --by-size --compare` tells how sure the differences are.",
    )
    title = "Context or capacity: H-ReNet beside an FCN of its size"
    return Experiment("capacity", title, tuple(_usual_row(settings, *row) for row in rows), notes, by_size=True)


def figure2(settings: Settings) -> Experiment:
    """Plan feature maps of N-ReNet."""
    fold, pair = next(iter(_folds(settings).items()))
    network = _of_fold(settings, settings.n_renet, settings.seeds[0], fold, pair)
    title = "Figure 2: feature maps of N-ReNet"
    return Experiment("figure2", title, figure=Figure(ROOT / network.data.test, features=network))


def _columns(settings: Settings, *columns: tuple[str, str, bool]) -> Figure:
    split = ROOT / usual_data(settings).test
    seed = settings.seeds[0]
    return Figure(
        split,
        tuple((title, Inference(training(settings, model, seed), split, crf)) for title, model, crf in columns),
    )


def figure4(settings: Settings) -> Experiment:
    """Plan the baseline FCN's and H-ReNet's predictions."""
    figure = _columns(settings, ("baseline FCN", "fcn", False), ("H-ReNet", BEST, False))
    return Experiment("figure4", "Figure 4: the baseline FCN and H-ReNet", figure=figure)


def figure5(settings: Settings) -> Experiment:
    """Plan H-ReNet with the CRF beside other systems."""
    figure = replace(_columns(settings, ("H-ReNet + DenseCRF", BEST, True)), others=True)
    return Experiment("figure5", "Figure 5: other systems and H-ReNet", figure=figure)


EXPERIMENTS: dict[str, Callable[[Settings], Experiment]] = {
    function.__name__: function
    for function in (
        table1, table4, table5, table6, table7a, table7b, l2_scale, training_size, irnn, capacity, recipe_parts,
        recipe_folds, figure2, figure4, figure5,
    )
}  # fmt: skip
DATASETS = dict.fromkeys(EXPERIMENTS, "voc2012") | dict.fromkeys(
    ("table1", "recipe_folds", "recipe_parts", "figure2"), "stanford_background"
)


def expected_dataset(folder: Path) -> Dataset | None:
    """Describe what a prepared copy of one of the paper's datasets in `folder` will be; None for other names."""
    if folder.name not in _EXPECTED:
        return None
    splits = {name: SplitSummary(0, "") for name in _EXPECTED[folder.name]}
    return replace(load_dataset(folder.name), splits=splits, folder=folder)


def experiment_dataset(name: str, folder: Path | None = None, may_be_missing: bool = False) -> tuple[Dataset, bool]:
    """Read the dataset of an experiment.

    Args:
        name: the experiment's.
        folder: a prepared dataset, or its dataset.json; None: the paper's own under data/.
        may_be_missing: take what a copy of the paper's dataset will be, where none is prepared yet.

    Returns:
        The dataset, and whether it is there.

    Raises:
        UserError: it is not there, or damaged.
    """
    folder = folder or ROOT / "data" / DATASETS[name]
    file = folder / FILE_NAME if folder.suffix != ".json" else folder
    expected = expected_dataset(folder)
    if may_be_missing and not file.exists() and expected is not None:
        return expected, False
    dataset = Dataset.open(folder)
    return replace(dataset, folder=Path(os.path.abspath(dataset.folder))), True
