"""What the benchmark's results say: arithmetic counted, medians, shares of the peak, and tables.

All of it is made of the JSON that tools/benchmark.py writes, so that a document and that file say the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from renet.benchmark.layer_tasks import FORWARD, FORWARD_BACKWARD, PRODUCT_SIZE, STEP, TRIAD_SIZE, Shape
from renet.benchmark.settings import (
    CAFFE,
    CHART,
    DIRECT,
    NUMPY,
    PLAIN,
    PYDENSECRF,
    PYTORCH,
    RELEASING,
    SIDE_TITLES,
    STOCK,
)
from renet.common.text_layout import aligned, markdown

NOT_MEASURED = "Not measured yet."
MODEL_TITLES = {
    "fcn scores": "FCN up to its scores",
    "fcn": "FCN",
    "h_renet": "H-ReNet",
    "h_renet_bn_mlfb": "H-ReNet, BN, MLFB",
}
PASS_TITLES = {FORWARD: "forward", STEP: "training step"}
DATA_TITLES = {
    "conversion": "data_prep/folder.py, pictures and labels to a split",
    "loading": "SegmentationData, batches of 10 (PyTorch: DataLoader, Pillow)",
    "evaluation": "tools/evaluate.py, label maps",
}
WITHOUT_CAFFE = ("conversion", "evaluation")  # what is ours there is Python
PAPER_SECONDS = {"fcn": 0.21, "h_renet_bn_mlfb": 0.24}  # an image on the paper's GPU (section 4.2)
UNSEEN = {"Input", "Split"}  # layers that compute nothing


# --- Arithmetic ------------------------------------------------------------------------------------------------------


def group_flops(shape: Shape, passes: str) -> int:
    """Floating-point operations (a multiplication and an addition count as two) of a group's matrix products.

    A scan multiplies W_x (4d x P) and W_h (4d x d) at every position; a layer has two scans, the group a vertical
    layer (P = C) and a horizontal one (P = 2d). Backward has two products for each of forward's: the gradients of both
    factors.
    """
    positions = shape.num * shape.height * shape.width
    d = shape.hidden
    forward = sum(2 * 2 * positions * 4 * d * (inputs + d) for inputs in (shape.channels, 2 * d))
    return {FORWARD: forward, FORWARD_BACKWARD: 3 * forward}[passes]


def product_gflops(milliseconds: float) -> float:
    """GFLOP/s of the large matrix product that marks the processor's peak."""
    return 2 * PRODUCT_SIZE**3 / milliseconds / 1e6


def triad_gigabytes(milliseconds: float) -> float:
    """GB/s of the triad that marks the memory's bandwidth: two arrays read and one written, as STREAM counts."""
    return 3 * 4 * TRIAD_SIZE / milliseconds / 1e6


def largest_difference(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> float:
    """The largest difference of two sides' results, relative to the largest value of its kind (infinite for NaN)."""
    worst = 0.0
    for name, values in ours.items():
        a, b = np.array(values), np.array(theirs[name])
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.abs(a - b).max() / np.abs(b).max()
        worst = max(worst, float(difference) if np.isfinite(difference) else float("inf"))
    return worst


class Peaks(NamedTuple):
    """What the machine reaches at most: the fastest runs, GFLOP/s of a product and GB/s of a triad; 0 if unknown."""

    gflops: float
    gigabytes: float


def peaks(part: Mapping[str, Any]) -> Peaks:
    """The peaks that were measured before a part."""
    found = part.get("peaks", {})
    return Peaks(max(found.get("sgemm_gflops", {}).values(), default=0.0), found.get("triad_gigabytes", 0.0))


def machine_peaks(part: Mapping[str, Any]) -> dict[str, Any]:
    """The peaks of the part "machine", by whose library, as they are kept with the parts measured after it."""
    found: dict[str, Any] = {}
    for entry in part["entries"].values():
        best = {name: min(side["milliseconds"]) for name, side in entry["sides"].items()}
        if entry["task"] == "product":
            found["sgemm_gflops"] = {name: product_gflops(each) for name, each in best.items()}
        else:
            found["triad_gigabytes"] = max(map(triad_gigabytes, best.values()))
    return found


def median(entry: Mapping[str, Any], side: str) -> float | None:
    """The median time of a side, milliseconds; None where there is no such side."""
    return statistics.median(entry["sides"][side]["milliseconds"]) if side in entry["sides"] else None


def ratio(entry: Mapping[str, Any], side: str) -> float | None:
    """How many times as fast as a side ours is, by the medians."""
    theirs = median(entry, side)
    return theirs / median(entry, CAFFE) if theirs else None


# --- Cells -----------------------------------------------------------------------------------------------------------


def time_cell(entry: Mapping[str, Any], side: str) -> str:
    """`median (fastest-slowest)` in milliseconds."""
    if side not in entry["sides"]:
        return "-"
    times = entry["sides"][side]["milliseconds"]
    digits = 1 if statistics.median(times) < 100 else 0
    return f"{statistics.median(times):.{digits}f} ({min(times):.{digits}f}-{max(times):.{digits}f})"


def ratio_cell(entry: Mapping[str, Any], side: str) -> str:
    """How many times as fast as a side ours is, and that it is slower where it is."""
    found = ratio(entry, side)
    if found is None:
        return "-"
    return f"{found:.2f}" + (" (slower)" if found < 1 else "")


def memory_cell(entry: Mapping[str, Any], side: str) -> str:
    """MiB at most."""
    return f"{entry['sides'][side]['peak_mib']:.0f}" if side in entry["sides"] else "-"


def difference_cell(entry: Mapping[str, Any]) -> str:
    """The largest difference to any side's results."""
    return f"{max(entry['differences'].values()):.0e}" if entry["differences"] else "-"


def share_cell(value: float, peak: float) -> str:
    """A share of a peak, in percent."""
    return f"{value / peak:.0%}" if peak else "-"


def size_text(shape: Sequence[int]) -> str:
    """N x H x W of a map."""
    return f"{shape[0]} x {shape[2]} x {shape[3]}"


def present(entries: Iterable[Mapping[str, Any]], sides: Sequence[str]) -> list[str]:
    """Those of the sides that some entry has, in their order."""
    entries = list(entries)
    return [side for side in sides if any(side in entry["sides"] for entry in entries)]


# --- Tables ----------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """A table: its rows, the header first, and how many columns stand to the left."""

    rows: list[list[str]]
    left: int


def _side_headers(sides: Sequence[str]) -> list[str]:
    return [
        *(f"{SIDE_TITLES[side]} ms" for side in sides),
        *(f"times {SIDE_TITLES[side]}'s speed" for side in sides if side != CAFFE),
    ]


def _side_cells(entry: Mapping[str, Any], sides: Sequence[str]) -> list[str]:
    return [
        *(time_cell(entry, side) for side in sides),
        *(ratio_cell(entry, side) for side in sides if side != CAFFE),
    ]


def _memory_headers(sides: Sequence[str]) -> list[str]:
    return [f"{SIDE_TITLES[side]} MiB" for side in sides]


def _memory_cells(entry: Mapping[str, Any], sides: Sequence[str]) -> list[str]:
    return [memory_cell(entry, side) for side in sides]


def machine_table(part: Mapping[str, Any]) -> Table:
    """The peaks."""
    found = machine_peaks(part)
    rows = [["what", "at most"]]
    for name, speed in found.get("sgemm_gflops", {}).items():
        library = {NUMPY: "NumPy"}.get(name, SIDE_TITLES[name])
        rows.append([f"sgemm, {PRODUCT_SIZE} x {PRODUCT_SIZE}, {library}", f"{speed:.0f} GFLOP/s"])
    if "triad_gigabytes" in found:
        rows.append(["triad a = b + s c over arrays larger than any cache", f"{found['triad_gigabytes']:.1f} GB/s"])
    return Table(rows, 1)


def group_table(part: Mapping[str, Any]) -> Table:
    """ReNet layer groups."""
    entries = part["entries"].values()
    sides, peak = present(entries, (CAFFE, PYTORCH)), peaks(part).gflops
    speeds = [f"{SIDE_TITLES[side]} GFLOP/s" for side in sides]
    header = ["N, C, H, W, d", "pass", *_side_headers(sides), *speeds, "of sgemm", *_memory_headers(sides)]
    rows = [[*header, "difference"]]
    for entry in entries:
        flops = group_flops(Shape(*entry["shape"]), entry["pass"])
        gflops = {side: flops / median(entry, side) / 1e6 for side in sides if side in entry["sides"]}
        cells = [", ".join(map(str, entry["shape"])), entry["pass"], *_side_cells(entry, sides)]
        cells += [f"{gflops[side]:.1f}" if side in gflops else "-" for side in sides]
        cells += [share_cell(gflops[CAFFE], peak), *_memory_cells(entry, sides)]
        rows.append([*cells, difference_cell(entry)])
    return Table(rows, 2)


def crf_table(part: Mapping[str, Any]) -> Table:
    """Dense CRFs."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, PYDENSECRF))
    header = ["classes, height, width", "iterations", *_side_headers(sides), *_memory_headers(sides)]
    rows = [[*header, "largest difference of Q"]]
    for entry in entries:
        *size, iterations = entry["shape"]
        cells = [", ".join(map(str, size)), str(iterations), *_side_cells(entry, sides), *_memory_cells(entry, sides)]
        rows.append([*cells, difference_cell(entry)])
    return Table(rows, 1)


def network_table(part: Mapping[str, Any]) -> Table:
    """Whole networks."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, RELEASING, PLAIN, STOCK, PYTORCH))
    rows = [["network", "pass", "images", *_side_headers(sides), *_memory_headers(sides), "difference"]]
    for entry in entries:
        names = [MODEL_TITLES[entry["model"]], PASS_TITLES[entry["pass"]], size_text(entry["shape"])]
        cells = [*_side_cells(entry, sides), *_memory_cells(entry, sides), difference_cell(entry)]
        rows.append([*names, *cells])
    return Table(rows, 3)


def overhead_table(part: Mapping[str, Any]) -> Table:
    """What the recurrent groups cost over the FCN in a forward pass, beside the paper's."""
    entries = {entry["model"]: entry for entry in part["entries"].values() if entry["pass"] == FORWARD}
    base = entries.get("fcn")
    sides = present([base], (CAFFE, PLAIN, PYTORCH)) if base else []
    header = ["network"]
    for side in sides:
        header += [f"{SIDE_TITLES[side]}: over the FCN ms", f"{SIDE_TITLES[side]}: times the FCN"]
    rows = [[*header, "paper: times the FCN"]]
    for model in ("h_renet", "h_renet_bn_mlfb") if base else ():
        if model not in entries:
            continue
        row = [MODEL_TITLES[model]]
        for side in sides:
            ours, theirs = median(entries[model], side), median(base, side)
            row += [f"{ours - theirs:.0f}", f"{ours / theirs:.2f}"] if ours and theirs else ["-", "-"]
        paper = PAPER_SECONDS.get(model)
        told = f"{paper / PAPER_SECONDS['fcn']:.2f} ({paper} s, {PAPER_SECONDS['fcn']} s)" if paper else "-"
        rows.append([*row, told])
    return Table(rows, 1)


def layer_table(part: Mapping[str, Any]) -> Table:
    """A network layer by layer: speed, with the share of the peak that bounds the layer."""
    (entry,) = part["entries"].values()
    sides = [side for side in (CAFFE, PLAIN) if side in entry["whole"]]
    peak = peaks(part)
    rows = [["layer", "type", "output", "GFLOP", *(f"{SIDE_TITLES[side]} ms" for side in sides)]]
    rows[0] += ["GFLOP/s", "of sgemm", "GB/s", "of triad"]
    for layer in entry["layers"]:
        if layer["type"] in UNSEEN:
            continue
        ours, operations = layer["milliseconds"][CAFFE], layer["operations"]
        row = [layer["name"], layer["type"], " x ".join(map(str, layer["tops"][0]))]
        row += [f"{operations / 1e9:.2f}" if operations else "-"]
        row += [f"{layer['milliseconds'][side]:.1f}" for side in sides]
        gflops, gigabytes = operations / ours / 1e6, layer["bytes"] / ours / 1e6
        row += [f"{gflops:.0f}", share_cell(gflops, peak.gflops)] if operations else ["-", "-"]
        row += ["-", "-"] if operations else [f"{gigabytes:.1f}", share_cell(gigabytes, peak.gigabytes)]
        rows.append(row)
    operations = sum(layer["operations"] for layer in entry["layers"])
    whole = {side: statistics.median(entry["whole"][side]) for side in sides}
    gflops = operations / whole[CAFFE] / 1e6
    total = ["whole pass", "", "", f"{operations / 1e9:.2f}", *(f"{whole[side]:.1f}" for side in sides)]
    rows.append([*total, f"{gflops:.0f}", share_cell(gflops, peak.gflops), "-", "-"])
    return Table(rows, 3)


def accuracy_table(part: Mapping[str, Any]) -> Table:
    """A network's convolutions beside double precision, and the labels that change."""
    (entry,) = part["entries"].values()
    sides = [side for side in (CAFFE, DIRECT, PLAIN) if side in entry["errors"]]
    header = ["layer", "weights"]
    for side in sides:
        header += [f"{SIDE_TITLES[side]}: largest error", "mean error"]
    rows = [header]
    for index, layer in enumerate(entry["errors"][CAFFE]["layers"]):
        row = [layer["name"], " x ".join(map(str, layer["weights"]))]
        for side in sides:
            found = entry["errors"][side]["layers"][index]
            row += [f"{found['largest']:.1e}", f"{found['mean']:.1e}"]
        rows.append(row)
    changed = [f"{entry['errors'][side]['labels_changed']:.4%}" for side in sides]
    rows.append(["labels that change", "", *(cell for share in changed for cell in (share, ""))])
    return Table(rows, 2)


def growth_table(part: Mapping[str, Any]) -> Table:
    """Forward passes by size and by batch."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, PYTORCH))
    rows = [["network", "images", *_side_headers(sides), "Caffe ms an image", *_memory_headers(sides)]]
    for entry in sorted(entries, key=lambda each: (each["axis"] != "size", each["model"])):
        an_image = median(entry, CAFFE) / entry["shape"][0]
        cells = [*_side_cells(entry, sides), f"{an_image:.0f}", *_memory_cells(entry, sides)]
        rows.append([MODEL_TITLES[entry["model"]], size_text(entry["shape"]), *cells])
    return Table(rows, 2)


def data_table(part: Mapping[str, Any]) -> Table:
    """Work on data, in images a second."""
    entries = part["entries"].values()
    peers = (PYTORCH, NUMPY)
    rows = [["what", "images", "ms", "images/s", "peer", "peer's images/s", "times its speed", "MiB", "peer's MiB"]]
    for entry in entries:
        count = entry["images"]
        peer = next((side for side in peers if side in entry["sides"]), None)
        row = [DATA_TITLES[entry["what"]], str(count), time_cell(entry, CAFFE)]
        row.append(f"{1000 * count / median(entry, CAFFE):.0f}")
        if peer:
            row += [SIDE_TITLES[peer], f"{1000 * count / median(entry, peer):.0f}", ratio_cell(entry, peer)]
        else:
            row += ["-", "-", "-"]
        rows.append([*row, memory_cell(entry, CAFFE), memory_cell(entry, peer) if peer else "-"])
    return Table(rows, 1)


def overview_table(results: Mapping[str, Any]) -> Table:
    """Every comparison in one row, slower ones marked."""
    rows = [["what", "beside", "times its speed", "times its memory"]]
    for name, part in results["parts"].items():
        if name in ("machine", "layers", "accuracy", "growth"):
            continue
        for entry in part["entries"].values():
            for side in entry["sides"]:
                if side == CAFFE:
                    continue
                share = entry["sides"][CAFFE]["peak_mib"] / max(entry["sides"][side]["peak_mib"], 1e-9)
                rows.append([_entry_title(name, entry), SIDE_TITLES[side], ratio_cell(entry, side), f"{share:.2f}"])
    return Table(rows, 2)


def _entry_title(part: str, entry: Mapping[str, Any]) -> str:
    if part == "groups":
        return f"ReNet group {', '.join(map(str, entry['shape']))}, {entry['pass']}"
    if part == "crf":
        return f"DenseCRF, {entry['shape'][-1]} iterations"
    if part == "networks":
        return f"{MODEL_TITLES[entry['model']]}, {PASS_TITLES[entry['pass']]}"
    return entry["what"]


# --- Sections --------------------------------------------------------------------------------------------------------

TABLES = {
    "machine": (machine_table,),
    "groups": (group_table,),
    "crf": (crf_table,),
    "networks": (network_table, overhead_table),
    "layers": (layer_table,),
    "accuracy": (accuracy_table,),
    "growth": (growth_table,),
    "data": (data_table,),
}
OVERVIEW = "overview"
SECTIONS = (OVERVIEW, *TABLES)


def described(part: Mapping[str, Any]) -> str:
    """What made a part's figures, in one line."""
    made_by, settings = part["made_by"], part["settings"]
    versions: dict[str, str] = {}
    for entry in part["entries"].values():
        for name, side in entry.get("sides", {}).items():
            if name in (CAFFE, PYTORCH, PYDENSECRF) and entry.get("what") not in WITHOUT_CAFFE:
                versions[SIDE_TITLES[name]] = side["version"]
    loads = [entry["load"] for entry in part["entries"].values() if "load" in entry]
    words = [
        made_by["machine"]["processor"],
        f"{settings['threads']} threads",
        f"median (fastest-slowest) of {settings['runs']} runs",
        f"commit {(made_by['commit'] or 'none')[:12]}",
        *(f"{name} {version}" for name, version in versions.items()),
        f"{sum(entry['seconds'] for entry in part['entries'].values()):.0f} s",
        *([f"load before a measurement {min(loads)}-{max(loads)}"] if loads else []),
    ]
    return ", ".join(words)


def section(results: Mapping[str, Any], name: str, for_document: bool) -> str:
    """The text of one of SECTIONS: what made it, and its tables; as Markdown or for a terminal."""
    draw = markdown if for_document else lambda rows, left: "\n".join(aligned(rows, left)) + "\n"
    if name == OVERVIEW:
        table = overview_table(results)
        seconds = sum(entry["seconds"] for part in results["parts"].values() for entry in part["entries"].values())
        return (
            f"The whole run took {seconds / 60:.0f} minutes.\n\n{draw(*table)}" if len(table.rows) > 1 else NOT_MEASURED
        )
    part = results["parts"].get(name)
    if not part or not part["entries"]:
        return NOT_MEASURED
    tables = [make(part) for make in TABLES[name]]
    picture = f"![Milliseconds an image by size and by batch]({CHART})\n" if name == "growth" and for_document else ""
    head = "\n".join([described(part) + "\n", picture] if picture else [described(part) + "\n"])
    return "\n".join([head, *(draw(*table) for table in tables if len(table.rows) > 1)])
