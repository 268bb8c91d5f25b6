"""Results of an experiment: its rows' figures, its runs, and what it is to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from renet.common.repository import ROOT, product_path
from renet.evaluation.paper_results import PaperExperiment, paper_experiment
from renet.experiments.plan import Experiment, Row
from renet.experiments.runs import Result, Runs
from renet.experiments.training import Settings, Training
from renet.networks.trained_run import read_metadata

MEASURES = {
    "pixel_accuracy": "pixel accuracy %",
    "class_accuracy": "class accuracy %",
    "mean_iou": "mean IoU %",
    "seconds": "seconds an image",
}


@dataclass(frozen=True)
class RowResult:
    """Results of a row.

    Attributes:
        row: which.
        results: as the row's inferences; None before they are there.
    """

    row: Row
    results: Mapping[int, tuple[Result | None, ...]]

    @classmethod
    def of(cls, row: Row, runs: Runs) -> RowResult:
        """Read what the run folders hold of the row."""
        return cls(row, {seed: tuple(map(runs.result, of_seed)) for seed, of_seed in row.inferences.items()})

    def of_seed(self, seed: int, measure: str) -> float | None:
        """Compute a figure of one seed, the mean of its folds; None where one is missing."""
        values = [None if result is None else result.measure(measure) for result in self.results[seed]]
        return None if None in values else mean(values)

    def figures(self, measure: str) -> list[float]:
        """List the figures of all seeds, as far as they are there."""
        found = (self.of_seed(seed, measure) for seed in self.results)
        return [value for value in found if value is not None]

    def fold(self, position: int, measure: str) -> list[float]:
        """List the figures of one fold for all seeds, as far as they are there."""
        results = (of_seed[position] for of_seed in self.results.values())
        found = (None if result is None else result.measure(measure) for result in results)
        return [value for value in found if value is not None]

    def spread_of_folds(self, measure: str) -> dict[str, float] | None:
        """Compute how far apart the folds' figures lie, each the mean of its seeds; None before all are there.

        Returns:
            Their lowest, highest, and standard deviation (n - 1).
        """
        folds = range(max(map(len, self.results.values())))
        values = [self.fold(position, measure) for position in folds]
        if len(values) < 2 or not all(values):
            return None
        means = [mean(of_seeds) for of_seeds in values]
        return {"lowest": min(means), "highest": max(means), "deviation": stdev(means)}

    def by_size(self, band: int) -> list[float]:
        """List the mean IoU of regions of a band of `SHARES` for all seeds in percent, means of their folds, as far as
        they are there."""
        found = []
        for of_seed in self.results.values():
            sizes = [None if each is None else (each.evaluation or {}).get("sizes") for each in of_seed]
            values = [None if each is None else each["size_mean_iou"][band] for each in sizes]
            if None not in values:  # an older score, or no region of the size
                found.append(100 * mean(values))
        return found

    def is_complete(self) -> bool:
        """Tell whether all of it is predicted, and scored where there is a truth."""
        return all(result is not None for of_seed in self.results.values() for result in of_seed)


@dataclass(frozen=True)
class Report:
    """Report on an experiment.

    Attributes:
        experiment: which.
        runs: where its runs are.
        rows: of its table.
        compared: what a choice was made from.
        chosen: the choice.
        trainings: that it needed.
        figure: a figure's file.
    """

    experiment: Experiment
    runs: Runs
    rows: tuple[RowResult, ...]
    compared: tuple[RowResult, ...] = ()
    chosen: str | None = None
    trainings: tuple[Training, ...] = ()
    figure: Path | None = None

    @property
    def settings(self) -> Settings:
        """Return the runs' settings."""
        return self.runs.settings

    @property
    def paper(self) -> PaperExperiment | None:
        """Read the paper's figures."""
        return paper_experiment(self.experiment.paper or self.experiment.name)

    def metadata(self, training: Training) -> dict[str, Any]:
        """Read the metadata in the run's folder."""
        return read_metadata(self.runs.folder(training))


def same_images(report: Report, paper: PaperExperiment) -> bool:
    """Tell whether the paper's figures were measured on the images that ours were."""
    if report.settings.dataset.name != paper.dataset:
        return False
    return not paper.split or scored_splits(report) == [paper.split]


def scored_splits(report: Report) -> list[str]:
    """List the splits that the rows predict."""
    inferences = [each for row in report.rows for of_seed in row.row.inferences.values() for each in of_seed]
    return list(dict.fromkeys(short_name(report.settings, inference.split) for inference in inferences))


def short_name(settings: Settings, split: Path) -> str:
    """Write a split of the dataset, or one made beside the runs, by its name; another one by its path."""
    split = ROOT / split
    for folder in (settings.dataset.folder, settings.out):
        if split.is_relative_to(folder):
            return split.relative_to(folder).as_posix()
    return product_path(split)


def published(paper: PaperExperiment | None, name: str, measures: Sequence[str]) -> tuple[float | None, ...]:
    """Find the paper's figures of a row, None where it gives none."""
    return (None,) * len(measures) if paper is None else paper.rows.get(name, (None,) * len(measures))


def class_iou(result: Result | None) -> dict[str, float | None]:
    """Read the IoU of each class, a fraction; empty where there is no score."""
    return result.evaluation["iou"] if result is not None and result.evaluation is not None else {}
