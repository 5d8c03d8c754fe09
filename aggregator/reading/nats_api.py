"""Answers workers' questions over NATS: a banner's statistics, the register's targets, and which
idempotency keys are counted.

Why over NATS: one ingest port then serves everything, from any number of machines, without
knowing where an aggregator is. The logic is that of the HTTP face; only the carrier differs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import psycopg
from nats.aio.msg import Msg

from aggregator.reading import key_lookup
from aggregator.reading.answers import Answers
from aggregator.reading.banners import Register
from aggregator.reading.queries import Pool
from aggregator.reading.sharing import INGEST_PORT, asker
from clickmill import messages, wire
from clickmill.connection import Connection
from clickmill.contract.problem import Problem

QUEUE: Final = "clickmill-aggregators"
MAX_AT_ONCE: Final = 64
"""Questions of a kind being answered at a time; others wait in the client's own bounded queue."""

log = logging.getLogger("clickmill.nats_api")

_KeysRequest: Final = msgspec.json.Decoder(messages.KeysRequest)
_StatsRequest: Final = msgspec.json.Decoder(messages.StatsRequest)


class NatsApi:
    """Subscribes to the requests. Each is answered once, by one of the aggregators."""

    def __init__(
        self, connection: Connection, answers: Answers, register: Register, pool: Pool
    ) -> None:
        self._connection, self._answers, self._register = connection, answers, register
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribe; from here on questions are answered."""
        await self._listen(wire.STATS_SUBJECT, self._stats)
        await self._listen(wire.BANNERS_SUBJECT, self._targets)
        await self._listen(wire.KEYS_SUBJECT, self._keys)

    async def _listen(self, subject: str, answer: Callable[[Msg], Awaitable[None]]) -> None:
        free = asyncio.Semaphore(MAX_AT_ONCE)

        async def take(message: Msg) -> None:
            await free.acquire()
            task = asyncio.create_task(self._answer(answer, message, free))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self._connection.subscribe(subject, take, QUEUE)

    async def _answer(
        self, answer: Callable[[Msg], Awaitable[None]], message: Msg, free: asyncio.Semaphore
    ) -> None:
        """A question that breaks us gets no answer, and the asker its time-out; we go on."""
        try:
            await answer(message)
        except Exception:
            log.exception("a question on %s was not answered", message.subject)
        finally:
            free.release()

    async def _stats(self, message: Msg) -> None:
        request = _StatsRequest.decode(message.data)
        asker.set(INGEST_PORT + request.client)
        room = self._connection.max_payload - wire.HEADERS_BYTES
        answer = await self._answers.over_nats(request, room)
        headers = {
            wire.STATUS_HEADER: str(answer.status),
            wire.CONTENT_TYPE_HEADER: answer.content_type,
            **answer.headers,
        }
        await self._connection.publish(message.reply, answer.body, headers=headers)

    async def _targets(self, message: Msg) -> None:
        """A page of targets with IDs over the one asked for; a header tells where to go on."""
        try:
            page, last = await self._register.targets(int(message.data or b"-1"))
        except Problem as problem:
            log.debug("the register can't be read: %s", problem)
            return
        headers = {wire.MORE_HEADER: str(last)} if last is not None else None
        await self._connection.publish(message.reply, page, headers=headers)

    async def _keys(self, message: Msg) -> None:
        try:
            reply = await key_lookup.find(self._pool, _KeysRequest.decode(message.data))
        except psycopg.Error as error:
            log.debug("the keys can't be read: %s", error)
            return
        await self._connection.publish(message.reply, msgspec.json.encode(reply))


async def announce_target(connection: Connection, banner_id: int, target: str | None) -> None:
    """Publish a banner's new target, or that it has none any more, to every worker."""
    change = {"id": banner_id, "target_url": target}
    await connection.publish(wire.BANNERS_CHANGED_SUBJECT, msgspec.json.encode(change))
