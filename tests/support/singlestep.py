"""A child process that runs one instruction at a time, under ptrace.

Why: a process may die between any two stores, and a store lasts a nanosecond. Random kills hit
such a gap once in thousands; here each gap is visited, one after the other, every time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Final

TRACEME: Final = 0
SINGLESTEP: Final = 9

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class NoTracingError(RuntimeError):
    """This machine lets no process trace its own child (seccomp, as in some containers)."""


def stepped(step: Callable[[], object]) -> Iterator[int]:
    """Runs `step` in a fork of this process; yields once after each of its instructions.

    Raises NoTracingError. The child ends with the iteration, or is killed where that breaks off.
    """
    with warnings.catch_warnings():
        # Of forks beside threads: the child runs nothing but `step`, and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_traced(step)
    try:
        yield from _instructions(pid)
    finally:
        _end(pid)


def _be_traced(step: Callable[[], object]) -> None:
    """The child: stops at the beginning and at the end of what is to be watched."""
    try:
        if _libc.ptrace(TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            step()
            os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        os._exit(0)


def _instructions(pid: int) -> Iterator[int]:
    if _stopped_by(pid) != signal.SIGSTOP:
        raise NoTracingError(NoTracingError.__doc__)
    n = 0
    while True:
        if _libc.ptrace(SINGLESTEP, pid, None, None):
            raise NoTracingError(f"no single steps here: {os.strerror(ctypes.get_errno())}")
        if _stopped_by(pid) != signal.SIGTRAP:
            return
        n += 1
        yield n


def _stopped_by(pid: int) -> int:
    """The signal that the child has stopped with; 0 where it has ended."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return os.WSTOPSIG(status) if os.WIFSTOPPED(status) else 0


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
