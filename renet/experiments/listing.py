"""Listing of what experiments need: is it there, what is missing, and which commands would make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from renet.common.errors import UserError
from renet.common.repository import product_path
from renet.common.script_command import command_line
from renet.common.text_layout import aligned
from renet.data.dataset import Dataset
from renet.data.split_reader import LABELS
from renet.experiments.plan import EXPERIMENTS, Experiment, Inference, experiment_dataset
from renet.experiments.runs import Command, Runs
from renet.experiments.training import Settings, Training, difference
from renet.networks.trained_run import read_metadata


def check_everything(runs: Runs, experiments: Sequence[Experiment]) -> None:
    """Check before anything begins that all is there that will be needed, and that what is there is of the same
    options.

    Raises:
        UserError: it is not.
    """
    for experiment in experiments:
        for training in (*experiment.trainings().values(), *later_trainings(experiment)):
            runs.check(training)
        for inference in experiment.inferences():
            runs.check_inference(inference)


def later_trainings(experiment: Experiment) -> Iterator[Training]:
    """Iterate over those of which the experiment's choice takes one (for each seed)."""
    for _, row in experiment.choice.candidates.values() if experiment.choice else ():
        for of_seed in row.inferences.values():
            yield from (inference.training for inference in of_seed)


def count_runs(experiments: Sequence[Experiment]) -> int:
    """Count the runs that the experiments have together; what several share counts once."""
    names = {name for experiment in experiments for name in experiment.trainings()}
    return len(names) + sum(experiment.later_trainings() for experiment in experiments)


def listing(runs: Runs, experiment: Experiment, data_is_there: bool = True) -> list[str]:
    """List the experiment's runs as lines: what each is, and how far.

    Args:
        runs: where to look.
        experiment: whose.
        data_is_there: without the data nothing can be compared.
    """
    rows = [
        ["run", "iterations", "training", "predictions"],
        *(_run_row(runs, experiment, training, data_is_there) for training in experiment.trainings().values()),
    ]
    later = [training.name for training in later_trainings(experiment)]
    if later:
        rows.append([f"one of {', '.join(later)}", "", "later", ""])
    return aligned(rows, left=4, underline=False)


def _run_row(runs: Runs, experiment: Experiment, training: Training, data_is_there: bool) -> list[str]:
    inferences = [inference for inference in experiment.inferences() if inference.training.name == training.name]
    states = [_prediction_state(runs, inference) for inference in {each.key: each for each in inferences}.values()]
    state = _training_state(runs, training, data_is_there)
    return [training.name, f"{training.iterations:,}", state, ", ".join(states)]


def _training_state(runs: Runs, training: Training, data_is_there: bool) -> str:
    if not runs.is_begun(training):
        return "missing"
    if data_is_there and difference(training, runs.settings.out) is not None:
        return "of other options"
    if runs.is_trained(training):
        return "finished"
    return f"at iteration {read_metadata(runs.folder(training)).get('iteration', 0):,}"


def _prediction_state(runs: Runs, inference: Inference) -> str:
    name = "with CRF" if inference.crf else "without CRF"
    return f"{name}: {'missing' if runs.result(inference) is None else 'done'}"


def commands(runs: Runs, experiments: Sequence[Experiment]) -> list[str]:
    """List the commands to be run, as a person types them; lines that begin with # say what this tool does itself."""
    lines: list[str] = []
    for experiment in experiments:
        lines.append(f"# {experiment.name}: {experiment.title}")
        for training in experiment.trainings().values():
            lines += _training_lines(runs, training)
        for inference in experiment.inferences():
            lines += _prediction_lines(runs, inference)
        later = [training.name for training in later_trainings(experiment)]
        if later:
            lines.append(f"# then, after the choice, the same for one of {', '.join(later)}")
    return list(dict.fromkeys(lines))


def _training_lines(runs: Runs, training: Training) -> Iterator[str]:
    if runs.is_trained(training):
        return
    begun = runs.is_begun(training)
    if not begun:
        if training.held_out is not None:
            yield f"# writes {product_path(training.held_out.folder)}"
        yield f"# writes {product_path(training.solver_file(runs.settings.out).parent)}"
    yield command_line(*runs.training_command(training, begun))


def _prediction_lines(runs: Runs, inference: Inference) -> Iterator[str]:
    if runs.result(inference) is not None:
        return
    yield command_line(*runs.prediction_command(inference))
    if (inference.split / LABELS).is_dir() or inference.training.held_out is not None:
        yield command_line(*runs.scoring_command(inference))


def experiment_lines(
    name: str, folder: Path | None, settings_for: Callable[[Dataset], Settings], command: Command
) -> list[str]:
    """Describe an experiment and its runs, also where its dataset is not prepared yet.

    Args:
        name: the experiment's.
        folder: see `experiment_dataset`.
        settings_for: makes the settings for that dataset.
        command: see `Runs`.

    Raises:
        UserError: see `experiment_dataset`.
    """
    dataset, is_there = experiment_dataset(name, folder, may_be_missing=True)
    try:
        runs = Runs(settings_for(dataset), command)
        experiment = EXPERIMENTS[name](runs.settings)
    except UserError as error:
        return [f"{name}: cannot be run yet: {error}", ""]
    lines = [f"{name}: {experiment.title}"]
    if not is_there:
        lines.append(f"  {product_path(dataset.folder)} is not prepared yet (data_prep/{dataset.name}.py)")
    return [*lines, *(f"  {line}" for line in listing(runs, experiment, is_there)), ""]
