#!/usr/bin/env python3
"""Predict how fast several processes train a network together, from one process's times and the link between them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from renet.common.argument_types import not_negative, positive, whole_number
from renet.common.command_line import run
from renet.common.files import write_atomically
from renet.common.text_layout import aligned, markdown
from renet.training.scaling import Link, Schedule, measure_all, predict, table
from renet.visualization.scaling_chart import scaling_chart

EXAMPLES = """examples:
  tools/scaling.py --solver solvers/n_renet_stanford_background.prototxt --processes 2 5 --gigabits 1 10
  tools/scaling.py --solver solvers/h_renet_bn_mlfb_voc2012.prototxt --processes 2 5 10 --plot scaling.svg

Measures on this machine, with OMP_NUM_THREADS threads, what one of so many processes computes; images are noise, so no
data is needed. Exposed communication is the share of a step in which nothing is computed. Days are those of the
solver's max_iter, without tests. Processes are taken to be equally fast, and each to have the link to itself."""


def main(arguments: argparse.Namespace) -> None:
    """Measure, and print the table."""
    schedule = Schedule.read(arguments.solver, arguments.processes)
    links = [Link(gigabits, arguments.microseconds) for gigabits in arguments.gigabits]
    traces = measure_all(schedule, arguments.processes, arguments.iterations)
    most = traces[-1]
    print(
        f"{schedule.name}: {schedule.batch} images in a pass, {schedule.solver.max_iter} iterations; "
        f"each sums {most.bytes / 1e6:.1f} MB in {most.sums} parts",
        end="\n\n",
    )
    rows = table(schedule, traces, links)
    print("\n".join(aligned(rows)))
    if arguments.markdown:
        write_atomically(arguments.markdown, markdown(rows).encode())
    if arguments.plot:
        alone = traces[0].seconds
        speed_ups = {
            str(link): [(trace.ranks, alone / predict(trace, link).seconds) for trace in traces] for link in links
        }
        write_atomically(arguments.plot, scaling_chart(schedule.name, speed_ups))


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="scaling.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--solver", type=Path, required=True, metavar="FILE", help="solver prototxt")
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        nargs="+",
        default=[2],
        metavar="N",
        help="numbers of processes, each of which divides the batch (default 2)",
    )
    parser.add_argument(
        "--gigabits",
        type=positive,
        nargs="+",
        default=[1, 10, 100],
        metavar="GB",
        help="of the link, a second, each way (default 1 10 100)",
    )
    parser.add_argument(
        "--microseconds",
        type=not_negative,
        default=50,
        metavar="US",
        help="of a message on the link, one way; half of what ping says (default 50)",
    )
    parser.add_argument(
        "--iterations", type=whole_number(1), default=5, metavar="N", help="to measure of each (default 5)"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here as Markdown, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the speed-up here, as an SVG")
    return parser


if __name__ == "__main__":
    sys.exit(run(main, make_parser()))
