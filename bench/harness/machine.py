"""The machine under the benchmark: cores, CPU accounting of process trees, and what it is.

CPU comes from the kernel's own clock of each process (all its threads, also those that have
ended), in nanoseconds; `ps` shows the same in hundredths of a second.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

CPUCLOCK_SCHED = 2
"""Linux: the clock of the time a process has run, of the clocks that a pid has."""
KIB = 1024
CORES = len(os.sched_getaffinity(0))
"""Cores that this program may use; noted before it ties itself to one."""
NANO = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_ns(pid: int) -> int:
    """CPU time of a process, in nanoseconds, from the kernel's accounting."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def parents() -> dict[int, int]:
    """Every process of the machine and its parent."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  (names, thousands of them)
        if entry.isdigit():
            try:
                found[int(entry)] = int(_stat(int(entry))[1])
            except (OSError, IndexError):
                continue  # gone in the meantime
    return found


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    of = parents()
    pids = [root]
    for pid in pids:  # grows while we go
        pids.extend(child for child, parent in of.items() if parent == pid)
    return pids


def command_line(pid: int) -> str:
    """The command of a process; empty when it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def pin(pids: Iterable[int], cores: set[int]) -> None:
    """Tie all threads of these processes to cores."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            os.sched_setaffinity(int(thread), cores)


def renice(pids: Iterable[int], niceness: int) -> None:
    """Lower the priority of all threads of these processes."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            os.setpriority(os.PRIO_PROCESS, int(thread), niceness)


def resident_bytes(pid: int) -> int:
    """Resident memory, shared pages and mapped files in it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    raise RuntimeError(f"process {pid} has no resident memory: it has ended")


def reaped_ns(pid: int) -> int:
    """CPU time of a process's children that have ended, in nanoseconds, by hundredths of one."""
    user, system = _stat(pid)[13:15]
    return (int(user) + int(system)) * (NANO // TICKS)


class CpuWindow:
    """CPU used by processes since a moment; what a child used that ended meanwhile is in it."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        """`pids` lists the processes, now and at the end."""
        self._pids = pids
        self._start = self._sum()

    def _sum(self) -> int:
        total = 0
        for pid in self._pids():
            with suppress(OSError):  # gone since the list was made: its parent has its time
                total += cpu_ns(pid) + reaped_ns(pid)
        return total

    def used_ns(self) -> int:
        """Nanoseconds since the start."""
        return self._sum() - self._start


def processor() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def facts() -> dict[str, str]:
    """What a reader of the results wants to know of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / KIB**3
    return {
        "processor": processor(),
        "cores": str(CORES),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }
