"""Machines of a test: network namespaces on one bridge, whose cables can be pulled.

    with Network() as network:
        nats, worker = network.machine("nats-1"), network.machine("ingest-1")
        with nats.inside():
            ...                      # sockets and processes that are made here are that machine's
        worker.unplug()              # nothing comes in or goes out any more, and no error either
        worker.cut_from(nats)        # only these two don't reach each other

Why namespaces: killing a process closes its connections, and the other side notices at once. A
machine that loses its power or its network closes nothing; the other side has to find out.

A namespace has no name in the file system. It ends with the last process in it and the test's file
descriptor, so a test that is killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

CLONE_NEWNET: Final = 0x4000_0000
SUBNET: Final = "10.77.0"
NOWHERE: Final = "02:00:00:00:00:01"
"""A MAC address that no machine has: a packet to it is lost without an error."""
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Machine:
    """One namespace with the interface `eth0` on the network's bridge, and its own loopback."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name = name
        self.address = f"{SUBNET}.{number}"
        self._network = network
        self._fd = _new_namespace()
        self._port = f"port{number}"

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"

    @property
    def path(self) -> str:
        """The namespace, for `ip link set netns`."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and the processes and threads that it starts, are on this machine."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._fd)
            yield
        finally:
            _enter(before)
            os.close(before)

    def unplug(self) -> None:
        """Pull the cable out."""
        self._network.ip(f"link set {self._port} down")

    def plug(self) -> None:
        """Put the cable back in, and end every `cut_from`."""
        self._network.ip(f"link set {self._port} up")

    def cut_from(self, *others: Machine) -> None:
        """Lose every packet between this machine and those, in both directions."""
        for other in others:
            for one, peer in ((self, other), (other, self)):
                one.ip(f"neigh replace {peer.address} lladdr {NOWHERE} nud permanent dev eth0")

    def rejoin(self, *others: Machine) -> None:
        """End `cut_from`."""
        for other in others:
            for one, peer in ((self, other), (other, self)):
                one.ip(f"neigh del {peer.address} dev eth0")

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` on this machine."""
        with self.inside():
            _ip(*lines)

    def connect(self) -> None:
        """Lay the cable to the bridge."""
        self._network.ip(
            f"link add {self._port} type veth peer name eth0 netns {self.path}",
            f"link set {self._port} master bridge0 up",
        )
        self.ip(f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up")

    def close(self) -> None:
        """Let the namespace end."""
        os.close(self._fd)


class Network:
    """The bridge and its machines. This thread is on the machine `client` meanwhile."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._machines: dict[str, Machine] = {}
        self._switch: Machine

    def __enter__(self) -> Network:
        self._switch = Machine(self, "switch", 254)
        self._stack.callback(self._switch.close)
        self.ip("link add bridge0 type bridge forward_delay 0", "link set bridge0 up")
        self._stack.enter_context(self.machine("client").inside())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stack.close()

    def machine(self, name: str) -> Machine:
        """The machine of this name; a new one where there is none."""
        if name not in self._machines:
            machine = self._machines[name] = Machine(self, name, len(self._machines) + 1)
            self._stack.callback(machine.close)
            machine.connect()
        return self._machines[name]

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` where the bridge is."""
        self._switch.ip(*lines)


def unavailable() -> str:
    """Why this process can't make networks; "" where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces can't be made here ({error})"


def _new_namespace() -> int:
    """A descriptor of a new namespace. A thread enters it, so that this one stays where it is."""
    made: list[int | OSError] = []

    def make() -> None:
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _enter(fd: int) -> None:
    _check(_libc.setns(fd, CLONE_NEWNET))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*lines: str) -> None:
    path = next(p for p in ("/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip") if Path(p).exists())
    subprocess.run(
        [path, "-batch", "-"], input="\n".join(lines), text=True, check=True, capture_output=True
    )
