"""Exported networks as tasks of renet.benchmark.worker: a forward pass in onnxruntime and in OpenVINO.

The job has `onnx` (the file), `values` (the folder of network_tasks, with the inputs' values) and `precision` (of
OpenVINO, as it names it). Both engines are told the inputs' sizes beforehand, which serves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from renet.benchmark.worker import reset_peak, sampled
from renet.gpu_check.work import parse_inputs


def read_inputs(job: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The inputs' values."""
    return {
        each.name: np.fromfile(Path(job["values"]) / f"{each.name}.data.f32", np.float32).reshape(each.shape)
        for each in parse_inputs(job["inputs"])
    }


class OnnxRuntime:
    """In onnxruntime's CPUExecutionProvider."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        self._inputs = read_inputs(job)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = job["threads"]
        asked = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
        for told in asked.get_inputs():
            for size, name in zip(self._inputs[told.name].shape, told.shape, strict=True):
                if isinstance(name, str):
                    options.add_free_dimension_override_by_name(name, size)
        del asked
        self._session = onnxruntime.InferenceSession(job["onnx"], options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self.run()
        reset_peak()

    def run(self) -> dict[str, np.ndarray]:
        """A pass; samples of what it gave."""
        found = self._session.run(self._names, self._inputs)
        return {name: np.array(sampled(values)) for name, values in zip(self._names, found, strict=True)}


class OpenVino:
    """In OpenVINO's CPU plugin, in the precision of the job."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import openvino

        self.version = openvino.__version__.split("-")[0]
        self._inputs = read_inputs(job)
        core = openvino.Core()
        model = core.read_model(job["onnx"])
        model.reshape({name: list(values.shape) for name, values in self._inputs.items()})
        settings = {
            "INFERENCE_PRECISION_HINT": job["precision"],
            "INFERENCE_NUM_THREADS": job["threads"],
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = core.compile_model(model, "CPU", settings)
        self.run()
        reset_peak()

    def run(self) -> dict[str, np.ndarray]:
        """As OnnxRuntime.run."""
        found = self._compiled(self._inputs)
        return {
            output.get_any_name(): np.array(sampled(np.asarray(found[output]))) for output in self._compiled.outputs
        }
