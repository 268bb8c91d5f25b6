"""A Slurm cluster of one node: Debian's daemons, with state and secrets in a folder of the trial's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "sinfo")
SECONDS_TO_BEGIN = 30
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
KillWait=30
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=trial Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """What this machine lacks for Slurm, in words; None: nothing."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)} (Debian: slurm-wlm, munge)"
    if not list(Path("/usr/lib").glob("*/pmix2/lib/libpmix.so")):
        return "srun finds no PMIx (Debian: libpmix-dev)"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return None


def await_that(holds: Callable[[], bool], what: str) -> None:
    """Wait for a daemon; raises RuntimeError where it does not come."""
    end = time.monotonic() + SECONDS_TO_BEGIN
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(what)
        time.sleep(0.1)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the daemons, and yield the variables that let Slurm's commands reach them; all end with the block.

    Raises:
        RuntimeError: a daemon does not come up.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)  # munged wants nobody else to write there
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    file = folder / "slurm.conf"
    file.write_text(CONFIGURATION.format(folder=folder, host=socket.gethostname()))
    variables = {"SLURM_CONF": str(file)}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = {
        "munged": ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        "slurmctld": ["slurmctld", "-D", "-c"],
        "slurmd": ["slurmd", "-D", "-N", socket.gethostname()],
    }
    with ExitStack() as stack:
        for name, command in daemons.items():
            log = stack.enter_context(open(folder / f"{name}.log", "w", encoding="utf-8"))
            daemon = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            if name == "munged":
                await_that((folder / "munge.socket").exists, f"munged does not come up: {folder}/munged.log")
        await_that(lambda: "idle" in ask(variables, "sinfo", "-h", "-o", "%T"), f"no idle node: {folder}/*.log")
        yield variables


def ask(variables: dict[str, str], *command: str) -> str:
    """Return what one of Slurm's commands prints."""
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False).stdout
