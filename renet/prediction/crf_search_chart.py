"""A chart of a parameter search: what each parameter of the CRF is worth."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from renet.common.files import write_atomically
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.crf_search import Result


def readable_ticks(values: list[float], apart: float = 1.35) -> list[float]:
    """Those of the ascending values whose labels do not run into each other on a logarithmic axis."""
    ticks: list[float] = []
    for value in values:
        if not ticks or value > apart * ticks[-1]:
            ticks.append(value)
    return ticks


def draw_search(file: Path, results: Iterable[Result], without: Result, best: Result, measure: str) -> None:
    """One panel a parameter: the best score that any candidate reached with each of its values, as a PNG.

    Args:
        file: the PNG.
        results: of all candidates with a CRF.
        without: without a CRF, a dashed line.
        best: marked.
        measure: the score drawn.
    """
    results = list(results)
    figure, panels = pyplot.subplots(2, 3, figsize=(10, 5.2), sharey=True, layout="constrained")
    for panel, name in zip(panels.flat, CrfParameters().numbers()):
        reached: dict[float, float] = {}
        for result in results:
            value = getattr(result.parameters, name)
            reached[value] = max(reached.get(value, 0.0), 100 * result.score(measure))
        values = sorted(reached)
        panel.plot(values, [reached[value] for value in values], "o-", color="#3465a4", markersize=4)
        panel.plot(getattr(best.parameters, name), 100 * best.score(measure), "*", color="#cc3311", markersize=13)
        panel.axhline(100 * without.score(measure), linestyle="--", color="#777777", linewidth=1)
        if len(values) > 1:
            panel.set_xscale("symlog" if values[0] == 0 else "log")
        panel.set_xticks([], minor=True)
        ticks = readable_ticks(values)
        panel.set_xticks(ticks, [f"{value:g}" for value in ticks])
        panel.set_xlabel(name)
        panel.grid(alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel(f"{measure.replace('_', ' ')} %")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    pyplot.close(figure)
    write_atomically(file, buffer.getvalue())
