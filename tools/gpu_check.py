#!/usr/bin/env python3
"""Check the bundle on this machine's GPU and time it: tests, the processor's results, memory accesses, speed.

It lies in the bundle (`python3 renet-caffe/tools/gpu_check.py`), runs with any Python from 3.8 on and needs nothing but
the standard library; where a Python of this machine has PyTorch, that is timed and compared, too.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from renet.gpu_check.check import EXIT_BAD_USE, EXIT_INTERRUPTED, STAGES, TIME_LIMIT, check
from renet.gpu_check.launcher import Unusable

EXAMPLES = """examples:
  python3 renet-caffe/tools/gpu_check.py --json gpu_check.json
  python3 renet-caffe/tools/gpu_check.py --only benchmark --gpu 1
  python3 renet-caffe/tools/gpu_check.py --only agreement --only ours --time-limit 120

exit status: 0, 1 where a check failed or was not finished in time, 2 where nothing could be checked"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    what = "\n".join(f"  {stage.name:10} {stage.what}" for stage in STAGES)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nstages, in this order:\n{what}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [stage.name for stage in STAGES]
    parser.add_argument("--only", action="append", choices=names, metavar="STAGE", help="may be given several times")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), metavar="DIR", help="for logs (./gpu_check)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the whole report (default: report.json in --out)")
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="which of the visible GPUs (default 0)")
    parser.add_argument(
        "--time-limit", type=float, default=TIME_LIMIT, metavar="SECONDS", help="of all stages (default %(default).0f)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run, with errors told in one line."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what runs, and leaves the report as it is
    try:
        return check(arguments)
    except Unusable as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return EXIT_BAD_USE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{parser.prog}: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_BAD_USE
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; the report holds what was done", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
