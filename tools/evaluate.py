"""Score predicted label maps against the truth: pixel accuracy, class accuracy, IoU of every class and their mean."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from renet.common.argument_types import fraction, whole_number
from renet.common.command_line import run
from renet.common.errors import UserError
from renet.common.files import write_atomically
from renet.common.progress import progress
from renet.common.text_files import read_json_object
from renet.data.catalog import KNOWN, load_dataset
from renet.data.dataset import Dataset
from renet.data.image_ids import bare_suffix, find_labels, read_ids
from renet.data.split_reader import IMAGES, SplitReader
from renet.evaluation.bootstrap import RESAMPLES, plain
from renet.evaluation.boundaries import TOLERANCE
from renet.evaluation.score_table import format_comparison, format_table
from renet.evaluation.scores import Evaluation, LabelSource, evaluate_images
from renet.evaluation.sizes import SHARES, check_shares
from renet.evaluation.voc_submission import check_is_voc2012, image_sizes, write_submission

EXAMPLES = """examples:
  tools/evaluate.py --predictions runs/n_renet/predictions --labels data/stanford_background/fold0/test \\
      --dataset stanford_background --json runs/n_renet/evaluation.json
  tools/evaluate.py --predictions predictions --labels VOC2012/SegmentationClass \\
      --list VOC2012/ImageSets/Segmentation/val.txt --dataset voc2012
  tools/evaluate.py --predictions runs/h_renet/predictions --compare runs/fcn/predictions --labels data/voc2012/val \
      --dataset voc2012 --boundaries --by-size
  tools/evaluate.py --predictions predictions --labels gtFine/val --label-suffix _gtFine_labelTrainIds \\
      --prediction-suffix _leftImg8bit --dataset data/cityscapes
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
    parser.add_argument(
        "--resamples",
        type=whole_number(0),
        default=RESAMPLES,
        metavar="N",
        help="of the bootstrap over images; 0 leaves intervals out (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help="of the bootstrap (default: %(default)s)"
    )
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
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Score, print the table, and write what was asked for.

    Raises:
        UserError: bad input, named.
    """
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
            _score_and_tell(arguments, dataset, source)
    if arguments.comp6:
        if ids is None:
            ids = list(find_labels(arguments.predictions, bare_suffix(arguments.prediction_suffix)))
        suffix = bare_suffix(arguments.prediction_suffix)
        write_submission(arguments.predictions, ids, dataset, arguments.comp6, sizes, suffix)


def _score_and_tell(arguments: argparse.Namespace, dataset: Dataset, source: LabelSource) -> None:
    other = None
    if arguments.compare is not None and not arguments.compare.is_dir():
        other = _read_evaluation(arguments.compare)
    evaluation = _score(arguments, arguments.predictions, dataset, source)
    if arguments.compare is not None and other is None:
        other = _score(arguments, arguments.compare, dataset, source)
    draws = {"resamples": arguments.resamples, "seed": arguments.seed}
    intervals = evaluation.intervals(**draws)
    content = {"dataset": dataset.name, **evaluation.as_json(with_images=True)}
    content["intervals"] = {**draws, **{name: plain(bounds) for name, bounds in intervals.items()}}
    print(format_table(evaluation, dataset.name, intervals))
    if other is not None:
        try:
            found = evaluation.compared_with(other, **draws)
        except UserError as error:
            raise UserError(f"{arguments.compare}: {error}") from None
        for what in ("boundaries", "sizes"):
            if getattr(evaluation, what) is not None and getattr(other, what) is None:
                print(f"evaluate.py: {what} are not compared: name {arguments.compare}'s predictions", file=sys.stderr)
        print(f"\n{format_comparison(found, str(arguments.compare), arguments.resamples, arguments.by_size or ())}")
        compared = {name: difference.as_json() for name, difference in found.items()}
        content["comparison"] = {"other": str(arguments.compare), **draws, **compared}
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.json, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _score(arguments: argparse.Namespace, predictions: Path, dataset: Dataset, source: LabelSource) -> Evaluation:
    suffix = bare_suffix(arguments.prediction_suffix)
    results = evaluate_images(
        predictions,
        source,
        len(dataset.classes),
        dataset.ignore_label,
        arguments.processes,
        suffix,
        arguments.boundaries,
        arguments.by_size,
    )
    bar = progress(results, total=len(source.ids), description="scoring", unit="image")
    try:
        evaluation = Evaluation.of(bar, dataset.classes)
    except ValueError as error:
        raise UserError(f"{arguments.labels}: {error}") from None
    extra = set(find_labels(predictions, suffix)) - set(source.ids)
    if extra:
        print(f"evaluate.py: {len(extra)} predictions are of images that are not scored", file=sys.stderr)
    return evaluation


def _read_evaluation(file: Path) -> Evaluation:
    content = read_json_object(file)
    if content is None:
        raise UserError(f"{file}: no such folder of predictions or evaluation")
    try:
        return Evaluation.from_json(content)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None


def _is_split_without_labels(folder: Path) -> bool:
    if not (folder / IMAGES).is_dir():
        return False
    with SplitReader(folder) as reader:
        return not reader.has_labels


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
