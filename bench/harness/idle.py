"""The gate before a measurement: whether the machine is idle, and if not, what runs on it.

Why not the load average: it is a mean over a minute, so it is still high long after the section
before has ended, still low when a compiler has just begun, and it counts tasks that wait for a
disk. /proc/stat says how long the cores have worked, in the last two seconds. Time that the
hypervisor took away counts as work too: another guest had the core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.harness import machine

LIMIT_CORES = 0.3
"""Busier than this, and results would be those of the other programs too."""
LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
WAITING = frozenset({"idle", "iowait"})
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
MOST_NAMED = 3


class BusyMachineError(Exception):
    """Something else runs: the sentence says how much, what, and what to do."""


class Sample(NamedTuple):
    """One reading of /proc/stat."""

    at: float
    """Monotonic seconds."""
    busy: float
    """Seconds that all cores together have worked since boot."""


def parse(text: str, at: float) -> Sample:
    """The sum over all cores, from the text of /proc/stat."""
    values = map(int, text.split("\n", 1)[0].split()[1:])
    ticks = dict(zip(FIELDS, values, strict=False))  # what guests use is in `user` already
    return Sample(at, sum(n for name, n in ticks.items() if name not in WAITING) / machine.TICKS)


def busy_cores(seconds: float = LOOK_SECONDS) -> float:
    """Cores in use, on average, over the next so many seconds."""
    before = parse(Path("/proc/stat").read_text(), time.monotonic())
    time.sleep(seconds)
    after = parse(Path("/proc/stat").read_text(), time.monotonic())
    return (after.busy - before.busy) / (after.at - before.at)


def wait_idle(
    say: Callable[[str], None],
    patience: float = PATIENCE_SECONDS,
    look: Callable[[], float] = busy_cores,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Look until the machine is idle, and return the cores in use. Raises BusyMachineError."""
    deadline = clock() + patience
    busy = look()
    if busy > LIMIT_CORES:
        say(f"{busy:.2f} cores are busy with something else: waiting, at most {patience:.0f} s")
    while busy > LIMIT_CORES:
        if clock() >= deadline:
            raise BusyMachineError(
                f"{busy:.2f} cores are still busy with something else after {patience:.0f} s "
                f"(at most {LIMIT_CORES:g} may be), so nothing was measured. "
                "Stop what runs, or pass --allow-busy to measure anyway: the results are then "
                f"marked. {busiest()}"
            )
        busy = look()
    return busy


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that `gate` reads."""
    parser.add_argument(
        "--allow-busy", action="store_true",
        help="measure although something else runs; the results are marked",
    )  # fmt: skip
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_SECONDS, metavar="SECONDS",
        help="longest wait for the machine to be idle (default %(default)g)",
    )  # fmt: skip


def gate(options: argparse.Namespace, say: Callable[[str], None]) -> float:
    """Cores in use, once the machine is idle or may be busy. Raises BusyMachineError."""
    return busy_cores() if options.allow_busy else wait_idle(say, options.patience)


def busiest(seconds: float = 1.0) -> str:
    """A sentence that names the processes that use most of the CPU now."""
    before = _cpu_by_process()
    time.sleep(seconds)
    used = {pid: ns - before.get(pid, ns) for pid, ns in _cpu_by_process().items()}
    most = sorted(used, key=lambda pid: used[pid], reverse=True)[:MOST_NAMED]
    named = [
        f"{machine.command_line(pid)[:60] or 'a kernel thread'} (pid {pid}, "
        f"{used[pid] / machine.NANO / seconds:.0%})"
        for pid in most
        if used[pid]
    ]
    return f"Busiest now: {'; '.join(named)}." if named else ""


def _cpu_by_process() -> dict[int, int]:
    found = {}
    for pid in machine.parents():
        with suppress(OSError):  # ended since the list was made
            found[pid] = machine.cpu_ns(pid)
    return found
