"""Measure speed and memory on this machine's processor beside PyTorch, stock Caffe, pydensecrf and ONNX engines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.benchmark.results import (
    DOCUMENTS,
    GROWTH,
    MACHINE,
    PARTS,
    RESULTS,
    begin,
    measure,
    read_results,
    write_chart,
    write_documents,
    write_results,
)
from renet.benchmark.settings import FULL, QUICK, STOCK_BUILD, Settings, has_caffe
from renet.benchmark.sides import has_onednn, prepare_peer
from renet.benchmark.tables import SECTIONS, section
from renet.common.argument_types import whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.machine import threads
from renet.common.repository import ROOT, commit

OUT = ROOT / "build" / "benchmark"

DESCRIPTION = f"""{__doc__}

Parts: {", ".join(PARTS)}. All sides get the same inputs, parameters and number of threads, run in turn in processes
of their own, and must come to the same results. Times are the median (fastest-slowest) of the runs; MiB is the memory
that the work took at most, beyond the library itself. An interrupted run goes on where it stopped when it is started
again with the same options."""

EXAMPLES = """examples:
  tools/benchmark.py                               # all, about 20 minutes on two cores
  tools/benchmark.py --only networks layers        # these parts; results of the others are kept
  tools/benchmark.py --quick --only crf            # tiny sizes, to see whether it works
  tools/benchmark.py --docs                        # and write docs/performance.md, its JSON and its chart
  tools/benchmark.py --show --docs                 # the same from results that are there

The other libraries are installed into build/bench-venv at the first call. `make bench` also builds stock Caffe, into
build/stock; without it its column is missing."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help="measure these parts alone")
    parser.add_argument("--runs", type=whole_number(1), default=7, help="timed runs of each side (default: 7)")
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        default=threads(),
        help="of every library (default: %(default)s: OMP_NUM_THREADS or all)",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    parser.add_argument("--without-pytorch", action="store_true", help="leave out all of build/bench-venv")
    parser.add_argument(
        "--build", type=Path, metavar="DIR", help="a build folder of ours (default: the one .venv imports)"
    )
    parser.add_argument(
        "--stock",
        type=Path,
        default=STOCK_BUILD,
        metavar="DIR",
        help="stock Caffe's build (default: build/stock)",
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="for results (default: build/benchmark)")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md, its JSON and its chart, too")
    parser.add_argument("--show", action="store_true", help="measure nothing, show what is there")
    parser.add_argument("--restart", action="store_true", help="do not go on with an interrupted run")
    return parser


def make_settings(arguments: argparse.Namespace) -> Settings:
    """What the command line asks for.

    Raises:
        UserError: --build has no Caffe, or PyTorch cannot be installed.
    """
    build = arguments.build.resolve() if arguments.build else None
    if build and not has_caffe(build):
        raise UserError(f"--build {arguments.build}: no python/caffe/_caffe.so in it")
    return Settings(
        scale=QUICK if arguments.quick else FULL,
        runs=arguments.runs,
        threads=arguments.threads,
        python=sys.executable,
        build=build,
        stock=arguments.stock.resolve() if has_caffe(arguments.stock) else None,
        peer=None if arguments.without_pytorch else prepare_peer(),
        onednn=has_onednn(sys.executable, build),
    )


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write.

    Raises:
        UserError: bad input, a side that died, or results that differ.
    """
    if arguments.docs and arguments.quick:
        raise UserError("--docs: figures of --quick are none for a document")
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / RESULTS
    results = read_results(file)
    if arguments.show and not results["parts"]:
        raise UserError(f"{file}: no results to show yet")
    if not arguments.show:
        chosen = list(PARTS) if arguments.only is None else [MACHINE, *(set(arguments.only) - {MACHINE})]
        chosen.sort(key=list(PARTS).index)
        settings = make_settings(arguments)
        options = {name: getattr(arguments, name) for name in ("runs", "threads", "quick", "without_pytorch")}
        options |= {"build": str(settings.build), "stock": str(settings.stock), "commit": commit()}
        if begin(results, chosen, options, arguments.restart):
            print("benchmark.py: going on with the run that was interrupted (--restart starts anew)", file=sys.stderr)
        measure(settings, chosen, results, lambda: write_results(file, results))
    shown = [name for name in SECTIONS if name in results["parts"]]
    print("\n".join(f"{name}\n\n{section(results, name, for_document=False)}" for name in shown))
    print(section(results, SECTIONS[0], for_document=False))
    if GROWTH in results["parts"]:
        write_chart(results, arguments.out)
    if arguments.docs:
        if "unfinished" in results:
            raise UserError("--docs: the run is not finished; start it again without --show")
        write_documents(results, DOCUMENTS)
    print(f"results: {file}")


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
