"""Searching the dense CRF's parameters on labelled images whose class probabilities were saved, coarse to fine."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from caffe.proto import caffe_pb2

from renet.common.errors import UserError, naming
from renet.common.files import write_atomically
from renet.common.parts import WHOLE, Part
from renet.common.repository import ROOT, find_file
from renet.data.dataset import Dataset
from renet.data.split_reader import SplitReader
from renet.evaluation.scores import confusion_matrix, scores
from renet.networks.files import TRAIN_VAL
from renet.networks.net_state import layers_in, state_of
from renet.prediction.crf_inference import DenseCrf
from renet.prediction.crf_job import (
    check_probabilities_exist,
    prediction_record,
    probability_file,
    read_probabilities,
    shares,
)
from renet.prediction.crf_parameters import CrfParameters
from renet.prediction.image_job import Item, identity, items_of_split
from renet.runtime.prototxt import read_network
from renet.runtime.worker_process import NativeCrash, run_native_together

MEASURES = ("mean_iou", "pixel_accuracy", "class_accuracy")
RESULTS = "results.jsonl"  # of a part results.3_of_8.jsonl
BEST = "best.prototxt"
# The coarse grid: a factor of about three between neighbours.
COARSE_BILATERAL = {"bi_w": (1, 3, 10), "bi_xy_std": (20, 60, 180), "bi_rgb_std": (3, 6, 12)}
COARSE_POSITIONAL = {"pos_w": (0, 1, 3, 10), "pos_xy_std": (1, 3, 9)}
COARSE_ITERATIONS = {"max_iter": (1, 2, 5, 10)}
DIGITS = 3  # of a candidate: finer differences are noise


@dataclass(frozen=True)
class SearchJob:
    """What is searched on.

    Attributes:
        predictions: folder that `predict.py --probabilities` wrote.
        split: prepared split with the truth.
        dataset: the split's.
        items: images of the split that candidates are scored on.
        processes: how many work at once, of one thread each.
    """

    predictions: Path
    split: Path
    dataset: Dataset
    items: tuple[Item, ...]
    processes: int


@dataclass(frozen=True)
class Result:
    """A candidate's scores, as fractions; `parameters` None is without the CRF."""

    parameters: CrfParameters | None
    pixel_accuracy: float
    class_accuracy: float
    mean_iou: float

    def score(self, measure: str) -> float:
        """One of `MEASURES`."""
        return getattr(self, measure)


def spread(items: Sequence[Item], limit: int) -> tuple[Item, ...]:
    """At most `limit` of the items, evenly over their order."""
    if len(items) <= limit:
        return tuple(items)
    return tuple(items[i * len(items) // limit] for i in range(limit))


def open_job(predictions: Path, split: Path, dataset: Dataset, limit: int, processes: int) -> SearchJob:
    """A job on at most `limit` images of the split.

    Raises:
        UserError: no predictions, no labels, or missing probabilities; named.
    """
    prediction_record(predictions)
    with SplitReader(split) as reader:
        if not reader.has_labels:
            raise UserError(f"{split}: this split has no labels, so nothing can be searched on it")
    items = spread(items_of_split(split), limit)
    if not items:
        raise UserError(f"{split}: an empty split")
    check_probabilities_exist(predictions, items)
    return SearchJob(predictions, split, dataset, items, processes)


def learnt_images(job: SearchJob) -> tuple[int, Path | None]:
    """Count the job's images that the network behind the predictions has learnt from.

    Returns:
        The number, and the run's folder; 0 and None where the weights lie in no run's folder, or its data have gone.
    """
    run = (ROOT / prediction_record(job.predictions).get("weights", "")).parents[1]
    file = run / TRAIN_VAL
    if not file.is_file():
        return 0, None
    network = read_network(file)
    learnt: set[str] = set()
    for layer in layers_in(network, state_of(network, caffe_pb2.TRAIN)):
        for source in layer.segmentation_data_param.source if layer.type == "SegmentationData" else ():
            with suppress(UserError), SplitReader(find_file(source, file)) as reader:
                learnt |= set(reader.ids())
    return sum(item.image_id in learnt for item in job.items), run


class ResultFile:
    """Results of candidates, a line of JSON each, so that a search that was stopped goes on.

    The first line says on what the scores were measured; results of something else are refused. Each part of a search
    writes a file of its own and reads those of all.
    """

    def __init__(self, folder: Path, job: SearchJob, part: Part = WHOLE) -> None:
        """Read what is there, or begin the part's file.

        Raises:
            UserError: a file holds results of other predictions or images, or is damaged.
        """
        file = folder / (RESULTS if part == WHOLE else f"results.{part.name}.jsonl")
        self.part = part
        self._file = file
        self.results: dict[CrfParameters | None, Result] = {}
        ids = "\n".join(item.image_id for item in job.items)
        self._origin = {
            "predictions": json.loads(json.dumps(identity(prediction_record(job.predictions)))),
            "images": len(job.items),
            "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        }
        if not file.exists():
            write_atomically(file, (json.dumps(self._origin) + "\n").encode())
        # A line that was cut off when the search was killed is measured anew.
        content = self._read(file)
        if not content.endswith("\n"):
            write_atomically(file, content[: content.rfind("\n") + 1].encode())
        self.refresh()

    def refresh(self) -> None:
        """Read what other parts have measured.

        Raises:
            UserError: as when it was opened.
        """
        for file in sorted(self._file.parent.glob("results*.jsonl")):
            self._read(file)

    def _read(self, file: Path) -> str:
        """Take a file's results; its whole text, whose last line may be in the making."""
        content = file.read_text(encoding="utf-8", errors="replace")
        lines = content[: content.rfind("\n") + 1].splitlines()
        try:
            found = json.loads(lines[0]) if lines else None
            for line in map(json.loads, lines[1:]):
                parameters = line.pop("parameters")
                result = Result(None if parameters is None else CrfParameters(**parameters), **line)
                self.results[result.parameters] = result
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{file}: damaged; remove it to search anew") from None
        if found != self._origin:
            raise UserError(f"{file}: holds results of other predictions or images; choose another --out")
        return content

    def add(self, result: Result) -> None:
        """Keep a result, on the disk too."""
        self.results[result.parameters] = result
        with naming(self._file), self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def measure(job: SearchJob, candidates: Sequence[CrfParameters | None]) -> Iterator[Result]:
    """The scores of each candidate over all the job's images, in order.

    Raises:
        UserError: an image or its probabilities are broken; or Caffe stopped.
    """
    classes = len(job.dataset.classes)
    parts = [(replace(job, items=share), tuple(candidates)) for share in shares(job.items, job.processes)]
    sums = [np.zeros((classes, classes), np.int64) for _ in candidates]
    missing = [len(parts)] * len(candidates)
    try:
        for _, (number, confusion) in run_native_together(count_pixels, parts, {"OMP_NUM_THREADS": "1"}):
            sums[number] += confusion
            missing[number] -= 1
            if missing[number] == 0:
                try:
                    total = scores(sums[number])
                except ValueError as error:
                    raise UserError(f"{job.split}: {error}") from None
                yield Result(candidates[number], total.pixel_accuracy, total.class_accuracy, total.mean_iou)
    except NativeCrash as crash:
        raise UserError(f"the CRF: Caffe stopped: {crash}") from None


def count_pixels(job: SearchJob, candidates: Sequence[CrfParameters | None]) -> Iterator[tuple[int, np.ndarray]]:
    """Each candidate's number and its C x C confusion matrix over the job's images; for a process of its own.

    Raises:
        UserError: an image or its probabilities are broken; names the file.
    """
    classes = len(job.dataset.classes)
    images = []
    with SplitReader(job.split) as reader:
        for item in job.items:
            image = reader.image(item.index)
            probabilities = read_probabilities(probability_file(job.predictions, item.image_id), classes, image)
            images.append((item, image, probabilities, reader.label(item.index)))
    for number, parameters in enumerate(candidates):
        crf = None if parameters is None else DenseCrf(classes, parameters)
        confusion = np.zeros((classes, classes), np.int64)
        for item, image, probabilities, truth in images:
            with item.named():
                after = probabilities if crf is None else crf.apply(probabilities, image)
            labels = after.argmax(axis=0).astype(np.uint8)
            try:
                confusion += confusion_matrix(truth, labels, classes, job.dataset.ignore_label)
            except ValueError as error:
                raise UserError(f"{job.split}: {item.image_id}: {error}") from None
        yield number, confusion


def rounded(value: float) -> float:
    """To the digits that candidates have."""
    return float(f"{value:.{DIGITS}g}")


def grid(around: CrfParameters, axes: dict[str, Iterable[float]]) -> list[CrfParameters]:
    """`around` with every combination of the axes' values; the spread of a kernel without weight is not varied."""
    found: dict[CrfParameters, None] = {}
    for values in itertools.product(*axes.values()):
        candidate = replace(around, **dict(zip(axes, values)))
        if candidate.pos_w == 0:
            candidate = replace(candidate, pos_xy_std=around.pos_xy_std)
        found[candidate] = None
    return list(found)


def stages(rounds: int) -> Iterator[tuple[str, Callable[[CrfParameters], list[CrfParameters]]]]:
    """The search's stages in order: a name, and the candidates around the best so far.

    Each round varies the bilateral kernel, then the positional one, then the iterations: first on a coarse grid, then
    by factors of 1.5, 1.22, ... around the best.
    """
    for number in range(rounds):
        if number == 0:
            for name, axes in (
                ("bilateral", COARSE_BILATERAL),
                ("positional", COARSE_POSITIONAL),
                ("iterations", COARSE_ITERATIONS),
            ):
                yield f"coarse, {name}", lambda best, axes=axes: grid(best, axes)
            continue
        factor = 1.5 ** (0.5 ** (number - 1))
        for name, names in (("bilateral", COARSE_BILATERAL), ("positional", COARSE_POSITIONAL)):
            yield (
                f"fine {number}, {name}",
                lambda best, names=names, factor=factor: grid(
                    best,
                    {
                        name: sorted({rounded(getattr(best, name) * by) for by in (1 / factor, 1, factor)})
                        for name in names
                    },
                ),
            )
        yield (
            f"fine {number}, iterations",
            lambda best: grid(best, {"max_iter": (max(1, best.max_iter - 1), best.max_iter, best.max_iter + 1)}),
        )


def best_of(results: Iterable[Result], by: str) -> Result:
    """The result with the highest score; of equal ones the fewest iterations, then the first."""
    return max(results, key=lambda result: (result.score(by), -result.parameters.max_iter))


def search(
    job: SearchJob,
    results: ResultFile,
    start: CrfParameters,
    rounds: int,
    by: str,
    told: Callable[[str, int, Iterator[Result]], Iterable[Result]] = lambda stage, count, found: found,
) -> Result:
    """Score the images without the CRF, then go through the stages; what `results` holds is not measured again.

    Args:
        job: what is searched on.
        results: gets every candidate's result; says which part of a stage's candidates comes first.
        start: the first candidate.
        rounds: one coarse and `rounds - 1` finer ones.
        by: the measure to raise.
        told: wraps a stage's results as they come, for progress.

    Returns:
        The best of all results with a CRF.
    """

    def measured(name: str, candidates: Sequence[CrfParameters | None]) -> None:
        left = [candidate for candidate in candidates if candidate not in results.results]
        if left:
            for result in told(name, len(left), measure(job, left)):
                results.add(result)

    def run_stage(name: str, candidates: Sequence[CrfParameters | None]) -> None:
        part = results.part
        results.refresh()
        measured(name, part.share(candidates))
        results.refresh()
        # Then what the others have not measured yet, so that nobody waits for a part that may never come. To do little
        # twice, it is half of it at a time, and each part begins at another place.
        first = part.bounds(len(candidates))[1]
        in_order = [*candidates[first:], *candidates[:first]]
        while missing := [candidate for candidate in in_order if candidate not in results.results]:
            measured(f"{name}, of other parts", missing[: (len(missing) + 1) // 2])
            results.refresh()

    run_stage("start", [None, start])
    seen = [start]
    for name, candidates in stages(rounds):
        stage = candidates(best_of((results.results[each] for each in seen), by).parameters)
        run_stage(name, stage)
        seen += stage
    return best_of((results.results[each] for each in seen), by)


def write_best(file: Path, best: Result, without: Result, job: SearchJob, by: str) -> None:
    """The best parameters as a prototxt that predict.py --crf and crf.py read, with their scores in a comment."""
    rows = [
        f"{name:<12} pixel {100 * r.pixel_accuracy:.2f} %, class {100 * r.class_accuracy:.2f} %, "
        f"mean IoU {100 * r.mean_iou:.2f} %"
        for name, r in (("without CRF", without), ("with it", best))
    ]
    found = f"Searched by crf.py for the best {by.replace('_', ' ')} on {len(job.items)} images of {job.dataset.name}"
    comment = "\n".join([found, *rows])
    assert best.parameters is not None, "the best is one with a CRF"
    write_atomically(file, best.parameters.as_prototxt(comment).encode())


def table(rows: Sequence[tuple[str, Result]]) -> str:
    """Named results as aligned text, in percent."""
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}  pixel accuracy %  class accuracy %  mean IoU %"]
    for name, r in rows:
        figures = f"{100 * r.pixel_accuracy:16.2f}  {100 * r.class_accuracy:16.2f}  {100 * r.mean_iou:10.2f}"
        lines.append(f"{name:<{width}}  {figures}" + (f"  {r.parameters}" if r.parameters else ""))
    return "\n".join(lines)
