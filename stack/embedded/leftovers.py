"""Removes what an earlier postmaster of the data directory left behind: processes, a lock file.

Postgres rightly refuses to start while a process still has the old shared memory. Most such
processes detect the postmaster's death and end; one that is stopped (SIGSTOP) never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from stack.errors import StackError

PROGRAM: Final = "postgres"
PREDECESSOR_SECONDS: Final = 10
POLL_SECONDS: Final = 0.05
KILL_SECONDS: Final = 5.0


def wait_for_predecessor(home: Path) -> None:
    """Waits for a server that is still stopping because its supervisor was killed.

    Raises StackError with its PID if it does not stop.
    """
    deadline = time.monotonic() + PREDECESSOR_SECONDS
    while pid := _lock_holder(home):
        if time.monotonic() > deadline:
            raise StackError(
                f"Another Postgres, process {pid}, is using {home}: stop it (kill -INT {pid}), "
                "or choose another directory with --data-dir."
            )
        time.sleep(POLL_SECONDS)


async def clear(home: Path) -> None:
    """Kills the processes of a dead postmaster, and removes its lock file."""
    deadline = time.monotonic() + KILL_SECONDS
    while (left := _processes(home)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(POLL_SECONDS)
    # Some may be blocked on a dead disk: then Postgres itself refuses to start.
    if not left:
        _lock_holder(home)


def _processes(home: Path) -> list[int]:
    """All Postgres processes whose working directory is this directory."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _is_postgres(pid) and _works_in(pid, home)]


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == PROGRAM
    except OSError:
        return False


def _works_in(pid: int, home: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(home)
    except OSError:
        return False


def _lock_holder(home: Path) -> int:
    """The live process of this directory that the lock file names; 0 if there is none.

    The file is removed if its PID now belongs to another program: Postgres would mistake any live
    process of its own account for a running server.
    """
    lock = home / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
        if Path(f"/proc/{pid}/cwd").samefile(home):
            return pid
        lock.unlink()
    except (OSError, ValueError):
        return 0  # no lock, no such process, or unreadable: Postgres reports what is wrong
    return 0
