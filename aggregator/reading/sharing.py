"""Shares the reading of statistics between clients: one must not slow down the others.

Each client has only a few statements running in Postgres; the others wait for their turn, not for
a connection of the pool. Those who come over the ingest port have a bound of their own, since it is
open to strangers: what they ask takes one core at most, and nothing from the statistics port.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

from clickmill.contract.problem import too_many_requests
from clickmill.shares import Shares, Turns

MAX_WAITING: Final = 256
"""Statements of all clients that run or wait."""
AT_ONCE: Final = max(2, len(os.sched_getaffinity(0)) // 2)
"""Statements of a client that run at the same time, and of one that came over the ingest port."""
INGEST_AT_ONCE: Final = 1
INGEST_PORT: Final = "ingest port: "
"""Begins the name of a client that came over it."""

asker: Final[ContextVar[str]] = ContextVar("asker", default="")
"""The client whose request is being answered; "" for our own reading, which has no bound."""


class Sharing:
    """Whose turn it is. One event loop."""

    def __init__(self) -> None:
        self._waiting, self._turns = Shares(), Turns()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The block is one statement of the client that is asking. Raises Problem 429."""
        client = asker.get()
        if not client:
            yield
            return
        if not self._waiting.allows(client, MAX_WAITING):
            raise too_many_requests()
        at_once = INGEST_AT_ONCE if client.startswith(INGEST_PORT) else AT_ONCE
        with self._waiting.held(client):
            async with self._turns.turn(client, at_once):
                yield
