"""Performing an experiment: what is missing is trained, predicted and scored, and written beside the paper."""

from __future__ import annotations

from pathlib import Path

from renet.experiments.figures import Shown, draw
from renet.experiments.page import write_report
from renet.experiments.plan import Choice, Experiment, Row
from renet.experiments.results import Report, RowResult
from renet.experiments.runs import Runs


def perform(runs: Runs, experiment: Experiment, shown: Shown) -> None:
    """Do what is missing of an experiment, and write its table after each row.

    Raises:
        UserError: something is missing, damaged or of other options.
        Stopped: a step failed or was stopped.
    """
    compared, rows, chosen = (), experiment.rows, None
    if experiment.choice is not None:
        compared = tuple(pair[0] for pair in experiment.choice.candidates.values())
        for row in compared:
            _finish(runs, row, experiment)
        chosen = best(runs, experiment.choice)
        rows = (experiment.choice.candidates[chosen][1], *rows)
    trainings = dict(experiment.trainings())
    trainings |= {each.training.name: each.training for row in rows for of in row.inferences.values() for each in of}

    def report(picture: Path | None = None) -> Report:
        results = [tuple(RowResult.of(row, runs) for row in some) for some in (rows, compared)]
        return Report(experiment, runs, *results, chosen, tuple(trainings.values()), picture)

    for row in rows:
        _finish(runs, row, experiment)
        write_report(report())
    page, _ = write_report(report(_picture(runs, experiment, shown) if experiment.pictures else None))
    print(f"\n{page.read_text(encoding='utf-8')}\n{page}", flush=True)


def _finish(runs: Runs, row: Row, experiment: Experiment) -> None:
    for of_seed in row.inferences.values():
        for inference in of_seed:
            runs.finish(inference, experiment.tree)


def _picture(runs: Runs, experiment: Experiment, shown: Shown) -> Path:
    assert experiment.pictures is not None, "the caller saw pictures"
    for training in experiment.trainings().values():
        runs.train(training)
    for _, inference in experiment.pictures.columns:
        runs.finish(inference)
    return draw(runs, experiment, shown)


def best(runs: Runs, choice: Choice) -> str:
    """The candidate with the best mean IoU on the held-out images; of equals the first."""
    figures = {name: RowResult.of(row, runs).figures("mean_iou") for name, (row, _) in choice.candidates.items()}
    return max(figures, key=lambda name: sum(figures[name]))
