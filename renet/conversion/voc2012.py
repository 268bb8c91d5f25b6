"""PASCAL VOC 2012 segmentation, with the labels of SBD for more training images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from renet.common.errors import UserError, first_line
from renet.conversion.prepare import OutputOptions, file_fingerprint, framed, prepare
from renet.data.catalog import VOC2012
from renet.data.dataset import Dataset
from renet.data.image_formats import read_image_bytes
from renet.data.image_ids import named_file, read_ids
from renet.data.images import LabelFrame, normalise, read_index_png
from renet.data.split_writer import Pair, Sample

_MATLAB_HEADER = 128  # bytes
_MATLAB_COMPRESSED = 15  # type of a part that zlib packed
_MOST_MATLAB_BYTES = 1 << 26  # SBD's images have 500 x 500 pixels at most
SBD_IMAGE_COUNT = 11355  # train 8498, val 2857
LISTED = ("train", "val", "trainval")
AUGMENTED = ("trainaug", "trainvalaug")
AUGMENTED_LISTS = {  # the names under which people pass them on
    "trainaug": ("trainaug.txt", "train_aug.txt"),
    "trainvalaug": ("trainvalaug.txt", "trainval_aug.txt"),
}


LISTS = Path("ImageSets/Segmentation")
IMAGE_FOLDER, LABEL_FOLDER, AUGMENTED_LABEL_FOLDER = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
SBD_IMAGE_FOLDER, SBD_LABEL_FOLDER = "img", "cls"


@dataclass(frozen=True)
class Source:
    """Files of the distributions.

    Attributes:
        voc: the folder VOC2012.
        sbd: SBD's folder `dataset`, or None.
        aug: the folder of label PNGs of more images, or None.
        voc_labelled: the images that have VOC's own labels and must not get others'.
    """

    voc: Path
    sbd: Path | None = None
    aug: Path | None = None
    voc_labelled: frozenset[str] = frozenset()

    def image(self, image_id: str) -> Path:
        """Find an image: VOC's copy, or SBD's where VOC's folder lacks it."""
        file = named_file(self.voc / IMAGE_FOLDER, image_id, ".jpg")
        if self.sbd is not None and not file.is_file():
            beside = named_file(self.sbd / SBD_IMAGE_FOLDER, image_id, ".jpg")
            return beside if beside.is_file() else file
        return file

    def label(self, image_id: str) -> Path:
        """Find a label: VOC's PNG, or one of the folder `aug`, or SBD's Matlab file; VOC's place where there is
        none."""
        own = named_file(self.voc / LABEL_FOLDER, image_id, ".png")
        if image_id in self.voc_labelled or own.is_file():
            return own
        others = [named_file(self.aug, image_id, ".png")] if self.aug else []
        others += [named_file(self.sbd / SBD_LABEL_FOLDER, image_id, ".mat")] if self.sbd else []
        return next((file for file in others if file.is_file()), others[-1] if others else own)


def find_voc(folder: Path, part: Path = LISTS) -> Path:
    """Find the folder VOC2012: `folder` itself, or within it.

    Raises:
        UserError: none of these has the folder `part`, by default that of the segmentation lists.
    """
    candidates = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
    for one in candidates:
        if (one / part).is_dir():
            return one
    raise UserError(f"{folder / part}: no such folder; --voc is the folder VOC2012 or the VOCdevkit that holds it")


def find_sbd(folder: Path) -> Path:
    """Find SBD's folder `dataset`: `folder` itself, or within it.

    Raises:
        UserError: none of these has labels.
    """
    candidates = (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset")
    for one in candidates:
        if (one / SBD_LABEL_FOLDER).is_dir():
            return one
    raise UserError(
        f"{folder / SBD_LABEL_FOLDER}: no such folder; --sbd is SBD's folder dataset or the benchmark_RELEASE that "
        "holds it"
    )


def read_splits(voc: Path, augmented: bool = True) -> dict[str, list[str]]:
    """Read the ids of train, val, trainval, trainaug and trainvalaug where there is a list, and of test where there are
    images of it, too.

        Args:
            voc: the folder VOC2012.
            augmented: read lists of trainaug and trainvalaug.

        Raises:
            UserError: there is no list of a training set, one is empty, or they contradict each other.
    """
    folder = voc / LISTS
    names = {split: (f"{split}.txt",) for split in LISTED} | (AUGMENTED_LISTS if augmented else {})
    present = {
        split: next((folder / name for name in of if (folder / name).is_file()), None) for split, of in names.items()
    }
    splits = {split: read_ids(file) for split, file in present.items() if file is not None}
    for split in LISTED:
        if split not in splits:
            print(f"no split {split}: there is no {folder / split}.txt")
    if not any(split.startswith("train") for split in splits):
        raise UserError(f"{folder / 'train.txt'}: no such file, nor another list of training images")
    check_disjoint(splits, folder)
    if "trainaug" in splits and "val" in splits:
        splits.setdefault("trainvalaug", [*splits["trainaug"], *splits["val"]])
    file = folder / "test.txt"
    if not file.exists():
        print(f"no split test: there is no {file}")
        return splits
    ids = read_ids(file)
    if any((voc / IMAGE_FOLDER / f"{one}.jpg").is_file() for one in ids):
        return splits | {"test": ids}
    print(f"no split test: {voc / IMAGE_FOLDER} has none of the {len(ids)} images that {file.name} lists")
    return splits


def check_disjoint(splits: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Make sure that no test image is among the training images.

    Raises:
        UserError: lists share images that they must not share; names `folder` and one of them.
    """
    for split in ("train", "trainaug"):
        shared = set(splits.get(split, ())) & set(splits.get("val", ()))
        if shared:
            raise UserError(f"{folder}: {min(shared)} is in both {split}.txt and val.txt ({len(shared)} such ids)")
    if set(LISTED) <= splits.keys():
        different = set(splits["trainval"]) ^ (set(splits["train"]) | set(splits["val"]))
        if different:
            raise UserError(
                f"{folder / 'trainval.txt'}: is not train.txt and val.txt together: they differ in {min(different)} "
                f"({len(different)} such ids)"
            )


def named_splits(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read the ids of --split NAME=LIST.

    Raises:
        UserError: another form, a name that VOC has not, one twice, none for training, or lists that share images.
    """
    splits: dict[str, list[str]] = {}
    for text in texts:
        split, _, file = text.partition("=")
        if split not in VOC2012.images or not file or split in splits:
            known = ", ".join(VOC2012.images)
            raise UserError(f"--split {text}: is not NAME=LIST, once for each name, with a NAME of {known}")
        splits[split] = read_ids(Path(file))
    if not any(split.startswith("train") for split in splits):
        raise UserError(
            f"--split: {', '.join(splits)} alone; one of {', '.join(LISTED[::2] + AUGMENTED)} is to train on"
        )
    check_disjoint(splits, Path("--split"))
    return splits


def read_sbd_ids(sbd: Path) -> list[str]:
    """Read all ids of SBD, those of its train and then those of its val.

    Raises:
        UserError: a list is missing or empty, or they share an image.
    """
    train, val = (read_ids(sbd / f"{split}.txt") for split in ("train", "val"))
    shared = set(train) & set(val)
    if shared:
        raise UserError(f"{sbd}: {min(shared)} is in both train.txt and val.txt ({len(shared)} such ids)")
    return train + val


def augment(splits: Mapping[str, Sequence[str]], sbd_ids: Sequence[str]) -> dict[str, list[str]]:
    """List the ids of trainaug (VOC's train and what SBD has beyond VOC's train and val) and trainvalaug (and VOC's
    val).

    Raises:
        UserError: train or val is missing.
    """
    if "train" not in splits or "val" not in splits:
        raise UserError(f"{LISTS}: SBD's images beyond VOC's train and val are wanted, but a list of these is missing")
    train, val = splits["train"], splits["val"]
    known = {*train, *val}
    trainaug = [*train, *(one for one in sbd_ids if one not in known)]
    assert not set(trainaug) & set(val), "a test image among the training images"
    return dict(zip(AUGMENTED, (trainaug, [*trainaug, *val])))


def check_counts(splits: Mapping[str, Sequence[str]], sbd_ids: Sequence[str] | None) -> list[str]:
    """Hold the splits against the sizes that they have in the whole dataset.

    Returns:
        One line for each split that is not whole.

    Raises:
        UserError: a split holds more than there is, or whole lists do not give the paper's training sets.
    """
    complete = all(len(splits.get(split, ())) == VOC2012.images[split] for split in LISTED)
    if sbd_ids is not None:
        if len(sbd_ids) > SBD_IMAGE_COUNT:
            raise UserError(f"SBD's lists name {len(sbd_ids)} images; SBD has {SBD_IMAGE_COUNT}")
        complete = complete and len(sbd_ids) == SBD_IMAGE_COUNT
    lines = []
    for split, ids in splits.items():
        if len(ids) == VOC2012.images[split]:
            continue
        wrong = complete and sbd_ids is not None if split in AUGMENTED else len(ids) > VOC2012.images[split]
        if wrong:
            raise UserError(f"the split {split} would have {len(ids)} images; it has {VOC2012.images[split]} by right")
        lines.append(f"{split}: {len(ids)} images instead of {VOC2012.images[split]}")
    if any(split in splits for split in AUGMENTED) and len(splits.get("val", ())) < VOC2012.images["val"]:
        lines.append("val is not whole, so trainaug may hold images that are test images by right")
    return lines


def read_sbd_label(data: bytes, where: str) -> np.ndarray:
    """Read the class numbers in one of SBD's Matlab files: H x W, 0..20.

    Raises:
        UserError: broken, another content, or a value out of range (SBD ignores no pixel); names `where`.
    """
    try:
        content = loadmat(io.BytesIO(_unpacked(data)), variable_names=["GTcls"])
    except Exception as error:  # the reader raises many kinds for what is broken
        raise UserError(f"{where}: not a Matlab file that can be read ({first_line(error)})") from None
    try:
        label = content["GTcls"][0]["Segmentation"][0]
    except (KeyError, IndexError, ValueError):
        raise UserError(f"{where}: holds no GTcls with a Segmentation, as SBD's labels of classes do") from None
    if not isinstance(label, np.ndarray) or label.ndim != 2 or label.dtype.kind not in "ui":
        raise UserError(f"{where}: its GTcls.Segmentation is no matrix of whole numbers")
    wrong = label[(label < 0) | (label >= len(VOC2012.classes))]
    if wrong.size:
        raise UserError(f"{where}: label value {wrong[0]} is out of range: 0..{len(VOC2012.classes) - 1}")
    return label


def _unpacked(data: bytes) -> bytes:
    """A Matlab file (of version 5) whose compressed parts are unpacked, up to a size.

    Raises:
        ValueError: they are larger; zlib.error: broken.
    """
    parts, place = [data[:_MATLAB_HEADER]], _MATLAB_HEADER
    order = "<" if data[_MATLAB_HEADER - 2 : _MATLAB_HEADER] == b"IM" else ">"
    left = _MOST_MATLAB_BYTES
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        whole = data[place : place + 8 + size]
        if kind == _MATLAB_COMPRESSED:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(whole[8:], left)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it unpacks to more than {_MOST_MATLAB_BYTES >> 20} MiB")
        left -= len(whole)
        parts.append(whole)
        place += 8 + size
    return b"".join(parts)


def read_pair(image: Path, label: Path, label_frame: LabelFrame) -> Pair:
    """Read one image and its labels: a PNG's numbers, not its colours (255 at edges and what is too hard), or SBD's."""
    read = read_sbd_label if label.suffix == ".mat" else read_index_png
    values = read(read_image_bytes(label), str(label))
    return Pair(normalise(read_image_bytes(image), str(image), values.shape, label_frame), values)


def read_test_image(image: Path) -> Pair:
    """Read one image of the test set, whose labels are not published."""
    return Pair(normalise(read_image_bytes(image), str(image)), None)


def make_samples(source: Source, split: str, ids: Sequence[str], label_frame: LabelFrame) -> list[Sample]:
    """List the samples of these ids, in their order."""
    samples = []
    for one in ids:
        image = source.image(one)
        if split == "test":
            read = partial(read_test_image, image)
            samples.append(Sample(one, file_fingerprint(image), read, None))
            continue
        label = source.label(one)
        fingerprint = framed(file_fingerprint(image, label), label_frame)
        samples.append(Sample(one, fingerprint, partial(read_pair, image, label, label_frame), str(label)))
    return samples


def find_labels(folder: Path | None, voc: Path) -> Path | None:
    """Find the folder of label PNGs of more images than VOC has labelled: `folder`, or VOC's SegmentationClassAug.

    Returns:
        None where there is none.

    Raises:
        UserError: `folder` is no folder.
    """
    if folder is None:
        beside = voc / AUGMENTED_LABEL_FOLDER
        return beside if beside.is_dir() else None
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --aug is a folder of label PNGs")
    return folder


def convert(
    output: OutputOptions, voc: Path, sbd: Path | None = None, aug: Path | None = None, named: Sequence[str] = ()
) -> Dataset:
    """Prepare VOC 2012's splits and, where there are labels for them, the augmented training sets.

    Args:
        output: where to and how.
        voc: the folder VOC2012 or one above it, see `find_voc`.
        sbd: SBD's folder `dataset` or one above it, see `find_sbd`.
        aug: see `find_labels`.
        named: the texts of --split, see `named_splits`; without them the splits are those of VOC's lists.

    Raises:
        UserError: files are missing or contradict each other; see `prepare`.
    """
    voc = find_voc(voc, Path(IMAGE_FOLDER) if named else LISTS)
    sbd = None if sbd is None else find_sbd(sbd)
    aug = find_labels(aug, voc)
    voc_labelled: frozenset[str] = frozenset()
    if named:
        splits = named_splits(named)
        incomplete = [f"{split}: {len(ids)} images of {VOC2012.images[split]}" for split, ids in splits.items()]
    else:
        splits = read_splits(voc, augmented=sbd is None)
        sbd_ids = None if sbd is None else read_sbd_ids(sbd)
        if sbd_ids is not None:
            splits |= augment(splits, sbd_ids)
        incomplete = check_counts(splits, sbd_ids)
        if all(len(splits.get(split, ())) == VOC2012.images[split] for split in LISTED):
            voc_labelled = frozenset(splits["trainval"])
    if incomplete:
        print("this is a part of the dataset, which serves for trials; the paper's figures are of the whole one:")
        for line in incomplete:
            print(f"  {line}")
    if aug is not None and not splits.keys() & set(AUGMENTED):
        print(f"{aug}: no list of images with these labels, such as train_aug.txt; --split trainaug=LIST names one")
    source = Source(voc, sbd, aug, voc_labelled)
    return prepare(
        output,
        name=VOC2012.name,
        classes=VOC2012.classes,
        palette=VOC2012.palette,
        splits={split: make_samples(source, split, ids, output.label_frame) for split, ids in splits.items()},
        training=[next(split for split in ("trainaug", "train", "trainvalaug", "trainval") if split in splits)],
    )
