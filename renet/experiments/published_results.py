"""The figures of docs/results.md: kept as docs/results.json, taken from runs, and written into the page's tables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from renet.common.document_blocks import fill_blocks
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.machine import switches_text
from renet.common.repository import ROOT
from renet.common.text_files import read_json_object, read_text
from renet.common.text_layout import markdown
from renet.evaluation.image_counts import mean_of_numbers
from renet.evaluation.paper_results import paper_experiment, paper_results
from renet.evaluation.scores import Evaluation
from renet.evaluation.sizes import band_names
from renet.experiments.page import NONE
from renet.experiments.results import MEASURES
from renet.networks.models import MODELS
from renet.networks.trained_run import read_metadata
from renet.prediction.image_job import RECORD
from renet.training.files import TRAIN_VAL
from renet.training.run_record import EVALUATION, PREDICTIONS

DOCUMENTS = ROOT / "docs"
FILE, PAGE = "results.json", "results.md"
KIND = "results"  # of the page's blocks
FULL = "full"
LOSS, SECONDS = "loss", "seconds_an_image"
_OF_FEW = ("mean_iou_by_size", "compared_with", "differences")  # left out of the file where there are none
_COMPARED = ("pixel_accuracy", "class_accuracy", "mean_iou", "boundary_f")
_COMPARED_BY_SIZE = "size_mean_iou"


@dataclass(frozen=True)
class PairedDifference:
    """Difference of a measure between two predictions of the same images.

    Attributes:
        value: this minus the other.
        low: of the 95% interval by bootstrap over the images.
        high: of it.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """Scores of one trained network on one split, and where they come from. What is not known is None.

    Attributes:
        table: of the page; None: in no table.
        row: its row there; rows of several seeds or folds are one.
        run: the run's name.
        model: of `MODELS`.
        dataset: the prepared dataset's name.
        fold: of it.
        seed: of the training, or the seeds that the scores are the mean of.
        iteration: of the weights.
        images: that were scored.
        pixel_accuracy: fractions, as all scores.
        class_accuracy: see `Scores`, as all of these.
        mean_iou: see there.
        iou: by class.
        mean_iou_by_size: of the truth's regions, by the names of `band_names`.
        compared_with: the run and its predictions of the same images that it is compared with.
        differences: from those, by the names of measures, and of bands for the mean IoU of their regions.
        loss: of the test.
        size: `FULL`, or the scale at which the dataset was prepared or predicted.
        flip: predictions are averaged with those of the mirrored image.
        scales: at which images were predicted.
        crf: parameters of the dense CRF, None where there is none.
        device: `cpu` or `gpu`, that trained.
        machine: its name.
        seconds: of the training, by the clock.
        seconds_an_image: of the prediction, the median.
        commit: of the repository while it trained.
        command: that trained.
    """

    table: str | None
    row: str
    run: str | None = None
    model: str | None = None
    dataset: str | None = None
    fold: str | None = None
    seed: int | list[int] | None = None
    iteration: int | None = None
    images: int | None = None
    pixel_accuracy: float | None = None
    class_accuracy: float | None = None
    mean_iou: float | None = None
    iou: dict[str, float | None] = field(default_factory=dict)
    mean_iou_by_size: dict[str, float | None] = field(default_factory=dict)
    compared_with: str | None = None
    differences: dict[str, PairedDifference] = field(default_factory=dict)
    loss: float | None = None
    size: str | float | None = None
    flip: bool | None = None
    scales: list[float] | None = None
    crf: dict[str, float | str] | None = None
    device: str | None = None
    machine: str | None = None
    seconds: float | None = None
    seconds_an_image: float | None = None
    commit: str | None = None
    command: str | None = None

    @property
    def place(self) -> tuple[str | None, str, str | None, str]:
        """Tell it from others."""
        return self.table, self.row, self.fold, str(self.seed)


@dataclass(frozen=True)
class Column:
    """Column of a table: a measure, one class's IoU or several classes' mean, the mean IoU of regions of a size, or a
    difference with its interval.

    Attributes:
        measure: a score's name of `Figure`.
        iou: the classes, in place of a measure.
        regions: a band's name, in place of a measure.
        difference: a name of `Figure.differences`, in place of a measure.
        title: in place of the usual.
        bold: print the highest in bold.
    """

    measure: str = ""
    iou: list[str] = field(default_factory=list)
    regions: str = ""
    difference: str = ""
    title: str = ""
    bold: bool = False

    @property
    def heading(self) -> str:
        """Write the column's title."""
        known = self.measure or self.difference or self.regions or ", ".join(self.iou)
        return self.title or MEASURES.get(known) or known

    def value(self, figure: Figure) -> float | None:
        """Read a figure's value; None where it has none."""
        if self.measure:
            return getattr(figure, self.measure)
        if self.difference:
            found = figure.differences.get(self.difference)
            return None if found is None else found.value
        if self.regions:
            return figure.mean_iou_by_size.get(self.regions)
        known = [figure.iou.get(name) for name in self.iou]
        return None if None in known else float(mean_of_numbers(known))


@dataclass(frozen=True)
class Table:
    """Table of the page.

    Attributes:
        columns: after the rows' names.
        head: title of the rows' names.
        classes_down: a row for each column instead.
        published: the row's name and the name among `paper_results` of what others published, below ours.
        published_dataset: whose.
        paper: an experiment and a row of `paper_experiment` to stand beside a row, by the row's name, as a last column.
        paper_title: that column's title.
    """

    columns: tuple[Column, ...]
    head: str = ""
    classes_down: bool = False
    published: dict[str, str] = field(default_factory=dict)
    published_dataset: str = ""
    paper: dict[str, list[str]] = field(default_factory=dict)
    paper_title: str = ""


@dataclass(frozen=True)
class Results:
    """Content of docs/results.json.

    Attributes:
        tables: by name.
        figures: in the order of the tables' rows.
    """

    tables: Mapping[str, Table]
    figures: tuple[Figure, ...]

    @classmethod
    def read(cls, file: Path) -> Results:
        """Read the file.

        Raises:
            UserError: missing, or something else; names the file.
        """
        content = read_json_object(file)
        if content is None:
            raise UserError(f"{file}: no such file")
        try:
            tables = {
                name: Table(**{**table, "columns": tuple(Column(**column) for column in table["columns"])})
                for name, table in content["tables"].items()
            }
            figures = tuple(map(_read_figure, content["figures"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file}: no tables and figures of results ({error})") from None
        for figure in figures:
            if figure.table is not None and figure.table not in tables:
                raise UserError(f"{file}: a figure of the table {figure.table!r}, which is not described")
        return cls(tables, figures)

    def write(self, file: Path) -> None:
        """Write the file, whole or not at all: a line for each table and figure, so that changes can be read."""
        tables = [f"  {_line(name)}: {_line(_given(table))}" for name, table in self.tables.items()]
        figures = [f"  {_line(_told(figure))}" for figure in self.figures]
        parts = (' "tables": {', ",\n".join(tables), " },", ' "figures": [', ",\n".join(figures), " ]")
        text = "\n".join(["{", *parts, "}", ""])
        write_atomically(file, text.encode())

    def with_figure(self, figure: Figure) -> Results:
        """Add a figure; one of the same table, row, fold and seed goes.

        Raises:
            UserError: there is no such table.
        """
        if figure.table is not None and figure.table not in self.tables:
            raise UserError(f"no table {figure.table!r} in {FILE}; there are {', '.join(self.tables)}")
        places = [each.place for each in self.figures]
        figures = list(self.figures)
        if figure.place in places:
            figures[places.index(figure.place)] = figure
        else:
            figures.append(figure)
        return Results(self.tables, tuple(figures))

    # --------------------------------------------------------------------------------------------------- the page

    def filled(self, page: str) -> str:
        """Fill the page's blocks `<!-- results: TABLE -->` ... `<!-- end of results -->`.

        Raises:
            UserError: it has a block of another name, or lacks one.
        """
        return fill_blocks(page, PAGE, KIND, self.tables, self.table_text)

    def table_text(self, name: str) -> str:
        """Write a table as Markdown."""
        table = self.tables[name]
        rows: dict[str, list[Figure]] = {}
        for figure in self.figures:
            if figure.table == name:
                rows.setdefault(figure.row, []).append(figure)
        cells = [[row, *(_cell(column, of_row) for column in table.columns)] for row, of_row in rows.items()]
        for number, column in enumerate(table.columns, 1):
            values = [_mean(column, of_row) for of_row in rows.values()]
            if column.bold and any(value is not None for value in values):
                highest = max((value, -place) for place, value in enumerate(values) if value is not None)
                row = cells[-highest[1]]
                first, *seeds = row[number].split(" ", 1)
                row[number] = " ".join([f"**{first}**", *seeds])
        cells += [[row, *_published(table, source)] for row, source in table.published.items()]
        cells.insert(0, [table.head, *(column.heading for column in table.columns)])
        if table.paper:
            cells[0].append(table.paper_title)
            for row in cells[1:]:
                row.append(_of_paper(table.paper.get(row[0])))
        return markdown([list(row) for row in zip(*cells)] if table.classes_down else cells)


def _read_figure(content: Mapping[str, Any]) -> Figure:
    differences = content.get("differences", {})
    return Figure(**{**content, "differences": {name: PairedDifference(**each) for name, each in differences.items()}})


def _told(figure: Figure) -> dict[str, Any]:
    return {name: value for name, value in asdict(figure).items() if value or name not in _OF_FEW}


def _line(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _given(table: Table) -> dict[str, Any]:
    """What differs from the defaults, for a file that people read."""

    def changed(one: Any) -> dict[str, Any]:
        return {each.name: value for each in fields(one) if (value := getattr(one, each.name))}

    return {**changed(table), "columns": [changed(column) for column in table.columns]}


def _text(column: Column, value: float) -> str:
    return f"{value:.2f}" if column.measure in (LOSS, SECONDS) else f"{100 * value:.1f}"


def _singles(column: Column, figures: Sequence[Figure]) -> list[float]:
    values = (column.value(figure) for figure in figures if not isinstance(figure.seed, list))
    return [value for value in values if value is not None]


def _mean(column: Column, figures: Sequence[Figure]) -> float | None:
    """The mean of those that are given as such (single figures may be rounded), else that of the single figures."""
    given = [column.value(figure) for figure in figures if isinstance(figure.seed, list)]
    values = [value for value in given if value is not None] or _singles(column, figures)
    return mean(values) if values else None


def _cell(column: Column, figures: Sequence[Figure]) -> str:
    if column.difference:
        found = [each.differences[column.difference] for each in figures if column.difference in each.differences]
        return ", ".join(map(_difference_text, found)) or NONE
    value, singles = _mean(column, figures), _singles(column, figures)
    if value is None:
        return NONE
    each = f" ({', '.join(_text(column, single) for single in singles)})" if len(singles) > 1 else ""
    return _text(column, value) + each


def _difference_text(difference: PairedDifference) -> str:
    value, low, high = (f"{100 * each:+.1f}" for each in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"


def _as_printed(percent: float | None) -> str:
    """At least one decimal, as the source has them."""
    return NONE if percent is None else f"{percent:.1f}" if round(percent, 1) == percent else f"{percent:g}"


def _published(table: Table, name: str) -> list[str]:
    paper = paper_results(table.published_dataset)
    row = next((row for row in paper.rows if row.name == name), None) if paper else None
    if row is None:
        raise UserError(f"{FILE}: nothing published as {name!r} on {table.published_dataset!r}")
    return [_as_printed(getattr(row, column.measure, None)) for column in table.columns]


def _of_paper(place: Sequence[str] | None) -> str:
    if place is None:
        return NONE
    experiment, row = place
    paper = paper_experiment(experiment)
    if paper is None or row not in paper.rows:
        raise UserError(f"{FILE}: the paper has no row {row!r} of {experiment!r}")
    return _as_printed(paper.rows[row][paper.measures.index("mean_iou")])


# ------------------------------------------------------------------------------------------------------ from a run


def figure_of_run(run: Path, table: str | None, row: str, evaluation: Path | None = None) -> Figure:
    """Collect what a run's folder holds of one evaluation.

    Args:
        run: the folder.
        table: of the page.
        row: its row there.
        evaluation: what `evaluate.py --json` wrote, named as the folder of the predictions beside it is
            (evaluation_crf.json, predictions_crf), with `_over_` and a name behind where it is a comparison;
            None: the run's evaluation.json.

    Raises:
        UserError: no run, no evaluation, or one of them is damaged; names the file.
    """
    metadata = read_metadata(run)
    if not metadata:
        raise UserError(f"{run}: not a run folder, or an empty one")
    evaluation = evaluation or run / EVALUATION
    content = read_json_object(evaluation)
    if content is None:
        raise UserError(f"{evaluation}: no such file; tools/evaluate.py --json writes it")
    try:
        scored = Evaluation.from_json(content)
        more = {
            "mean_iou_by_size": _by_size(content),
            "compared_with": _compared_with(content),
            "differences": _differences(content),
        }
    except KeyError as error:
        raise UserError(f"{evaluation}: not an evaluation: {error} is missing") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{evaluation}: {error}") from None
    of_predictions = evaluation.stem.split("_over_")[0]
    folder = evaluation.with_name(of_predictions.replace(Path(EVALUATION).stem, PREDICTIONS))
    record = read_json_object(folder / RECORD) or {}
    settings: Mapping[str, Any] = record.get("settings") or {}
    model, folds = metadata.get("model") or "", re.findall(r"/(fold\d+)/", _network_text(run))
    gpu, scale = metadata.get("gpu"), settings.get("image_scale")
    return Figure(
        table,
        row,
        run=metadata.get("name"),
        model=max((name for name in MODELS if model == name or model.startswith(f"{name}_")), key=len, default=None),
        dataset=content.get("dataset"),
        fold=folds[0] if folds else None,
        seed=metadata.get("seed"),
        iteration=_iteration(record) or metadata.get("iteration"),
        images=scored.images,
        pixel_accuracy=scored.pixel_accuracy,
        class_accuracy=scored.class_accuracy,
        mean_iou=scored.mean_iou,
        iou=scored.class_iou,
        **more,
        size=FULL if scale == 1 else scale,
        flip=settings.get("flip"),
        scales=settings.get("scales"),
        crf=settings.get("crf"),
        device=None if "gpu" not in metadata else "cpu" if gpu is None else "gpu",
        machine=gpu or (metadata.get("machine") or {}).get("processor"),
        seconds=metadata.get("seconds"),
        seconds_an_image=record.get("seconds_per_image"),
        commit=metadata.get("commit"),
        command=_command(metadata.get("command"), metadata.get("name"), metadata.get("switches") or {}),
    )


def _by_size(content: Mapping[str, Any]) -> dict[str, float | None]:
    sizes = content.get("sizes")
    return dict(zip(band_names(sizes["shares"]), sizes["size_mean_iou"])) if sizes else {}


def _compared_with(content: Mapping[str, Any]) -> str | None:
    """The other run's name, and that of the predictions in it."""
    comparison = content.get("comparison")
    return "/".join(Path(comparison["other"]).parts[-2:]) if comparison else None


def _differences(content: Mapping[str, Any]) -> dict[str, PairedDifference]:
    comparison = content.get("comparison") or {}
    found = {
        name: (comparison[name]["difference"], comparison[name]["interval"]) for name in _COMPARED if name in comparison
    }
    if _COMPARED_BY_SIZE in comparison:
        of_bands = comparison[_COMPARED_BY_SIZE]
        bands = band_names(content["sizes"]["shares"])
        found |= dict(zip(bands, zip(of_bands["difference"], of_bands["interval"] or [None] * len(bands))))
    return {
        name: PairedDifference(value, *interval)
        for name, (value, interval) in found.items()
        if value is not None and interval is not None and None not in interval
    }


def _network_text(run: Path) -> str:
    file = run / TRAIN_VAL
    return read_text(file) if file.is_file() else ""


def _iteration(record: Mapping[str, Any]) -> int | None:
    """Of the weights that predicted, which need not be the last."""
    found = re.search(r"_iter_(\d+)\.caffemodel", str(record.get("weights", "")))
    return int(found[1]) if found else None


def _command(text: str | None, name: str | None, switches: Mapping[str, str]) -> str | None:
    """The command as typed in the repository's folder: a machine's paths are of no use elsewhere.

    Args:
        text: as it was typed.
        name: of the run, whose folder is runs/NAME then; of other paths outside the repository their last part stays.
        switches: Caffe's environment variables.
    """
    if text is None:
        return None
    words = shlex.split(text)
    options = dict(pairwise(words))
    script = next((word for word in words if word.endswith("/tools/train.py")), "")
    known = {script.removesuffix("tools/train.py"): "", options.get("--run", "").rstrip("/") + "/": f"runs/{name}/"}

    def elsewhere(word: str) -> str:
        option, equals, path = word.rpartition("=")
        if not path.startswith("/"):
            return word
        for folder, other in known.items():
            if folder.startswith("/") and folder != "/" and f"{path}/".startswith(folder):
                return option + equals + (other + f"{path}/".removeprefix(folder)).rstrip("/")
        return option + equals + Path(path).name

    return f"{switches_text(switches)} {shlex.join(map(elsewhere, words))}".lstrip()


def update(documents: Path, change: Callable[[Results], Results] = lambda results: results) -> Path:
    """Change the JSON, and write the page from it, both or none.

    Args:
        documents: the folder of the two.
        change: makes the new content.

    Returns:
        The page.

    Raises:
        UserError: one of them is damaged, or they do not go together.
    """
    results = change(Results.read(documents / FILE))
    page = documents / PAGE
    text = results.filled(read_text(page))
    results.write(documents / FILE)
    write_atomically(page, text.encode())
    return page
