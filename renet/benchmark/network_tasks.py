"""Whole networks as tasks of renet.benchmark.worker: a forward pass or a training step, in Caffe and in PyTorch.

The argument is a JSON file: `model` and `solver` (prototxts without layers that read data), `inputs` (as benchmark_net
-inputs has them), `values` (a folder), `draw` (whether to fill that folder) and `release` (whether the network lets
maps go that no later layer reads). The side that draws makes parameters by the network's fillers and inputs at random
and writes them, as benchmark_net -dump does and as a caffemodel; the others read them, so that all begin alike. Results
are those of the first pass: what the network gives, and its parameters' gradients.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renet.benchmark.worker import reset_peak, sampled
from renet.gpu_check.work import moved_bytes, operations

SEED = 1
WEIGHTS = "net.caffemodel"
# A rate that moves the parameters, but not so far in some steps that a network with random ones leaves its range.
RATE, MOMENTUM, DECAY = 1e-6, 0.9, 5e-4


def input_classes(inputs: str) -> dict[str, int]:
    """Of `name:N,C,H,W:classes`, separated by spaces: the numbers of classes by name; 0 where there are none."""
    items = [item.split(":") for item in inputs.split()]
    return {name: int(classes[0]) if classes else 0 for name, _, *classes in items}


class CaffeNetwork:
    """In the Caffe that this Python imports: ours, with or without oneDNN, or a stock one."""

    def __init__(self, job_file: str, backward: bool, threads: int) -> None:
        import caffe

        self.version = caffe.__version__
        self._job, self._backward = json.loads(Path(job_file).read_text()), backward
        self._folder = Path(self._job["values"])
        caffe.set_mode_cpu()
        caffe.set_random_seed(SEED)
        if self._job["draw"]:
            self._draw()
        self._results = self._first_pass()
        # In the network that is timed nobody has looked at parameters or gradients: NumPy has no hold on them, so that
        # layers may trust what they keep of them, as in a prediction or a training.
        self._solver, self._net = self._make()
        reset_peak()

    def _make(self) -> tuple[Any, Any]:
        """The solver (None for forward alone) and the network, with the values that all sides begin with."""
        solver, net = self._build()
        net.copy_from(str(self._folder / WEIGHTS))
        for name in net.inputs:
            blob = net.blobs[name].data
            blob[...] = np.fromfile(self._folder / f"{name}.data.f32", np.float32).reshape(blob.shape)
        if self._job["release"]:
            net.release_maps()
        return solver, net

    def _build(self) -> tuple[Any, Any]:
        import caffe

        solver = caffe.get_solver(self._job["solver"]) if self._backward else None
        return solver, solver.net if solver else caffe.Net(self._job["model"], caffe.TEST)

    def _draw(self) -> None:
        """Write values to begin with: files for PyTorch, and the same parameters for Caffe."""
        _solver, net = self._build()
        classes, random = input_classes(self._job["inputs"]), np.random.default_rng(SEED)
        values = {}
        for name in net.inputs:
            shape = tuple(net.blobs[name].shape)
            drawn = random.integers(classes[name], size=shape) if classes[name] else random.standard_normal(shape)
            values[name] = drawn
        for name, kind in zip(net._layer_names, (layer.type for layer in net.layers)):
            if kind == "BatchNorm":  # having met no batch it would divide by the root of its eps
                mean, variance, count = net.params[name]
                mean.data[...] = random.standard_normal(mean.data.shape)
                variance.data[...] = random.uniform(0.5, 2, variance.data.shape)
                count.data[...] = 1
        for name, blobs in net.params.items():
            values |= {f"{name}.param{index}": blob.data for index, blob in enumerate(blobs)}
        for name, each in values.items():
            np.asarray(each, np.float32).tofile(self._folder / f"{name}.data.f32")
        net.save(str(self._folder / WEIGHTS))

    def _first_pass(self) -> dict[str, np.ndarray]:
        """Samples of the results of a pass."""
        _solver, net = self._make()
        if self._backward:
            net.clear_param_diffs()
        net.forward()
        results = {name: np.array(sampled(net.blobs[name].data)) for name in net.outputs}
        if not self._backward:
            return results
        net.backward()
        kinds = dict(zip(net._layer_names, (layer.type for layer in net.layers)))
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                # frozen parameters have no gradient, and what BatchNorm keeps is none
                if kinds[name] != "BatchNorm" and blob.diff.any():
                    results[f"{name}.param{index} gradient"] = np.array(sampled(blob.diff))
        return results

    def run(self) -> None:
        """A forward pass, or a step of the solver."""
        if self._solver:
            self._solver.step(1)
        else:
            self._net.forward()

    def results(self) -> dict[str, np.ndarray]:
        """Samples of what the first pass gave."""
        return self._results

    def layers(self) -> list[dict[str, Any]]:
        """One forward pass, timed layer by layer; a ReLU in place counts with the layer before it.

        Each has name, type, milliseconds, what it takes and gives (bottoms, tops, params: shapes), and the operations
        and bytes that it cannot do without (renet.gpu_check.work).
        """
        net, groups = self._net, []
        kinds = [layer.type for layer in net.layers]
        for index, kind in enumerate(kinds):
            in_place = list(net._bottom_ids(index)) == list(net._top_ids(index))
            if kind == "ReLU" and in_place and groups:
                groups[-1][1] = index
            else:
                groups.append([index, index])
        rows = []
        for first, last in groups:
            start = time.perf_counter()
            net._forward(first, last)
            milliseconds = (time.perf_counter() - start) * 1e3
            metadata: dict[str, Any] = {
                "name": net._layer_names[first],
                "type": " + ".join(kinds[first : last + 1]),
                "bottoms": [list(net.blobs[net._blob_names[i]].shape) for i in net._bottom_ids(first)],
                "tops": [list(net.blobs[net._blob_names[i]].shape) for i in net._top_ids(first)],
                "params": [list(blob.shape) for blob in net.layers[first].blobs],
            }
            counted = [{**metadata, "type": kinds[first], "backward": False, "propagate_down": False}]
            metadata |= {"operations": operations(counted, False), "bytes": moved_bytes(counted, False)}
            rows.append({**metadata, "milliseconds": milliseconds})
        return rows

    def errors(self) -> dict[str, Any]:
        """How far each convolution of a forward pass is from double precision, and which labels the pass gives.

        Returns:
            `layers`: for each its `name`, `weights` (their shape), `largest` (the largest error, as a part of the
            largest result) and `mean` (the root of the mean square, of the errors as a part of that of the results).
            `labels`: of every pixel, where the network gives probabilities.
        """
        from caffe.proto import caffe_pb2
        from google.protobuf import text_format

        _solver, net = self._make()
        text = Path(self._job["model"]).read_text()
        parameters = {
            layer.name: layer.convolution_param for layer in text_format.Parse(text, caffe_pb2.NetParameter()).layer
        }
        rows = []
        for index, (name, layer) in enumerate(zip(net._layer_names, net.layers)):
            net._forward(index, index)
            if layer.type != "Convolution":
                continue
            bottom, top = (
                net.blobs[net._blob_names[ids[0]]].data for ids in (net._bottom_ids(index), net._top_ids(index))
            )
            exact = convolved(bottom, [blob.data for blob in net.params[name]], parameters[name])
            error = top - exact
            rows.append(
                {
                    "name": name,
                    "weights": list(net.params[name][0].shape),
                    "largest": float(np.abs(error).max() / np.abs(exact).max()),
                    "mean": float(np.sqrt(np.square(error).mean() / np.square(exact).mean())),
                }
            )
        return {"layers": rows, "labels": net.blobs[net.outputs[0]].data.argmax(axis=1).ravel().tolist()}


def convolved(bottom: np.ndarray, parameters: Sequence[np.ndarray], described: Any) -> np.ndarray:
    """A convolution in double precision, one position of the kernel at a time.

    Args:
        bottom: N x C x H x W.
        parameters: weights O x C x h x w, and O biases where there are any.
        described: its caffe_pb2.ConvolutionParameter: padding, stride and dilation, the same for both axes, one group.

    Returns:
        N x O x H' x W'.
    """
    pad, stride, dilation = (
        (list(getattr(described, name)) or [default])[0]
        for name, default in (("pad", 0), ("stride", 1), ("dilation", 1))
    )
    weights, *bias = (np.asarray(each, np.float64) for each in parameters)
    padded = np.pad(np.asarray(bottom, np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    heights, widths = (
        (size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel in zip(padded.shape[2:], weights.shape[2:])
    )
    result = np.zeros((len(padded), len(weights), heights, widths))
    for row in range(weights.shape[2]):
        for column in range(weights.shape[3]):
            rows = slice(row * dilation, row * dilation + (heights - 1) * stride + 1, stride)
            columns = slice(column * dilation, column * dilation + (widths - 1) * stride + 1, stride)
            seen = padded[:, :, rows, columns].reshape(len(padded), padded.shape[1], -1)
            result += (weights[:, :, row, column] @ seen).reshape(result.shape)
    return result + bias[0].reshape(-1, 1, 1) if bias else result


class PyTorchNetwork:
    """The same in PyTorch (renet.gpu_check.pytorch_networks)."""

    def __init__(self, job_file: str, backward: bool, threads: int) -> None:
        import torch

        from renet.gpu_check.pytorch_networks import Work, parse_inputs

        torch.set_num_threads(threads)
        self.version = torch.__version__
        job = json.loads(Path(job_file).read_text())
        self._work = Work(Path(job["model"]).read_text(), parse_inputs(job["inputs"]), backward, "cpu")
        self._work.load(Path(job["values"]))
        self._work.run()
        self._results = {name: np.array(sampled(values.numpy())) for name, values in self._work.results().items()}
        trained = [values for values in self._work.network.parameters() if values.requires_grad]
        self._optimizer = torch.optim.SGD(trained, RATE, MOMENTUM, weight_decay=DECAY) if backward else None

    def run(self) -> None:
        """As CaffeNetwork.run."""
        self._work.run()
        if self._optimizer:
            self._optimizer.step()

    def results(self) -> dict[str, np.ndarray]:
        """As CaffeNetwork.results."""
        return self._results
