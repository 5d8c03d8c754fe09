"""The lock of a source's directory: held by its process, and dropped by the kernel with it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def make_locked(directory: Path) -> int:
    """A new directory's lock, held: no other process has its name."""
    directory.mkdir(mode=0o700, parents=True)
    fd = _open_lock(directory)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _open_lock(directory: Path) -> int:
    return os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_of(directory: Path) -> int | None:
    """The directory's lock, held by an open descriptor; None where another process has it."""
    try:
        fd = _open_lock(directory)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the open and the lock its last owner may have removed the directory.
        if os.fstat(fd).st_ino == (directory / "lock").stat().st_ino:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def is_held(directory: Path) -> bool:
    """Whether a running process holds this source; False where its lock can't be opened."""
    try:
        fd = _open_lock(directory)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
