"""The part of the benchmark that exports networks as ONNX, and runs them in onnxruntime and OpenVINO beside Caffe."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import text_format

from renet.benchmark.network_parts import inputs_of, network, network_sides
from renet.benchmark.network_tasks import WEIGHTS
from renet.benchmark.settings import CAFFE, ONNXRUNTIME, OPENVINO, OPENVINO_BFLOAT16, Entry, Settings, in_precision
from renet.benchmark.sides import BFLOAT16_TOLERANCE, Side, check_results, compare, started
from renet.common.machine import has_matrix_tiles
from renet.exchange.onnx_export import OnnxExport, export_onnx
from renet.gpu_check.work import BF16, FLOAT32, FORWARD

EXPORTED = ("fcn", "h_renet", "h_renet_bn_mlfb")


def time_engines(
    settings: Settings, model: str, shape: tuple[int, int, int, int], precision: str = FLOAT32
) -> dict[str, Any]:
    """A network's forward pass in Caffe, and in the engines that its ONNX file runs in.

    Args:
        settings: of the benchmark.
        model: of EXPORTED.
        shape: N, C, H, W of the images.
        precision: FLOAT32 of Caffe, beside all engines; or BF16, beside the one that has it.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fed = network(model, FORWARD, shape)
        inputs, text = inputs_of(fed), text_format.MessageToString(fed)
        own = settings._replace(peer=None)
        caffe = network_sides(own, text, inputs, folder, FORWARD, alone=True)[CAFFE]
        rounds = {"CAFFE_ALLOW_BF16": str(int(precision == BF16))}
        sides = {CAFFE: caffe._replace(variables=caffe.variables | rounds)}
        if settings.peer:
            with started(sides, settings.threads):
                pass  # it has drawn weights and inputs when it is ready
            file = folder / "net.onnx"
            export_onnx(OnnxExport(folder / "net.prototxt", folder / WEIGHTS, file))
            job = {"onnx": str(file), "values": scratch, "inputs": inputs, "precision": "f32"}
            openvino = Side("openvino", "engine_tasks.OpenVino", settings.peer, job)
            if precision == FLOAT32:
                sides[ONNXRUNTIME] = Side("onnxruntime", "engine_tasks.OnnxRuntime", settings.peer, job)
                sides[OPENVINO] = openvino
            sides[OPENVINO_BFLOAT16] = openvino._replace(
                job=job | {"precision": "bf16"}, check=partial(check_results, tolerance=BFLOAT16_TOLERANCE)
            )
        measured = compare(sides, settings.runs, settings.threads, repeats=True)
    return {"model": model, "pass": FORWARD, "shape": list(shape), "precision": precision, **measured}


def engine_entries(settings: Settings) -> list[Entry]:
    """The FCN and the H-ReNets, with Caffe in bfloat16, too, where the processor's tiles multiply it."""
    shape = (1, 3, *settings.scale.image)
    return [
        Entry(in_precision(model, precision), partial(time_engines, settings, model, shape, precision))
        for precision in ((FLOAT32, BF16) if has_matrix_tiles() else (FLOAT32,))
        for model in EXPORTED
    ]
