"""PASCAL VOC 2012 segmentation to LMDB splits, with the labels of SBD for more training images.

VOC's development kit as distributed, and SBD's (Hariharan et al., "Semantic contours from inverse detectors", ICCV
2011): the paper's section 4.2 trains on the images of both and tests on VOC's val and test.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from data_prep.command_line import UserError, run
from data_prep.image_ids import read_ids
from data_prep.images import normalise, read_index_png
from data_prep.known_datasets import VOC2012_CLASSES, VOC2012_PALETTE
from data_prep.prepare import add_output_arguments, file_fingerprint, prepare
from data_prep.split_writer import Pair, Sample

NAME = "voc2012"
IMAGES = {"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582, "trainvalaug": 12031, "test": 1456}
SBD_IMAGES = 11355  # train 8498, val 2857
LISTED = ("train", "val", "trainval")
AUGMENTED = ("trainaug", "trainvalaug")
LISTS = Path("ImageSets/Segmentation")
PICTURES, LABELS = "JPEGImages", "SegmentationClass"
SBD_PICTURES, SBD_LABELS = "img", "cls"

EXAMPLE = """\
examples:
  # VOC's own splits: train, val, trainval, and test where VOC2012test.tar is unpacked into the same folder
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit/VOC2012 --out data/voc2012

  # with SBD also trainaug (10,582 images) and trainvalaug (12,031), the paper's training sets
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --sbd benchmark_RELEASE --out data/voc2012

  VOCdevkit/VOC2012/  JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val,trainval,test}.txt
  benchmark_RELEASE/dataset/  img/*.jpg, cls/*.mat, train.txt, val.txt
"""


@dataclass(frozen=True)
class Source:
    """The distributions' files.

    Attributes:
        voc: the folder VOC2012.
        sbd: SBD's folder `dataset`, or None.
    """

    voc: Path
    sbd: Path | None = None

    def image(self, image_id: str) -> Path:
        """A picture: VOC's copy, or SBD's where VOC's folder lacks it."""
        file = self.voc / PICTURES / f"{image_id}.jpg"
        if self.sbd is not None and not file.is_file():
            beside = self.sbd / SBD_PICTURES / f"{image_id}.jpg"
            return beside if beside.is_file() else file
        return file

    def voc_label(self, image_id: str) -> Path:
        """The label PNG of VOC."""
        return self.voc / LABELS / f"{image_id}.png"

    def sbd_label(self, image_id: str) -> Path:
        """The Matlab file of SBD."""
        assert self.sbd is not None, "only SBD's lists name images with its labels"
        return self.sbd / SBD_LABELS / f"{image_id}.mat"


def find_voc(folder: Path) -> Path:
    """The folder VOC2012: `folder` itself, or within it.

    Raises:
        UserError: none of these has the lists of the segmentation splits.
    """
    candidates = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
    for one in candidates:
        if (one / LISTS).is_dir():
            return one
    raise UserError(f"{folder / LISTS}: no such folder; --voc is the folder VOC2012 or the VOCdevkit that holds it")


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


def read_splits(voc: Path) -> dict[str, list[str]]:
    """The ids of train, val and trainval by VOC's lists, and of test where there is a list and pictures of it.

    Raises:
        UserError: a list is missing or empty, or they contradict each other.
    """
    splits = {split: read_ids(voc / LISTS / f"{split}.txt") for split in LISTED}
    shared = set(splits["train"]) & set(splits["val"])
    if shared:
        raise UserError(f"{voc / LISTS}: {min(shared)} is in both train.txt and val.txt ({len(shared)} such ids)")
    different = set(splits["trainval"]) ^ (set(splits["train"]) | set(splits["val"]))
    if different:
        raise UserError(
            f"{voc / LISTS / 'trainval.txt'}: is not train.txt and val.txt together: they differ in {min(different)} "
            f"({len(different)} such ids)"
        )
    file = voc / LISTS / "test.txt"
    if not file.exists():
        print(f"no split test: there is no {file}")
        return splits
    ids = read_ids(file)
    if any((voc / PICTURES / f"{one}.jpg").is_file() for one in ids):
        return splits | {"test": ids}
    print(f"no split test: {voc / PICTURES} has none of the {len(ids)} images that {file.name} lists")
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
    """The ids of trainaug (VOC's train and what SBD has beyond VOC's train and val) and trainvalaug (and VOC's val)."""
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
    complete = all(len(splits[split]) == IMAGES[split] for split in LISTED)
    if sbd_ids is not None:
        if len(sbd_ids) > SBD_IMAGES:
            raise UserError(f"SBD's lists name {len(sbd_ids)} images; SBD has {SBD_IMAGES}")
        complete = complete and len(sbd_ids) == SBD_IMAGES
    lines = []
    for split, ids in splits.items():
        if len(ids) == IMAGES[split]:
            continue
        if complete if split in AUGMENTED else len(ids) > IMAGES[split]:
            raise UserError(f"the split {split} would have {len(ids)} images; it has {IMAGES[split]} by right")
        lines.append(f"{split}: {len(ids)} images instead of {IMAGES[split]}")
    if sbd_ids is not None and len(splits["val"]) < IMAGES["val"]:
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
    wrong = label[(label < 0) | (label >= len(VOC2012_CLASSES))]
    if wrong.size:
        raise UserError(f"{where}: label value {wrong[0]} is out of range: 0..{len(VOC2012_CLASSES) - 1}")
    return label


def read_voc_pair(image: Path, label: Path) -> Pair:
    """One picture and VOC's labels: the PNG's numbers, not its colours; 255 at edges and what is too hard."""
    values = read_index_png(label.read_bytes(), str(label))
    return Pair(normalise(image.read_bytes(), str(image), values.shape), values)


def read_sbd_pair(image: Path, label: Path) -> Pair:
    """One picture and SBD's labels."""
    values = read_sbd_label(label.read_bytes(), str(label))
    return Pair(normalise(image.read_bytes(), str(image), values.shape), values)


def read_test_image(image: Path) -> Pair:
    """One picture of the test set, whose labels are not published."""
    return Pair(normalise(image.read_bytes(), str(image)), None)


def make_samples(source: Source, split: str, ids: Sequence[str], voc_labelled: set[str]) -> list[Sample]:
    """The samples of these ids, in their order; those in `voc_labelled` get VOC's labels, the others SBD's."""
    samples = []
    for one in ids:
        image = source.image(one)
        if split == "test":
            read = partial(read_test_image, image)
            samples.append(Sample(one, file_fingerprint(image), read, None))
            continue
        of_voc = one in voc_labelled
        label = source.voc_label(one) if of_voc else source.sbd_label(one)
        read = partial(read_voc_pair if of_voc else read_sbd_pair, image, label)
        samples.append(Sample(one, file_fingerprint(image, label), read, str(label)))
    return samples


def main(arguments: argparse.Namespace) -> None:
    """Prepare the dataset as the command line says."""
    source = Source(find_voc(arguments.voc), find_sbd(arguments.sbd) if arguments.sbd else None)
    splits = read_splits(source.voc)
    voc_labelled = set(splits["trainval"])
    sbd_ids = None
    if source.sbd is not None:
        sbd_ids = read_sbd_ids(source.sbd)
        splits |= augment(splits, sbd_ids)
    incomplete = check_counts(splits, sbd_ids)
    if incomplete:
        print("this is a part of the dataset, which serves for trials; the paper's figures are of the whole one:")
        for line in incomplete:
            print(f"  {line}")
    prepare(
        arguments.out,
        name=NAME,
        classes=VOC2012_CLASSES,
        palette=VOC2012_PALETTE,
        splits={split: make_samples(source, split, ids, voc_labelled) for split, ids in splits.items()},
        training=["train" if sbd_ids is None else "trainaug"],
        image_scale=arguments.image_scale,
        skip_bad=arguments.skip_bad,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voc2012.py",
        description="PASCAL VOC 2012 to LMDB splits train, val, trainval and test (without labels); with SBD also "
        "trainaug and trainvalaug.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--voc", type=Path, required=True, metavar="DIR", help="the folder VOC2012, or the VOCdevkit that holds it"
    )
    parser.add_argument(
        "--sbd", type=Path, metavar="DIR", help="SBD: the folder benchmark_RELEASE, or the dataset within it"
    )
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
