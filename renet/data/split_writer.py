"""Writer of a prepared split: beside its place, batch by batch, verified, then renamed.

A split in the making is `.<name>.partial` beside its place. Its split.json says after every committed batch how far the
conversion has come, so that a killed one goes on there. Once every record has been read back and checked, the folder
gets its name: a split that is there is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from renet.common.errors import UserError
from renet.common.files import sync_folder, write_json
from renet.common.parts import WHOLE, Part
from renet.common.progress import progress
from renet.data.bad_samples import BadSamples, LabelAdvice, LabelRangeError, SampleError
from renet.data.dataset import SplitSummary
from renet.data.datum import pack_encoded
from renet.data.image_ids import check_name
from renet.data.images import EncodedImage, encode_png, shrink_image, shrink_label
from renet.data.split_reader import (
    IMAGES,
    LABELS,
    RecordDigest,
    SplitReader,
    decode_image,
    id_of_key,
    make_key,
    records_sha256,
)

STATE = "split.json"
FORMAT = 1  # to be raised when the same source would give other records
SAMPLES_PER_BATCH = 32
RECORDS_PER_COPY = 256
FIRST_MAP_SIZE = 16 * 2**20
LONGEST_KEY = 511  # LMDB's limit, in bytes
# Limits of the process or the machine: no sample is bad for them.
_NOT_THE_SAMPLES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class LeftOut(Exception):
    """Signal of `Sample.read` that the split is not meant to hold the sample; the message says why, in words that other
    samples share, since they are counted by it."""


@dataclass(frozen=True)
class Pair:
    """Content of a sample: an image and its labels, H x W integers (class numbers and the ignored label).

    Without labels (a test set whose truth is not published) `label` is None.
    """

    image: EncodedImage
    label: np.ndarray | None


@dataclass(frozen=True)
class Sample:
    """Sample to be written.

    Attributes:
        id: what predictions and lists call it.
        fingerprint: changes when the source's files change (sizes and times, or a seed).
        read: gives the content; raises UserError that names the file where that is bad, and LeftOut.
        label_where: the label's path, for messages; None where there is no label, and so in the whole split.
    """

    id: str
    fingerprint: str
    read: Callable[[], Pair]
    label_where: str | None


@dataclass(frozen=True)
class Settings:
    """Settings that, besides the source, decide a split's records."""

    classes: int
    ignore_label: int
    image_scale: float = 1.0
    format: int = FORMAT


@dataclass
class _State:
    """How far a split is. `chain` is a hash over the first `done` samples; `sha256` is set when all is verified.

    Of a part, `done` counts its own samples, and `part` says of what it is a part (see `_whole`).
    """

    settings: dict[str, Any]
    chain: str = ""
    done: int = 0
    written: int = 0
    skipped: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    sha256: str = ""
    pixels: int = 0
    channel_sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    label_pixels: list[int] = field(default_factory=list)
    part: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        write_json(folder / STATE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> _State | None:
        try:
            return cls(**json.loads((folder / STATE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class WrittenSplit:
    """Split that is in its place: its summary, its pixels' sums (B, G, R), the bad samples that were skipped, how many
    others were left out, by reason (see `LeftOut`), and how many pixels each class has (empty without labels, and for a
    split of an earlier version)."""

    summary: SplitSummary
    pixels: int
    channel_sums: tuple[int, int, int]
    skipped: list[str]
    left_out: dict[str, int]
    label_pixels: tuple[int, ...]


def write_split(
    folder: Path,
    samples: Sequence[Sample],
    settings: Settings,
    skip_bad: bool | None = None,
    label_advice: LabelAdvice | None = None,
    part: Part = WHOLE,
) -> WrittenSplit:
    """Write `samples` in their order to the split `folder`, or take over what is already there.

    Args:
        folder: the split's place.
        samples: what it is to hold.
        settings: label range and scale.
        skip_bad: leave bad samples out and list them; otherwise all of them are told and nothing is put in place. None
            where the caller has no such option, which is not advised then.
        label_advice: what the caller offers where labels have numbers that are no class.
        part: write this part's share of the samples, which may come to no image (see `joined_split`).

    Raises:
        UserError: bad samples; an id twice; or `folder` holds something else.
    """
    _check_ids(samples, folder)
    databases = _databases(samples)
    chains = _chains(samples)
    of = _whole(part, chains)
    start, stop = part.bounds(len(samples))
    samples, chains = samples[start:stop], chains[start : stop + 1]
    may_skip, skip_bad = skip_bad is not None, bool(skip_bad)
    if folder.exists():
        return _take_over(folder, settings, chains, of, skip_bad)
    fresh = _State(asdict(settings), chain=chains[0], part=of)
    partial, state = _begun(folder, fresh, lambda state: _fits(state, settings, chains, of, skip_bad))
    if not state.sha256:
        bad = BadSamples(len(samples), settings.classes, label_advice, may_skip)
        try:
            _write_records(partial, folder, databases, samples, chains, settings, state, skip_bad, bad)
            _verify(partial, folder, databases, settings, state)
        except lmdb.Error as error:
            raise UserError(f"{partial}: {_cause(error, partial)}") from None
    _put_in_place(partial, folder, databases)
    return _written(state)


def joined_split(folder: Path, parts: Sequence[Path]) -> WrittenSplit:
    """Write the records of all parts of a split to one, or take over what is already there.

    It is what `write_split` writes of the whole, so that a converter takes it over, too.

    Args:
        folder: the split's place.
        parts: the splits of parts 1 to N.

    Raises:
        UserError: a part is missing, damaged, or of another whole; there is no image at all; or `folder` holds
            something else.
    """
    states = [_finished_part(part) for part in parts]
    for part, state in zip(parts, states):
        if (state.settings, state.part) != (states[0].settings, states[0].part | {"number": state.part["number"]}):
            raise UserError(
                f"{part}: is a part of something else than {parts[0]}: its source's files (their names, sizes or "
                "times), or the options, differ"
            )
    whole = _sum(states)
    if not whole.written:
        raise UserError(f"{folder}: the split would hold no image")
    if folder.exists():
        present = _State.load(folder)
        if present is None or asdict(present) | {"sha256": ""} != asdict(whole):
            raise UserError(f"{folder}: exists and is not what the parts give; move it away")
        return _written(present)
    databases = [name for name in (IMAGES, LABELS) if (parts[0] / name).is_dir()]
    fresh = _State(whole.settings, part={"joined": [state.sha256 for state in states]})
    partial, state = _begun(folder, fresh, lambda state: state.part == fresh.part)
    try:
        _copy_records(partial, folder, databases, parts, states, state)
        with SplitReader(partial) as reader:
            whole.sha256 = records_sha256(reader)
    except lmdb.Error as error:
        raise UserError(f"{partial}: {_cause(error, partial)}") from None
    whole.save(partial)
    _put_in_place(partial, folder, databases)
    return _written(whole)


def _finished_part(folder: Path) -> _State:
    state = _State.load(folder)
    if state is None or not state.sha256 or not state.part:
        raise UserError(f"{folder}: no split of a part, or not finished")
    return state


def _sum(states: Sequence[_State]) -> _State:
    """The state of the whole, but for its checksum."""
    whole = _State(states[0].settings, states[0].part["chain"])
    for state in states:
        whole.done += state.done
        whole.written += state.written
        whole.skipped += state.skipped
        for reason, count in state.left_out.items():
            whole.left_out[reason] = whole.left_out.get(reason, 0) + count
        whole.pixels += state.pixels
        whole.channel_sums = [a + b for a, b in zip(whole.channel_sums, state.channel_sums)]
        before = whole.label_pixels or [0] * len(state.label_pixels)
        whole.label_pixels = [a + b for a, b in zip(before, state.label_pixels)]
    return whole


def _copy_records(
    partial: Path,
    place: Path,
    databases: Sequence[str],
    parts: Sequence[Path],
    states: Sequence[_State],
    state: _State,
) -> None:
    """Go on copying after the first `state.written` records, with new numbers in the keys."""
    with ExitStack() as stack:
        outputs = [stack.enter_context(_Database(partial / name, state.written)) for name in databases]
        total = sum(part.written for part in states)
        bar = stack.enter_context(progress(total=total, description=f"{place.parent.name}/{place.name}", unit="image"))
        number = 0
        for part, of_part in zip(parts, states):
            digest = RecordDigest()
            batch: list[tuple[bytes, tuple[bytes, bytes]]] = []

            def put(batch: list[tuple[bytes, tuple[bytes, bytes]]]) -> None:
                for place, output in enumerate(outputs):
                    output.put([(key, values[place]) for key, values in batch])
                state.written += len(batch)
                state.save(partial)

            with SplitReader(part) as reader:
                for key, image, label in reader.records():
                    digest.add(key, image, label)
                    if number >= state.written + len(batch):
                        batch.append((make_key(number, id_of_key(key.decode())).encode(), (image, label)))
                    number += 1
                    bar.update()
                    if len(batch) == RECORDS_PER_COPY:
                        put(batch)
                        batch = []
            if batch:
                put(batch)
            if digest.hexdigest() != of_part.sha256:
                raise UserError(f"{part}: its records are not those that were written; copy or prepare it anew")


def _begun(folder: Path, fresh: _State, fits: Callable[[_State], bool]) -> tuple[Path, _State]:
    """The folder of a split in the making and how far it is: what an earlier call left there, where that fits."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    state = _State.load(partial)
    if state is None or not fits(state):
        shutil.rmtree(partial)
        partial.mkdir()
        state = fresh
        state.save(partial)
    return partial, state


def _put_in_place(partial: Path, folder: Path, databases: Sequence[str]) -> None:
    for database in databases:
        (partial / database / "lock.mdb").unlink(missing_ok=True)  # of no use in a split that never changes
        sync_folder(partial / database)
    sync_folder(partial)
    partial.rename(folder)
    sync_folder(folder.parent)


def mean_of(splits: Sequence[WrittenSplit]) -> tuple[float, float, float]:
    """Compute the mean of the splits' pixels: B, G, R, 0..255; 0 where there is no pixel, as a part may have none."""
    pixels = max(1, sum(split.pixels for split in splits))
    blue, green, red = (round(float(sum(channel)) / pixels, 4) for channel in zip(*(s.channel_sums for s in splits)))
    return blue, green, red


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for one conversion at a time.

    Raises:
        UserError: another conversion holds it.
    """
    import fcntl  # not on every system that can read prepared data

    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another conversion is writing there") from None
        yield
    finally:
        os.close(descriptor)


def _cause(error: lmdb.Error, folder: Path) -> str:
    """What a database's error is due to: LMDB says "Input/output error" where a commit could write a part only."""
    import resource  # not on every system that can read prepared data

    if shutil.disk_usage(folder).free < FIRST_MAP_SIZE:
        return "no space left on the disk"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    largest = max((file.stat().st_size for file in folder.glob("*/data.mdb")), default=0)
    if limit != resource.RLIM_INFINITY and largest + FIRST_MAP_SIZE > limit:
        return f"no file may be larger than {limit} bytes here (ulimit -f)"
    return str(error)


def _check_ids(samples: Sequence[Sample], folder: Path) -> None:
    if not samples:
        raise UserError(f"{folder}: the split would hold no image")
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise UserError(f"{folder}: the id {sample.id} comes twice")
        seen.add(sample.id)
        if not sample.id or len(make_key(0, sample.id).encode(errors="replace")) > LONGEST_KEY:
            raise UserError(f"{folder}: the id {sample.id!r} is empty or too long for a database key")
        check_name(sample.id, folder)


def _databases(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The databases of the split: images, and labels unless its samples have none."""
    labelled = [sample.label_where is not None for sample in samples]
    if any(labelled) and not all(labelled):
        raise ValueError("a split's samples have labels either all or none")
    return (IMAGES, LABELS) if labelled[0] else (IMAGES,)


def _chains(samples: Sequence[Sample]) -> list[str]:
    """chains[n]: a hash over the first n samples' ids and fingerprints, and whether they have labels."""
    digest = hashlib.sha256()
    chains = [digest.hexdigest()]
    for sample in samples:
        if sample.label_where is None:
            digest.update(b"without label\n")
        digest.update(f"{sample.id}\0{sample.fingerprint}\n".encode(errors="surrogateescape"))
        chains.append(digest.hexdigest())
    return chains


def _whole(part: Part, chains: Sequence[str]) -> dict[str, Any]:
    """Which part it is of what: all samples' number and chain; nothing of a whole."""
    if part == WHOLE:
        return {}
    return {"number": part.number, "count": part.count, "samples": len(chains) - 1, "chain": chains[-1]}


def _fits(state: _State, settings: Settings, chains: Sequence[str], of: dict[str, Any], skip_bad: bool) -> bool:
    return (
        state.settings == asdict(settings)
        and state.part == of
        and state.done < len(chains)
        and state.chain == chains[state.done]
        and (skip_bad or not state.skipped)
    )


def _take_over(
    folder: Path, settings: Settings, chains: Sequence[str], of: dict[str, Any], skip_bad: bool
) -> WrittenSplit:
    """The split that is there already, if it is the one wanted."""
    state = _State.load(folder)
    if state is None or not state.sha256:
        raise UserError(f"{folder}: exists and is no prepared split; move it away or choose another --out")
    if state.skipped and not skip_bad:
        raise UserError(f"{folder}: was prepared with --skip-bad and lacks samples; delete it to prepare it anew")
    if state.done != len(chains) - 1 or not _fits(state, settings, chains, of, skip_bad):
        raise UserError(
            f"{folder}: was prepared from other files or with other settings; delete it or choose another --out"
        )
    with SplitReader(folder) as reader:
        if len(reader) != state.written:
            raise UserError(f"{folder}: holds {len(reader)} images, not {state.written}; delete it to prepare it anew")
    return _written(state)


def _written(state: _State) -> WrittenSplit:
    blue, green, red = state.channel_sums
    return WrittenSplit(
        SplitSummary(state.written, state.sha256),
        state.pixels,
        (blue, green, red),
        state.skipped,
        state.left_out,
        tuple(state.label_pixels),
    )


def _write_records(
    partial: Path,
    place: Path,
    databases: Sequence[str],
    samples: Sequence[Sample],
    chains: Sequence[str],
    settings: Settings,
    state: _State,
    skip_bad: bool,
    bad: BadSamples,
) -> None:
    with ExitStack() as stack:
        outputs = [stack.enter_context(_Database(partial / name, state.written)) for name in databases]
        description = f"{place.parent.name}/{place.name}"
        bar = stack.enter_context(
            progress(total=len(samples), description=description, unit="image", initial=state.done)
        )
        for start in range(state.done, len(samples), SAMPLES_PER_BATCH):
            batch = samples[start : start + SAMPLES_PER_BATCH]
            keys: list[bytes] = []
            records: list[tuple[bytes, ...]] = []
            skipped: list[str] = []
            left_out: Counter[str] = Counter(state.left_out)
            for sample in batch:
                try:
                    records.append(_records(sample, settings))
                except LeftOut as reason:
                    left_out[str(reason)] += 1
                except UserError as error:
                    skipped.append(f"{sample.id}: {error}")
                    bad.add(sample.id, error)
                else:
                    keys.append(make_key(state.written + len(keys), sample.id).encode())
                bar.update()
            if bad and not skip_bad:
                continue  # go on reading, to tell of every bad sample at once
            for output, values in zip(outputs, zip(*records)):
                output.put(list(zip(keys, values)))
            state.done += len(batch)
            state.chain = chains[state.done]
            state.written += len(keys)
            state.skipped += skipped
            state.left_out = dict(left_out)
            state.save(partial)
    if bad and not skip_bad:
        first, *others = bad.lines()
        for line in others:
            print(line, file=sys.stderr)
        raise UserError(f"{first}{bad.advise()}")
    if state.part:
        return  # the other parts may hold images
    if not state.written and state.left_out:
        reasons = "; ".join(f"{count} images: {reason}" for reason, count in state.left_out.items())
        raise UserError(f"{place}: the split would hold no image ({reasons})")
    if not state.written:
        raise UserError(f"{place}: every sample is bad, the first: {state.skipped[0]}{bad.advise()}")


def _records(sample: Sample, settings: Settings) -> tuple[bytes, ...]:
    """The image's and, where the sample has one, the label's Datum.

    Raises:
        UserError: the content is bad; names the file.
        LeftOut: the split is not meant to hold the sample.
    """
    try:
        pair = sample.read()
    except FileNotFoundError as error:
        raise SampleError(error.filename, "no such file") from None
    except OSError as error:
        if error.errno in _NOT_THE_SAMPLES:
            raise
        raise UserError(f"{error.filename or sample.id}: {error.strerror}") from None
    if (pair.label is None) != (sample.label_where is None):
        raise ValueError(f"{sample.id}: its label_where says otherwise of its label")
    image, label = pair.image, pair.label
    if label is not None:
        _check_label(label, image, sample.label_where, settings)
    if settings.image_scale != 1.0:
        pixels = shrink_image(decode_image(image.data), settings.image_scale)
        image = EncodedImage(encode_png(pixels), *pixels.shape[:2])
    image_record = pack_encoded(image.data, 3, image.height, image.width)
    if label is None:
        return (image_record,)
    label = label.astype(np.uint8)
    if settings.image_scale != 1.0:
        label = shrink_label(label, settings.image_scale)
    return image_record, pack_encoded(encode_png(label), 1, *label.shape)


def _check_label(label: np.ndarray, image: EncodedImage, where: str | None, settings: Settings) -> None:
    if label.shape != (image.height, image.width):
        raise UserError(
            f"{where}: the label is {label.shape[1]} x {label.shape[0]} (width x height), "
            f"its image {image.width} x {image.height}"
        )
    known = ((label >= 0) & (label < settings.classes)) | (label == settings.ignore_label)
    if not known.all():
        raise LabelRangeError(
            where,
            f"label value {label[~known].min()} is out of range: "
            f"0..{settings.classes - 1}, or {settings.ignore_label} for pixels to ignore",
            np.unique(label).tolist(),
        )


def _verify(partial: Path, place: Path, databases: Sequence[str], settings: Settings, state: _State) -> None:
    """Read everything back as a training will, and note the checksum, the pixels' sums and the classes' in `state`."""
    sums = np.zeros(3, np.int64)
    label_pixels = np.zeros(256, np.int64)
    pixels = 0
    with SplitReader(partial) as reader:
        if reader.has_labels != (LABELS in databases):
            raise UserError(f"{partial}: {LABELS} is missing, or one too many; delete the folder and start again")
        description = f"{place.parent.name}/{place.name} verified"
        for index in progress(range(len(reader)), description=description, unit="image"):
            image, label = reader.image(index), reader.label(index)
            if label is not None and label.shape != image.shape[:2]:
                raise UserError(f"{partial}: record {reader.keys()[index]}: image and label differ in size")
            if label is not None and ((label >= settings.classes) & (label != settings.ignore_label)).any():
                raise UserError(f"{partial}: record {reader.keys()[index]}: label out of range")
            if label is not None:
                label_pixels += np.bincount(label.ravel(), minlength=256)
            sums += image.reshape(-1, 3).sum(axis=0, dtype=np.int64)
            pixels += image.shape[0] * image.shape[1]
        if len(reader) != state.written:
            raise UserError(f"{partial}: {len(reader)} records instead of {state.written}; delete it and start again")
        state.sha256 = records_sha256(reader)
    state.pixels = pixels
    state.channel_sums = sums.tolist()
    state.label_pixels = label_pixels[: settings.classes].tolist() if LABELS in databases else []
    state.save(partial)


class _Database:
    """An LMDB that is being written and grows as needed; of what an earlier run left, the first `kept` records stay."""

    def __init__(self, folder: Path, kept: int) -> None:
        folder.mkdir(exist_ok=True)
        present = folder / "data.mdb"
        size = max(FIRST_MAP_SIZE, 2 * present.stat().st_size if present.exists() else 0)
        self._environment = lmdb.open(str(folder), map_size=size, mode=0o644)
        # A run killed between this commit and the note in split.json left more than was noted.
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            keys = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
        with self._environment.begin(write=True) as transaction:
            for key in keys[kept:]:
                transaction.delete(key)

    def __enter__(self) -> _Database:
        return self

    def __exit__(self, *details: object) -> None:
        self._environment.close()

    def put(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write the records in one transaction."""
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
