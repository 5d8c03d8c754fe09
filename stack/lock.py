"""A lock file that allows only one supervisor with embedded servers per data directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from stack.embedded.server import private_dir
from stack.errors import DataDirInUseError

NAME: Final = "up.lock"
_held: Final[list[int]] = []  # kept open until this process ends


def take(data_dir: Path) -> None:
    """Locks the directory for this process. Raises DataDirInUseError with the holder's PID."""
    path = private_dir(data_dir) / NAME
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise DataDirInUseError(data_dir, holder(data_dir) or "unknown") from error
    _held.append(fd)
    with contextlib.suppress(OSError):  # full disk: the lock works without the PID in it
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def holder(data_dir: Path) -> str:
    """The PID in the lock file; empty if there is none."""
    try:
        return (data_dir / NAME).read_text().strip()
    except OSError:
        return ""
