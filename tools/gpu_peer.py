"""PyTorch's side of the comparison on a GPU: `python gpu_peer.py cuda` answers each line of JSON with a line of JSON.

    {"do": "rates"} -> {"tflops": {...}, "terabytes": ...}
    {"do": "prepare", "shape": [N, C, H, W, d], "backward": true, "precision": "TF32", "chain": 4}
        -> {"memory_mib": ...}
    {"do": "run"} -> {"milliseconds": ...}
    {"do": "compare", "folder": ..., "shape": [N, C, H, W, d], "backward": true} -> {"differences": {name: ...}}

A failed question is answered {"error": ...}. With `cpu` it answers the last kind alone. It needs PyTorch and the
standard library, and any Python from 3.8 on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

FLOAT32, TF32, BF16 = "FLOAT32", "TF32", "BF16"
WARM_UP = 3
COPY_BYTES = 1 << 30
PRODUCT_SIZE = 8192
PRODUCT_TIMES = 8


@contextlib.contextmanager
def precision_of_products(precision: str) -> Iterator[None]:
    """Matrix products of cuBLAS and cuDNN in `precision`; BF16 by autocast, as PyTorch's users have it."""
    torch.backends.cuda.matmul.allow_tf32 = precision == TF32
    torch.backends.cudnn.allow_tf32 = precision == TF32
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == BF16):
        yield


def milliseconds(work: Any, times: int) -> float:
    """Mean time of `times` calls in a row, by events on the GPU."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / times


class Group:
    """A vertical and a horizontal bidirectional torch.nn.LSTM: columns as sequences, then rows."""

    def __init__(self, shape: Sequence[int], backward: bool, precision: str, device: str) -> None:
        """Make it with random values.

        Args:
            shape: N, C, H, W and the hidden units d of each scan.
            backward: whether gradients are wanted.
            precision: of the matrix products.
            device: "cuda" or "cpu".
        """
        self._shape, self._backward, self._precision = tuple(shape), backward, precision
        n, c, height, width, d = self._shape
        torch.manual_seed(1)
        self._vertical = torch.nn.LSTM(c, d, bidirectional=True)
        self._horizontal = torch.nn.LSTM(2 * d, d, bidirectional=True)
        self._group = torch.nn.ModuleList([self._vertical, self._horizontal]).to(device).train(backward)
        self._bottom = torch.randn(n, c, height, width, device=device, requires_grad=backward)
        self._top_diff = torch.randn(n, 2 * d, height, width, device=device) if backward else None
        self.top: Any = None

    def run(self) -> None:
        """One pass; gradients start at none, as in every iteration of an optimizer."""
        with precision_of_products(self._precision):
            if not self._backward:
                with torch.inference_mode():
                    self._forward()
                return
            self._group.zero_grad(set_to_none=True)
            self._bottom.grad = None
            self._forward()
        self.top.backward(self._top_diff.to(self.top.dtype))

    def _forward(self) -> None:
        n, c, height, width, d = self._shape
        x = self._bottom.permute(2, 0, 3, 1).reshape(height, n * width, c)
        x = self._vertical(x)[0].reshape(height, n, width, 2 * d)
        x = x.permute(2, 1, 0, 3).reshape(width, n * height, 2 * d)
        x = self._horizontal(x)[0].reshape(width, n, height, 2 * d)
        self.top = x.permute(1, 3, 2, 0)

    def load(self, folder: Path) -> None:
        """Take map, top gradient and parameters from the files that benchmark_net -dump wrote for the same group."""
        n, c, height, width, d = self._shape
        with torch.no_grad():
            self._bottom.copy_(read(folder / "data.data.f32", (n, c, height, width)))
            if self._backward:
                self._top_diff.copy_(read(folder / "horizontal.diff.f32", (n, 2 * d, height, width)))
            for name, module, inputs in (("vertical", self._vertical, c), ("horizontal", self._horizontal, 2 * d)):
                for scan, suffix in enumerate(("", "_reverse")):
                    for i, (target, shape) in enumerate(
                        (("weight_ih", (4 * d, inputs)), ("bias_ih", (4 * d,)), ("weight_hh", (4 * d, d)))
                    ):
                        values = read(folder / f"{name}.param{3 * scan + i}.data.f32", shape)
                        getattr(module, f"{target}_l0{suffix}").copy_(reordered(values))
                    getattr(module, f"bias_hh_l0{suffix}").zero_()

    def differences(self, folder: Path) -> dict[str, float]:
        """The largest difference of the results to those in the files, relative to the largest value of each."""
        n, c, height, width, d = self._shape
        pairs = {"output": (self.top, read(folder / "horizontal.data.f32", (n, 2 * d, height, width)))}
        if self._backward:
            pairs["input gradient"] = (self._bottom.grad, read(folder / "data.diff.f32", (n, c, height, width)))
            for name, module, inputs in (("vertical", self._vertical, c), ("horizontal", self._horizontal, 2 * d)):
                for i, (target, shape) in enumerate(
                    (("weight_ih", (4 * d, inputs)), ("bias_ih", (4 * d,)), ("weight_hh", (4 * d, d)))
                ):
                    theirs = reordered(getattr(module, f"{target}_l0").grad)
                    pairs[f"{name} {target} gradient"] = (theirs, read(folder / f"{name}.param{i}.diff.f32", shape))
        result = {}
        for name, (theirs, ours) in pairs.items():
            theirs = theirs.detach().float()
            difference = ((theirs - ours.to(theirs.device)).abs().max() / theirs.abs().max()).item()
            result[name] = difference if difference == difference else float("inf")
        return result


def read(file: Path, shape: Sequence[int]) -> torch.Tensor:
    """The float32 values of a file as a tensor of `shape`."""
    count = 1
    for size in shape:
        count *= size
    if file.stat().st_size != 4 * count:
        raise ValueError(f"{file}: {file.stat().st_size} bytes, {4 * count} expected")
    return torch.from_file(str(file), shared=False, size=count, dtype=torch.float32).reshape(tuple(shape))


def reordered(rows: torch.Tensor) -> torch.Tensor:
    """Gates i, f, o, g to PyTorch's i, f, g, o, and back."""
    i, f, o, g = rows.chunk(4)
    return torch.cat([i, f, g, o])


def rates() -> dict[str, Any]:
    """The GPU's rates as measured: large matrix products, and a copy within its memory (bytes read and written)."""
    tflops = {}
    a = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device="cuda")
    b = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device="cuda")
    for precision in (FLOAT32, TF32, BF16):
        kind = torch.bfloat16 if precision == BF16 else torch.float32
        x, y = a.to(kind), b.to(kind)
        with precision_of_products(precision):
            milliseconds(lambda x=x, y=y: x @ y, 2)
            time = milliseconds(lambda x=x, y=y: x @ y, PRODUCT_TIMES)
        tflops[precision] = 2 * PRODUCT_SIZE**3 / time / 1e9
    source = torch.empty(COPY_BYTES // 4, device="cuda").normal_()
    target = torch.empty_like(source)
    milliseconds(lambda: target.copy_(source), 2)
    terabytes = 2 * COPY_BYTES / milliseconds(lambda: target.copy_(source), PRODUCT_TIMES) / 1e9
    return {"tflops": tflops, "terabytes": terabytes}


class Peer:
    """Answers questions; holds the group that was prepared last."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._group: Group | None = None
        self._chain = 1

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to a question (see the module's text)."""
        if question["do"] == "rates":
            return rates()
        if question["do"] == "run":
            return {"milliseconds": milliseconds(self._group.run, self._chain)}
        self._group = None
        if self._device == "cuda":
            torch.cuda.empty_cache()
        if question["do"] == "compare":
            group = Group(question["shape"], question["backward"], FLOAT32, self._device)
            group.load(Path(question["folder"]))
            group.run()
            return {"differences": group.differences(Path(question["folder"]))}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self._group = Group(question["shape"], question["backward"], question["precision"], self._device)
        self._chain = question["chain"]
        milliseconds(self._group.run, WARM_UP)
        return {"memory_mib": (torch.cuda.max_memory_allocated() - before) / 2**20}


def main(device: str) -> None:
    """Answer until the input ends."""
    # Only answers go to the pipe, whatever a library prints.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = Peer(device)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    name = torch.cuda.get_device_name() if device == "cuda" else device
    print(json.dumps({"versions": versions, "device": name}), file=answers)
    for line in sys.stdin:
        try:
            answer = peer.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
