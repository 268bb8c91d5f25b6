"""Check of layers that are written in Python, before Caffe looks for them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from caffe.proto import caffe_pb2

from renet.common.errors import UserError


def check_python_layers(layers: Iterable[caffe_pb2.LayerParameter]) -> None:
    """Import what the layers of type Python name; Caffe would end in an error of its own that names nothing.

    Raises:
        UserError: a module or its class is missing, or the import fails; names layer and module.
    """
    for layer in layers:
        if layer.type != "Python":
            continue
        wanted = layer.python_param
        start = f"layer {layer.name!r}: the module {wanted.module!r}"
        try:
            module = importlib.import_module(wanted.module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{wanted.module}.".startswith(f"{error.name}."):
                raise UserError(f"{start} cannot be imported: it needs the module {error.name!r}") from None
            raise UserError(f"{start} cannot be imported: put its folder on PYTHONPATH") from None
        except Exception as error:
            raise UserError(f"{start} cannot be imported: {type(error).__name__}: {error}") from None
        if not callable(getattr(module, wanted.layer, None)):
            raise UserError(f"{start} ({module.__file__}) has no class {wanted.layer!r}")
