"""The paper's networks: written as prototxt, and what they cost and see."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renet.networks.generation import WrittenNetwork, write

__all__ = ["WrittenNetwork", "write"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("renet.networks.generation"), name)  # Caffe comes with it
