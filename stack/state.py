"""Describes the running processes in `run/<name>.json`, for doctor, operators and tests.

The file is a convenience. If it can't be written (full disk, no descriptors), the error is logged,
the write is retried, and everything else continues.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from stack.embedded import server as embedded_server
from stack.errors import StackError
from stack.supervise.logs import Log

RETRY_SECONDS: Final = 2.0


class StateFile:
    """The state of one command, written from the event loop."""

    def __init__(self, data_dir: Path, name: str, log: Log) -> None:
        self._data_dir, self._name, self._log = data_dir, name, log
        self._facts: dict[str, object] = {}
        self._failing = False

    def write(self, facts: dict[str, object]) -> None:
        """Writes these facts, now or as soon as possible; never raises."""
        self._facts = facts
        if not self._failing:
            self._try()

    def _try(self) -> None:
        try:
            embedded_server.note(self._data_dir, self._name, self._facts)
        except StackError as error:
            if not self._failing:
                self._log.warn(f"{error} The write is retried; everything else continues.")
            self._failing = True
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try)
        else:
            self._failing = False
