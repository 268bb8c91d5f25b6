"""PASCAL VOC 2012 segmentation, with the labels of SBD for more training images."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from renet.common.errors import UserError
from renet.conversion.prepare import file_fingerprint, framed
from renet.data.catalog import VOC2012
from renet.data.image_ids import read_ids
from renet.data.images import LabelFrame, normalise, read_index_png
from renet.data.split_writer import Pair, Sample

SBD_IMAGES = 11355  # train 8498, val 2857
LISTED = ("train", "val", "trainval")
AUGMENTED = ("trainaug", "trainvalaug")
AUGMENTED_LISTS = {  # the names under which people pass them on
    "trainaug": ("trainaug.txt", "train_aug.txt"),
    "trainvalaug": ("trainvalaug.txt", "trainval_aug.txt"),
}


LISTS = Path("ImageSets/Segmentation")
PICTURES, LABELS, AUGMENTED_LABELS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
SBD_PICTURES, SBD_LABELS = "img", "cls"


@dataclass(frozen=True)
class Source:
    """The distributions' files.

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
        """A picture: VOC's copy, or SBD's where VOC's folder lacks it."""
        file = self.voc / PICTURES / f"{image_id}.jpg"
        if self.sbd is not None and not file.is_file():
            beside = self.sbd / SBD_PICTURES / f"{image_id}.jpg"
            return beside if beside.is_file() else file
        return file

    def label(self, image_id: str) -> Path:
        """The label: VOC's PNG, or one of the folder `aug`, or SBD's Matlab file; VOC's place where there is none."""
        own = self.voc / LABELS / f"{image_id}.png"
        if image_id in self.voc_labelled or own.is_file():
            return own
        others = [self.aug / f"{image_id}.png"] if self.aug else []
        others += [self.sbd / SBD_LABELS / f"{image_id}.mat"] if self.sbd else []
        return next((file for file in others if file.is_file()), others[-1] if others else own)


def find_voc(folder: Path, part: Path = LISTS) -> Path:
    """The folder VOC2012: `folder` itself, or within it.

    Raises:
        UserError: none of these has the folder `part`, by default that of the segmentation lists.
    """
    candidates = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
    for one in candidates:
        if (one / part).is_dir():
            return one
    raise UserError(f"{folder / part}: no such folder; --voc is the folder VOC2012 or the VOCdevkit that holds it")


def find_sbd(folder: Path) -> Path:
    """SBD's folder `dataset`: `folder` itself, or within it.

    Raises:
        UserError: none of these has labels.
    """
    candidates = (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset")
    for one in candidates:
        if (one / SBD_LABELS).is_dir():
            return one
    raise UserError(
        f"{folder / SBD_LABELS}: no such folder; --sbd is SBD's folder dataset or the benchmark_RELEASE that holds it"
    )


def read_splits(voc: Path, augmented: bool = True) -> dict[str, list[str]]:
    """The ids of train, val, trainval, trainaug and trainvalaug where there is a list, and of test where there are
    pictures of it, too.

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
    if any((voc / PICTURES / f"{one}.jpg").is_file() for one in ids):
        return splits | {"test": ids}
    print(f"no split test: {voc / PICTURES} has none of the {len(ids)} images that {file.name} lists")
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
    """The ids of --split NAME=LIST.

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
    """All ids of SBD, those of its train and then those of its val.

    Raises:
        UserError: a list is missing or empty, or they share an image.
    """
    train, val = (read_ids(sbd / f"{split}.txt") for split in ("train", "val"))
    shared = set(train) & set(val)
    if shared:
        raise UserError(f"{sbd}: {min(shared)} is in both train.txt and val.txt ({len(shared)} such ids)")
    return train + val


def augment(splits: Mapping[str, Sequence[str]], sbd_ids: Sequence[str]) -> dict[str, list[str]]:
    """The ids of trainaug (VOC's train and what SBD has beyond VOC's train and val) and trainvalaug (and VOC's val).

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
        if len(sbd_ids) > SBD_IMAGES:
            raise UserError(f"SBD's lists name {len(sbd_ids)} images; SBD has {SBD_IMAGES}")
        complete = complete and len(sbd_ids) == SBD_IMAGES
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
    """The class numbers in one of SBD's Matlab files: H x W, 0..20.

    Raises:
        UserError: broken, another content, or a value out of range (SBD ignores no pixel); names `where`.
    """
    try:
        content = loadmat(io.BytesIO(data), variable_names=["GTcls"])
    except Exception as error:  # the reader raises many kinds for what is broken
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{where}: not a Matlab file that can be read ({reason})") from None
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


def read_pair(image: Path, label: Path, label_frame: LabelFrame) -> Pair:
    """One picture and its labels: a PNG's numbers, not its colours (255 at edges and what is too hard), or SBD's."""
    read = read_sbd_label if label.suffix == ".mat" else read_index_png
    values = read(label.read_bytes(), str(label))
    return Pair(normalise(image.read_bytes(), str(image), values.shape, label_frame), values)


def read_test_image(image: Path) -> Pair:
    """One picture of the test set, whose labels are not published."""
    return Pair(normalise(image.read_bytes(), str(image)), None)


def make_samples(source: Source, split: str, ids: Sequence[str], label_frame: LabelFrame) -> list[Sample]:
    """The samples of these ids, in their order."""
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


def find_labels(arguments: argparse.Namespace, voc: Path) -> Path | None:
    """The folder of label PNGs of more images than VOC has labelled: --aug, or SegmentationClassAug if it is there.

    Raises:
        UserError: --aug is no folder.
    """
    if arguments.aug is None:
        folder = voc / AUGMENTED_LABELS
        return folder if folder.is_dir() else None
    if not arguments.aug.is_dir():
        raise UserError(f"{arguments.aug}: no such folder; --aug is a folder of label PNGs")
    return arguments.aug
