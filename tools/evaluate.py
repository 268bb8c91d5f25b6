"""Score predicted label maps against the truth: pixel accuracy, class accuracy, IoU of every class and their mean."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from renet.common.argument_types import fraction
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.parts import WHOLE, Part, add_part_argument, chosen_part
from renet.common.progress import progress
from renet.data.catalog import KNOWN, load_dataset
from renet.data.dataset import Dataset
from renet.data.image_ids import bare_suffix, find_labels, read_ids
from renet.data.split_reader import IMAGES, SplitReader
from renet.evaluation.bootstrap import add_draw_arguments
from renet.evaluation.boundaries import TOLERANCE
from renet.evaluation.score_parts import Subject, ids_sha256, write_part
from renet.evaluation.score_report import read_evaluation, tell_scores
from renet.evaluation.scores import Evaluation, LabelSource, Tally, evaluate_images
from renet.evaluation.sizes import SHARES, check_shares
from renet.evaluation.voc_submission import check_is_voc2012, image_sizes, write_submission
from renet.prediction.image_job import identity, read_record

EXAMPLES = """examples:
  tools/evaluate.py --predictions runs/n_renet/predictions --labels data/stanford_background/fold0/test \\
      --dataset stanford_background --json runs/n_renet/evaluation.json
  tools/evaluate.py --predictions predictions --labels VOC2012/SegmentationClass \\
      --list VOC2012/ImageSets/Segmentation/val.txt --dataset voc2012
  tools/evaluate.py --predictions runs/h_renet/predictions --compare runs/fcn/predictions --labels data/voc2012/val \
      --dataset voc2012 --boundaries --by-size
  tools/evaluate.py --predictions predictions --labels gtFine/val --label-suffix _gtFine_labelTrainIds \\
      --prediction-suffix _leftImg8bit --dataset data/cityscapes
  tools/evaluate.py --predictions predictions --labels data/x/test --dataset data/x --json scores.json --part 3/8
  tools/evaluate.py --predictions predictions --list VOC2012/ImageSets/Segmentation/test.txt \\
      --dataset voc2012 --comp6 submission        # writes submission/results/... and submission/results.tgz

The scores come from one confusion matrix over the whole set, as in the VOC development kit; pixels with the dataset's
ignored label (255) in the truth count nowhere. A class that neither truth nor prediction holds has no IoU and is left
out of the mean. Intervals come from a bootstrap over the images; one of a difference that excludes 0 says that other
images like these would most likely show it, too."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, metavar="DIR", help="predicted label maps, <image id>.png"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="DIR|SPLIT", help="the truth: label PNGs named by image id, or a prepared split"
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME|DATASET.JSON",
        help=f"class names: {', '.join(KNOWN)}, or a prepared dataset's dataset.json",
    )
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="score these images only: ids, names or paths, one a line"
    )
    parser.add_argument(
        "--label-suffix",
        default="",
        metavar="TEXT",
        help="what the labels' names end in after the image's, such as _gtFine_labelTrainIds",
    )
    parser.add_argument(
        "--prediction-suffix", default="", metavar="TEXT", help="what the predictions' names end in after the image's"
    )
    parser.add_argument(
        "--boundaries",
        type=fraction,
        nargs="?",
        const=TOLERANCE,
        metavar="TOLERANCE",
        help="also score the boundaries: accuracy and mean IoU within 1 to 40 pixels of them, and boundary F, for "
        "which they may lie so far apart, as a share of the image's diagonal (default: %(const)s)",
    )
    parser.add_argument(
        "--by-size",
        type=fraction,
        nargs="*",
        metavar="SHARE",
        help="also score small and large regions of the truth apart; the shares of the image between the bands may "
        f"follow (default: {' '.join(map(str, SHARES))})",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="DIR|JSON",
        help="compare with other predictions of the same images, paired by image: their folder, or their --json",
    )
    add_draw_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the scores and the counts here")
    parser.add_argument(
        "--comp6", type=Path, metavar="DIR", help="write and check a VOC submission: its tree and results.tgz"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="images scored at once (default: one for each core)",
    )
    add_part_argument(parser, "count in this share of the images alone; merge.py scores computes the scores of all")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Score, print the table, and write what was asked for.

    Raises:
        UserError: bad input, named.
    """
    part = chosen_part(arguments)
    if part != WHOLE:
        _check_goes_in_parts(arguments)
    dataset = load_dataset(arguments.dataset)
    if arguments.by_size is not None:
        arguments.by_size = tuple(arguments.by_size or SHARES)
        check_shares(arguments.by_size)
    if arguments.comp6:
        check_is_voc2012(dataset)
    if arguments.labels is None and not arguments.comp6:
        raise UserError("--labels is needed to score (--comp6 alone does without)")
    for option in ("json", "compare"):
        if arguments.labels is None and getattr(arguments, option):
            raise UserError(f"--{option} needs --labels: without the truth there are no scores")
    ids = read_ids(arguments.list, bare_suffix(arguments.label_suffix)) if arguments.list else None
    sizes = None
    if arguments.labels is not None:
        if _is_split_without_labels(arguments.labels):
            if not arguments.comp6:
                raise UserError(f"{arguments.labels}: this split has no labels, so nothing can be scored")
            sizes = image_sizes(arguments.labels)
            ids = list(sizes) if ids is None else ids
            unknown = [image_id for image_id in ids if image_id not in sizes]
            if unknown:
                raise UserError(f"{arguments.labels}: no image {unknown[0]!r}")
        else:
            source = LabelSource.open(arguments.labels, ids, bare_suffix(arguments.label_suffix))
            ids = list(source.ids)
            if part == WHOLE:
                _score_and_tell(arguments, dataset, source)
            else:
                _score_part(arguments, part, dataset, source)
    if arguments.comp6:
        if ids is None:
            ids = list(find_labels(arguments.predictions, bare_suffix(arguments.prediction_suffix)))
        suffix = bare_suffix(arguments.prediction_suffix)
        write_submission(arguments.predictions, ids, dataset, arguments.comp6, sizes, suffix)


def _check_goes_in_parts(arguments: argparse.Namespace) -> None:
    if not arguments.json:
        raise UserError("--part needs --json: the parts' counts lie beside that file, and merge.py writes it")
    for option, instead in (("compare", "merge.py compares"), ("comp6", "no part of a submission can be checked")):
        if getattr(arguments, option):
            raise UserError(f"--part does not go with --{option}: {instead}")


def _score_and_tell(arguments: argparse.Namespace, dataset: Dataset, source: LabelSource) -> None:
    other = None
    if arguments.compare is not None and not arguments.compare.is_dir():
        other = read_evaluation(arguments.compare)
    evaluation = _score(arguments, arguments.predictions, dataset, source)
    if arguments.compare is not None and other is None:
        other = _score(arguments, arguments.compare, dataset, source)
    draws = (arguments.resamples, arguments.seed)
    tell_scores(evaluation, dataset.name, *draws, arguments.json, other, arguments.compare)


def _score_part(arguments: argparse.Namespace, part: Part, dataset: Dataset, source: LabelSource) -> None:
    """Score a part of the images and write its counts."""
    record = read_record(arguments.predictions)
    of_labels = Dataset.of_split(source.folder) if source.is_split else None
    summary = None if of_labels is None else of_labels.summary_of(source.folder)
    subject = Subject(
        dataset=dataset.name,
        classes=list(dataset.classes),
        images=len(source.ids),
        image_ids_sha256=ids_sha256(source.ids),
        labels_sha256="" if summary is None else summary.sha256,
        predictions=None if record is None else list(identity(record)),
        boundary_tolerance=arguments.boundaries,
        size_shares=None if arguments.by_size is None else list(arguments.by_size),
    )
    share = replace(source, ids=tuple(part.share(source.ids)))
    tally = (
        _tally(arguments, arguments.predictions, dataset, share) if share.ids else Tally.of((), len(dataset.classes))
    )
    file = write_part(arguments.json, part, subject, tally)
    print(f"part {part}: {len(share.ids)} of {len(source.ids)} images scored: {file}")


def _score(arguments: argparse.Namespace, predictions: Path, dataset: Dataset, source: LabelSource) -> Evaluation:
    tally = _tally(arguments, predictions, dataset, source)
    try:
        evaluation = Evaluation.of_tally(tally, dataset.classes)
    except ValueError as error:
        raise UserError(f"{arguments.labels}: {error}") from None
    extra = set(find_labels(predictions, bare_suffix(arguments.prediction_suffix))) - set(source.ids)
    if extra:
        print(f"evaluate.py: {len(extra)} predictions are of images that are not scored", file=sys.stderr)
    return evaluation


def _tally(arguments: argparse.Namespace, predictions: Path, dataset: Dataset, source: LabelSource) -> Tally:
    results = evaluate_images(
        predictions,
        source,
        len(dataset.classes),
        dataset.ignore_label,
        arguments.processes,
        bare_suffix(arguments.prediction_suffix),
        arguments.boundaries,
        arguments.by_size,
    )
    bar = progress(results, total=len(source.ids), description="scoring", unit="image")
    return Tally.of(bar, len(dataset.classes))


def _is_split_without_labels(folder: Path) -> bool:
    if not (folder / IMAGES).is_dir():
        return False
    with SplitReader(folder) as reader:
        return not reader.has_labels


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
