"""PASCAL VOC 2012 segmentation to LMDB splits, with the labels of SBD for more training images.

VOC's development kit as distributed, and SBD's (Hariharan et al., "Semantic contours from inverse detectors", ICCV
2011): the paper's section 4.2 trains on the images of both and tests on VOC's val and test.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.command_line import run
from renet.conversion.options import add_output_arguments
from renet.conversion.prepare import prepare
from renet.conversion.voc2012 import (
    AUGMENTED,
    AUGMENTED_LABELS,
    LISTED,
    LISTS,
    PICTURES,
    Source,
    augment,
    check_counts,
    find_labels,
    find_sbd,
    find_voc,
    make_samples,
    named_splits,
    read_sbd_ids,
    read_splits,
)
from renet.data.catalog import VOC2012
from renet.data.images import LabelFrame

EXAMPLE = """\
examples:
  # VOC's own splits: train, val, trainval, and test where VOC2012test.tar is unpacked into the same folder
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit/VOC2012 --out data/voc2012

  # with SBD also trainaug (10,582 images) and trainvalaug (12,031), the paper's training sets
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --sbd benchmark_RELEASE --out data/voc2012

  # the same labels as PNGs: SegmentationClassAug in the folder VOC2012, train_aug.txt among the lists or anywhere
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --out data/voc2012
  .venv/bin/python data_prep/voc2012.py --voc VOCdevkit --aug SegmentationClassAug --split trainaug=train_aug.txt \\
      --split val=val.txt --out data/voc2012

  VOCdevkit/VOC2012/  JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val,trainval,test}.txt
  benchmark_RELEASE/dataset/  img/*.jpg, cls/*.mat, train.txt, val.txt
"""


def main(arguments: argparse.Namespace) -> None:
    """Prepare the dataset as the command line says."""
    voc = find_voc(arguments.voc, LISTS if not arguments.split else Path(PICTURES))
    sbd = find_sbd(arguments.sbd) if arguments.sbd else None
    aug = find_labels(arguments, voc)
    sbd_ids = None
    voc_labelled: frozenset[str] = frozenset()
    if arguments.split:
        splits = named_splits(arguments.split)
        incomplete = [f"{split}: {len(ids)} images of {VOC2012.images[split]}" for split, ids in splits.items()]
    else:
        splits = read_splits(voc, augmented=sbd is None)
        if sbd is not None:
            sbd_ids = read_sbd_ids(sbd)
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
    frame = LabelFrame(arguments.label_frame)
    prepare(
        arguments.out,
        name=VOC2012.name,
        classes=VOC2012.classes,
        palette=VOC2012.palette,
        splits={split: make_samples(source, split, ids, frame) for split, ids in splits.items()},
        training=[next(split for split in ("trainaug", "train", "trainvalaug", "trainval") if split in splits)],
        image_scale=arguments.image_scale,
        skip_bad=arguments.skip_bad,
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voc2012.py",
        description="PASCAL VOC 2012 to LMDB splits train, val, trainval and test (without labels); with SBD's labels "
        "also trainaug and trainvalaug.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--voc", type=Path, required=True, metavar="DIR", help="the folder VOC2012, or the VOCdevkit that holds it"
    )
    parser.add_argument(
        "--sbd", type=Path, metavar="DIR", help="SBD: the folder benchmark_RELEASE, or the dataset within it"
    )
    parser.add_argument(
        "--aug",
        type=Path,
        metavar="DIR",
        help=f"label PNGs of more images (default: {AUGMENTED_LABELS} in the folder VOC2012, if it is there)",
    )
    parser.add_argument(
        "--split",
        action="append",
        metavar="NAME=LIST",
        help=f"take this list, once for each of {', '.join(VOC2012.images)} that is wanted, in place of those in "
        f"{LISTS}: ids or paths, or pairs of an image and its label",
    )
    add_output_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
