"""What the benchmark's results say: arithmetic counted, medians, shares of the peak, and tables.

All of it is made of the JSON that tools/benchmark.py writes, so that a document and that file say the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from renet.benchmark.kernel_tasks import PRODUCT_SIZE, TRIAD_SIZE
from renet.benchmark.settings import (
    CAFFE,
    CHART,
    DIRECT,
    KEEPING,
    NUMPY,
    ONNXRUNTIME,
    OPENVINO,
    OPENVINO_BFLOAT16,
    PLAIN,
    PYDENSECRF,
    PYTORCH,
    SIDE_TITLES,
    STOCK,
    in_precision,
)
from renet.common.text_layout import aligned, markdown
from renet.gpu_check.entries import PAPER_SECONDS
from renet.gpu_check.work import FLOAT32, FORWARD, FORWARD_BACKWARD, SHARED, STEP

NOT_MEASURED = "Not measured yet."
MODEL_TITLES = {
    "fcn scores": "FCN up to its scores",
    "fcn": "FCN",
    "h_renet": "H-ReNet",
    "h_renet_bn_mlfb": "H-ReNet, BN, MLFB",
    "resnet50": "ResNet-50",
    "mobilenet_v1": "MobileNet v1",
    "mobilenet_v2": "MobileNet v2",
    "googlenet": "GoogLeNet",
    "squeezenet": "SqueezeNet 1.1",
    "fcn8s": "FCN-8s",
}
PASS_TITLES = {FORWARD: "forward", STEP: "training step"}
DATA_TITLES = {
    "conversion": "data_prep/folder.py, pictures and labels to a split",
    "loading": "SegmentationData, batches of 10 (PyTorch: DataLoader, Pillow)",
    "augmented loading": "the same with every augmentation of `generate.py --augment`",
    "evaluation": "tools/evaluate.py, label maps",
}
WITHOUT_CAFFE = ("conversion", "evaluation")  # what is ours there is Python


# --- Arithmetic ------------------------------------------------------------------------------------------------------


def group_flops(shape: Sequence[int], passes: str) -> int:
    """Floating-point operations (a multiplication and an addition count as two) of a group's matrix products.

    A scan multiplies W_x (4d x P) and W_h (4d x d) at every position; a layer has two scans, the group a vertical
    layer (P = C) and a horizontal one (P = 2d). Backward has two products for each of forward's: the gradients of both
    factors.
    """
    num, channels, height, width, d = shape
    forward = sum(2 * 2 * num * height * width * 4 * d * (inputs + d) for inputs in (channels, 2 * d))
    return {FORWARD: forward, FORWARD_BACKWARD: 3 * forward}[passes]


def product_gflops(milliseconds: float) -> float:
    """GFLOP/s of the large matrix product that marks the processor's peak."""
    return 2 * PRODUCT_SIZE**3 / milliseconds / 1e6


def triad_gigabytes(milliseconds: float) -> float:
    """GB/s of the triad that marks the memory's bandwidth: two arrays read and one written, as STREAM counts."""
    return 3 * 4 * TRIAD_SIZE / milliseconds / 1e6


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


def difference_cell(entry: Mapping[str, Any], *sides: str) -> str:
    """The largest difference to the results of any side, or of these."""
    found = [value for side, value in entry["differences"].items() if not sides or side in sides]
    return f"{max(found):.0e}" if found else "-"


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


Entry = Mapping[str, Any]
Column = tuple[str, Callable[[Entry], str]]  # its header, and an entry's cell


def entry_table(entries: Iterable[Entry], left: int, *columns: Column) -> Table:
    """A table with a row for each entry."""
    return Table([[name for name, _ in columns], *([cell(entry) for _, cell in columns] for entry in entries)], left)


def times(sides: Sequence[str]) -> list[Column]:
    """Each side's time, and how many times as fast ours is."""
    shown = [(f"{SIDE_TITLES[side]} ms", lambda entry, side=side: time_cell(entry, side)) for side in sides]
    return shown + [
        (f"times {SIDE_TITLES[side]}'s speed", lambda entry, side=side: ratio_cell(entry, side))
        for side in sides
        if side != CAFFE
    ]


def memory(sides: Sequence[str]) -> list[Column]:
    """Each side's memory."""
    return [(f"{SIDE_TITLES[side]} MiB", lambda entry, side=side: memory_cell(entry, side)) for side in sides]


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
    sides = present(entries, (CAFFE, PYTORCH))

    def gflops(entry: Entry, side: str) -> float | None:
        return side in entry["sides"] and group_flops(entry["shape"], entry["pass"]) / median(entry, side) / 1e6

    return entry_table(
        entries,
        2,
        ("N, C, H, W, d", lambda entry: ", ".join(map(str, entry["shape"]))),
        ("pass", lambda entry: _in_precision(entry["pass"], entry)),
        *times(sides),
        *(
            (f"{SIDE_TITLES[side]} GFLOP/s", lambda e, s=side: f"{speed:.1f}" if (speed := gflops(e, s)) else "-")
            for side in sides
        ),
        ("of sgemm", lambda entry: share_cell(gflops(entry, CAFFE), peaks(part).gflops)),
        *memory(sides),
        ("difference", difference_cell),
    )


def _in_precision(what: str, entry: Mapping[str, Any]) -> str:
    return in_precision(what, entry.get("precision", FLOAT32))  # results of old have none


def crf_table(part: Mapping[str, Any]) -> Table:
    """Dense CRFs."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, PYDENSECRF))
    return entry_table(
        entries,
        1,
        ("classes, height, width", lambda entry: ", ".join(map(str, entry["shape"][:3] + entry["shape"][4:]))),
        ("iterations", lambda entry: str(entry["shape"][3])),
        *times(sides),
        *memory(sides),
        ("largest difference of Q", difference_cell),
    )


def network_table(part: Mapping[str, Any]) -> Table:
    """Whole networks."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, KEEPING, PLAIN, STOCK, PYTORCH))
    return entry_table(
        entries,
        3,
        ("network", lambda entry: MODEL_TITLES[entry["model"]]),
        ("pass", lambda entry: PASS_TITLES[entry["pass"]]),
        ("images", lambda entry: size_text(entry["shape"])),
        *times(sides),
        *memory(sides),
        ("difference", difference_cell),
    )


def engine_table(part: Mapping[str, Any]) -> Table:
    """Exported networks in other engines."""
    entries = part["entries"].values()
    sides = present(entries, (CAFFE, ONNXRUNTIME, OPENVINO, OPENVINO_BFLOAT16))
    return entry_table(
        entries,
        2,
        ("network", lambda entry: _in_precision(MODEL_TITLES[entry["model"]], entry)),
        ("images", lambda entry: size_text(entry["shape"])),
        *times(sides),
        *memory(sides),
        ("difference in float32", lambda entry: difference_cell(entry, ONNXRUNTIME, OPENVINO)),
        ("in bfloat16", lambda entry: difference_cell(entry, OPENVINO_BFLOAT16)),
    )


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
        if layer["type"] in SHARED:
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
    entries = sorted(part["entries"].values(), key=lambda each: (each["axis"] != "size", each["model"]))
    sides = present(entries, (CAFFE, PYTORCH))
    return entry_table(
        entries,
        2,
        ("network", lambda entry: MODEL_TITLES[entry["model"]]),
        ("images", lambda entry: size_text(entry["shape"])),
        *times(sides),
        ("Caffe ms an image", lambda entry: f"{median(entry, CAFFE) / entry['shape'][0]:.0f}"),
        *memory(sides),
    )


def data_table(part: Mapping[str, Any]) -> Table:
    """Work on data, in images a second."""

    def speed(entry: Entry, side: str) -> str:
        return f"{1000 * entry['images'] / median(entry, side):.0f}" if side in entry["sides"] else "-"

    def peer(entry: Entry) -> str:
        return next((side for side in (PYTORCH, NUMPY) if side in entry["sides"]), "-")

    return entry_table(
        part["entries"].values(),
        1,
        ("what", lambda entry: DATA_TITLES[entry["what"]]),
        ("images", lambda entry: str(entry["images"])),
        ("ms", lambda entry: time_cell(entry, CAFFE)),
        ("images/s", lambda entry: speed(entry, CAFFE)),
        ("peer", lambda entry: SIDE_TITLES.get(peer(entry), "-")),
        ("peer's images/s", lambda entry: speed(entry, peer(entry))),
        ("times its speed", lambda entry: ratio_cell(entry, peer(entry))),
        ("MiB", lambda entry: memory_cell(entry, CAFFE)),
        ("peer's MiB", lambda entry: memory_cell(entry, peer(entry))),
    )


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
        return f"ReNet group {', '.join(map(str, entry['shape']))}, {_in_precision(entry['pass'], entry)}"
    if part == "crf":
        return ", ".join(("DenseCRF", f"{entry['shape'][3]} iterations", *entry["shape"][4:]))
    if part in ("networks", "foreign", "engines"):
        return _in_precision(f"{MODEL_TITLES[entry['model']]}, {PASS_TITLES[entry['pass']]}", entry)
    return entry["what"]


# --- Sections --------------------------------------------------------------------------------------------------------

TABLES = {
    "machine": (machine_table,),
    "groups": (group_table,),
    "crf": (crf_table,),
    "networks": (network_table, overhead_table),
    "foreign": (network_table,),
    "engines": (engine_table,),
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
            if name in (CAFFE, PYTORCH, PYDENSECRF, ONNXRUNTIME, OPENVINO) and entry.get("what") not in WITHOUT_CAFFE:
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
