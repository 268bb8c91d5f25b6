"""The growth of a training's speed with the processes that share it, as one SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "scaling", "font.family": "sans-serif", "font.size": 10}


def scaling_chart(title: str, speed_ups: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    """An SVG: speed-up over the number of processes.

    Args:
        title: what is trained.
        speed_ups: for each link the numbers of processes, and how many times as fast as one alone they are.
    """
    with pyplot.rc_context(SETTINGS):
        figure, panel = pyplot.subplots(figsize=(6, 4), layout="constrained")
        numbers = sorted({number for points in speed_ups.values() for number, _ in points})
        panel.plot(numbers, numbers, ":", color="0.5", label="as many times as processes")
        for link, points in speed_ups.items():
            panel.plot(*zip(*points), "o-", markersize=4, label=link)
        panel.set_title(title)
        panel.set_xlabel("processes")
        panel.set_ylabel("speed-up")
        panel.set_xticks(numbers)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
        pyplot.close(figure)
    return buffer.getvalue()
