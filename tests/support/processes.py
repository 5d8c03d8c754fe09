"""What the kernel says of processes that a test started, or that these started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from stack.supervise.process import children_of
from tests.support.wait import eventually


def alive(pid: int) -> bool:
    """Whether the process is there; one that is dead and not yet waited for is not."""
    try:
        return _state(Path(f"/proc/{pid}")) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(pid: int) -> list[int]:
    """The process and its children."""
    return [pid, *children_of(pid)]


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Within it these processes stand still; afterwards those go on that are still there.

    A signal stops the threads of a process one after the other, and until then they may answer.
    """
    _signal(pids, signal.SIGSTOP)
    try:
        eventually(lambda: all(map(_stands_still, pids)), what=f"{pids} stand still")
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """Whether all its threads do; a process that has ended does."""
    threads = Path(f"/proc/{pid}/task")
    try:
        return not {_state(thread) for thread in threads.iterdir()} - set("TtZX")
    except (FileNotFoundError, ProcessLookupError):
        return not threads.exists()


def _state(process: Path) -> str:
    """Of a process or a thread: the letter that ps shows."""
    return (process / "stat").read_text().rsplit(")", 1)[1].split()[0]


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
