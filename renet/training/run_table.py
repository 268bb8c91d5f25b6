"""Trainings as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from renet.common.repository import product_path
from renet.common.text_layout import aligned
from renet.training.run_state import RunState

HEADER = ["run", "state", "iteration", "best test", "at", "trained", "last sign"]


def as_json(state: RunState) -> dict[str, Any]:
    """A run as JSON."""
    best = state.best
    return {
        "run": str(state.folder),
        "state": state.state,
        "iteration": state.iteration,
        "iterations": state.iterations,
        "best": None if best is None else {"measure": best.measure, "value": best.value, "iteration": best.iteration},
        "seconds": state.seconds,
        "written": datetime.fromtimestamp(state.written).astimezone().isoformat(timespec="seconds"),
        "message": state.message,
    }


def row(state: RunState, now: float) -> list[str]:
    """A run's cells of the table."""
    best = state.best
    return [
        product_path(state.folder),
        state.state,
        f"{_count(state.iteration)}/{_count(state.iterations)}",
        "-" if best is None else str(best),
        "-" if best is None else f"{best.iteration:,}",
        "-" if state.seconds is None else duration(state.seconds),
        f"{duration(max(0.0, now - state.written))} ago",
    ]


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def duration(seconds: float) -> str:
    """A time for a person: its largest unit, and the next below it for hours and days."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes:02d} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def table(states: Sequence[RunState], now: float) -> str:
    """All runs as text; below it why some failed or finished early."""
    lines = aligned([HEADER, *(row(state, now) for state in states)], left=2)
    lines += [f"{product_path(state.folder)}: {state.message}" for state in states if state.message]
    return "\n".join(lines)
