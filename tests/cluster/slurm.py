"""A Slurm cluster over hosts: Debian's daemons, with state and secrets in a folder of the trial's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hosts import Hosts

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "sinfo")
SECONDS_TO_BEGIN = 30
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={first}({address})
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
KillWait=30
SlurmdParameters=config_overrides
{nodes}
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


@dataclass(frozen=True)
class Cluster:
    """Cluster that is up.

    Attributes:
        joined: its nodes; the first one has the controller.
        variables: let Slurm's commands reach it.
    """

    joined: Hosts
    variables: dict[str, str]

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints on the first node."""
        words = self.joined.command(self.joined.names[0], *command)
        return subprocess.run(
            words, env=os.environ | self.variables, capture_output=True, text=True, check=False
        ).stdout

    def is_idle(self) -> bool:
        """Tell whether all nodes wait for work."""
        return self.ask("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * len(self.joined.names)


@contextmanager
def cluster(folder: Path, joined: Hosts) -> Iterator[Cluster]:
    """Start the daemons on the hosts; all end with the block.

    Raises:
        RuntimeError: a daemon does not come up.
    """
    # PMIx makes a folder of one name on every node
    for name in ("state", *(f"tmp-{node}" for node in joined.names)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)  # munged wants nobody else to write there
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    file = folder / "slurm.conf"
    first = joined.names[0]
    nodes = "\n".join(f"NodeName={name} NodeAddr={joined.address(name)} CPUs=4 State=UNKNOWN" for name in joined.names)
    file.write_text(
        CONFIGURATION.format(folder=folder, first=first, address=joined.address(first), nodes=nodes), encoding="utf-8"
    )
    # a host has no /sys/fs/cgroup, which the other plugins look for as they begin
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")
    variables = {"SLURM_CONF": str(file)}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = {
        "munged": ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        "slurmctld": joined.command(first, "slurmctld", "-D", "-c"),
        **{f"slurmd-{name}": joined.command(name, "slurmd", "-D", "-N", name) for name in joined.names},
    }
    with ExitStack() as stack:
        for name, command in daemons.items():
            log = stack.enter_context(open(folder / f"{name}.out", "w", encoding="utf-8"))
            daemon = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            if name == "munged":
                await_that((folder / "munge.socket").exists, f"munged does not come up: {folder}/munged.log")
        up = Cluster(joined, variables)
        await_that(up.is_idle, f"not all nodes are idle: {folder}/*.log")
        yield up
