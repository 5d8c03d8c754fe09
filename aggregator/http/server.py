"""The HTTP port, served by Granian inside this process and on its event loop.

Why embedded: statistics need the in-memory state of the consumer (completeThrough), and one
process is one thing to watch. Granian's own supervisor, signals and log set-up stay out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from clickmill import openfiles

HEADER_TIMEOUT_MS: Final = 5_000
MAX_CONNECTIONS: Final = 4096
BACKLOG: Final = 1024
STOP_TIMEOUT_S: Final = 1.0


class Web:
    """One listening port."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        logging.getLogger("_granian").setLevel(logging.ERROR)
        self._server = Server(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=openfiles.connections_within(openfiles.allow_most(), MAX_CONNECTIONS),
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
            log_enabled=False,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to serve; the task ends only with `stop` or an error, such as a taken port."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        return self._task

    async def stop(self) -> None:
        """Take no more requests; open ones have STOP_TIMEOUT_S."""
        if self._task is None:
            return
        self._server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(self._task, STOP_TIMEOUT_S)
