"""Takes in the workers' heartbeats (`clickmill.committed`), and answers with their marks.

Every aggregator receives every heartbeat; the one that pulls the source's shard answers. A source
that memory does not hold, such as one that was closed long ago, is looked up with the next round
of the lease session, on which the open sources are read again as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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
from aggregator.writing.node_names import NodeNames
from clickmill import messages, wire
from clickmill.connection import Connection
from clickmill.retry import Throttle

MAX_LOOKUPS: Final = 10_000
# With other aggregators about, their commits are read each round; alone, this is a safety net.
ROUNDS_ALONE: Final = 10

log = logging.getLogger("clickmill.source_status")

_COLUMNS: Final = """
SELECT source, last_seq, total, (extract(epoch FROM sealed_at) * 1000000)::bigint * 1000, closed,
       uncounted, (extract(epoch FROM updated_at) * 1000000)::bigint * 1000, node FROM source
"""
_OPEN: Final = _COLUMNS + "WHERE NOT closed"
# Rows that a batch has locked are left to the next round: nothing here may wait for the writer.
_NAME: Final = """
WITH free AS (SELECT s.source, n.node FROM source s
    JOIN jsonb_each_text(%s::jsonb) AS n (source, node) ON s.source = n.source::uuid
    FOR UPDATE OF s SKIP LOCKED)
UPDATE source s SET node = free.node FROM free WHERE s.source = free.source RETURNING s.source
"""
_REOPEN: Final = """
WITH back AS (UPDATE source_given_up SET returned_at = now()
    WHERE source = ANY(%s) AND returned_at IS NULL RETURNING source, node, given_up_by)
UPDATE source s SET closed = false FROM back WHERE s.source = back.source
RETURNING s.source, back.node, back.given_up_by
"""
_THESE: Final = _COLUMNS + "WHERE source = ANY(%s)"


class SourceReports:
    """Answers the sources' reports with marks, and keeps `progress` up with the table."""

    def __init__(
        self,
        connection: Connection,
        progress: Progress,
        consumer: Consumer,
        returned: Callable[[], None],
    ) -> None:
        self._connection, self._progress, self._consumer = connection, progress, consumer
        self._decoder = msgspec.json.Decoder(messages.SourceStatus)
        self._returned = returned
        self._lookups: dict[UUID, str] = {}
        self._names: dict[UUID, str] = {}
        """Nodes as heartbeats say, where the table has none yet."""
        self._named: set[UUID] = set()
        self._round = 0
        self._node_names = NodeNames()
        self._shared = Throttle()

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
        self._node_names.heard(status.node, status.machine, time.monotonic())
        if wire.shard_of(status.source) not in self._consumer.shards:
            return
        if status.node and status.source not in self._named:
            if len(self._names) >= MAX_LOOKUPS:  # of workers that ended without a row
                self._names.clear()
            self._names[status.source] = status.node
        mark = self._progress.mark_of(status.source)
        if status.closed and mark is not None and mark.seq >= status.seq:
            self._consumer.close_source(status)
        if mark is not None:
            await self._reply(message.reply, mark)
        elif len(self._lookups) < MAX_LOOKUPS:
            self._lookups[status.source] = message.reply

    def shared_names(self) -> list[str]:
        """Node names that several machines have."""
        return self._node_names.shared(time.monotonic())

    def _report_shared_names(self) -> None:
        if (names := self.shared_names()) and self._shared.allows(time.monotonic()):
            log.warning("several machines have the node name %s: give each its own CLICKMILL_NODE",
                        ", ".join(names))  # fmt: skip

    async def _reply(self, subject: str, mark: messages.Committed) -> None:
        if not subject:
            return
        try:
            await self._connection.publish(subject, msgspec.json.encode(mark))
        except (nats.errors.Error, OSError) as error:
            log.debug("answering a request for a mark: %s", error)

    async def read(self, connection: AsyncConnection[Any], first: bool, alone: bool) -> None:
        """Read the table: the open sources, and the sources asked for meanwhile."""
        self._round += 1
        self._report_shared_names()
        if first or not alone or self._round % ROUNDS_ALONE == 0:
            cursor = await connection.execute(_OPEN, binary=True)
            rows = await cursor.fetchall()
            self._progress.reload(
                {row[0]: (Mark(*row[1:6]), row[6]) for row in rows}, new_session=first
            )
            self._progress.names_are({row[0]: row[7] for row in rows})
            self._named = {row[0] for row in rows if row[7]}
        await self._store_names(connection)
        unseen = self._progress.to_look_up()[:MAX_LOOKUPS]
        if self._lookups or unseen:
            await self._look_up(connection, unseen)

    async def _store_names(self, connection: AsyncConnection[Any]) -> None:
        if self._names:
            names = msgspec.json.encode({str(u): name for u, name in self._names.items()}).decode()
            cursor = await connection.execute(_NAME, [names])
            for (source,) in await cursor.fetchall():
                self._names.pop(source, None)
                self._named.add(source)

    async def _reopen(self, connection: AsyncConnection[Any], closed: list[UUID]) -> None:
        """Sources that were given up and report again: from now on they count as any other."""
        cursor = await connection.execute(_REOPEN, [arrays.uuids(closed)])
        for source, node, who in await cursor.fetchall():
            self._returned()
            log.warning("source %s of node %s, given up by %s, is back: its frames count",
                        source, node or "(unknown)", who)  # fmt: skip

    async def _look_up(self, connection: AsyncConnection[Any], unseen: list[UUID]) -> None:
        asked, self._lookups = self._lookups, {}
        sources = arrays.uuids([*asked, *unseen])
        cursor = await connection.execute(_THESE, [sources], binary=True)
        rows = {row[0]: (Mark(*row[1:6]), row[6]) for row in await cursor.fetchall()}
        self._progress.looked_up(unseen, rows)
        if closed := [source for source in asked if source in rows and rows[source][0].closed]:
            await self._reopen(connection, closed)
        for source, subject in asked.items():
            mark = rows[source][0] if source in rows else Mark()
            await self._reply(subject, messages.Committed(mark.last_seq, mark.total, mark.closed))
