"""The benchmark on a GPU: ReNet groups and whole networks beside PyTorch's, CRFs, each beside the chip's limit.

A layer or network that comes later joins by an entry in ENTRIES.
It runs with any Python from 3.8 on and needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renet.gpu_check.conversation import Conversation, Died
from renet.gpu_check.entries import ENTRIES, PAPER_SECONDS, Entry, group_text, segmentation_name, with_precision
from renet.gpu_check.machine import FAILED, PASSED, UNFINISHED, Machine, Outcome
from renet.gpu_check.text_table import aligned
from renet.gpu_check.work import (
    BF16,
    BRANCHING,
    BRANCHING_TOLERANCE,
    FLOAT32,
    FORWARD,
    FORWARD_BACKWARD,
    GRADIENT,
    PRECISIONS,
    STEP,
    TF32,
    Rates,
    data_sheet,
    floor,
    moved_bytes,
    operations,
)

ROUNDS = 9
# Of results, relative to the largest value: PyTorch computes in float32, the two sides add in other orders.
TOLERANCE = {FLOAT32: 1e-3, TF32: 2e-2, BF16: 1e-1}
# Rounding to TF32 or BF16 carries far in some networks: where PyTorch's own results move as far, ours may, too.
OWN_FACTOR = 3
COLUMNS = (
    *("what", "pass", "products", "ms", "PyTorch ms", "ratio", "floor ms", "of limit", "us/step"),
    *("MiB", "PyTorch MiB", "error"),
)
TEXT_COLUMNS = 3  # the first ones; the others are numbers


def wrong(row: dict[str, Any], layers: Sequence[dict[str, Any]]) -> str | None:
    """What of a row differs from PyTorch's by more than is allowed, in words; None where nothing does."""
    branching = any(layer["type"] in BRANCHING for layer in layers)
    for name, difference in row["differences"].items():
        allowed = BRANCHING_TOLERANCE if branching and name.endswith(GRADIENT) else TOLERANCE
        own = row["pytorch_differences"].get(name, 0.0)
        if not difference <= max(allowed[row["precision"]], OWN_FACTOR * own):
            return f"{name} differs from PyTorch's by {difference:.1e} of the largest value"
    return None


def limited(row: dict[str, Any], layers: Sequence[dict[str, Any]], rates: Rates | None) -> dict[str, Any]:
    """The operations and bytes of a row's network, and how near its time is to what they take at the chip's rates."""
    backward = row["passes"] != FORWARD
    counts = operations(layers, backward), moved_bytes(layers, backward, row["passes"] == STEP)
    metadata: dict[str, Any] = dict(zip(("operations", "bytes"), counts))
    if rates:
        least = floor(*counts, rates, row["precision"])
        metadata["floor"] = {**least._asdict(), "rates": rates.source}
        metadata["share_of_limit"] = least.milliseconds / row["median"]
    return metadata


def cells(metadata: dict[str, Any]) -> list[str]:
    """A row of the table, in the order of COLUMNS."""
    peer, least = metadata["pytorch_milliseconds"], metadata.get("floor")
    differences = metadata["differences"]
    return [
        metadata["name"],
        metadata["passes"],
        metadata["precision"],
        f"{metadata['median']:.3f}",
        f"{statistics.median(peer):.3f}" if peer else "-",
        f"{metadata['ratio']:.2f}" if peer else "-",
        f"{least['milliseconds']:.3f} {least['limit'][0]}" if least else "-",
        f"{metadata['share_of_limit']:.0%}" if least else "-",
        f"{metadata['microseconds_a_step']:.2f}" if metadata["passes"] == FORWARD and metadata["steps"] else "-",
        f"{metadata['memory_mib']:.0f}",
        f"{metadata['pytorch_memory_mib']:.0f}" if metadata["pytorch_memory_mib"] is not None else "-",
        f"{max(differences.values()):.0e}" if differences else "-",
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of the rows' metadata, for a terminal."""
    return "\n".join(aligned([list(COLUMNS), *map(cells, rows)], TEXT_COLUMNS, underline=False))


def aims(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What was aimed at, and whether it was reached, as far as it was measured."""
    lines = []
    for metadata in rows:
        if metadata["precision"] != FLOAT32:
            continue
        if metadata["shape"] and metadata["passes"] == FORWARD_BACKWARD and metadata["ratio"]:
            reached = metadata["ratio"] >= 2
            lines.append(_aim(f"{metadata['name']}: twice cuDNN's speed", f"{metadata['ratio']:.2f} times", reached))
        if metadata["aim"] and metadata["passes"] == FORWARD:
            got, wanted = metadata["milliseconds_an_image"], metadata["aim"]
            lines.append(_aim(f"{metadata['name']}: under {wanted:g} ms an image", f"{got:.3f} ms", got < wanted))
    forward = [metadata for metadata in rows if (metadata["precision"], metadata["passes"]) == (FLOAT32, FORWARD)]
    medians = {metadata["name"]: metadata["median"] for metadata in forward}
    fcn, h_renet = (medians.get(segmentation_name(model, 1)) for model in ("fcn", "h_renet_bn_mlfb"))
    if fcn and h_renet:
        paper, got = PAPER_SECONDS["h_renet_bn_mlfb"] / PAPER_SECONDS["fcn"], h_renet / fcn
        wanted = f"{segmentation_name('h_renet_bn_mlfb', 1)}: at most {paper:.2f} times fcn's time, as in the paper"
        lines.append(_aim(wanted, f"{got:.2f} times", got <= paper))
    return lines


def _aim(wanted: str, got: str, reached: bool) -> str:
    return f"aim {'reached' if reached else 'missed'}: {wanted} ({got})"


class Side:
    """PyTorch's side for one entry; after a failure it is asked no more."""

    def __init__(self, peer: Conversation | None) -> None:
        self._peer = peer
        self.failure: str | None = None

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """The answer; empty where there is no other side, or not any more."""
        if self._peer is None or self.failure:
            return {}
        try:
            return self._peer.ask(do, **details)
        except Died as error:
            self.failure = str(error)
            return {}


def time_entry(
    machine: Machine, entry: Entry, precision: str, peer: Conversation | None, scratch: Path, deadline: float
) -> tuple[dict[str, Any], str | None]:
    """Time an entry at a precision, alternating with PyTorch where that has the same, and compare the results.

    Returns:
        The row as the report has it: times are of one pass, memory the GPU's that the work took, differences those of
        results to PyTorch's in float32, relative to the largest value of each, and PyTorch's own at this precision
        likewise. What is wrong with it, in words, or None.

    Raises:
        Died: our side failed; the message tells why.
    """
    result, dump, model = scratch / "result.json", scratch / "dump", scratch / "net.prototxt"
    dump.mkdir(exist_ok=True)
    other = Side(peer if entry.peer else None)
    options = dict(zip(entry.options[::2], entry.options[1::2]))
    text = group_text(entry.shape) if entry.shape else entry.text
    model.write_text(with_precision(text or (machine.bundle / options["-model"]).read_text(), precision))
    options.update({"-model": str(model), "-pass": entry.passes, "-gpu": "0"})
    options.update({"-chain": str(entry.chain), "-json": str(result)})
    if peer and entry.peer:
        options["-dump"] = str(dump)
    command = [machine.program("benchmark_net"), *itertools.chain(*options.items()), "-serve"]
    work = {"model": str(model), "inputs": options.get("-inputs", ""), "backward": entry.passes != FORWARD}
    # a convolution has no precision of its own
    variables = {**machine.variables, "CAFFE_ALLOW_TF32": "1"} if precision == TF32 else machine.variables
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    # ours is ready, and its memory counted, before PyTorch takes any
    with Conversation(command, variables, machine.bundle, machine.out / "benchmark_net.log", deadline) as ours:
        prepared = other.ask("prepare", **work, precision=precision, chain=entry.chain)
        for number in range(ROUNDS + 1):
            answers = {"ours": ours.ask("run"), "peer": other.ask("run")}
            for side, answer in answers.items() if number > 0 else ():
                times[side] += [answer["milliseconds"]] if answer else []
        ours.finish()
    compared = other.ask("compare", folder=str(dump), precision=precision, **work)
    written = json.loads(result.read_text())
    median = statistics.median(times["ours"])
    row = {
        **entry._asdict(),
        "precision": precision,
        "milliseconds": times["ours"],
        "median": median,
        "milliseconds_an_image": median / entry.images,
        "microseconds_a_step": 1e3 * median / entry.steps if entry.steps else None,
        "pytorch_milliseconds": times["peer"],
        "ratio": statistics.median(times["peer"]) / median if times["peer"] else None,
        "memory_mib": written["memory_mib"],
        "pytorch_memory_mib": prepared.get("memory_mib"),
        "differences": compared.get("differences", {}),
        "pytorch_differences": compared.get("own", {}),
    }
    row.update(limited(row, written["layers"], machine.rates))
    return row, f"PyTorch: {other.failure}" if other.failure else wrong(row, written["layers"])


def benchmark(machine: Machine, deadline: float) -> Outcome:
    """Time every entry at every precision."""
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    metadata: dict[str, Any] = {"rows": rows, "failures": failures, "rounds": ROUNDS}
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer = None
        machine.rates = data_sheet(machine.gpu)
        if machine.peer:
            try:
                program = [machine.peer, str(machine.bundle / "renet" / "gpu_check" / "pytorch_peer.py"), "cuda"]
                log = machine.out / "pytorch_peer.log"
                peer = stack.enter_context(Conversation(program, machine.own_variables, machine.bundle, log, deadline))
                metadata["pytorch"] = peer.ready
                measured = peer.ask("rates")
                machine.rates = Rates(measured["tflops"], measured["terabytes"], "measured")
            except Died as error:
                failures["PyTorch"] = str(error)
        metadata["rates"] = machine.rates._asdict() if machine.rates else None
        # float32 of everything first, for the time may run out
        cases = [(entry, precision) for precision in PRECISIONS for entry in ENTRIES if precision in entry.precisions]
        for entry, precision in cases:
            name = f"{entry.name}, {entry.passes}, {precision}"
            if time.monotonic() >= deadline:
                failures[name] = "the time was up"
                continue
            try:
                row, complaint = time_entry(machine, entry, precision, peer, scratch, deadline)
            except Died as error:
                failures[name] = str(error)
                machine.say(f"{name}: {error}")
            else:
                rows.append(row)
                if complaint:
                    failures[name] = complaint
                beside = f", {row['ratio']:.2f} times as fast as PyTorch" if row["ratio"] else ""
                machine.say(f"{name}: {row['median']:.3f} ms{beside}")
            machine.keep(metadata)
    metadata["aims"] = aims(rows)
    summary = f"{len(rows)} of {len(cases)} timed"
    if not machine.peer:
        summary += "; no PyTorch sees the GPU, so none beside it"
    if failures:
        first = next(iter(failures))
        late = all(words.endswith("the time was up") for words in failures.values())
        return Outcome(UNFINISHED if late else FAILED, f"{summary}; {first}: {failures[first]}", metadata)
    return Outcome(PASSED, summary, metadata)
