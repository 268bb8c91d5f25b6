"""Trial of several machines on one, of what takes too long for the tests: `make test-cluster`.

    .venv/bin/python tests/cluster/trial.py --quick
    .venv/bin/python tests/cluster/trial.py --only kills link

prints a line for each stage, with what was counted, and ends with status 1 where one failed. A stage that this machine
cannot do is skipped with a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import slurm
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from hosts import hosts, lacking

from renet.networks.files import Data, train_val_text
from renet.networks.models import MODELS
from renet.runtime.worker_process import run_native
from renet.training.scaling import Link, Schedule, measure, predict

REPOSITORY = Path(__file__).resolve().parents[2]
CAFFE = REPOSITORY / "build" / "cpu" / "bin" / "caffe"
MPIRUN = Path(shutil.which("mpirun") or REPOSITORY / ".venv" / "bin" / "mpirun")
TRAIN = [sys.executable, str(REPOSITORY / "tools" / "train.py")]
WORKER = [sys.executable, str(Path(__file__).with_name("worker.py"))]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
# one process with sums in other orders: other kernels, and threads that share out what processes do
OTHER_KERNELS = {
    "DNNL_MAX_CPU_ISA": "AVX2",
    "CAFFE_WINOGRAD": "0",
    "RENET_INSTRUCTION_SET": "avx2",
    "OMP_NUM_THREADS": "5",
}
SECONDS_TO_END = 60  # for all processes, when one is lost


class Failed(Exception):
    """A stage found what must not be; the message tells what."""


class Skipped(Exception):
    """A stage cannot be done here; the message tells why."""


def demand(holds: bool, otherwise: str) -> None:
    """Raise Failed where it does not hold."""
    if not holds:
        raise Failed(otherwise)


@dataclass(frozen=True)
class Place:
    """Where the stages work.

    Attributes:
        folder: with scenes and a small network, in net/.
        quick: a small part of each stage.
        models: those of the stage `networks`.
    """

    folder: Path
    quick: bool
    models: tuple[str, ...]

    def solver(self, name: str, **settings: object) -> Path:
        """Write the small network's solver with other settings, and snapshots in a folder of this name."""
        folder = self.folder / name
        folder.mkdir()
        solver = text_format.Parse((self.folder / "net/solver.prototxt").read_text(), caffe_pb2.SolverParameter())
        solver.net = str(self.folder / "net/train_val.prototxt")
        solver.snapshot_prefix = str(folder / "a")
        for key, value in settings.items():
            setattr(solver, key, value)
        file = folder / "solver.prototxt"
        file.write_text(text_format.MessageToString(solver))
        return file

    def call(self, *command: object, **environment: str) -> str:
        """Run a command to its end in the folder, and return what it said; raises Failed where its status is not 0."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        demand(
            done.returncode == 0, f"status {done.returncode} of {' '.join(map(str, command))}:\n{done.stderr[-3000:]}"
        )
        return done.stderr

    def prepare(self) -> None:
        """Draw scenes and write the small network."""
        script = [sys.executable, REPOSITORY / "data_prep/synthetic_scenes.py"]
        self.call(*script, "--train", "31", "--test", "6", "--size", "72x96", "--out", "scenes")
        script = [sys.executable, REPOSITORY / "prototxt/generate.py", "--model", "n_renet_small", "--dataset"]
        self.call(*script, "scenes", "--out", "net", "--crop", "17x23", "--batch", "6", "--iterations", "12")


def together(count: int) -> list[str]:
    """A command that starts so many processes on this machine; the program follows. 0: none is needed."""
    return [str(MPIRUN), "--oversubscribe", "--bind-to", "none", "-n", str(count)] if count else []


def weights(file: Path) -> np.ndarray:
    """All weights of a .caffemodel."""
    network = caffe_pb2.NetParameter.FromString(file.read_bytes())
    return np.concatenate([np.array(blob.data, np.float32) for layer in network.layer for blob in layer.blobs])


def processes_of(folder: Path) -> list[int]:
    """Those whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return [number for number in found if number != os.getpid()]


def await_that(holds: Callable[[], bool], seconds: float, otherwise: str) -> float:
    """Wait for it, and return how long that took; raises Failed after so many seconds."""
    began = time.monotonic()
    while not holds():
        demand(time.monotonic() - began < seconds, otherwise)
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def running(command: list[str], cwd: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a command, with the file in which it says what it says; whatever is left of it is killed."""
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        process = subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=log, stderr=log, text=True)
        try:
            yield process, Path(log.name)
        finally:
            process.kill()
            process.wait()


def across_hosts(place: Place) -> str:
    """Three hosts compute the bits that three processes of one do."""
    reason = lacking()
    if reason:
        raise Skipped(reason)
    one = place.solver("one_host")
    place.call(*together(3), CAFFE, "train", "-solver", one)
    several = place.solver("three_hosts")
    with hosts(3, 1) as joined:
        said = place.call(*joined.mpirun(MPIRUN), CAFFE, "train", "-solver", several)
    demand("3 processes train together" in said, said)
    same = np.array_equal(
        weights(one.with_name("a_iter_12.caffemodel")), weights(several.with_name("a_iter_12.caffemodel"))
    )
    demand(same, "the weights differ from those of three processes on one host")
    return "3 hosts, 1 Gb/s: 12 iterations, the bits of 3 processes on one host"


def cut_link(place: Place) -> str:
    """All processes end where a host cannot be reached any more, and one line says so."""
    reason = lacking()
    if reason:
        raise Skipped(reason)
    solver = place.solver("cut", max_iter=1000000, display=1, snapshot=0, test_interval=1000000)
    with (
        hosts(2, 1) as joined,
        running([*joined.mpirun(MPIRUN), str(CAFFE), "train", "-solver", str(solver)], place.folder) as (process, log),
    ):
        await_that(lambda: "Iteration 3 " in log.read_text() or process.poll() is not None, 120, "does not begin")
        joined.cut(joined.names[1])
        took = await_that(
            lambda: process.poll() is not None and not processes_of(solver),
            SECONDS_TO_END,
            f"after {SECONDS_TO_END} s there are still processes",
        )
        lines = [line for line in log.read_text().splitlines() if line.startswith("caffe: rank")]
        demand(len(lines) == 1, f"expected one line, found {lines}")
        told = r"rank 0 \(renet-node1\): .*; rank 1 \(renet-node2\) does not answer"
        demand(re.search(told, lines[0]) is not None, lines[0])
        demand(process.returncode != 0, "ends with status 0")
    return f"2 hosts: all processes gone after {took:.0f} s, status {process.returncode}: {lines[0]}"


def kills(place: Place) -> str:
    """A training whose processes are killed, and resumed, many times ends with the weights of an unbroken one."""
    count = 5 if place.quick else 50
    settings = {"max_iter": 8 * count, "display": 1, "snapshot": 2, "test_interval": 10**6}
    solvers = [place.solver(f"{name}_net", **settings) for name in ("unbroken", "broken")]
    runs = [place.folder / name for name in ("unbroken", "broken")]
    place.call(*together(2), *TRAIN, "--solver", solvers[0], "--run", runs[0])
    chance = random.Random(0)
    for number in range(count):
        is_begun = (runs[1] / "solver.prototxt").exists()
        arguments = ["--resume"] if is_begun else ["--solver", solvers[1]]
        kill_one(place, runs[1], [*TRAIN, *map(str, arguments), "--run", str(runs[1])], chance, f"kill {number}")
    place.call(*together(2), *TRAIN, "--resume", "--run", runs[1])
    last = f"iter_{settings['max_iter']}.caffemodel"
    one, other = (weights(run / "snapshots" / f"{run.name}_{last}") for run in runs)
    apart = np.abs(one - other).max()
    demand(np.array_equal(one, other), f"weights differ from the unbroken training's by up to {apart:.2g}")
    return f"{count} kills of one of 2 processes in {settings['max_iter']} iterations: the bits of an unbroken training"


def kill_one(place: Place, run: Path, train: list[str], chance: random.Random, what: str) -> None:
    """Train with two processes, and kill one of them after a few iterations; both are to end."""
    # each process says which it is, so that one can be chosen
    script = 'echo "rank $OMPI_COMM_WORLD_RANK is $$"; exec "$0" "$@"'
    wanted = iteration_of(run) + chance.randrange(6) + 1
    with running([*together(2), "bash", "-c", script, *train], place.folder) as (process, log):
        await_that(lambda: iteration_of(run) >= wanted or process.poll() is not None, 120, f"{what}: does not go on")
        demand(process.poll() is None, f"{what}: has ended by itself:\n{log.read_text()[-2000:]}")
        found = re.search(rf"rank {chance.randrange(2)} is (\d+)", log.read_text())
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        await_that(
            lambda: process.poll() is not None and not processes_of(run),
            SECONDS_TO_END,
            f"{what}: there are still processes",
        )
        demand(process.returncode != 0, f"{what}: ended with status 0")


def iteration_of(run: Path) -> int:
    """The last iteration in a run's metrics."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return max((json.loads(line)["iteration"] for line in lines), default=0)
    except (OSError, json.JSONDecodeError):
        return 0


def narrow(text: str, classes: int) -> str:
    """The network with a sixteenth of its channels."""

    def fewer(found: re.Match[str]) -> str:
        channels = int(found[1])
        return found[0] if channels == classes else f"num_output: {max(channels // 16, 2)}"

    return re.sub(r"num_output: (\d+)", fewer, text)


def relative(found: np.ndarray, alone: np.ndarray) -> float:
    """How far gradients or weights are from those of one process, relative to these."""
    return float(np.linalg.norm(found - alone) / np.linalg.norm(alone))


def gradients_of(kept: Path, momentum: float) -> np.ndarray:
    """Each iteration's own part of the updates that worker.py kept: without what earlier ones have left of momentum."""
    updates = np.load(kept)["updates"].astype(np.float64)
    updates[1:] -= momentum * updates[:-1]
    return updates


def networks(place: Place) -> str:
    """Every shipped network, made narrow, computes on several processes what it does on one.

    Weights drift apart where a ReLU or a maximum falls the other way by a rounding, and ever more after that. Where
    they do, the processes begin each iteration anew with the weights of one, and nine gradients of ten are to be its
    own: the tenth may be the one of such a ReLU.
    """
    classes = json.loads((place.folder / "scenes/dataset.json").read_text())["classes"]
    split = place.folder / "scenes/train"
    data = Data("scenes", len(classes), 255, (str(split),), str(place.folder / "scenes/test"), 6)
    momentum = 0.9
    sizes, batch, iterations = ((2, 3), 6, 3) if place.quick else ((2, 3, 5), 30, 50)
    worst_gradient = worst_weights = 0.0
    faults = []
    for name in place.models:
        model = MODELS[name]
        crop = {"segnet": (32, 32), "deconvnet": (224, 224)}.get(name, (33, 41))
        options = replace(model.options(crop, batch), whole_images=False)
        folder = place.folder / "networks" / name
        folder.mkdir(parents=True)
        (folder / "net.prototxt").write_text(narrow(train_val_text(model, name, data, options), len(classes)))
        solver = caffe_pb2.SolverParameter(
            net=str(folder / "net.prototxt"),
            base_lr=1e-3,
            lr_policy="fixed",
            momentum=momentum,
            weight_decay=5e-4,
            clip_gradients=1,
            max_iter=iterations,
            test_iter=[6],
            test_interval=iterations,
            random_seed=1,
            snapshot_prefix=str(folder / "a"),
            solver_mode=caffe_pb2.SolverParameter.CPU,
        )
        (folder / "solver.prototxt").write_text(text_format.MessageToString(solver))

        def train(out: str, size: int, *options: object, folder: Path = folder, **environment: str) -> dict:
            solver, file = folder / "solver.prototxt", folder / f"{out}.npz"
            place.call(*together(size), *WORKER, solver, iterations, file, *options, **environment)
            return dict(np.load(file))

        alone = train("0", 0, "--keep", folder / "kept.npz")
        one = train("1", 1)
        if any(not np.array_equal(alone[key], one[key]) for key in alone if key != "seconds"):
            faults.append(f"{name}: one process under mpirun differs from one without")
        limit = 1e-5
        told = []
        for size in sizes:
            found = train(str(size), size)
            gradient, apart = relative(found["first"], alone["first"]), relative(found["last"], alone["last"])
            worst_gradient, worst_weights = max(worst_gradient, gradient), max(worst_weights, apart)
            moved = np.abs(found["confusion"] - alone["confusion"]).sum() // 2
            told.append(f"{size} processes {gradient:.1e}, {apart:.1e}" + (f", {moved} pixels" if moved else ""))
            if not np.array_equal(found["confusion_before"], alone["confusion_before"]):
                faults.append(f"{name}: {size} processes count otherwise with the same weights")
            if gradient >= limit:  # what one process computes with other kernels may be as far away
                limit = max(limit, 3 * relative(train("other", 0, **OTHER_KERNELS)["first"], alone["first"]))
            if apart >= 1e-4:
                train("followed", size, "--keep", folder / "followed.npz", "--follow", folder / "kept.npz")
                gradients = [gradients_of(folder / f"{which}.npz", momentum) for which in ("followed", "kept")]
                each = [relative(*pair) for pair in zip(*gradients, strict=True)]
                within = sum(value < limit for value in each)
                told[-1] += f" ({within} of {len(each)} gradients at one process's weights to {limit:.0e})"
                if within < 0.9 * len(each):
                    faults.append(f"{name}: {told[-1]}")
            if gradient >= limit:
                faults.append(f"{name}: {told[-1]}")
        print(f"  {name}: gradients and weights of {'; '.join(told)}", flush=True)
        shutil.rmtree(folder)
    demand(not faults, "; ".join(faults))
    numbers = ", ".join(map(str, sizes))
    return (
        f"{len(place.models)} networks, {iterations} iterations, 1, {numbers} processes: gradients to"
        f" {worst_gradient:.1e}, weights to {worst_weights:.1e}"
    )


SLURM_JOB = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --output={folder}/job.log
export OMP_NUM_THREADS=1
resume=$([ -e {run}/run.json ] && echo --resume)
srun --mpi=pmix {train} $resume --solver {solver} --run {run}
"""


def under_slurm(place: Place) -> str:
    """A job on two nodes that Slurm puts into the queue again while it trains ends with the weights of an unbroken
    training."""
    reason = slurm.lacking() or lacking()
    if reason:
        raise Skipped(reason)
    settings = {"max_iter": 60, "display": 1, "snapshot": 20, "test_interval": 10**6}
    solvers = [place.solver(f"{name}_net", **settings) for name in ("slurm_unbroken", "slurm")]
    runs = [place.folder / name for name in ("slurm_unbroken", "slurm")]
    place.call(*together(2), *TRAIN, "--solver", solvers[0], "--run", runs[0])
    script = place.folder / "job.sh"
    train = " ".join(TRAIN)
    script.write_text(SLURM_JOB.format(folder=place.folder, run=runs[1], solver=solvers[1], train=train))
    with hosts(2, 1) as joined, slurm.cluster(place.folder / "daemons", joined) as cluster:
        job = cluster.ask("sbatch", "--parsable", str(script)).strip()
        demand(job.isdecimal(), "sbatch takes no job")

        def tells(what: str) -> str:
            found = re.search(rf"{what}=(\S+)", cluster.ask("scontrol", "show", "job", job))
            return found[1] if found else ""

        log = place.folder / "job.log"
        ended = ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        def said() -> str:
            return f"the job {tells('JobState')}:\n{log.read_text()[-2000:] if log.exists() else ''}"

        await_that(lambda: iteration_of(runs[1]) >= 5 or tells("JobState") in ended, 180, f"does not begin; {said()}")
        demand(tells("JobState") == "RUNNING", said())
        cluster.ask("scontrol", "requeue", job)
        await_that(lambda: tells("Restarts") == "1", SECONDS_TO_END, "is not queued again")
        stopped = iteration_of(runs[1])
        cluster.ask("scontrol", "update", f"jobid={job}", "StartTime=now")
        await_that(lambda: tells("JobState") in (*ended, "COMPLETED"), 600, f"does not end; {said()}")
        demand(tells("JobState") == "COMPLETED", said())
        version = cluster.ask("srun", "--version").strip()
    one, other = (weights(run / "snapshots" / f"{run.name}_iter_{settings['max_iter']}.caffemodel") for run in runs)
    demand(np.array_equal(one, other), "the weights differ from the unbroken training's")
    when = f"iteration {stopped} of {settings['max_iter']}"
    return f"{version}: 2 nodes, a task each by srun, queued again at {when}: the same bits"


def scaling(place: Place) -> str:
    """What tools/scaling.py predicts for two and three hosts is what they take, where each has a processor.

    Where they have fewer, what their exchange takes of the processors, and the switch between them, comes out of what
    the others compute: that is told and not held.
    """
    reason = lacking()
    if reason:
        raise Skipped(reason)
    iterations = 5 if place.quick else 30
    network = place.folder / "scaling"
    network.mkdir()
    model = MODELS["fcn"]
    data = Data("scenes", 8, 255, (str(place.folder / "scenes/train"),), str(place.folder / "scenes/test"), 6)
    text = train_val_text(model, "fcn", data, model.options((65, 65), 6))
    text = re.sub(r"num_output: (\d+)", lambda found: f"num_output: {max(int(found[1]) // 4, 8)}", text)
    (network / "net.prototxt").write_text(text)
    (network / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 100')
    shared = Schedule.read(network / "solver.prototxt", [2, 3])
    solver_text = text_format.MessageToString(shared.solver)
    (network / "steps.prototxt").write_text(solver_text)
    told, far = [], [0.0]
    processors = len(os.sched_getaffinity(0))
    for count, gigabits in ((2, 1), (2, 0.2), (3, 1), (3, 0.2)):
        # as many at once as there are to be, and just before, as they share this machine's processors
        with ThreadPoolExecutor(count) as pool:
            tasks = [pool.submit(list, run_native(measure, solver_text, count, iterations)) for _ in range(count)]
            traces = [task.result()[0] for task in tasks]
        predicted = max(predict(trace, Link(gigabits, 100)).seconds for trace in traces)
        out = network / f"{count}_{gigabits}.npz"
        with hosts(count, gigabits) as joined:
            place.call(*joined.mpirun(MPIRUN), *WORKER, network / "steps.prototxt", iterations, out)
        measured = float(np.median(np.load(out)["seconds"][1:]))
        computation = max(trace.seconds for trace in traces)
        told.append(
            f"{count} hosts, {gigabits} Gb/s: {measured:.3f} s, predicted {predicted:.3f} s ({computation:.3f} s alone"
            f"{f', on {processors} processors' if count > processors else ''})"
        )
        if count <= processors:
            far.append(abs(predicted / measured - 1))
    what = f"{traces[0].bytes / 1e6:.0f} MB in {traces[0].sums} sums: {'; '.join(told)}"
    demand(max(far) < 0.15, f"further apart than 15%: {what}")
    return what


STAGES: dict[str, Callable[[Place], str]] = {
    "hosts": across_hosts,
    "link": cut_link,
    "scaling": scaling,
    "kills": kills,
    "slurm": under_slurm,
    "networks": networks,
}


def main(arguments: argparse.Namespace) -> int:
    """Go through the stages."""
    os.environ.update(ENVIRONMENT)  # what is measured in here, too
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(prefix="cluster_trial_") as folder:
        place = Place(Path(folder), arguments.quick, tuple(arguments.networks))
        place.prepare()
        for name in arguments.only or STAGES:
            began = time.monotonic()
            try:
                outcome, text = "passed", STAGES[name](place)
            except Skipped as skipped:
                outcome, text = "skipped", str(skipped)
            except (Failed, RuntimeError, OSError, subprocess.SubprocessError) as failed:
                outcome, text = "failed", str(failed)
            counts[outcome] += 1
            print(f"{name}: {outcome} in {time.monotonic() - began:.0f} s: {text}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return int(counts["failed"] > 0)


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small part of each stage")
    parser.add_argument("--only", nargs="+", choices=STAGES, metavar="STAGE", help=f"of {', '.join(STAGES)}")
    models = {"nargs": "+", "choices": MODELS, "default": list(MODELS), "metavar": "NAME"}
    parser.add_argument("--networks", **models, help="of the stage networks, those of prototxt/; default: all")
    return parser


if __name__ == "__main__":
    sys.exit(main(make_parser().parse_args()))
