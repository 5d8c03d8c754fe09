"""What the fixtures of NATS and Postgres share: a real server that a test may stop and start."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from signal import SIGCONT, SIGKILL, Signals
from typing import IO

from stack.embedded.server import Server
from tests.support.wait import eventually

READY_SECONDS = 15
STOP_SECONDS = 15


class RealServer:
    """A running server on a free port; it keeps port and data from start to start."""

    def __init__(self, server: Server, log: Path, is_up: Callable[[Server], bool]) -> None:
        self.server = server
        self.log = log
        self._is_up = is_up
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.server.name} does not run"
        return self._process.pid

    @property
    def port(self) -> int:
        return self.server.port

    def start(self, wait: bool = True) -> None:
        """Starts it, and waits until it serves."""
        assert self._process is None, f"{self.server.name} runs already"
        self._log_file = self.log.open("ab")
        self._process = subprocess.Popen(
            self.server.argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            **self.server.popen_options(),
        )
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        try:
            eventually(self._up_or_dead, READY_SECONDS, f"{self.server.name} is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-4000:]}") from error

    def _up_or_dead(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None or self._is_up(self.server)

    def still_runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: Signals) -> None:
        os.kill(self.pid, number)

    def stop(self, number: Signals | None = None) -> None:
        """Ends it with its own signal, or the given one, and waits until it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number or self.server.stop_signal)
            self._process.send_signal(SIGCONT)
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(STOP_SECONDS)
            self._process = None
            assert self._log_file is not None
            self._log_file.close()

    def kill(self) -> None:
        self.stop(SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()
