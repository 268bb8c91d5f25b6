#!/usr/bin/env python3
"""Faults at random moments: commands are killed, stopped, run twice at once, out of disk, on damaged snapshots, in
folders that may not be written or vanish, while the time of day jumps.

After each fault the same command is given again, and must come to what it comes to without one, byte for byte, with no
traceback on the way and nothing left over. Then, with --images and --iterations, long work is watched: its memory, open
files and threads must not grow. Ctrl-C and SIGTERM end the campaign early; it prints what it has counted until then.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
ITERATIONS = 60
SECONDS_OF_ORPHANS = 60  # that a command's processes may go on without one of them
PROBABILITIES = ("--probabilities", "--split", "scenes/test", "--out", "probabilities")
GROWTH = 1.1  # of memory, from a tenth of the work to its end
MEBIBYTE = 1 << 20


class Lost(Exception):
    """Something that a fault destroyed, or that was told badly."""


class Stopped(BaseException):
    """The campaign's user ends it, by this signal."""


@dataclass(frozen=True)
class Task:
    """A command, and what it makes.

    Attributes:
        name: for the table.
        words: of the command, which writes into the folder `out` where it stands.
        again: what goes on with it, where that is another command.
        made: of what is in `out`, what must be the same every time.
    """

    name: str
    words: Sequence[str]
    made: Sequence[str]
    again: Sequence[str] = ()

    def result(self, folder: Path) -> dict[str, str]:
        """The SHA-256 of the files that it made, by name."""
        files = sorted({file for pattern in self.made for file in (folder / "out").glob(pattern)})
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def tasks(place: Path) -> list[Task]:
    """The long commands, on a small dataset and network in `place`."""
    net, data = str(place / "net"), str(place / "scenes")
    weights = str(place / "weights.caffemodel")
    return [
        Task(
            "convert",
            ["data_prep/synthetic_scenes.py", *["--train", "60", "--test", "20", "--size", "48x64", "--out", "out"]],
            ["dataset.json", "*/split.json"],
        ),
        Task(
            "train",
            ["tools/train.py", "--solver", f"{net}/solver.prototxt", "--run", "out"],
            [f"snapshots/*_iter_{ITERATIONS}.caffemodel"],
            ["tools/train.py", "--resume", "--run", "out"],
        ),
        Task(
            "predict",
            [
                *("tools/predict.py", "--model", f"{net}/deploy.prototxt", "--weights", weights, "--overlay"),
                *("--split", f"{data}/train", "--out", "out"),
            ],
            ["*.png", "overlay/*.jpg"],
        ),
        Task(
            "report",
            ["tools/report.py", "--predictions", str(place / "predictions"), "--labels", f"{data}/train"]
            + ["--budget", "0", "--out", "out/page.html"],
            ["page_*/*"],
        ),
        Task(
            "search",
            [
                *("tools/crf.py", "search", "--predictions", str(place / "probabilities"), "--split", f"{data}/test"),
                *("--rounds", "1", "--max-iter", "1", "--processes", "2", "--out", "out"),
            ],
            ["best.prototxt"],
        ),
        Task(
            "experiment",
            [
                *("tools/experiments.py", "table1", "--dataset", data, "--train-split", "train"),
                *("--test-split", "test", "--n-renet", "conv_small", "--crop", "17x23", "--batch", "2"),
                *("--iterations", "20", "--interval", "10", "--out", "out"),
            ],
            ["*/snapshots/*_iter_20.caffemodel", "*/predictions/*.png"],
        ),
    ]


@dataclass
class Soak:
    """The campaign.

    Attributes:
        place: its folder.
        draw: of random numbers.
        counts: trials by task, fault and what came of them.
        kills: how often processes were killed.
        losses: what was lost, in words.
        limit: seconds of one command at most.
        groups: of processes that the latest trial started.
    """

    place: Path
    draw: random.Random
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    kills: int = 0
    losses: list[str] = field(default_factory=list)
    limit: float = 600
    groups: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    expected: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scratch = self.place / "tmp"
        self.scratch.mkdir()
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch)}

    def start(self, words: Sequence[str], folder: Path, said: Path) -> subprocess.Popen[bytes]:
        """Start a command as the first of a group of processes; what it says goes into a file."""
        command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
        with open(said, "wb") as stream:
            process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=stream, stderr=stream, start_new_session=True
            )
        self.groups.append(process.pid)
        return process

    def end(self) -> None:
        """Kill what the latest trial left running."""
        for group in filter(group_lives, self.groups):
            os.killpg(group, signal.SIGKILL)
        self.groups.clear()

    def run(self, words: Sequence[str], folder: Path) -> int:
        """Run a command to its end.

        Raises:
            Lost: it fails otherwise than in one line.
        """
        said = folder / "said.txt"
        status = self.start(words, folder, said).wait(timeout=self.limit)
        self.check_words(said, words, status)
        return status

    def check_words(self, said: Path, words: Sequence[str], status: int) -> None:
        """Make sure that a command that failed says so in a line, without a traceback."""
        text = said.read_text(errors="replace")
        told = [line for line in text.splitlines() if line.startswith(f"{Path(words[0]).name}: ")]
        if "Traceback" in text or (status == 2 and len(told) < 1):
            raise Lost(f"{' '.join(words)}: status {status}: {text[-2000:]}")

    def prepare(self, names: Sequence[str]) -> list[Task]:
        """Make data, network and weights, and what each command of these names comes to without a fault."""
        crop = ["--crop", "17x23", "--batch", "2", "--iterations", str(ITERATIONS)]
        for words in (
            ["data_prep/synthetic_scenes.py", *["--train", "60", "--test", "2", "--size", "48x64", "--out", "scenes"]],
            ["prototxt/generate.py", "--model", "conv_small", "--dataset", "scenes", "--out", "net", *crop],
        ):
            if self.run(words, self.place):
                raise Lost((self.place / "said.txt").read_text())
        solver = self.place / "net/solver.prototxt"
        text = re.sub(r"(snapshot|display): \d+", r"\1: 10", solver.read_text())
        solver.write_text(re.sub(r"test_(interval|iter): \d+\n", "", text))
        for task in tasks(self.place):
            if task.name not in (*names, "train", "predict"):  # whose results the others read
                continue
            folder = self.place / task.name
            folder.mkdir()
            began = time.monotonic()
            if self.run(task.words, folder):
                raise Lost((folder / "said.txt").read_text())
            self.seconds[task.name] = time.monotonic() - began
            self.expected[task.name] = task.result(folder)
            assert self.expected[task.name], task.name
            if task.name == "train":
                (weights,) = (folder / "out/snapshots").glob(f"*_iter_{ITERATIONS}.caffemodel")
                shutil.copy(weights, self.place / "weights.caffemodel")
            if task.name == "predict":
                shutil.copytree(folder / "out", self.place / "predictions")
                if "search" in names and self.run([*task.words[:-4], *PROBABILITIES], self.place):
                    raise Lost((self.place / "said.txt").read_text())
        return [task for task in tasks(self.place) if task.name in names]

    def trial(self, task: Task, fault: Callable[[Soak, Task, Path], str]) -> None:
        """One fault, and the recovery from it."""
        name = fault.__name__
        with tempfile.TemporaryDirectory(dir=self.place, prefix="trial_") as made:
            folder = Path(made)
            try:
                outcome = fault(self, task, folder)
                self.recover(task, folder)
            except (Lost, subprocess.TimeoutExpired) as error:
                self.losses.append(f"{task.name}, {name}: {error}")
                outcome = "LOST"
            finally:
                self.end()
                unmount(folder / "out")
                shutil.rmtree(folder / "away", ignore_errors=True)
        self.counts[task.name, name, outcome] += 1

    def recover(self, task: Task, folder: Path) -> None:
        """Give the command again, and compare what it makes.

        Raises:
            Lost: it makes something else, or leaves something over.
        """
        words = self.words_now(task, folder)
        # what a killed process left goes with the next one
        if task.result(folder) != self.expected[task.name] or task.name == "train" or self.left(folder):
            status = self.run(words, folder)
            if status:
                raise Lost(f"{' '.join(words)}: status {status}: {(folder / 'said.txt').read_text()[-1000:]}")
        if task.result(folder) != self.expected[task.name]:
            raise Lost(f"other files than without the fault: {sorted(task.result(folder))[:5]}")
        if left := self.left(folder):
            raise Lost(f"left over: {left[:5]}")

    def left(self, folder: Path) -> list[str]:
        """Temporary files that are there."""
        return [str(file) for file in (folder / "out").rglob(".*.partial")] + os.listdir(self.scratch)

    def words_now(self, task: Task, folder: Path) -> Sequence[str]:
        """The command that goes on from where the folder's last one ended."""
        return task.again if task.again and (folder / "out/solver.prototxt").is_file() else task.words

    def moment(self, task: Task) -> float:
        """Seconds after its start at which something happens to a command."""
        return self.draw.uniform(0.05, 1.1) * self.seconds[task.name]


def ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long; whether the process has come to its end by itself."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def kill(soak: Soak, task: Task, folder: Path) -> str:
    """Kill the command and all its processes at once, up to three times."""
    times = 0
    for _ in range(soak.draw.randint(1, 3)):
        process = soak.start(soak.words_now(task, folder), folder, folder / "said.txt")
        if not ended(process, soak.moment(task)):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            times += 1
    soak.kills += times
    return "killed" if times else "ended before"


def kill_one(soak: Soak, task: Task, folder: Path) -> str:
    """Kill one of the command's processes: itself or a child; the others must end, too."""
    process = soak.start(task.words, folder, folder / "said.txt")
    if ended(process, soak.moment(task)):
        return "ended before"
    victim = soak.draw.choice(tree(process.pid))
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
        soak.kills += 1
    status = process.wait(timeout=soak.limit)
    if victim != process.pid:
        soak.check_words(folder / "said.txt", task.words, status)
    end = time.monotonic() + SECONDS_OF_ORPHANS
    while group_lives(process.pid):
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise Lost(f"goes on {SECONDS_OF_ORPHANS} s after one of its processes was killed")
        time.sleep(0.05)
    return "itself killed" if victim == process.pid else "a child killed"


def group_lives(group: int) -> bool:
    """Whether a process of this group runs."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = file.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it has just ended
        if int(its_group) == group and state != "Z":
            return True
    return False


def terminate(soak: Soak, task: Task, folder: Path) -> str:
    """Ask the command to end, with SIGTERM or SIGHUP."""
    process = soak.start(task.words, folder, folder / "said.txt")
    if ended(process, soak.moment(task)):
        return "ended before"
    process.send_signal(soak.draw.choice([signal.SIGTERM, signal.SIGHUP]))
    process.wait(timeout=soak.limit)
    return "ended"


def stop(soak: Soak, task: Task, folder: Path) -> str:
    """Let all processes of the command stand still for a while."""
    process = soak.start(task.words, folder, folder / "said.txt")
    if ended(process, soak.moment(task)):
        return "ended before"
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(soak.draw.uniform(0.1, 1))
    os.killpg(process.pid, signal.SIGCONT)
    status = process.wait(timeout=soak.limit)
    soak.check_words(folder / "said.txt", task.words, status)
    if status:
        raise Lost(f"status {status}: {(folder / 'said.txt').read_text()[-1000:]}")
    return "went on"


def twice(soak: Soak, task: Task, folder: Path) -> str:
    """Give the same command twice at once."""
    said = [folder / "said.txt", folder / "said_2.txt"]
    first = soak.start(task.words, folder, said[0])
    ended(first, soak.draw.uniform(0, 0.5) * soak.seconds[task.name])
    second = soak.start(task.words, folder, said[1])
    statuses = [process.wait(timeout=soak.limit) for process in (first, second)]
    for file, status in zip(said, statuses):
        soak.check_words(file, task.words, status)
    if 0 not in statuses:
        raise Lost(f"both failed: {[file.read_text()[-500:] for file in said]}")
    return "one refused" if any(statuses) else "both ended"


def full_disk(soak: Soak, task: Task, folder: Path) -> str:
    """Let the command write into a file system that is too small, and then make it larger."""
    out = folder / "out"
    out.mkdir()
    if not mounted(out, f"size={soak.draw.randint(16, 2000)}k"):
        return "may not mount"
    status = soak.run(task.words, folder)
    subprocess.run(["mount", "-o", "remount,size=256m", out], check=True)
    return "disk was full" if status else "had room"


def mounted(out: Path, options: str) -> bool:
    """Make a small file system at this place, or nothing where that is not allowed."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", out], capture_output=True).returncode:
        out.rmdir()
        return False
    return True


def read_only(soak: Soak, task: Task, folder: Path) -> str:
    """Kill the command; give it again while its folder cannot be written, and then can."""
    out = folder / "out"
    out.mkdir()
    if not mounted(out, "size=256m"):
        return "may not mount"
    if soak.draw.random() < 0.7:
        kill(soak, task, folder)
    subprocess.run(["mount", "-o", "remount,ro", out], check=True)
    words = soak.words_now(task, folder)
    status = soak.run(words, folder)
    if status not in (0, 2):
        raise Lost(f"{' '.join(words)}: status {status}: {(folder / 'said.txt').read_text()[-1000:]}")
    subprocess.run(["mount", "-o", "remount,rw", out], check=True)
    return "refused" if status else "had ended"


def vanish(soak: Soak, task: Task, folder: Path) -> str:
    """Take the folder away from the command, and bring it back when that has ended."""
    process = soak.start(task.words, folder, folder / "said.txt")
    if ended(process, soak.moment(task)):
        return "ended before"
    out, away = folder / "out", folder / "away"
    if not out.is_dir():
        soak.check_words(folder / "said.txt", task.words, process.wait(timeout=soak.limit))
        return "not begun"
    out.rename(away)
    soak.check_words(folder / "said.txt", task.words, process.wait(timeout=soak.limit))
    shutil.rmtree(out, ignore_errors=True)  # what it may have begun anew
    away.rename(out)
    return "failed" if process.returncode else "ended well"


def clock(soak: Soak, task: Task, folder: Path) -> str:
    """Let the time of day jump."""
    library = soak.place / "jumping_clock.so"
    source = Path(__file__).with_name("jumping_clock.c")
    if not library.exists():
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    plain = soak.environment
    soak.environment = {**plain, "LD_PRELOAD": str(library)}
    try:
        status = soak.run(task.words, folder)
    finally:
        soak.environment = plain
    if status:
        raise Lost(f"status {status}: {(folder / 'said.txt').read_text()[-1000:]}")
    return "did not mind"


def unmount(out: Path) -> None:
    """Take the small file system away, where there is one."""
    if os.path.ismount(out):
        subprocess.run(["umount", "-l", out], check=True)


def damage(soak: Soak, task: Task, folder: Path) -> str:
    """Flip a bit of the newest snapshot, or cut it off, before the training goes on."""
    if task.name != "train":
        return kill(soak, task, folder)
    shutil.copytree(soak.place / "train/out", folder / "out")
    newest = [*(folder / "out/snapshots").glob(f"*_iter_{ITERATIONS}.[cs][ao]*")]
    file = soak.draw.choice(newest)
    content = bytearray(file.read_bytes())
    if soak.draw.random() < 0.3:
        del content[soak.draw.randrange(len(content)) :]
    else:
        content[soak.draw.randrange(len(content))] ^= 1 << soak.draw.randrange(8)
    file.write_bytes(content)
    soak.run(task.again, folder)
    if f"skipped {Path('out/snapshots') / file.name}" not in (folder / "said.txt").read_text():
        raise Lost(f"the damage of {file.name} was not told: {(folder / 'said.txt').read_text()[-1000:]}")
    return "told"


FAULTS = (kill, kill, kill_one, kill, terminate, stop, twice, full_disk, read_only, vanish, clock, damage)


# ------------------------------------------------------------------------------------------------ work of long duration


def tree(number: int) -> list[int]:
    """A process and all below it."""
    found = [number]
    for at in found:
        for file in Path(f"/proc/{at}/task").glob("*/children"):
            try:
                found += map(int, file.read_text().split())
            except OSError:
                continue  # it has just ended
    return found


def held(number: int) -> tuple[float, int, int]:
    """MiB of memory, open files and threads of a process and all below it."""
    memory = files = threads = 0
    for each in tree(number):
        try:
            status = Path(f"/proc/{each}/status").read_text()
            files += len(os.listdir(f"/proc/{each}/fd"))
        except OSError:
            continue
        memory += int((re.findall(r"VmRSS:\s+(\d+)", status) or [0])[0])
        threads += int((re.findall(r"Threads:\s+(\d+)", status) or [0])[0])
    return memory / 1024, files, threads


def watch(soak: Soak, what: str, words: Sequence[str], count: int, done: Callable[[], int]) -> None:
    """Watch a command from a tenth of its work to the end."""
    process = soak.start(words, soak.place, soak.place / "said.txt")
    seen: list[tuple[float, tuple[float, int, int]]] = []
    try:
        while process.poll() is None:
            share = done() / count
            if 0.1 <= share < 1:
                seen.append((share, held(process.pid)))
            time.sleep(0.1)
    finally:  # also where it is stopped early
        if seen:
            print(f"{what}: {'; '.join(told(*each) for each in (seen[0], seen[-1]))}", flush=True)
    if process.returncode:
        raise Lost(f"{what}: {(soak.place / 'said.txt').read_text()[-1000:]}")
    first, last = seen[0][1], seen[-1][1]
    if last[0] > GROWTH * first[0] or last[1] > first[1] + 2 or last[2] > first[2] + 2:
        soak.losses.append(f"{what}: grows from {first} to {last}")


def told(share: float, held: tuple[float, int, int]) -> str:
    """What a command held when it had done this share of its work."""
    memory, files, threads = held
    return f"{memory:.0f} MiB, {files} files, {threads} threads at {100 * share:.0f}%"


def watch_prediction(soak: Soak, count: int) -> None:
    """Predict many small images."""
    folder = soak.place / "many"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    for number in range(count):
        Image.fromarray(pixels).save(folder / f"{number:06}.png")
    out = soak.place / "many_predicted"
    words = ["tools/predict.py", "--model", str(soak.place / "net/deploy.prototxt"), "--input", str(folder)]
    words += ["--weights", str(soak.place / "weights.caffemodel"), "--dataset", str(soak.place / "scenes")]
    words += ["--out", str(out)]
    watch(soak, f"predict {count} images", words, count, lambda: sum(1 for _ in out.glob("*.png")))


def watch_training(soak: Soak, count: int) -> None:
    """Train for many iterations."""
    run = soak.place / "long"
    words = ["tools/train.py", "--solver", str(soak.place / "net/solver.prototxt"), "--run", str(run)]

    def done() -> int:
        try:
            return 10 * (run / "metrics.jsonl").read_bytes().count(b"\n")  # a line every ten iterations
        except OSError:
            return 0

    watch(soak, f"train {count} iterations", [*words, "--iterations", str(count)], count, done)


# ---------------------------------------------------------------------------------------------------------- the command


def lines(soak: Soak) -> Iterator[str]:
    """What came of all trials."""
    for (task, fault, outcome), count in sorted(soak.counts.items()):
        yield f"{task:10} {fault:10} {outcome:14} {count:5}"
    lost = sum(count for (_, _, outcome), count in soak.counts.items() if outcome == "LOST")
    yield f"{soak.counts.total()} faults, {soak.kills} kills among them, {lost} of them lost something"


def stopped(number: int, _: object) -> None:
    """End the campaign at a signal, and let no second one hinder its end."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def perform(
    soak: Soak, found: Sequence[Task], faults: Sequence[Callable[[Soak, Task, Path], str]], limits: argparse.Namespace
) -> None:
    """Bring each fault to each task in turn, until one of the limits is reached."""
    end = time.monotonic() + 60 * limits.minutes
    for number in range(limits.trials):
        if time.monotonic() > end or soak.kills >= limits.kills:
            return
        soak.trial(found[number % len(found)], faults[number // len(found) % len(faults)])


def main() -> int:
    """Perform the campaign; status 1 where something was lost, 128 and the number of a signal that ended it early."""
    parser = argparse.ArgumentParser(
        prog="soak.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="of faults (default: 60)")
    parser.add_argument("--trials", type=int, default=10**9, help="at most so many faults")
    parser.add_argument("--kills", type=int, default=10**9, help="at most about so many kills")
    names = [task.name for task in tasks(Path())]
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, help="these alone (default: all)")
    by_name = {fault.__name__: fault for fault in FAULTS}
    parser.add_argument("--faults", nargs="+", choices=by_name, help="these alone, in this order (default: all)")
    parser.add_argument("--limit", type=float, default=600, help="seconds of one command at most (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens and when")
    parser.add_argument("--images", type=int, default=0, help="then predict so many small images, watched (20000)")
    parser.add_argument("--iterations", type=int, default=0, help="then train for so many iterations, watched (20000)")
    arguments = parser.parse_args()
    faults = [by_name[name] for name in arguments.faults] if arguments.faults else FAULTS
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stopped)
    with tempfile.TemporaryDirectory(prefix="soak_") as place:
        soak = Soak(Path(place), random.Random(arguments.seed), limit=arguments.limit)
        by: int = 0
        try:
            found = soak.prepare(arguments.tasks)
            try:
                perform(soak, found, faults, arguments)
            finally:
                print("\n".join(lines(soak)), flush=True)
            if arguments.images:
                watch_prediction(soak, arguments.images)
            if arguments.iterations:
                watch_training(soak, arguments.iterations)
        except Stopped as signalled:
            by = signalled.args[0]
            print(f"stopped by {signal.Signals(by).name}", file=sys.stderr)
        finally:
            soak.end()
        for loss in soak.losses:
            print(f"LOST: {loss}", file=sys.stderr)
    return 1 if soak.losses else 128 + by if by else 0


if __name__ == "__main__":
    sys.exit(main())
