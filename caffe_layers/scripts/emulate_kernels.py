"""Rewrite CUDA sources for a host compiler: `kernel<<<...>>>(...)` becomes a call of the emulation.

    emulate_kernels.py FROM TO

Every other word of CUDA is a macro or a function of caffe_layers/emulation/.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def begin_of_kernel(text: str, end: int) -> int:
    """Find where the name of a kernel begins, template arguments and all, that ends before `end`.

    Raises:
        ValueError: there is no name.
    """
    at = end
    if text[at - 1] == ">":
        depth = 0
        while at > 0:
            at -= 1
            depth += {">": 1, "<": -1}.get(text[at], 0)
            if depth == 0:
                break
    found = re.search(r"[A-Za-z_][\w:#]*\s*$", text[:at])
    if found is None:
        raise ValueError(f"no kernel before <<<: {text[max(0, end - 80) : end]!r}")
    return found.start()


def emulated(text: str) -> str:
    """Rewrite the launches of a source.

    Raises:
        ValueError: a launch is not understood.
    """
    text = re.sub(r"//[^\n]*", "", text)  # some stand between a kernel's name and <<<
    while (launch := text.find("<<<")) >= 0:
        end = text.find(">>>", launch)
        if end < 0:
            raise ValueError(f"no >>> after <<<: {text[launch : launch + 80]!r}")
        kernel_end = len(text[:launch].rstrip())
        begin = begin_of_kernel(text, kernel_end)
        kernel, configuration = text[begin:kernel_end], text[launch + 3 : end]
        if not kernel.endswith(">"):  # its template arguments may be those of the call
            kernel = f"[=](auto... arguments) {{ {kernel}(arguments...); }}"
        text = f"{text[:begin]}::caffe::emulation::Configured({kernel}, {configuration}){text[end + 3 :]}"
    return text


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.parent.mkdir(parents=True, exist_ok=True)
    # nvcc includes it first, too
    first = "#include <cuda_runtime.h>\n" if source.suffix == ".cu" else ""
    target.write_text(f'{first}#line 1 "{source}"\n{emulated(source.read_text())}')
