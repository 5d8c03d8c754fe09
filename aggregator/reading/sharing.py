"""Shares the reading of statistics between clients: one must not slow down the others.

Each client has only a few statements running in Postgres; the others wait for their turn, not for
a connection of the pool. Those who come over the ingest port have a bound of their own, since it is
open to strangers: what they ask takes one core at most, and nothing from the statistics port. While
others ask too, such a client pauses after each statement once it has asked for much, or its
requests, one after the other, would keep that core and this process busy all the time. This is the
generic cell rate algorithm (ITU-T I.371), applied to the duration of statements.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Final

from clickmill.contract.problem import too_many_requests
from clickmill.shares import Shares, Turns

MAX_WAITING: Final = 256
"""Statements of all clients that run or wait."""
AT_ONCE: Final = max(2, len(os.sched_getaffinity(0)) // 2)
"""Statements of a client that run at the same time, and of one that came over the ingest port."""
INGEST_AT_ONCE: Final = 1
PAUSES: Final = 30
"""So many times as long as its statement a client of the ingest port pauses, while others ask: few
of their questions then meet one of its statements."""
LONGEST_PAUSE_S: Final = 0.25
AT_FIRST_S: Final = 1.5
"""A client that has not asked for so long pauses only once its pauses would add up to this: after
50 ms of statements, more than a page needs."""
LONGEST_WAIT_S: Final = 5.0
"""For one turn, where pauses are why; below the time that an answer may take."""
OTHERS_S: Final = 1.0
"""So long after two clients took turns others count as asking."""
INGEST_PORT: Final = "ingest port: "
"""Begins the name of a client that came over it."""

asker: Final[ContextVar[str]] = ContextVar("asker", default="")
"""The client whose request is being answered; "" for our own reading, which has no bound."""


class Sharing:
    """Whose turn it is. One event loop."""

    def __init__(self) -> None:
        self._waiting, self._turns = Shares(), Turns()
        self._last, self._others_until = "", 0.0
        self._owed_until: dict[str, float] = {}
        """When each client's pauses would be over, were all of them made."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The block is one statement of the client that is asking. Raises Problem 429."""
        client = asker.get()
        if not client:
            yield
            return
        if not self._waiting.allows(client, MAX_WAITING):
            raise too_many_requests()
        self._notice(client, time.monotonic())
        with self._waiting.held(client):
            if client.startswith(INGEST_PORT):
                async with self._turn_with_pauses(client):
                    yield
            else:
                async with self._turns.turn(client, AT_ONCE):
                    yield

    @asynccontextmanager
    async def _turn_with_pauses(self, client: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await stack.enter_async_context(self._turns.turn(client, INGEST_AT_ONCE))
                    await self._pause(client)
            except TimeoutError:
                if self._owed_until.get(client, 0.0) < time.monotonic():
                    raise  # it waits for a statement, not for a pause
                raise too_many_requests() from None
            began = time.monotonic()
            try:
                yield
            finally:
                self._ended(client, began, time.monotonic())

    def _notice(self, client: str, now: float) -> None:
        if self._last not in {"", client}:
            self._others_until = now + OTHERS_S
        self._last = client

    async def _pause(self, client: str) -> None:
        """Until this client's pause is over, or no other client asks any more."""
        until = min(self._owed_until.get(client, 0.0) - AT_FIRST_S, self._others_until)
        await asyncio.sleep(until - time.monotonic())

    def _ended(self, client: str, began: float, now: float) -> None:
        """Add to what the client owes, and forget those that owe nothing."""
        owed = {name: until for name, until in self._owed_until.items() if until > now}
        pause = min(PAUSES * (now - began), LONGEST_PAUSE_S)
        owed[client] = min(owed.get(client, now), now + AT_FIRST_S) + pause
        self._owed_until = owed
