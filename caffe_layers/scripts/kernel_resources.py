"""What our CUDA kernels take of a GPU, out of the compiler's report, as a table.

Usage: ``python3 kernel_resources.py LOG [--out TABLE.md]``. LOG is the output of a build with ``-Xptxas=-v``
(``make kernels``). Registers a thread bound how many threads a multiprocessor holds; spills are registers that had to
be kept in memory, and should be none. Shared memory is the part that the compiler knows; what a launch asks for beyond
that is the launching code's affair.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"ptxas info\s*: Compiling entry function '(\w+)' for '(\w+)'")
_PROPERTIES = re.compile(r"ptxas info\s*: Function properties for (\w+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"ptxas info\s*: Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")


@dataclass
class Kernel:
    """One kernel for one architecture.

    Attributes:
        name: as the linker knows it, or for a person after `demangle`.
        architecture: such as sm_90.
        registers: of a thread.
        shared: bytes of shared memory that the code itself declares.
        stack: bytes of a thread's stack in (cached) memory.
        spills: bytes that spilled registers are stored and loaded through, together.
    """

    name: str
    architecture: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0


def parse(lines: Iterable[str]) -> list[Kernel]:
    """The kernels of a compiler's report, in its order; other lines are passed over."""
    kernels: list[Kernel] = []
    current: Kernel | None = None
    own_properties = False  # a kernel's report may include those of device functions that it calls
    for line in lines:
        if found := _ENTRY.search(line):
            current = Kernel(found[1], found[2])
            kernels.append(current)
        elif found := _PROPERTIES.search(line):
            own_properties = current is not None and found[1] == current.name
        elif current is not None and own_properties and (found := _STACK.search(line)):
            current.stack, current.spills = int(found[1]), int(found[2]) + int(found[3])
        elif current is not None and (found := _USED.search(line)):
            current.registers = int(found[1])
            if found := _SHARED.search(line):
                current.shared = int(found[1])
            current = None
    return kernels


def demangle(names: list[str]) -> list[str]:
    """Names as in the source: without namespaces and parameters, with template arguments."""
    done = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [short_name(name) for name in done.stdout.splitlines()]


def short_name(name: str) -> str:
    """`caffe::(anonymous namespace)::Scan<caffe::Cell<float>, 40>` as `Scan<Cell<float>, 40>`."""
    name = re.sub(r"\(anonymous namespace\)::|\b\w+::(?=[\w(])", "", name)
    return re.sub(r"\([\w ]+\)(?=-?\w)", "", name)


def table(kernels: list[Kernel]) -> str:
    """A Markdown table: a row a kernel, the figures of its architectures beside each other."""
    architectures = sorted({kernel.architecture for kernel in kernels}, key=lambda name: int(re.sub(r"\D", "", name)))
    by_name: dict[str, dict[str, Kernel]] = {}
    for kernel in kernels:
        by_name.setdefault(kernel.name, {})[kernel.architecture] = kernel

    def figures(row: dict[str, Kernel], what: str) -> str:
        found = [str(getattr(row[name], what)) if name in row else "-" for name in architectures]
        return found[0] if len(set(found)) == 1 else " / ".join(found)

    titles = ("registers", "shared", "stack", "spills")
    rows = [
        f"| `{name}` | {' | '.join(figures(row, what) for what in titles)} |"
        for name, row in zip(demangle(list(by_name)), by_name.values())
    ]
    head = f"| kernel ({' / '.join(architectures)}) | registers | shared, bytes | stack, bytes | spills, bytes |"
    return "\n".join([head, "|---|---:|---:|---:|---:|", *sorted(set(rows))])


def summary(kernels: list[Kernel]) -> str:
    """One line on all of them."""
    most = max(kernels, key=lambda kernel: kernel.registers)
    spilling = [kernel for kernel in kernels if kernel.spills]
    text = f"{len({kernel.name for kernel in kernels})} kernels, at most {most.registers} registers"
    if not spilling:
        return f"{text}, no spills"
    worst = max(spilling, key=lambda kernel: kernel.spills)
    name = demangle([worst.name])[0]
    return f"{text}; {len(spilling)} spill, most {name} for {worst.architecture}: {worst.spills} bytes"


def main(arguments: list[str] | None = None) -> int:
    """Write the table and say the summary; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="the build's output")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there (default: print it)")
    options = parser.parse_args(arguments)
    try:
        kernels = parse(options.log.read_text(encoding="utf-8", errors="replace").splitlines())
        if not kernels:
            print(f"{options.log}: no report of a CUDA compiler in it", file=sys.stderr)
            return 2
        if options.out:
            options.out.write_text(table(kernels) + "\n", encoding="utf-8")
            print(f"{summary(kernels)}: {options.out}")
        else:
            print(table(kernels))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
