"""The GPU machine's check (tools/gpu_check.py) of a GPU that the processor plays: `make test-emulated-gpu`.

    .venv/bin/python tests/gpu_check/emulated.py --only networks

It tells what a GPU would compute: every layer's code for it, its memory, what is recorded and launched again. It does
not tell what CUDA itself, cuDNN or NCCL would say, nor any time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from renet.gpu_check.check import STAGES, Report, Stage, conclusion, exit_status, run_stages
from renet.gpu_check.machine import FAILED, PASSED, UNFINISHED, Machine, Outcome, run_command
from renet.packaging.gpu_bundle import our_test_suites

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build" / "gpu-emulated"
LOGS = REPOSITORY / "build" / "logs" / "gpu-emulated"
OF_A_GPU = ("benchmark", "sanitizer")  # the stages that are about CUDA itself
SECONDS = 3600.0


def maps(machine: Machine, deadline: float) -> Outcome:
    """Every network with memory of the GPU that its maps share, beside itself without."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/networks/test_shared_maps.py"]
    variables = {**machine.variables, "PYTHONPATH": str(BUILD / "python"), "RENET_TEST_GPU": "1"}
    ended = run_command(command, deadline, variables, REPOSITORY)
    (machine.out / "maps.log").write_text(ended.output)
    return Outcome(PASSED if ended.status == 0 else UNFINISHED if ended.status is None else FAILED, ended.words)


ALL_STAGES = (
    *(stage for stage in STAGES if stage.name not in OF_A_GPU),
    Stage("maps", 60, maps, "every network with and without memory that its maps share"),
)


def main(arguments: argparse.Namespace) -> int:
    """Run the stages."""
    stages = [stage for stage in ALL_STAGES if stage.name in arguments.only]
    start = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        source = REPOSITORY / "build" / "caffe-source"  # with the files of Caffe's tests
        places = {"programs": BUILD / "bin", "prototxt": REPOSITORY / "prototxt", "test": source}
        for name, place in places.items():
            (bundle / name).symlink_to(place)
        machine = Machine(
            bundle=bundle,
            out=arguments.out.resolve(),
            variables=dict(os.environ),
            own_variables=dict(os.environ),
            manifest={"our_test_suites": our_test_suites(REPOSITORY / "caffe_layers" / "tests")},
            gpu="emulated",
            keep=lambda metadata: None,
            say=lambda text: print(f"[{time.monotonic() - start:6.1f} s] {text}", file=sys.stderr, flush=True),
        )
        report = Report(arguments.out / "report.json", {})
        outcomes = run_stages(stages, machine, report, arguments.time_limit)
    print(conclusion(outcomes))
    return exit_status(outcomes)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [stage.name for stage in ALL_STAGES]
    only = {"nargs": "+", "choices": names, "default": names, "metavar": "STAGE"}
    parser.add_argument("--only", **only, help=f"of {', '.join(names)}; default: all")
    limit = {"type": float, "default": SECONDS, "metavar": "SECONDS"}
    parser.add_argument("--time-limit", **limit, help="of all stages together (default %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=LOGS, metavar="DIR", help="for logs (default build/logs/gpu-emulated)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(make_parser().parse_args()))
