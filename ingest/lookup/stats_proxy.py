"""Statistics on the ingest port: a request is passed on over NATS, and the answer passed back.

Why no parsing here: both ports answer alike, by the one piece of code that the aggregator has.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from clickmill import messages, wire
from clickmill.connection import Connection
from clickmill.contract.problem import stats_unreachable
from ingest.http.responses import Answer

REQUEST_TIMEOUT_S: Final = 5.0


class StatsProxy:
    """Passes on at most `max_pending` requests at a time."""

    def __init__(self, connection: Connection, max_pending: int) -> None:
        self._connection = connection
        self._pending = asyncio.Semaphore(max_pending)

    async def ask(self, request: messages.StatsRequest) -> Answer:
        """The aggregator's answer.

        Raises Problem 503 where none answers within REQUEST_TIMEOUT_S, or where as many requests
        wait as may.
        """
        if self._pending.locked():
            raise stats_unreachable()
        async with self._pending:
            try:
                return await self._ask(msgspec.json.encode(request))
            except Exception as error:
                raise stats_unreachable() from error

    async def _ask(self, payload: bytes) -> Answer:
        reply = await self._connection.request(wire.STATS_SUBJECT, payload, REQUEST_TIMEOUT_S)
        headers = reply.headers or {}
        kind = headers.get(wire.CONTENT_TYPE_HEADER, "application/json")
        also = [(n.lower(), headers[n]) for n in wire.PASSED_ON_HEADERS if n in headers]
        return Answer(int(headers[wire.STATUS_HEADER]), reply.data, [("content-type", kind), *also])
