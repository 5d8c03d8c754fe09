"""The child's end of its supervision: it dies with its parent, and sends heartbeats.

Why: a worker that outlives its parent would go on serving beside the next one, and a worker
that hangs serves no request. So a child dies with its parent (PR_SET_PDEATHSIG), and sends a byte
twice a second up an inherited pipe from its event loop: a loop that is blocked sends none.

Started by hand, without a supervisor, a process has no pipe and every call in here does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from typing import Final

PARENT_PID: Final = "CLICKMILL_PARENT_PID"
HEARTBEAT_FD: Final = "CLICKMILL_HEARTBEAT_FD"
READY: Final = b"R"
HEARTBEAT: Final = b"."
INTERVAL_SECONDS: Final = 0.5

_PR_SET_PDEATHSIG: Final = 1
# Looked up here: between fork and exec there must be no look-up, which takes a lock.
_prctl: Final = ctypes.CDLL(None, use_errno=True).prctl
_fd: int | None = None


def die_with_parent(parent: int, death_signal: signal.Signals = signal.SIGKILL) -> None:
    """From now on the kernel sends `death_signal` here when `parent` dies; now if it is dead.

    Call it after any change of user, which clears the kernel's note. It may run between fork
    and exec, for programs that are not Clickmill's own.
    """
    if _prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def attach() -> bool:
    """Ties this process to the supervisor that started it. False if there is none.

    Call it first thing in `main`, before files, ports or threads. Both variables are taken out
    of the environment, so that a child of this process doesn't take the pipe for its own.
    """
    global _fd  # noqa: PLW0603  # one process has one parent
    parent, fd = os.environ.pop(PARENT_PID, ""), os.environ.pop(HEARTBEAT_FD, "")
    if parent:
        die_with_parent(int(parent))
    if fd:
        _fd = int(fd)
        os.set_inheritable(_fd, False)
        os.set_blocking(_fd, False)
    return bool(parent or fd)


def ready() -> None:
    """Reports to the supervisor that this process serves; heartbeats are due from here on."""
    _send(READY)


async def send_forever() -> None:
    """Sends a heartbeat twice a second; returns at once if there is no supervisor.

    From the event loop itself, never from a thread beside it.
    """
    while _fd is not None:
        _send(HEARTBEAT)
        await asyncio.sleep(INTERVAL_SECONDS)


def _send(byte: bytes) -> None:
    global _fd  # noqa: PLW0603
    if _fd is None:
        return
    try:
        os.write(_fd, byte)
    except BlockingIOError:
        pass  # The supervisor is behind; it has our earlier heartbeats to read.
    except OSError as error:
        # No reader is left. The kernel's signal ends us; the pipe is of no more use.
        print(f"heartbeat: the supervisor is gone ({error})", file=sys.stderr, flush=True)
        _fd = None
