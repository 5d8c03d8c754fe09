"""One operating system process on the event loop: start, read output, signal, wait.

It replaces asyncio's own subprocesses. If no thread or descriptor is left, asyncio raises after the
fork (Python 3.11 starts a thread for each process) and leaves an unsupervised process. Here a start
either fails without a process or returns a supervised one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

READ_BYTES: Final = 64 << 10
POLL_SECONDS: Final = 0.05
REST_OF_OUTPUT_SECONDS: Final = 1.0


class Process:
    """A running program. `ended` holds its exit code at the end, negative for a signal."""

    def __init__(
        self, argv: Sequence[str], options: dict[str, Any], on_output: Callable[[bytes], None]
    ) -> None:
        """Starts it; raises OSError or SubprocessError if that is impossible.

        `options` go to `subprocess.Popen`. `on_output` gets its output, and b"" at the end.
        """
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._drained: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = -1
        self._popen = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            bufsize=0, **options,
        )  # fmt: skip
        try:
            self._watch()
        except BaseException:
            self._popen.kill()
            self._popen.wait()
            self._close()
            raise

    @property
    def pid(self) -> int:
        """Its PID."""
        return self._popen.pid

    async def wait(self) -> int:
        """Waits for its end and for the last of its output; the exit code."""
        await asyncio.wait({self.ended})
        # A grandchild may keep the pipe open: wait only a moment.
        await asyncio.wait({self._drained}, timeout=REST_OF_OUTPUT_SECONDS)
        self._end_of_output()
        return self.ended.result()

    async def wait_ended(self, seconds: float) -> bool:
        """Whether it has ended within so many seconds."""
        await asyncio.wait({self.ended}, timeout=seconds)
        return self.ended.done()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if the process is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def kill(self) -> None:
        """Kills it with its children: those that are stopped would not notice its death."""
        children = children_of(self.pid) if not self.ended.done() else []
        self.signal(signal.SIGKILL)
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)

    def _watch(self) -> None:
        assert self._popen.stdout is not None
        os.set_blocking(self._popen.stdout.fileno(), False)
        self._loop.add_reader(self._popen.stdout.fileno(), self._read)
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:  # an old kernel, or no descriptor left
            self._poll()
        else:
            self._loop.add_reader(self._pidfd, self._look)

    def _poll(self) -> None:
        self._look()
        if not self.ended.done():
            self._loop.call_later(POLL_SECONDS, self._poll)

    def _look(self) -> None:
        code = self._popen.poll()
        if code is not None and not self.ended.done():
            self.ended.set_result(code)
            self._forget_pidfd()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        try:
            data = os.read(self._popen.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._on_output(data)
        else:
            self._end_of_output()

    def _end_of_output(self) -> None:
        if not self._drained.done():
            self._drained.set_result(None)
            self._on_output(b"")
            self._close_output()

    def _close(self) -> None:
        self._forget_pidfd()
        self._close_output()

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _close_output(self) -> None:
        assert self._popen.stdout is not None
        if not self._popen.stdout.closed:
            self._loop.remove_reader(self._popen.stdout.fileno())
            self._popen.stdout.close()


def children_of(pid: int) -> list[int]:
    """The children of the process's first thread; empty if the kernel does not report them."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    """Whether the process was stopped by a signal (not by a debugger)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False


def signal_name(number: int) -> str:
    """The name of a signal, of a real-time signal too, which Python has no names for."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
