"""Python runs this at its start where a test puts this folder on PYTHONPATH: the process holds still at a point of its
work that the test names, until a signal comes. That is a state which no test can miss, however slow the machine is.

HOLD_AT: a regular expression of what happens there: `open FILE`, `os.rename FILE` (its new name), `import MODULE`,
`subprocess.Popen PROGRAM`, or `start`; in a working process (ours, or of multiprocessing) with `worker ` before it.
HOLD_NUMBER: the how manieth. HOLD_SIGN: a file that is made once the process holds.
"""

import os
import re
import select
import signal
import sys

_AT = re.compile(os.environ["HOLD_AT"])
_NUMBER = int(os.environ["HOLD_NUMBER"])
_SIGN = os.environ["HOLD_SIGN"]
_IS_WORKER = "--multiprocessing-fork" in sys.orig_argv or any("worker_process" in each for each in sys.orig_argv[:3])
_PROCESS = "worker " if _IS_WORKER else ""
_seen = 0


def _hold_at_its_time(event: str, arguments: tuple) -> None:
    global _seen
    what = {"open": 0, "os.rename": 1, "import": 0, "subprocess.Popen": 0, "start": 0}.get(event)
    if what is None or not _AT.match(f"{_PROCESS}{event} {arguments[what]}"):
        return
    _seen += 1
    if _seen == _NUMBER:
        _hold()


def _hold() -> None:
    ends, wakes = os.pipe()
    os.set_blocking(wakes, False)
    before = signal.set_wakeup_fd(wakes)
    open(_SIGN, "w").close()
    try:
        while not select.select([ends], [], [], 0.01)[0]:  # in here a signal's handler runs
            if not _PROCESS and signal.sigpending():  # blocked, to be heard later; working processes wait for their end
                break
    finally:
        signal.set_wakeup_fd(before)


sys.addaudithook(_hold_at_its_time)
_hold_at_its_time("start", ("",))
