"""Performance of an experiment: what is missing is trained, predicted and scored, and written beside the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from renet.experiments.figures import FigureOptions, draw
from renet.experiments.listing import count_runs
from renet.experiments.page import write_report
from renet.experiments.plan import Choice, Experiment, Row
from renet.experiments.results import Report, RowResult
from renet.experiments.runs import Runs


def perform(runs: Runs, experiment: Experiment, options: FigureOptions) -> None:
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

    def report(figure: Path | None = None) -> Report:
        results = [tuple(RowResult.of(row, runs) for row in some) for some in (rows, compared)]
        return Report(experiment, runs, *results, chosen, tuple(trainings.values()), figure)

    for row in rows:
        _finish(runs, row, experiment)
        write_report(report())
    page, _ = write_report(report(_draw_figure(runs, experiment, options) if experiment.figure else None))
    print(f"\n{page.read_text(encoding='utf-8')}\n{page}", flush=True)


def perform_all(queue: Sequence[tuple[Runs, Experiment]], options: FigureOptions) -> None:
    """Perform experiments one after the other; a run that several share is trained once.

    Raises:
        UserError: see `perform`.
        Stopped: see `perform`.
    """
    total, seen = count_runs([experiment for _, experiment in queue]), []
    for runs, experiment in queue:
        runs.total, runs.seen = total, seen
        print(f"\n== {experiment.name}: {experiment.title}", flush=True)
        perform(runs, experiment, options)


def _finish(runs: Runs, row: Row, experiment: Experiment) -> None:
    for of_seed in row.inferences.values():
        for inference in of_seed:
            runs.finish(inference, experiment.tree)


def _draw_figure(runs: Runs, experiment: Experiment, options: FigureOptions) -> Path:
    assert experiment.figure is not None, "the caller saw a figure"
    for training in experiment.trainings().values():
        runs.train(training)
    for _, inference in experiment.figure.columns:
        runs.finish(inference)
    return draw(runs, experiment, options)


def best(runs: Runs, choice: Choice) -> str:
    """Choose the candidate with the best mean IoU on the held-out images; of equals the first."""
    figures = {name: RowResult.of(row, runs).figures("mean_iou") for name, (row, _) in choice.candidates.items()}
    return max(figures, key=lambda name: sum(figures[name]))
