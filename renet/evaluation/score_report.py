"""What is told and written of an evaluation: the table, intervals, a comparison, and the JSON file."""

from __future__ import annotations

import sys
from pathlib import Path

from renet.common.errors import UserError
from renet.common.files import write_json
from renet.common.text_files import read_json_object
from renet.evaluation.bootstrap import plain
from renet.evaluation.score_table import format_comparison, format_table
from renet.evaluation.scores import Evaluation


def tell_scores(
    evaluation: Evaluation,
    dataset: str,
    resamples: int,
    seed: int,
    json_file: Path | None,
    other: Evaluation | None = None,
    other_name: Path | None = None,
) -> None:
    """Print an evaluation and, where there is another one, the comparison, and write both.

    Args:
        evaluation: the scores.
        dataset: the dataset's name.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        json_file: gets all of it; None: nothing is written.
        other: what is compared with.
        other_name: where that is from.

    Raises:
        UserError: the two cannot be compared.
    """
    draws = {"resamples": resamples, "seed": seed}
    intervals = evaluation.intervals(**draws)
    content = {"dataset": dataset, **evaluation.as_json(with_images=True)}
    content["intervals"] = {**draws, **{name: plain(bounds) for name, bounds in intervals.items()}}
    print(format_table(evaluation, dataset, intervals))
    if other is not None:
        try:
            found = evaluation.compared_with(other, **draws)
        except UserError as error:
            raise UserError(f"{other_name}: {error}") from None
        for what in ("boundaries", "sizes"):
            if getattr(evaluation, what) is not None and getattr(other, what) is None:
                print(f"{what} are not compared: name {other_name}'s predictions", file=sys.stderr)
        shares = () if evaluation.sizes is None else evaluation.sizes.shares
        print(f"\n{format_comparison(found, str(other_name), resamples, shares)}")
        compared = {name: difference.as_json() for name, difference in found.items()}
        content["comparison"] = {"other": str(other_name), **draws, **compared}
    if json_file:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, content)


def read_evaluation(file: Path) -> Evaluation:
    """Read what `evaluate.py --json` wrote.

    Raises:
        UserError: no such file, or something else in it; names it.
    """
    content = read_json_object(file)
    if content is None:
        raise UserError(f"{file}: no such folder of predictions or evaluation")
    try:
        return Evaluation.from_json(content)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
