"""The rounds of the lease session: shards are shared out, and the table `source` is read.

One session does both, so that what ends it (a lost connection, a hang) ends both at once: shards
that are no longer this process's are not pulled, and marks that can't be read are not vouched for.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from aggregator.readiness import Readiness
from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.leases import SESSION_TIMEOUT, Leases
from aggregator.writing.metrics import Metrics
from aggregator.writing.source_status import SourceReports
from clickmill.retry import Backoff, first_line

EVERY_S: Final = 0.5
TIMEOUT_S: Final = 3.0
_QUARANTINE: Final = "SELECT count(*) FROM (SELECT FROM quarantine LIMIT 1000) AS waiting"

log = logging.getLogger("clickmill.leases")


class Rounds:
    """Keeps this process's share of the shards, and `progress` up with the table."""

    def __init__(
        self, dsn: str, consumer: Consumer, reports: SourceReports, progress: Progress,
        metrics: Metrics, readiness: Readiness,
    ) -> None:  # fmt: skip
        self._dsn, self._consumer, self._reports = dsn, consumer, reports
        self._progress, self._metrics, self._readiness = progress, metrics, readiness
        self._backoff = Backoff(EVERY_S / 2, EVERY_S)

    async def run(self) -> None:
        """Round after round, on a new session after each loss; until cancelled."""
        while True:
            try:
                timeout = {"idle_session_timeout": SESSION_TIMEOUT}
                async with postgres.session(self._dsn, "leases", **timeout) as connection:
                    await self._session(connection)
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("leases: %s; joining again", first_line(error))
                await asyncio.sleep(self._backoff.pause())

    async def _session(self, connection: AsyncConnection[Any]) -> None:
        leases = await Leases.on(connection)
        first = True
        try:
            while True:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._round(connection, leases, first)
                first = False
                self._backoff.succeeded()
                await asyncio.sleep(EVERY_S)
        finally:  # the leases are gone with the session
            self._readiness.postgres_lost()
            self._progress.forget()
            await self._consumer.lose(set(self._consumer.shards))

    async def _round(self, connection: AsyncConnection[Any], leases: Leases, first: bool) -> None:
        changes = await leases.changes(self._readiness.can_pull())
        for shard in changes.assigned:
            self._consumer.assign(shard)
        await self._revoke(changes.revoked)
        await leases.release(changes.revoked)
        self._metrics.members.set(leases.members)
        await self._reports.read(connection, first, leases.members <= 1)
        row = await (await connection.execute(_QUARANTINE)).fetchone()
        self._metrics.quarantine_waiting.set(row[0] if row else 0)
        self._readiness.postgres_seen()

    async def _revoke(self, shards: list[int]) -> None:
        await asyncio.gather(*(self._consumer.revoke(shard) for shard in shards))
