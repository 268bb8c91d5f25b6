"""Hosts on one machine: network namespaces with names of their own, joined by links of a given speed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

AGENT = Path(__file__).with_name("launch_agent.sh")
PREFIX = "renet-node"
SWITCH = "renet-switch"
NETWORK = "10.77.0"
# what `ip netns exec` shows a namespace's processes in the place of /etc
FILES = Path("/etc/netns")


def run(*command: object) -> None:
    """Run a command of the system; raises CalledProcessError with what it said."""
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)


def lacking() -> str | None:
    """What this machine lacks for hosts, in words; None: nothing."""
    missing = [name for name in ("ip", "tc", "unshare") if shutil.which(name) is None]
    if missing:
        return f"there is no {', '.join(missing)} (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with hosts(1, 1):
            return None
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"


def end_processes(name: str) -> None:
    """End what is left on a host."""
    told = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout
    for number in map(int, told.split()):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@dataclass(frozen=True)
class Hosts:
    """Hosts that reach each other.

    Attributes:
        names: theirs, which is what `hostname` says there.
    """

    names: tuple[str, ...]

    def address(self, name: str) -> str:
        """The IP address of a host."""
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def command(self, name: str, *words: object) -> list[str]:
        """A command that becomes, on a host, the one of these words, which the shell there reads."""
        return [str(AGENT), name, "exec", *map(str, words)]

    def mpirun(self, mpirun: Path, *options: str) -> list[str]:
        """A command that starts, from the first host, a process on each; the program follows."""
        places = ",".join(f"{name}:1" for name in self.names)
        return self.command(
            self.names[0],
            *(mpirun, "--host", places, "-n", len(self.names), "--bind-to", "none"),
            *("--prtemca", "plm_ssh_agent", AGENT, *options),
        )

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        run("ip", "-n", SWITCH, "link", "set", name[len("renet-") :], "down")


@contextmanager
def hosts(count: int, gigabits: float) -> Iterator[Hosts]:
    """Make hosts, each with a link to a switch that sends and receives so many gigabits a second; none stays.

    Raises:
        CalledProcessError: the machine cannot do that.
    """
    names = tuple(f"{PREFIX}{number}" for number in range(1, count + 1))
    joined = Hosts(names)
    addresses = "".join(f"{joined.address(name)} {name}\n" for name in names)
    # without a large buffer a link of this kind drops what comes in a burst
    shape = ("root", "tbf", "rate", f"{int(gigabits * 1000)}mbit", "burst", "256k", "latency", "50ms")
    with ExitStack() as stack:

        def namespace(name: str) -> None:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
            stack.callback(end_processes, name)

        namespace(SWITCH)
        run("ip", "-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", SWITCH, "link", "set", "bridge", "up")
        for name in names:
            port = name[len("renet-") :]
            namespace(name)
            (FILES / name).mkdir(parents=True)
            stack.callback(shutil.rmtree, FILES / name)
            (FILES / name / "hosts").write_text(f"127.0.0.1 localhost\n{addresses}")
            run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", SWITCH)
            run("ip", "-n", SWITCH, "link", "set", port, "master", "bridge", "up")
            run("ip", "-n", name, "addr", "add", f"{joined.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                run("ip", "-n", name, "link", "set", device, "up")
            run("tc", "-n", name, "qdisc", "add", "dev", "eth0", *shape)
            run("tc", "-n", SWITCH, "qdisc", "add", "dev", port, *shape)
        yield joined
