"""PyTorch's side of the comparison on a GPU: `python pytorch_peer.py cuda` answers lines of JSON with lines of JSON.

    {"do": "rates"} -> {"tflops": {...}, "terabytes": ...}
    {"do": "prepare", "model": FILE, "inputs": "data:10,3,240,320 label:10,1,240,320:8", "backward": true,
     "precision": "TF32", "chain": 4} -> {"memory_mib": ...}
    {"do": "run"} -> {"milliseconds": ...}
    {"do": "compare", "folder": ..., "model": FILE, "inputs": ..., "backward": true, "precision": "TF32"}
        -> {"differences": {name: ...}, "own": {name: ...}}

A network is a prototxt, its inputs are as benchmark_net -inputs has them, and the folder is what benchmark_net -dump
wrote for the same ones. Differences are to PyTorch's float32; `own` are those of PyTorch's in the precision asked for,
which tell how far rounding carries in that network (empty for float32). A failed question is answered {"error": ...}.
With `cpu` it computes on the processor, in float32, and knows no rates and no memory. It needs PyTorch and the standard
library, and any Python from 3.8 on.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from renet.gpu_check.conversation import serve
from renet.gpu_check.pytorch_networks import Work
from renet.gpu_check.work import BF16, FLOAT32, PRECISIONS, TF32, parse_inputs

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
    """Mean time of `times` calls in a row, by events on the GPU; by the clock where there is none."""
    if not torch.cuda.is_initialized():
        begun = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begun) / times * 1e3
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(times):
        work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / times


class Peer:
    """Answers questions (see the module's text); holds the network that was prepared last."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._on_gpu = device == "cuda"

    def rates(self) -> dict[str, Any]:
        """The GPU's rates as measured: large matrix products, and a copy within its memory (read and written)."""
        tflops = {}
        a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device="cuda") for _ in range(2))
        for precision in PRECISIONS:
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

    def prepare(self, precision: str, chain: int, **network: Any) -> dict[str, Any]:
        """Make the network that is timed."""
        self._forget()
        before = torch.cuda.memory_allocated() if self._on_gpu else 0
        self._make(**network)
        self._precision, self._chain = precision, chain
        milliseconds(self._pass, WARM_UP)
        return {"memory_mib": (torch.cuda.max_memory_allocated() - before) / 2**20 if self._on_gpu else None}

    def run(self) -> dict[str, Any]:
        """Take one time."""
        return {"milliseconds": milliseconds(self._pass, self._chain)}

    def compare(self, folder: str, precision: str, **network: Any) -> dict[str, Any]:
        """Hold results beside those in the folder, and beside the own ones in another precision."""
        self._forget()
        self._make(**network)
        self._work.load(Path(folder))
        self._precision = FLOAT32
        self._pass()
        differences, own = self._work.differences(self._work.stored(Path(folder))), {}
        if precision != FLOAT32:
            exact = {name: values.clone() for name, values in self._work.results().items()}
            self._precision = precision
            self._pass()
            own = self._work.differences(exact)
        self._forget()
        return {"differences": differences, "own": own}

    def _forget(self) -> None:
        """Leave the memory to others."""
        self._work: Work | None = None
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _make(self, model: str, inputs: str, backward: bool) -> None:
        self._work = Work(Path(model).read_text(), parse_inputs(inputs), backward, self._device)

    def _pass(self) -> None:
        with precision_of_products(self._precision):
            self._work.run()


def begin() -> tuple[dict[str, Any], Peer]:
    """What is here, and who answers."""
    device = sys.argv[1]
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {"versions": versions, "device": name}, Peer(device)


if __name__ == "__main__":
    serve(begin)
