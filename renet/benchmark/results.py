"""The benchmark's results: measured part by part, kept as JSON, and written into the pages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from renet.benchmark.charts import growth_chart
from renet.benchmark.data_parts import data_entries
from renet.benchmark.engine_parts import engine_entries
from renet.benchmark.kernel_parts import crf_entries, machine_entries
from renet.benchmark.network_parts import (
    accuracy_entries,
    foreign_entries,
    group_entries,
    growth_entries,
    layer_entries,
    network_entries,
)
from renet.benchmark.settings import CHART, Entry, Settings
from renet.benchmark.tables import SECTIONS, machine_peaks, section
from renet.common.document_blocks import fill_blocks
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.machine import environment
from renet.common.progress import progress
from renet.common.repository import ROOT
from renet.common.text_files import read_json_object

MACHINE, GROWTH = "machine", "growth"
PARTS: dict[str, Callable[[Settings], list[Entry]]] = {
    MACHINE: machine_entries,
    "groups": group_entries,
    "crf": crf_entries,
    "networks": network_entries,
    "foreign": foreign_entries,
    "engines": engine_entries,
    "layers": layer_entries,
    "accuracy": accuracy_entries,
    GROWTH: growth_entries,
    "data": data_entries,
}


DOCUMENTS = ROOT / "docs"
RESULTS, DOCUMENT = "performance.json", "performance.md"
KIND = "benchmark"  # of the document's blocks


def read_results(file: Path) -> dict[str, Any]:
    """What a file of results holds; without one, no parts.

    Raises:
        UserError: it is no such file.
    """
    results = read_json_object(file)
    if results is None:
        return {"parts": {}}
    if not isinstance(results.get("parts"), dict):
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
    made_by = environment()
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


def filled(document: str, results: Mapping[str, Any]) -> str:
    """A document whose blocks `<!-- benchmark: NAME -->` ... `<!-- end of benchmark -->` have the results' tables.

    Raises:
        UserError: it has a block of another name, or lacks one.
    """
    return fill_blocks(document, DOCUMENT, KIND, SECTIONS, lambda name: section(results, name, for_document=True))


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
