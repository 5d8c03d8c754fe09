"""What the kernel says of processes that a test started, or that these started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from stack.supervise.process import children_of


def alive(pid: int) -> bool:
    """Whether the process is there; one that is dead and not yet waited for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid: int) -> list[int]:
    """The process and its children."""
    return [pid, *children_of(pid)]


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Within it these processes stand still; afterwards those go on that are still there."""
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
