"""What starts in the image: becomes the command that it is called with, or prints what can be run.

A training's results are looked after first: a line says where they would be lost with the container, and a training
that could not write any does not start.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKSPACE = Path("/workspace")
RUNS = "runs"
HELP = ("help", "-h", "--help")
TRAINING_TOOLS = ("train.py", "experiments.py", "demo.py")
EXIT_UNUSABLE, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 2, 126, 127


def results_folder(command: Sequence[str]) -> Path | None:
    """Where a command that trains writes its results; None for another command."""
    program, *arguments = command
    name = os.path.basename(program)
    if name == "caffe":
        return Path(RUNS) if arguments[:1] == ["train"] else None
    if name.startswith("python") and arguments:
        name, *arguments = os.path.basename(arguments[0]), *arguments[1:]
    if name not in TRAINING_TOOLS or any(word in HELP for word in arguments):
        return None
    for option in ("--run", "--short"):
        for word, following in zip(arguments, [*arguments[1:], ""]):
            if word == option and following:
                return Path(following)
            if word.startswith(f"{option}="):
                return Path(word.partition("=")[2])
    return Path(RUNS)


def mount_points(table: str) -> set[Path]:
    """The mount points in the text of /proc/self/mountinfo, without the root's."""
    points = (line.split(" ")[4] for line in table.splitlines() if line)
    # the kernel writes spaces, tabs, line ends and backslashes as \040 and so on, and all else as it is
    return {Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)) for point in points} - {Path("/")}


def is_kept(folder: Path, points: set[Path]) -> bool:
    """Whether what is written into a folder outlives the container: it is a mount, or in one."""
    return any(place in points for place in (folder, *folder.parents))


def is_writable(folder: Path) -> bool:
    """Whether this user can make files in a folder, which may have to be made first."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def usage() -> str:
    """What can be run."""
    gpu = (HERE / "lib" / "cuda").is_dir()
    text = (HERE / "usage.txt").read_text(encoding="utf-8")
    return text.format(
        version=(HERE / "VERSION").read_text(encoding="utf-8").split()[0],
        image="renet-caffe:gpu" if gpu else "renet-caffe",
        gpus="--gpus all " if gpu else "",
        gpu=" -gpu 0" if gpu else "",
        tool_gpu=" --gpu 0" if gpu else "",
    )


def check_results(folder: Path) -> str | None:
    """Why a training must not start; else None. Says where its results will be lost."""
    whole = WORKSPACE / folder
    if not is_writable(whole):
        user = f"{os.getuid()}:{os.getgid()}"
        return (
            f"{folder} cannot be written by user {user}: make it on the host, and call"
            ' docker run --user "$(id -u):$(id -g)"'
        )
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    if not is_kept(whole, mount_points(mounts)):
        print(
            f"renet-caffe: {folder} is no mounted folder: what is trained will be lost with this container"
            f' (docker run -v "$PWD/{RUNS}:{WORKSPACE / RUNS}" keeps it)',
            file=sys.stderr,
        )
    return None


def main(command: Sequence[str]) -> int:
    """Become the command; the exit status where that cannot be."""
    if not command or command[0] in HELP:
        print(usage(), end="")
        return 0
    folder = results_folder(command)
    fault = check_results(folder) if folder is not None else None
    if fault is not None:
        print(f"renet-caffe: {fault}", file=sys.stderr)
        return EXIT_UNUSABLE
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(command[0], list(command))
    except FileNotFoundError:
        print(f"renet-caffe: {command[0]}: no such command (--help tells what there is)", file=sys.stderr)
        return EXIT_NOT_FOUND
    except OSError as error:
        print(f"renet-caffe: {command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_NOT_EXECUTABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
