"""The HTTP port, served by Granian inside this process and on its event loop.

Why embedded: statistics need the in-memory state of the consumer (completeThrough), and one
process is one thing to watch. Granian's own supervisor, signals and log set-up stay out of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from clickmill import openfiles
from clickmill.contract.params import HEADERS_BUFFER_BYTES

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
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_TIMEOUT_MS, max_buffer_size=HEADERS_BUFFER_BYTES
            ),
            log_enabled=False,
        )

    async def serve(self) -> None:
        """Serve until cancelled; then open requests have STOP_TIMEOUT_S to end.

        Raises what keeps it from serving, such as a port that is taken.
        """
        serving = asyncio.create_task(self._server.serve())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait({serving}, timeout=STOP_TIMEOUT_S)
            serving.cancel()
            raise
