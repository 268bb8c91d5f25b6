"""An ONNX file in onnxruntime, as a function from a transformed image to probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renet.common.errors import UserError, first_line
from renet.exchange.onnx_metadata import OnnxMetadata
from renet.networks.deploy_network import COLOURS, PROBABILITIES, DeployOptions, InputTransform


class OnnxEngine:
    """A network as tools/export_onnx.py writes it, or another one whose transform a person says.

    Attributes:
        transform: of the image's values.
        classes: how many classes the network tells apart.
        output: the name of the probabilities.
    """

    def __init__(self, model: Path, options: DeployOptions) -> None:
        """Load the file; onnxruntime uses OMP_NUM_THREADS threads where that is set.

        Raises:
            UserError: onnxruntime is not installed or cannot read the file, or it is not known which input takes the
                image, which output holds the probabilities, or what the transform is. Names the file.
        """
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                f"{model}: runs by onnxruntime, which is not installed here: .venv/bin/pip install onnxruntime"
            ) from None
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0").partition(",")[0] or 0)
        self._file = model
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise UserError(f"{model}: onnxruntime cannot load it: {first_line(error)}") from None
        metadata = OnnxMetadata.read(self._session.get_modelmeta().custom_metadata_map, model)
        self._input = self._chosen("input", self._session.get_inputs(), options.input_blob or metadata.input)
        self.output = self._chosen("output", self._session.get_outputs(), options.output_blob or metadata.output)
        self.transform = _transform(model, metadata, options)
        (shape,) = (each.shape for each in self._session.get_outputs() if each.name == self.output)
        if len(shape) != 4 or not isinstance(shape[1], int):
            raise UserError(f'{model}: the output "{self.output}" has no map for each class: its shape is {shape}')
        self.classes = shape[1]

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Run the network, as `CaffeEngine.forward`.

        Raises:
            UserError: onnxruntime cannot; it takes no image of this size, for one.
        """
        try:
            (result,) = self._session.run([self.output], {self._input: values})
        except Exception as error:  # as above
            raise UserError(f"{self._file}: onnxruntime cannot run it: {first_line(error)}") from None
        return result

    def _chosen(self, kind: str, there: Sequence[Any], name: str | None) -> str:
        names = [each.name for each in there]
        if name is None:
            name = PROBABILITIES if PROBABILITIES in names else names[0] if len(names) == 1 else None
        if name is None:
            raise UserError(f"{self._file}: has the {kind}s {', '.join(names)}; say which with --{kind}-blob")
        if name not in names:
            raise UserError(f'{self._file}: has no {kind} "{name}" (it has: {", ".join(names)})')
        return name


def _transform(model: Path, metadata: OnnxMetadata, options: DeployOptions) -> InputTransform:
    known = metadata.transform
    mean = options.mean if options.mean is not None else known.mean if known is not None else None
    if mean is None:
        raise UserError(
            f"{model}: mean and scale of the input are not in its metadata; say --mean B,G,R (and --scale S)"
        )
    if len(mean) != COLOURS:
        raise UserError(f"{model}: its mean has {len(mean)} numbers; an image has {COLOURS} channels")
    scale = options.scale if options.scale is not None else known.scale if known is not None else 1.0
    return InputTransform(mean, scale)
