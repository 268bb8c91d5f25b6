"""The process of onnx_engines.Engines: runs ONNX files in onnxruntime and OpenVINO."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import onnxruntime
import openvino


def run_both(model: str, given: str, results: str) -> None:
    """Read the inputs of all runs, and write the outputs of both engines."""
    runs: dict[str, dict[str, np.ndarray]] = {}
    with np.load(given) as arrays:
        for key in arrays:
            number, name = key.split("/", 1)
            runs.setdefault(number, {})[name] = arrays[key]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # On processors that have bfloat16, OpenVINO computes in it unless it is told not to
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.name for output in session.get_outputs()]
    found = {}
    for number, inputs in runs.items():
        for name, values in zip(names, session.run(names, inputs), strict=True):
            found[f"onnxruntime/{number}/{name}"] = values
        answer = compiled(inputs)
        for name in names:
            found[f"openvino/{number}/{name}"] = np.array(answer[compiled.output(name)])
    np.savez(results, **found)


# What the engines print goes to stderr
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    try:
        run_both(*json.loads(line))
        answer = "done"
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), file=answers, flush=True)
