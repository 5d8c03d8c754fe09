"""Statistics on the ingest port: a request is passed on over NATS, and the answer passed back.

Why no parsing here: both ports answer alike, by the one piece of code that the aggregator has. A
table (CSV, NDJSON) of any size comes in pages: each says where the next one begins, so that any
aggregator can give it, and this process holds one page at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from nats.aio.msg import Msg

from clickmill import messages, wire
from clickmill.connection import Connection
from clickmill.contract.problem import stats_unreachable, too_many, too_many_requests
from clickmill.retry import Backoff, first_line
from clickmill.shares import Shares, Turns
from ingest.http.responses import Answer

REQUEST_TIMEOUT_S: Final = 5.0
MAX_TABLES: Final = 16
"""Tables of more than one page that are sent at the same time, in one worker."""
PAGE_TRIES: Final = 5
AT_ONCE: Final = 2
"""Requests of one client that are passed on at the same time; the aggregator bounds them too."""

log = logging.getLogger("clickmill.ingest")


class StatsProxy:
    """Passes on at most `max_pending` requests at a time, of each client at most AT_ONCE.

    The others of that client wait here, where they cost nothing: answered at once with an error,
    a client that only repeats its request would keep this process from counting clicks.
    """

    def __init__(self, connection: Connection, max_pending: int) -> None:
        self._connection, self._max_pending = connection, max_pending
        self._pending, self._turns = Shares(), Turns()
        self._tables = 0

    async def ask(self, request: messages.StatsRequest) -> Answer:
        """The aggregator's answer.

        Raises Problem 503 where none answers within REQUEST_TIMEOUT_S, or where as many requests
        wait as may; 429 where as many of this client do, or as many tables are being sent as may.
        """
        if self._pending.total >= self._max_pending:
            raise stats_unreachable()
        if not self._pending.allows(request.client, self._max_pending):
            raise too_many_requests()
        request = msgspec.structs.replace(request, pages=True)
        try:
            reply = await self._ask(request)
            answer, more = _answer(reply), _more(reply)
        except Exception as error:
            raise stats_unreachable() from error
        if more in ("", wire.NO_MORE):
            return answer
        if self._tables >= MAX_TABLES:
            sentence = f"{MAX_TABLES} tables are being sent, the most that go: try again later"
            raise too_many("too_many_tables", sentence)
        return answer._replace(rest=self._rest(request, more))

    async def _rest(self, request: messages.StatsRequest, more: str) -> AsyncIterator[bytes]:
        """The pages from there on. Raises Problem: what is sent by then has no last line."""
        self._tables += 1
        try:
            while more != wire.NO_MORE:
                reply = await self._page(msgspec.structs.replace(request, more=more))
                more = _more(reply)
                yield reply.data
        finally:
            self._tables -= 1

    async def _page(self, request: messages.StatsRequest) -> Msg:
        """A page that is not the first. It can be asked for again: nothing depends on which
        aggregator answers. One without MORE_HEADER is from an aggregator that knows no pages."""
        backoff = Backoff()
        for _ in range(PAGE_TRIES):
            try:
                reply = await self._ask(request)
                if _answer(reply).status == 200 and _more(reply):
                    return reply
                reason = f"the answer was {_answer(reply).status}"
            except Exception as error:
                reason = first_line(error)
            log.debug("a page of a table: %s; asking again", reason)
            await asyncio.sleep(backoff.pause())
        raise stats_unreachable()

    async def _ask(self, request: messages.StatsRequest) -> Msg:
        payload, client = msgspec.json.encode(request), request.client
        with self._pending.held(client):
            async with asyncio.timeout(REQUEST_TIMEOUT_S), self._turns.turn(client, AT_ONCE):
                return await self._connection.request(
                    wire.STATS_SUBJECT, payload, REQUEST_TIMEOUT_S
                )


def _more(reply: Msg) -> str:
    return (reply.headers or {}).get(wire.MORE_HEADER, "")


def _answer(reply: Msg) -> Answer:
    headers = reply.headers or {}
    kind = headers.get(wire.CONTENT_TYPE_HEADER, "application/json")
    also = [(n.lower(), headers[n]) for n in wire.PASSED_ON_HEADERS if n in headers]
    return Answer(int(headers[wire.STATUS_HEADER]), reply.data, [("content-type", kind), *also])
