"""Takes in the workers' heartbeats (`clickmill.committed`), and answers with their marks.

Every aggregator receives every heartbeat; the one that pulls the source's shard answers. A source
that memory does not hold, such as one that was closed long ago, is looked up with the next round
of the lease session, on which the open sources are read again as well.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from uuid import UUID

import msgspec
import nats.errors
from nats.aio.msg import Msg
from psycopg import AsyncConnection

from aggregator.postgres import arrays
from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.fold import Mark
from clickmill import wire
from clickmill.connection import Connection

MAX_LOOKUPS: Final = 10_000
# With other aggregators about, their commits are read each round; alone, this is a safety net.
ROUNDS_ALONE: Final = 10

log = logging.getLogger("clickmill.source_status")

_COLUMNS: Final = """
SELECT source, last_seq, total, (extract(epoch FROM sealed_at) * 1000000)::bigint * 1000, closed,
       (extract(epoch FROM updated_at) * 1000000)::bigint * 1000 FROM source
"""
_OPEN: Final = _COLUMNS + "WHERE NOT closed"
_THESE: Final = _COLUMNS + "WHERE source = ANY(%s)"


class SourceReports:
    """Answers the sources' reports with marks, and keeps `progress` up with the table."""

    def __init__(self, connection: Connection, progress: Progress, consumer: Consumer) -> None:
        self._connection, self._progress, self._consumer = connection, progress, consumer
        self._decoder = msgspec.json.Decoder(wire.SourceStatus)
        self._lookups: dict[UUID, str] = {}
        self._round = 0

    async def start(self) -> None:
        """Subscribe to the requests."""
        await self._connection.subscribe(wire.COMMITTED_SUBJECT, self._on_request)

    async def _on_request(self, message: Msg) -> None:
        try:
            status = self._decoder.decode(message.data)
        except msgspec.DecodeError as error:
            log.warning("%s: a request that can't be read: %s", wire.COMMITTED_SUBJECT, error)
            return
        self._progress.heard(status)
        if wire.shard_of(status.source) not in self._consumer.shards:
            return
        mark = self._progress.mark_of(status.source)
        if status.closed and mark is not None and mark.seq >= status.seq:
            self._consumer.close_source(status)
        if mark is not None:
            await self._reply(message.reply, mark)
        elif len(self._lookups) < MAX_LOOKUPS:
            self._lookups[status.source] = message.reply

    async def _reply(self, subject: str, mark: wire.Committed) -> None:
        if not subject:
            return
        try:
            await self._connection.publish(subject, msgspec.json.encode(mark))
        except (nats.errors.Error, OSError) as error:
            log.debug("answering a request for a mark: %s", error)

    async def read(self, connection: AsyncConnection[Any], first: bool, alone: bool) -> None:
        """Read the table: the open sources, and the sources asked for meanwhile."""
        self._round += 1
        if first or not alone or self._round % ROUNDS_ALONE == 0:
            cursor = await connection.execute(_OPEN, binary=True)
            rows = await cursor.fetchall()
            self._progress.reload({row[0]: (Mark(*row[1:5]), row[5]) for row in rows}, anew=first)
        unseen = self._progress.to_look_up()[:MAX_LOOKUPS]
        if self._lookups or unseen:
            await self._look_up(connection, unseen)

    async def _look_up(self, connection: AsyncConnection[Any], unseen: list[UUID]) -> None:
        asked, self._lookups = self._lookups, {}
        sources = arrays.uuids([*asked, *unseen])
        cursor = await connection.execute(_THESE, [sources], binary=True)
        rows = {row[0]: (Mark(*row[1:5]), row[5]) for row in await cursor.fetchall()}
        self._progress.looked_up(unseen, rows)
        for source, subject in asked.items():
            mark = rows[source][0] if source in rows else Mark()
            await self._reply(subject, wire.Committed(mark.last_seq, mark.total, mark.closed))
