"""Run the dense CRF over predictions whose class probabilities were saved, or search its parameters on them."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from renet.common.argument_types import whole_number
from renet.common.command_line import CommandParser, run
from renet.common.parts import add_part_argument, chosen_part
from renet.common.progress import progress
from renet.data.catalog import KNOWN, find_dataset
from renet.networks.model_folder import read_model_folder
from renet.prediction.crf_job import CrfJob, check_probabilities_exist, perform_together, prediction_record
from renet.prediction.crf_parameters import add_parameter_options, parameters_of
from renet.prediction.crf_search import (
    BEST,
    MEASURES,
    Result,
    ResultFile,
    learnt_images,
    open_job,
    search,
    table,
    write_best,
)
from renet.prediction.crf_search_chart import draw_search
from renet.prediction.image_job import begin, items_of_files, items_of_split, record_time

EXAMPLES = """examples:
  tools/predict.py ... --split data/x/val --out runs/x/val --probabilities
  tools/crf.py search --predictions runs/x/val --split data/x/val --out runs/x/crf_search
  tools/crf.py run --predictions runs/x/test --split data/x/test --crf runs/x/crf_search/best.prototxt --out runs/x/crf

A second call goes on where the first one stopped. `tools/crf.py run --help` and `search --help` tell the options."""

RUN_DETAILS = """Writes what predict.py writes: <image id>.png, and on request overlays and probabilities.
The unary energies are -log of the saved probabilities (float16), those below 1e-5 taken for that."""

SEARCH_DETAILS = """Coarse to fine: a grid over the bilateral kernel, then over the positional one, then the number of
iterations; then the same by smaller factors around the best. Writes into DIR:
  results.jsonl   every candidate's scores; a second call goes on with them (of a part results.I_of_N.jsonl)
  best.prototxt   the best parameters, for --crf of this tool and of predict.py, or for a network's DenseCRF layer
  search.png      what each parameter is worth
With --part, N calls share one DIR, on one machine or several: each measures its share of a stage's settings, then what
no other has measured yet. So each goes to the end alone if it must, and all find the same best.
Search on images that the scores are not reported on, and that the network was not trained on (it is told where it was):
there its probabilities are surer than on new ones, and the CRF found is weaker than the best. data_prep/hold_out.py
sets images aside."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="crf.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|search", parser_class=CommandParser)
    for name, details in (("run", RUN_DETAILS), ("search", SEARCH_DETAILS)):
        text = "the CRF over saved probabilities" if name == "run" else "find its best parameters on labelled images"
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=details,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_argument(
            "--predictions", type=Path, required=True, metavar="DIR", help="what predict.py --probabilities wrote"
        )
        _add_source(command, name)
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
        command.add_argument(
            "--crf",
            type=Path,
            metavar="FILE",
            help=f"a prototxt with dense_crf_param {{ ... }}{' to start from' if name == 'search' else ''}",
        )
        command.add_argument(
            "--dataset",
            metavar="NAME|DATASET.JSON",
            help=f"names and colours: {', '.join(KNOWN)}, or a dataset.json (default: the split's own)",
        )
        command.add_argument(
            "--processes",
            type=whole_number(1),
            default=len(os.sched_getaffinity(0)),
            metavar="N",
            help="images worked on at once (default: one for each core)",
        )
        if name == "run":
            command.add_argument(
                "--model", type=Path, metavar="DIR", help="a model folder, which gives --dataset and --crf"
            )
            command.add_argument("--overlay", action="store_true", help="also lay the labels over the images")
            command.add_argument("--probabilities", action="store_true", help="also write the probabilities")
            command.add_argument("--overwrite", action="store_true", help="do everything anew")
        else:
            command.add_argument("--measure", choices=MEASURES, default=MEASURES[0], help="to raise (%(default)s)")
            command.add_argument(
                "--limit", type=whole_number(1), default=100, metavar="N", help="images to score on (%(default)s)"
            )
            command.add_argument(
                "--rounds",
                type=whole_number(1),
                default=3,
                metavar="N",
                help="one coarse, others finer (%(default)s)",
            )
        shares = "do this share of the images alone" if name == "run" else "measure this share of each stage's settings"
        add_part_argument(command, f"{shares}, beside the other parts in one DIR")
        add_parameter_options(command)
    return parser


def _add_source(command: argparse.ArgumentParser, name: str) -> None:
    if name == "search":
        command.add_argument("--split", type=Path, required=True, metavar="SPLIT", help="a prepared split with labels")
        return
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, nargs="+", metavar="PATH", help="images, and folders of images")
    source.add_argument("--split", type=Path, metavar="SPLIT", help="a prepared split")


def main(arguments: argparse.Namespace) -> None:
    """Do what the command asks for.

    Raises:
        UserError: bad input, named.
    """
    (run_crf if arguments.command == "run" else search_parameters)(arguments)


def run_crf(arguments: argparse.Namespace) -> None:
    """`crf.py run`."""
    part = chosen_part(arguments)
    network = None if arguments.model is None else read_model_folder(arguments.model)
    parameters = arguments.crf or (None if network is None else network.deploy_crf)
    items = items_of_split(arguments.split) if arguments.split else items_of_files(arguments.input)
    job = CrfJob(
        dataset=find_dataset(arguments.dataset, arguments.split, None if network is None else network.dataset),
        out=arguments.out,
        items=tuple(part.share(items)),
        split=arguments.split,
        overlay=arguments.overlay,
        probabilities=arguments.probabilities,
        predictions=arguments.predictions,
        parameters=parameters_of(parameters, vars(arguments)),
    )
    prediction_record(job.predictions)
    check_probabilities_exist(job.predictions, job.items)
    left = begin(job, arguments.overwrite, part)
    if not left:
        return
    print(f"CRF: {job.parameters}")
    start = time.perf_counter()
    done = perform_together(replace(job, items=left), arguments.processes)
    seconds = [each.seconds for each in progress(done, total=len(left), description="CRF", unit="image")]
    record_time(job.out, seconds, "CPU, CRF alone, one thread")
    print(f"{len(seconds)} images predicted, {len(seconds) / (time.perf_counter() - start):.2f} a second: {job.out}")


def search_parameters(arguments: argparse.Namespace) -> None:
    """`crf.py search`."""
    part = chosen_part(arguments)
    start = parameters_of(arguments.crf, vars(arguments))
    dataset = find_dataset(arguments.dataset, arguments.split)
    job = open_job(arguments.predictions, arguments.split, dataset, arguments.limit, arguments.processes)
    learnt, network = learnt_images(job)
    if learnt:
        print(
            f"crf.py: {network} has learnt from {learnt} of these {len(job.items)} images, where its probabilities are "
            "surer than on others: what is found is for those; data_prep/hold_out.py sets images aside",
            file=sys.stderr,
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = ResultFile(arguments.out, job, part)
    if results.results:
        print(f"{len(results.results)} candidates are measured already")

    def told(stage: str, count: int, found: Iterator[Result]) -> Iterable[Result]:
        return progress(found, total=count, description=stage, unit="candidate")

    best = search(job, results, start, arguments.rounds, arguments.measure, told)
    without = results.results[None]
    write_best(arguments.out / BEST, best, without, job, arguments.measure)
    with_crf = [result for parameters, result in results.results.items() if parameters is not None]
    draw_search(arguments.out / "search.png", with_crf, without, best, arguments.measure)
    rows = [("without CRF", without), ("start", results.results[start]), ("best", best)]
    print(table(rows))
    print(f"{len(with_crf)} candidates on {len(job.items)} images: {arguments.out / BEST}")


if __name__ == "__main__":
    sys.exit(run(main, build_parser()))
