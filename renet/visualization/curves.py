"""Training curves as inline SVG whose colours follow the page's light or dark theme."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib

matplotlib.use("Agg")
import numpy as np
from markupsafe import Markup, escape
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from renet.evaluation.boundaries import WIDTHS, Boundaries
from renet.training.run_record import RunRecord, series

_Any = TypeVar("_Any")

SERIES_COLOURS = 4
_MOST_POINTS = 500
_HALF, _WHOLE = (5.4, 3.2), (11, 3.4)  # inches: figures half and as wide as the page
_LETTERS_AN_INCH, _LETTERS_OF_A_KEY = 13, 6  # of a legend, about; the key is the bit of line before a name
# Runs differ in more than colour.
_MARKERS = ("o", "s", "^", "D")
_DASHES = ("-", "--", ":", "-.")
# Stand-ins that become CSS colours in the SVG: matplotlib itself knows fixed colours only.
_INK, _GRID = "#010203", "#040506"
_STAND_INS = {_INK: "currentColor", _GRID: "var(--line)"}
_LINES = [f"#0708{index:02x}" for index in range(SERIES_COLOURS)]
_STAND_INS |= {colour: f"var(--series-{index + 1})" for index, colour in enumerate(_LINES)}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def loss_curves(runs: Sequence[RunRecord]) -> Markup | None:
    """Draw the loss while training (running mean) and on the test split (dashed); None where no run has any."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=_HALF)
        for run, colour, marker, _ in _styles(runs):
            x, y = series(run.training, "loss")
            if x:
                axes.plot(*_thinned(x, _running_mean(y)), color=colour, linewidth=1.8, label=f"{run.name}, training")
            x, y = series(run.testing, "loss")
            if x:
                axes.plot(x, y, color=colour, linestyle="--", marker=marker, markersize=3.5, label=f"{run.name}, test")
        axes.set(xlabel="iteration", ylabel="loss")
        _from_zero(axes)
        return _finish(figure, "Loss against iteration", "loss")


def score_curves(runs: Sequence[RunRecord]) -> Markup | None:
    """Draw pixel accuracy, class accuracy and mean IoU on the test split while training; None where no run has any."""
    panels = (("pixel_accuracy", "pixel accuracy"), ("class_accuracy", "class accuracy"), ("mean_iou", "mean IoU"))
    with pyplot.rc_context(_STYLE):
        figure, row = pyplot.subplots(1, 3, figsize=_WHOLE, sharey=True)
        for axes, (key, title) in zip(row, panels):
            for run, colour, marker, _ in _styles(runs):
                x, y = series(run.testing, key)
                if x:
                    percent = [100 * value for value in y]
                    axes.plot(x, percent, color=colour, linewidth=1.8, marker=marker, markersize=3.5, label=run.name)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("iteration")
        row[0].set_ylabel("percent")
        return _finish(figure, "Scores on the test split against iteration", "scores")


def learning_rate_curves(runs: Sequence[RunRecord]) -> Markup | None:
    """Draw the learning rate; None where no run has any."""
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=_HALF)
        for run, colour, _, dashes in _styles(runs):
            x, y = series(run.training, "learning_rate")
            if x:
                axes.plot(*_thinned(x, y), color=colour, linestyle=dashes, linewidth=2, label=run.name)
        axes.set(xlabel="iteration", ylabel="learning rate")
        _from_zero(axes)
        return _finish(figure, "Learning rate against iteration", "learning-rate")


def boundary_curves(
    named: Sequence[tuple[str, Boundaries, Mapping[str, np.ndarray]]],
) -> Markup | None:
    """Draw the trimap curves of several networks, with their intervals shaded; None where there are none.

    Args:
        named: name, scores, and intervals by measure (`Evaluation.intervals`) of each.
    """
    panels = (("trimap_mean_iou", "mean IoU"), ("trimap_pixel_accuracy", "pixel accuracy"))
    with pyplot.rc_context(_STYLE):
        figure, row = pyplot.subplots(1, 2, figsize=_WHOLE)
        for axes, (key, title) in zip(row, panels):
            for (name, boundaries, intervals), colour, marker, dashes in _styles(named):
                values = 100 * boundaries.scores()[key]
                if np.isnan(values).all():
                    continue
                axes.plot(
                    WIDTHS, values, dashes, color=colour, linewidth=1.8, marker=marker, markevery=3, markersize=3.5,
                    label=name,
                )  # fmt: skip
                if key in intervals:
                    axes.fill_between(WIDTHS, *(100 * intervals[key].T), color=colour, alpha=0.2, linewidth=0)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("pixels from a boundary, at most")
        row[0].set_ylabel("percent")
        return _finish(figure, "Scores against the distance from boundaries", "boundaries")


def _styles(runs: Sequence[_Any]) -> Iterator[tuple[_Any, str, str, str]]:
    """Each run with its colour, marker and dashes."""
    return zip(runs, itertools.cycle(_LINES), itertools.cycle(_MARKERS), itertools.cycle(_DASHES))


def _from_zero(axes: Axes) -> None:
    if axes.lines:
        axes.set_ylim(bottom=0)


def _running_mean(values: Sequence[float]) -> np.ndarray:
    """Mean over a window of about a fiftieth of the curve, shorter at its start."""
    window = max(1, len(values) // 50)
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - window)
    return (total[last] - total[first]) / (last - first)


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Every n-th point and the last one, so that the page stays small."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return np.asarray(x)[keep], np.asarray(y)[keep]


def _finish(figure: Figure, label: str, identity: str) -> Markup | None:
    drawn = [axes for axes in figure.axes if axes.lines]
    try:
        if not drawn:
            return None
        handles, labels = drawn[0].get_legend_handles_labels()
        # A legend wider than the figure would shrink it on the page: fewer columns for long names.
        room = int(figure.get_figwidth() * _LETTERS_AN_INCH) // (max(map(len, labels)) + _LETTERS_OF_A_KEY)
        columns = max(1, min(room, 2 if len(labels) == 4 else 3, len(labels)))
        figure.tight_layout()
        figure.legend(handles, labels, loc="lower center", ncols=columns, bbox_to_anchor=(0.5, 1.0))
        buffer = io.StringIO()
        # The salt keeps the ids of several SVGs in one page apart, and the same from call to call.
        with matplotlib.rc_context({"svg.hashsalt": identity}):
            figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        return _inline(buffer.getvalue(), label, identity)
    finally:
        pyplot.close(figure)


def _inline(svg: str, label: str, identity: str) -> Markup:
    """A whole SVG file as an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    assert view is not None, "matplotlib writes a viewBox"
    for stand_in, colour in _STAND_INS.items():
        rest = rest.replace(stand_in, colour)
    # Groups are named figure_1, axes_1, ... in every SVG alike; nothing refers to them.
    rest = re.sub(r'<g id="[^"]*"', "<g", rest)
    return Markup(f'<svg role="img" aria-label="{escape(label)}" class="{identity}" {view[0]}>{rest}')
