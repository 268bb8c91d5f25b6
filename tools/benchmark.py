"""Measure speed and memory on this machine's processor beside PyTorch, stock Caffe and pydensecrf."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from renet.common.command_line import UserError, progress, run
from renet.data.dataset import write_atomically
from renet.conversion.prepare import whole_number
from renet.benchmark.data_parts import data_entries
from renet.benchmark.kernel_parts import crf_entries, group_entries, machine_entries
from renet.benchmark.network_parts import accuracy_entries, growth_entries, has_onednn, layer_entries, network_entries
from renet.benchmark.settings import CHART, FULL, QUICK, Entry, Settings
from renet.common.repository import ROOT, commit
from renet.training.run_folder import surroundings, threads
from renet.benchmark.charts import growth_chart
from renet.benchmark.tables import SECTIONS, machine_peaks, section
from renet.benchmark.sides import prepare_peer

MACHINE, GROWTH = "machine", "growth"
PARTS: dict[str, Callable[[Settings], list[Entry]]] = {
    MACHINE: machine_entries,
    "groups": group_entries,
    "crf": crf_entries,
    "networks": network_entries,
    "layers": layer_entries,
    "accuracy": accuracy_entries,
    GROWTH: growth_entries,
    "data": data_entries,
}
OUT = ROOT / "build" / "benchmark"
DOCUMENTS = ROOT / "docs"
STOCK = ROOT / "build" / "stock"
RESULTS, DOCUMENT = "performance.json", "performance.md"
BLOCK = re.compile(r"<!-- benchmark: (\w+) -->\n.*?<!-- end of benchmark -->", re.DOTALL)

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

PyTorch and pydensecrf are installed into build/bench-venv at the first call. `make bench` also builds stock Caffe, into
build/stock; without it its column is missing."""


# --- Results ---------------------------------------------------------------------------------------------------------


def read_results(file: Path) -> dict[str, Any]:
    """What a file of results holds; without one, no parts.

    Raises:
        UserError: it is no such file.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"parts": {}}
    except ValueError as error:
        raise UserError(f"{file}: not readable as JSON: {error}") from None
    if not isinstance(results, dict) or not isinstance(results.get("parts"), dict):
        raise UserError(f"{file}: no results of this benchmark")
    return results


def write_results(file: Path, results: Mapping[str, Any]) -> None:
    """Write results, whole or not at all."""
    write_atomically(file, (json.dumps(results, indent=1) + "\n").encode())


def begin(results: dict[str, Any], chosen: Sequence[str], options: Mapping[str, Any], restart: bool) -> bool:
    """Make results ready for a run: one that was interrupted with the same parts and options goes on, else the chosen
    parts are emptied, and the part in which another run was interrupted, which would look like a whole one.

    Args:
        results: changed.
        chosen: the parts.
        options: that decide what is measured.
        restart: start anew in any case.

    Returns:
        Whether an interrupted run goes on.
    """
    this = {"parts": list(chosen), "options": dict(options)}
    before = dict(results.get("unfinished", {}))
    half_measured = before.pop("in_part", None)
    goes_on = not restart and before == this
    if not goes_on:
        for name in (*chosen, half_measured):
            results["parts"].pop(name, None)
    results["unfinished"] = this
    results["parts"] = {name: results["parts"][name] for name in PARTS if name in results["parts"]}
    return goes_on


def measure(settings: Settings, chosen: Sequence[str], results: dict[str, Any], save: Callable[[], None]) -> None:
    """Take the measurements of the chosen parts that results lack, and save after each.

    Raises:
        UserError: a side died, or the sides' results differ.
    """
    entries = [(part, entry) for part in PARTS if part in chosen for entry in PARTS[part](settings)]
    made_by = surroundings()
    with progress(total=len(entries), description="measuring", unit="measurement") as bar:
        for part, entry in entries:
            bar.set_postfix_str(f"{part}: {entry.name}")
            kept = results["parts"].setdefault(part, {"entries": {}})
            if entry.name not in kept["entries"]:
                load, start = os.getloadavg()[0], time.monotonic()
                try:
                    measured = entry.measure()
                except UserError as error:
                    raise UserError(f"{part}, {entry.name}: {error}") from None
                kept |= {"made_by": made_by, "settings": {"runs": settings.runs, "threads": settings.threads}}
                if part != MACHINE:
                    kept["peaks"] = machine_peaks(results["parts"][MACHINE])
                seconds = round(time.monotonic() - start, 1)
                kept["entries"][entry.name] = {**measured, "seconds": seconds, "load": round(load, 1)}
                results.setdefault("unfinished", {})["in_part"] = part
                results["parts"] = {name: results["parts"][name] for name in PARTS if name in results["parts"]}
                save()
            bar.update()
    results.pop("unfinished", None)
    save()


# --- Documents -------------------------------------------------------------------------------------------------------


def filled(document: str, results: Mapping[str, Any]) -> str:
    """A document whose blocks `<!-- benchmark: NAME -->` ... `<!-- end of benchmark -->` have the results' tables.

    Raises:
        UserError: it has a block of another name, or lacks one.
    """
    names = BLOCK.findall(document)
    if sorted(names) != sorted(SECTIONS):
        wrong = sorted(set(names) ^ set(SECTIONS)) or names
        raise UserError(f"{DOCUMENT}: one block each of {', '.join(SECTIONS)} expected; look at {', '.join(wrong)}")

    def block(found: re.Match[str]) -> str:
        text = section(results, found[1], for_document=True).strip()
        return f"<!-- benchmark: {found[1]} -->\n{text}\n<!-- end of benchmark -->"

    return BLOCK.sub(block, document)


def write_documents(results: Mapping[str, Any], folder: Path) -> None:
    """Bring docs/ up to date: the JSON, the blocks of performance.md, and the chart. Parts that are not in `results`
    stay as the JSON there has them."""
    parts = read_results(folder / RESULTS)["parts"] | results["parts"]
    merged = {"parts": {name: parts[name] for name in PARTS if name in parts}}
    document = folder / DOCUMENT
    text = filled(document.read_text(encoding="utf-8"), merged)
    write_results(folder / RESULTS, merged)
    write_atomically(document, text.encode())
    if GROWTH in merged["parts"]:
        write_chart(merged, folder)


def write_chart(results: Mapping[str, Any], folder: Path) -> None:
    """Draw the growth's chart into a folder."""
    chart = folder / CHART
    chart.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(chart, growth_chart(results["parts"][GROWTH]))


# --- The command -----------------------------------------------------------------------------------------------------


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
    parser.add_argument("--without-pytorch", action="store_true", help="leave out PyTorch and pydensecrf")
    parser.add_argument(
        "--build", type=Path, metavar="DIR", help="a build folder of ours (default: the one .venv imports)"
    )
    parser.add_argument(
        "--stock", type=Path, default=STOCK, metavar="DIR", help="stock Caffe's build folder (default: build/stock)"
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
        onednn=has_onednn(sys.executable, build, arguments.threads),
    )


def has_caffe(build: Path) -> bool:
    """Whether a build folder has Caffe for Python."""
    return (build / "python" / "caffe" / "_caffe.so").is_file()


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
