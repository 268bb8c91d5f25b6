"""Initial weights of a training: filled from files, or from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import caffe

from renet.common.text_layout import listed
from renet.weights.weight_files import Filled, check_file, load

__all__ = ["check_file", "fill", "metadata", "report", "split_names", "untouched"]


def split_names(weights: Iterable[str]) -> list[str]:
    """List the files that a solver's `weights` fields name; like Caffe, each may hold several between commas."""
    return [name.strip() for field in weights for name in field.split(",")]


def fill(network: caffe.Net, files: Sequence[Path]) -> list[Filled]:
    """Copy the weights of the files into the layers of the same names, one file after the other.

    Raises:
        UserError: as `weights.load`.
    """
    return [load(network, file) for file in files]


def untouched(network: caffe.Net, filled: Iterable[Filled]) -> list[str]:
    """List the layers with weights that no file filled, in the network's order."""
    done = {name for one in filled for name in one.layers}
    return [name for name in network.params if name not in done]


def report(network: caffe.Net, filled: Sequence[Filled]) -> list[str]:
    """Write what came from where, and what starts from scratch: one line each."""
    rest = untouched(network, filled)
    lines = [
        f"{_layers(one.layers)} filled from {one.file}: {_span(one.layers)}; "
        f"{len(one.unused)} in the file unused{_after_colon(listed(one.unused))}"
        for one in filled
    ]
    lines.append(f"{_layers(rest)} from scratch{_after_colon(', '.join(rest))}")
    return [f"weights: {line}" for line in lines]


def metadata(network: caffe.Net, filled: Sequence[Filled]) -> dict[str, Any]:
    """Collect the same for run.json."""
    return {
        "weights": [{"file": str(one.file), "filled": one.layers, "unused": one.unused} for one in filled],
        "layers_from_scratch": untouched(network, filled),
    }


def _span(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} ... {names[-1]}"


def _layers(names: Sequence[str]) -> str:
    return f"{len(names)} layer{'' if len(names) == 1 else 's'}"


def _after_colon(text: str) -> str:
    return f": {text}" if text else ""
