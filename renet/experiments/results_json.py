"""Results of an experiment as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from renet.common.machine import gpu_name, processor_name, threads
from renet.common.repository import commit, product_path
from renet.evaluation.sizes import SHARES
from renet.experiments.differences import differences
from renet.experiments.plan import Inference
from renet.experiments.results import MEASURES, Report, RowResult, class_iou, published, same_images, short_name
from renet.experiments.runs import Result
from renet.experiments.training import Training

# Of a run.json: what a reader of the figures may want to know.
_METADATA = (
    "started",
    "finished",
    "seconds",
    "processor_seconds",
    "parameters",
    "threads",
    "switches",
    "machine",
    "commit",
    "versions",
)


def as_json(report: Report) -> dict[str, Any]:
    """Collect all numbers of the experiment, and where they come from."""
    settings, paper = report.settings, report.paper
    return {
        "experiment": report.experiment.name,
        "title": report.experiment.title,
        "notes": list(report.experiment.notes),
        "dataset": settings.dataset.name,
        "budget": settings.budget,
        "equal_iterations": settings.equal_iterations,
        "seeds": list(settings.seeds),
        "rows": [_row_json(report, each) for each in report.rows],
        "chosen": report.chosen,
        "compared": [_row_json(report, each) for each in report.compared],
        "paper": None if paper is None else {
            "where": paper.where,
            "same_images": same_images(report, paper),
            "rows": {name: dict(zip(paper.measures, figures)) for name, figures in paper.rows.items()},
            "class_iou": paper.class_iou,
        },
        "runs": [_run_json(report, training) for training in report.trainings],
        "differences": differences(report),
        "picture": None if report.figure is None else product_path(report.figure),
        "commit": commit(),
        "machine": {"processor": processor_name(), "threads": threads(), "gpu": gpu_name(settings.gpu)},
    }  # fmt: skip


def _row_json(report: Report, each: RowResult) -> dict[str, Any]:
    paper = report.paper
    printed = published(paper, each.row.paper, paper.measures) if paper else ()
    return {
        "row": each.row.name,
        "paper": dict(zip(paper.measures, printed)) if paper and each.row.paper else None,
        "figures": {measure: _summary(each.figures(measure)) for measure in MEASURES},
        "folds": _folds_json(each) if report.experiment.folds else None,
        "mean_iou_by_size": [_summary(each.by_size(band)) for band in range(len(SHARES) + 1)]
        if report.experiment.by_size
        else None,
        "seeds": {
            str(seed): [
                _result_json(report, inference, result) for inference, result in zip(each.row.inferences[seed], results)
            ]
            for seed, results in each.results.items()
        },
    }


def _folds_json(each: RowResult) -> dict[str, Any]:
    return {measure: each.spread_of_folds(measure) for measure in MEASURES}


def _summary(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": mean(values), "lowest": min(values), "highest": max(values), "seeds": len(values)}


def _result_json(report: Report, inference: Inference, result: Result | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run": inference.training.name,
        "split": short_name(report.settings, inference.split),
        "crf": inference.crf,
    }
    if result is None:
        return {**found, "done": False}
    found |= {measure: result.measure(measure) for measure in MEASURES}
    found |= {"done": True, "iou": class_iou(result), "images": result.images, "device": result.device}
    paths = {"tree": result.tree, "archive": result.archive}
    return {**found, **{name: None if path is None else product_path(path) for name, path in paths.items()}}


def _run_json(report: Report, training: Training) -> dict[str, Any]:
    metadata = report.metadata(training)
    weights = training.weights_file(report.settings.out)
    return {
        "name": training.name,
        "model": training.model,
        "seed": training.seed,
        "train": list(training.data.train),
        "test": training.data.test,
        "iterations": training.iterations,
        "paper_iterations": training.paper_iterations,
        "batch": training.options.batch,
        "iter_size": training.iter_size,
        "crop": None if training.options.whole_images else list(training.options.crop),
        "images_seen": training.images_seen,
        "solver": dict(training.schedule.rule),
        "frozen": training.options.frozen,
        "new_rate": training.options.new_rate,
        "batch_norm_memory": training.options.batch_norm_memory,
        "l2_scale": training.options.l2_scale,
        "mean": list(training.options.mean),
        "weights": None if weights is None else product_path(weights),
        "state": metadata.get("state"),
        **{key: metadata.get(key) for key in _METADATA},
    }
