"""Demo: the whole path on drawn scenes, from data to a page that compares two networks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from renet.common.repository import ROOT
from renet.common.script_command import command
from renet.common.text_layout import aligned
from renet.data.dataset import Dataset
from renet.evaluation.score_table import percent
from renet.networks.trained_run import read_metadata
from renet.weights import snapshots

MODELS = ("n_renet_small", "conv_small")
SHORT_SCENES = ("--train", "8", "--test", "3", "--size", "48x64")
SHORT_TRAINING = ("--crop", "48x64", "--batch", "2", "--iterations", "4")


@dataclass(frozen=True)
class Places:
    """Folders of the demo, relative to the repository's root or in full.

    Attributes:
        data: the prepared scenes.
        runs: one run's folder for each model, and the page.
    """

    data: Path
    runs: Path

    def run(self, model: str) -> Path:
        """Name the model's run folder."""
        return self.runs / model

    @property
    def page(self) -> Path:
        """Name the page that compares the models."""
        return self.runs / "index.html"


def train(model: str, places: Places, short: bool) -> None:
    """Train one model, or go on with what an earlier call left."""
    folder = places.run(model)
    solver = Path("solvers") / f"{model}_synthetic_scenes.prototxt"
    if short:
        solver = places.runs / f"{model}_network" / "solver.prototxt"
        network = ("--model", model, "--dataset", places.data, "--out", solver.parent)
        command("prototxt/generate.py", *network, *SHORT_TRAINING)
    if read_metadata(ROOT / folder).get("state") == "finished":
        print(f"\n{folder}: trained already")
        return
    resume = ("--resume",) if (ROOT / folder).exists() else ()
    command("tools/train.py", "--solver", solver, "--run", folder, *resume)


def predict_and_score(model: str, places: Places) -> None:
    """Predict the test split with the trained weights, and score the predictions."""
    folder = places.run(model)
    newest = snapshots.find(ROOT / folder / "snapshots")[0].weights
    weights = newest.relative_to(ROOT) if newest.is_relative_to(ROOT) else newest
    predictions = folder / "predictions"
    test = places.data / "test"
    network = ("--model", folder / "deploy.prototxt", "--weights", weights)
    command("tools/predict.py", *network, "--split", test, "--out", predictions)
    scores = ("--dataset", places.data, "--json", folder / "evaluation.json")
    command("tools/evaluate.py", "--predictions", predictions, "--labels", test, *scores)


def table(evaluations: dict[str, dict[str, Any]], distant: tuple[str, ...]) -> str:
    """Lay out the models' scores side by side in percent, with the classes that need distant context.

    Args:
        evaluations: content of evaluation.json by model.
        distant: names of those classes.
    """
    rows = [
        (label, [evaluation[key] for evaluation in evaluations.values()])
        for label, key in (
            ("pixel accuracy", "pixel_accuracy"),
            ("class accuracy", "class_accuracy"),
            ("mean IoU", "mean_iou"),
        )
    ]
    rows += [(f"IoU of {name}", [evaluation["iou"][name] for evaluation in evaluations.values()]) for name in distant]
    known = [[row[1][column] for row in rows[3:] if row[1][column] is not None] for column in range(len(evaluations))]
    rows.append(("mean IoU where distant context decides", [mean(values) if values else None for values in known]))
    cells = [["", *evaluations], *([label, *map(percent, values)] for label, values in rows)]
    return "\n".join(aligned(cells, underline=False))


def demo(places: Places, short: bool) -> None:
    """Go all steps, from nothing to the page and the table.

    Raises:
        Stopped: one of them ended early.
    """
    command("data_prep/synthetic_scenes.py", "--out", places.data, *(SHORT_SCENES if short else ()))
    for model in MODELS:
        train(model, places, short)
        predict_and_score(model, places)
    runs = [word for model in MODELS for word in ("--run", places.run(model))]
    command("tools/report.py", *runs, "--labels", places.data / "test", "--out", places.page)
    distant = Dataset.open(ROOT / places.data).distant_context_classes
    evaluations = {
        model: json.loads((ROOT / places.run(model) / "evaluation.json").read_text(encoding="utf-8"))
        for model in MODELS
    }
    print(f"\n{table(evaluations, distant)}\n")
