"""Networks as tasks of renet.benchmark.worker: forward, forward and backward, or a training step, in Caffe and PyTorch.

The job has `model` and `solver` (prototxts without layers that read data), `passes`, `inputs` (as in benchmark_net
-inputs), `values` (a folder), `draw` (whether to fill that folder) and `share` (whether its maps share memory). The
side that draws makes parameters by the network's fillers and what the folder lacks of inputs and outputs' gradients at
random, and writes them, as benchmark_net -dump does and as a caffemodel; the others read them, so that all begin alike.
Results are those of the first pass: what the network gives, and gradients.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renet.benchmark.worker import reset_peak, sampled
from renet.gpu_check.work import FORWARD, GRADIENT, STEP, moved_bytes, operations, parse_inputs

SEED = 1
WEIGHTS = "net.caffemodel"
PRODUCTS = ("Convolution", "InnerProduct")
# A rate that moves the parameters, but not so far in some steps that a network with random ones leaves its range.
RATE, MOMENTUM, DECAY = 1e-6, 0.9, 5e-4


class CaffeNetwork:
    """In the Caffe that this Python imports: ours, with or without oneDNN, or a stock one."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        import caffe

        self.version = caffe.__version__
        self._job, self._backward = job, job["passes"] != FORWARD
        self._folder = Path(job["values"])
        caffe.set_mode_cpu()
        caffe.set_random_seed(SEED)
        if job["draw"]:
            self._draw()
        self._results = self._first_pass(job["share"])
        # In the network that is timed nobody has looked at parameters or gradients: NumPy has no hold on them, so that
        # layers may trust what they keep of them, as in a prediction or a training.
        self._solver, self._net = self._make(job["share"])
        reset_peak()

    def _make(self, share: bool) -> tuple[Any, Any]:
        """The solver (None without a step) and the network, with the values that all sides begin with."""
        solver, net = self._build()
        net.copy_from(str(self._folder / WEIGHTS))
        for name, kind in [*((name, "data") for name in net.inputs), *((name, "diff") for name in net.outputs)]:
            if self._file(f"{name}.{kind}").is_file():
                values = getattr(net.blobs[name], kind)
                values[...] = self._read(f"{name}.{kind}", values.shape)
        if share:
            net.share_maps()
        return solver, net

    def _build(self) -> tuple[Any, Any]:
        import caffe

        if self._job["passes"] == STEP:
            solver = caffe.get_solver(self._job["solver"])
            return solver, solver.net
        return None, caffe.Net(self._job["model"], caffe.TRAIN if self._backward else caffe.TEST)

    def _draw(self) -> None:
        """Write values to begin with: files for PyTorch, and the same parameters for Caffe.

        Results that are the same whatever the layers compute would hide what they compute: weights that their filler
        leaves at zero are drawn, and the last product before a Softmax at the end is scaled to scores of a deviation
        of 1, for probabilities of 0 and 1 differ by nothing.
        """
        _solver, net = self._build()
        random = np.random.default_rng(SEED)
        classes = {each.name: each.classes for each in parse_inputs(self._job["inputs"])}
        for name in net.inputs:
            shape = tuple(net.blobs[name].shape)
            drawn = random.integers(classes[name], size=shape) if classes.get(name) else random.standard_normal(shape)
            if not self._file(f"{name}.data").is_file():
                self._write(f"{name}.data", drawn)
        for name in net.outputs if self._backward else ():
            if len(net.blobs[name].shape):  # a loss has none: it is the beginning
                self._write(f"{name}.diff", random.standard_normal(tuple(net.blobs[name].shape)))
        kinds = [layer.type for layer in net.layers]
        for name, kind in zip(net._layer_names, kinds):
            if kind == "BatchNorm":  # having met no batch it would divide by the root of its eps
                mean, variance, count = net.params[name]
                mean.data[...] = random.standard_normal(mean.data.shape)
                variance.data[...] = random.uniform(0.5, 2, variance.data.shape)
                count.data[...] = 1
            if kind in PRODUCTS and not (weights := net.params[name][0].data).any():
                weights[...] = random.standard_normal(weights.shape) / np.sqrt(weights[0].size)
        if kinds[-1] == "Softmax":
            self._scale_scores(net, kinds)
        for name, blobs in net.params.items():
            for index, blob in enumerate(blobs):
                self._write(f"{name}.param{index}.data", blob.data)
        net.save(str(self._folder / WEIGHTS))

    def _scale_scores(self, net: Any, kinds: Sequence[str]) -> None:
        """Scale the last product of a network that ends in a Softmax, so that the scores have a deviation of 1."""
        for name in net.inputs:
            net.blobs[name].data[...] = self._read(f"{name}.data", net.blobs[name].data.shape)
        net.forward()
        scores = net.blobs[net._blob_names[net._bottom_ids(len(kinds) - 1)[0]]].data
        last = [name for name, kind in zip(net._layer_names, kinds) if kind in PRODUCTS][-1]
        for blob in net.params[last]:
            blob.data[...] /= scores.std()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.f32"

    def _write(self, name: str, values: np.ndarray) -> None:
        np.asarray(values, np.float32).tofile(self._file(name))

    def _read(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.fromfile(self._file(name), np.float32).reshape(shape)

    def _pass(self, net: Any) -> None:
        """Gradients start at zero, as in a step."""
        if self._backward:
            net.clear_param_diffs()
        net.forward()
        if self._backward:
            net.backward()

    def _first_pass(self, share: bool) -> dict[str, np.ndarray]:
        """Samples of the results of a pass."""
        _solver, net = self._make(share)
        self._pass(net)
        results = {name: net.blobs[name].data for name in net.outputs}
        if self._backward:
            kinds = dict(zip(net._layer_names, (layer.type for layer in net.layers)))
            diffs = {name: net.blobs[name].diff for name in net.inputs}
            for name, blobs in net.params.items():
                if kinds[name] != "BatchNorm":  # what it keeps has no gradient
                    diffs |= {f"{name}.param{index}": blob.diff for index, blob in enumerate(blobs)}
            # inputs have none but by force_backward, and frozen parameters have none
            results |= {name + GRADIENT: diff for name, diff in diffs.items() if diff.any()}
        return {name: np.array(sampled(values)) for name, values in results.items()}

    def run(self) -> dict[str, np.ndarray]:
        """A pass, or a step of the solver; samples of what the first pass gave."""
        if self._solver:
            self._solver.step(1)
        else:
            self._pass(self._net)
        return self._results

    def layers(self) -> dict[str, Any]:
        """`layers`: one forward pass, timed layer by layer; a ReLU in place counts with the layer before it.

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
        return {"layers": rows}

    def errors(self) -> dict[str, Any]:
        """How far each convolution of a forward pass is from double precision, and which labels the pass gives.

        Returns:
            `layers`: for each its `name`, `weights` (their shape), `largest` (the largest error, as a part of the
            largest result) and `mean` (the root of the mean square, of the errors as a part of that of the results).
            `labels`: of every pixel, where the network gives probabilities.
        """
        from caffe.proto import caffe_pb2
        from google.protobuf import text_format

        _solver, net = self._make(share=False)
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

    def __init__(self, job: Mapping[str, Any]) -> None:
        import torch

        from renet.gpu_check.pytorch_networks import Work

        torch.set_num_threads(job["threads"])
        self.version = torch.__version__
        text, inputs = Path(job["model"]).read_text(), parse_inputs(job["inputs"])
        self._work = Work(text, inputs, job["passes"] != FORWARD, "cpu")
        self._work.load(Path(job["values"]))
        self._work.run()
        self._results = {name: np.array(sampled(values.numpy())) for name, values in self._work.results().items()}
        trained = [values for values in self._work.network.parameters() if values.requires_grad]
        step = job["passes"] == STEP
        self._optimizer = torch.optim.SGD(trained, RATE, MOMENTUM, weight_decay=DECAY) if step else None

    def run(self) -> dict[str, np.ndarray]:
        """As CaffeNetwork.run."""
        self._work.run()
        if self._optimizer:
            self._optimizer.step()
        return self._results
