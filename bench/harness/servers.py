"""Starting a server for the benchmark, pinned to a core, and stopping it; what one must offer.

A server is its process tree: `clicking` are the processes whose work a click is, tied to the
server's core, and `helping` all others that it needs to run (for Clickmill: NATS, Postgres, the
aggregator, the supervisor), which share the other core with the load.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from bench.harness import machine

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS, STOP_SECONDS = 20.0, 20.0
POLL_SECONDS = 0.05
LOG_TAIL = 2_000


class ServerError(Exception):
    """A server did not start, or did not stop; the text has the end of its log."""


def end_on_sigterm() -> None:
    """Make SIGTERM end this program like Ctrl-C, so that it ends its servers first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def listens(port: int) -> bool:
    """True when a port accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until ready; ServerError when the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


class Server:
    """Processes that answer on one port, started in a folder of their own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.dir = Path(tempfile.mkdtemp(prefix="clickmill-bench-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log: IO[bytes] = (self.dir / "log").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def spawn(
        self,
        command: Sequence[str],
        core: int | None,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> subprocess.Popen[bytes]:
        """Start one process, tied to a core unless that is None."""
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        process = subprocess.Popen(
            [*pinned, *command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for us: we then end the servers in order
        )
        self._processes.append(process)
        return process

    def log_tail(self) -> str:
        """The end of what its processes wrote."""
        return (self.dir / "log").read_text(errors="replace")[-LOG_TAIL:]

    def wait_listening(self) -> None:
        """Wait until the port accepts connections; ServerError with the log if it never does."""
        try:
            wait_until(self._listens_or_died, START_SECONDS, f"port {self.port} opens")
        except ServerError as error:
            tail = self.log_tail()
            self.stop()
            raise ServerError(f"{error}\n{tail}") from error

    def _listens_or_died(self) -> bool:
        if any(process.poll() is not None for process in self._processes):
            raise ServerError("a process of the server ended at its start")
        return listens(self.port)

    def pids(self) -> list[int]:
        """All its processes."""
        return [pid for process in self._processes for pid in machine.tree(process.pid)]

    def clicking(self) -> list[int]:
        """The processes whose work a click is."""
        return self.pids()

    def helping(self) -> list[int]:
        """The other processes that it needs to run."""
        clicking = set(self.clicking())
        return [pid for pid in self.pids() if pid not in clicking]

    def total(self) -> int | None:
        """Clicks counted so far, by the server's own count; None: it counts nothing."""
        return None

    def stop(self) -> None:
        """End all its processes, and remove its folder."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class CountingServer(Server):
    """A contender that answers `GET /total` with the sum of its counters."""

    def total(self) -> int | None:
        """The sum of its counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/total", timeout=10) as answer:
            return int(answer.read())
