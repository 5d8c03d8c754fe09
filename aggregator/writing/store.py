"""Writes batches into Postgres: rows, marks and quarantine in one transaction, exactly once.

Why exactly once: the marks of the batch's sources are locked before the fold reads them and
advanced in the same transaction as the sums. Whatever happens around COMMIT, the next attempt
reads the marks again and finds there what was applied and what was not.

`Store.apply` returns only after a commit. Everything that time can heal is retried forever, on
a new connection each time. A batch that takes too long is halved; sums that Postgres refuses
are found by halving too, and set aside in the quarantine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from aggregator.postgres import arrays, migrations, partitions
from aggregator.postgres import connection as postgres
from aggregator.writing import statements as sql
from aggregator.writing.fold import (
    Arrival,
    Folded,
    Mark,
    Quarantined,
    Verdict,
    Walk,
    Window,
    source_of,
)
from aggregator.writing.keys import Keys
from aggregator.writing.refused import halves, with_floors, without_rows
from aggregator.writing.slots import take_slot
from aggregator.writing.sums import Rows
from clickmill import messages, wire
from clickmill.batches import LATE_DAYS
from clickmill.failpoints import failpoint
from clickmill.retry import Backoff, Throttle, first_line

APPLY_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 1.0
AHEAD_MINUTES: Final = 60
BEHIND_DAYS: Final = 32
OWN_BEHIND_DAYS: Final = 3_670
"""For clicks with a time of their own: above CLICKMILL_MAX_BACKDATE_DAYS, for frames that wait."""
NS_PER_MINUTE: Final = wire.SECONDS_PER_MINUTE * 10**9
MAX_KNOWN_SOURCES: Final = 200_000

# Errors that the values themselves cause: trying the same again never helps.
VALUE_ERRORS: Final = (psycopg.DataError, psycopg.IntegrityError, ArithmeticError, ValueError)

log = logging.getLogger("clickmill.store")


class Applied:
    """What a batch came to, over all the transactions that it took."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self.verdicts = [Verdict.GAP] * len(arrivals)
        self.marks: dict[UUID, Mark] = {}
        """As they stand in Postgres now. A mark that only a lost connection has seen is not in it:
        the primary behind the next one may lack that commit."""
        self.quarantine: list[Quarantined] = []
        self.clicks = self.pairs = self.clamped = 0
        self.rows = 0
        """Rows of minutes that were written."""
        self.seconds: list[float] = []
        """How long each transaction took, from its first statement to its COMMIT."""

    def add(self, folded: Folded, marks: dict[UUID, Mark], at: Sequence[int]) -> None:
        """Take in one committed transaction, which held the arrivals at these places."""
        for place, verdict in zip(at, folded.verdicts, strict=True):
            self.verdicts[place] = verdict
        self.marks.update(marks)
        self.quarantine += folded.quarantine
        self.clicks += folded.clicks
        self.pairs += folded.pairs
        self.rows += len(folded.rows.when)
        self.clamped += folded.clamped


class Store:
    """The one writer of this process, with its own connection; not for concurrent use."""

    def __init__(
        self,
        dsn: str,
        retention_days: int = 0,
        on_retry: Callable[[], None] = lambda: None,
        behind_days: int = BEHIND_DAYS,
        late_days: int = LATE_DAYS,
    ) -> None:
        """`retention_days`: minutes older than this are clamped (0: kept forever).

        Minutes older than `behind_days` are clamped too, because a clock must have been wrong.
        Batches sealed over `late_days` ago count only if their key is known (see `keys`).
        `on_retry` is called for each attempt that failed and is repeated.
        """
        self._dsn = dsn
        self._behind = min(retention_days or behind_days, behind_days) * sql.MINUTES_PER_DAY
        self._own_behind = min(retention_days or OWN_BEHIND_DAYS, OWN_BEHIND_DAYS)
        self._late = late_days * sql.MINUTES_PER_DAY
        self._connection: AsyncConnection[Any] | None = None
        self._slot = 0
        self._known: set[UUID] = set()
        self._days: set[int] = set()
        self._throttle = Throttle()
        self._on_retry = on_retry
        self.retries = 0

    async def apply(self, arrivals: Sequence[Arrival]) -> Applied:
        """Apply a batch; return only once it is committed. Retries forever."""
        applied = Applied(arrivals)
        await self._apply_places(arrivals, list(range(len(arrivals))), applied)
        return applied

    async def close_source(self, source: UUID, seq: int) -> messages.Committed | None:
        """Mark a source closed, if its mark has reached `seq`; its mark, or None where it has not.

        One attempt; may raise.
        """
        connection = await self._connected()
        cursor = await connection.execute(sql.CLOSE, [source, seq])
        row = await cursor.fetchone()
        return messages.Committed(row[0], row[1], closed=True) if row is not None else None

    async def _apply_places(
        self, arrivals: Sequence[Arrival], at: list[int], applied: Applied
    ) -> None:
        chosen = [arrivals[place] for place in at]
        try:
            folded, marks = await self._until_committed(chosen, applied, refused="")
        except (psycopg.errors.QueryCanceled, *VALUE_ERRORS) as error:
            await self.close()
            if len(at) > 1:
                arrivals = with_floors(arrivals)
                for half in halves(arrivals, at):
                    await self._apply_places(arrivals, half, applied)
                return
            reason = f"refused: {first_line(error)}"
            folded, marks = await self._until_committed(chosen, applied, refused=reason)
        applied.add(folded, marks, at)

    async def _until_committed(
        self, arrivals: Sequence[Arrival], applied: Applied, refused: str
    ) -> tuple[Folded, dict[UUID, Mark]]:
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(APPLY_TIMEOUT_S):
                    if self._connection is None:
                        applied.marks.clear()
                    connection = await self._connected()
                    began = time.monotonic()
                    done = await self._transaction(connection, arrivals, refused)
                    if done is not None:
                        applied.seconds.append(time.monotonic() - began)
                        return done
            except (psycopg.errors.CheckViolation, psycopg.errors.UniqueViolation) as error:
                # A partition that was there is gone, or a writer with the same slot has added a
                # row that was not there; the next connection looks again.
                await self._retry_later(error, backoff)
            except VALUE_ERRORS:
                raise
            except psycopg.errors.QueryCanceled as error:
                if len(arrivals) > 1:
                    raise  # too much for one statement_timeout: less at a time
                await self._retry_later(error, backoff)
            except (migrations.SchemaError, psycopg.Error, OSError, TimeoutError) as error:
                await self._retry_later(error, backoff)

    async def _retry_later(self, error: Exception, backoff: Backoff) -> None:
        self.retries += 1
        self._on_retry()
        if self._throttle.allows(time.monotonic()):
            log.warning("Postgres: %s; nothing is lost, trying again", first_line(error))
        await self.close()
        await asyncio.sleep(backoff.pause())

    async def _transaction(
        self, connection: AsyncConnection[Any], arrivals: Sequence[Arrival], refused: str
    ) -> tuple[Folded, dict[UUID, Mark]] | None:
        """One attempt; None where a partition had to be made first."""
        sources = sorted({s for s in map(source_of, arrivals) if s is not None})
        failpoint("aggregator.apply")
        marks, now, closing = await self._lock_marks(connection, sources)
        walk = Walk(marks, arrivals, (now - self._late) * NS_PER_MINUTE)
        counted = await self._claim(connection, walk.keys) if walk.keys else {}
        folded = walk.sum(counted, self._window(now))
        if refused:
            folded = without_rows(folded, arrivals, refused)
        missing = self._days_missing(folded.rows)
        if missing:
            await connection.execute("ROLLBACK")
            self._days = await partitions.make(connection, missing)
            return None
        await self._write(connection, folded, closing)
        failpoint("aggregator.before_commit")
        done = await connection.execute("COMMIT")
        failpoint("aggregator.after_commit")
        if done.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"COMMIT was answered by {done.statusmessage}")
        if len(self._known) > MAX_KNOWN_SOURCES:
            self._known.clear()
        self._known.update(sources)
        return folded, {**marks, **folded.marks}

    async def _lock_marks(
        self, connection: AsyncConnection[Any], sources: list[UUID]
    ) -> tuple[dict[UUID, Mark], int, int]:
        """The marks of these sources, and, in minutes, the time of Postgres and `closing`."""
        unknown = [source for source in sources if source not in self._known]
        async with connection.pipeline():
            await connection.execute("BEGIN")
            # Before any other lock: a writer that waits here keeps no other one waiting.
            await connection.execute(sql.HOLD_CLOSING, [postgres.LOCK_CLASS, postgres.LOCK_CLOSING])
            if unknown:
                shards = arrays.int4s([wire.shard_of(source) for source in unknown])
                await connection.execute(sql.INSERT_UNKNOWN, [arrays.uuids(unknown), shards])
            locked = await connection.execute(sql.LOCK_MARKS, [arrays.uuids(sources)], binary=True)
            times = await connection.execute(sql.NOW_AND_CLOSING, binary=True)
        marks = {row[0]: Mark(*row[1:]) for row in await locked.fetchall()}
        now, closing = await times.fetchone() or (0, None)
        if len(marks) != len(sources):
            self._known.clear()
            raise psycopg.OperationalError("a source's row is gone: reading all of them again")
        if closing is None:
            raise psycopg.OperationalError("rollup_mark is empty: restart an aggregator")
        return marks, now, closing

    async def _claim(self, connection: AsyncConnection[Any], keys: Keys) -> dict[UUID, UUID]:
        """Insert the keys; the digests of those that were there before."""
        async with connection.pipeline():
            claimed = await connection.execute(
                sql.CLAIM_KEYS, sql.claim_columns(keys.claims), binary=True
            )
            found = await connection.execute(
                sql.FIND_KEYS, [arrays.uuids(sorted(keys.all))], binary=True
            )
        new = {row[0] for row in await claimed.fetchall()}
        failpoint("aggregator.keys")
        return {row[0]: row[1] for row in await found.fetchall() if row[0] not in new}

    def _window(self, now: int) -> Window:
        own = self._own_behind * sql.MINUTES_PER_DAY
        return Window(now - self._behind, now + AHEAD_MINUTES, now - own)

    def _days_missing(self, rows: Rows) -> set[int]:
        return {day for day, _ in rows.split(sql.MINUTES_PER_DAY)} - self._days

    async def _write(self, connection: AsyncConnection[Any], folded: Folded, closing: int) -> None:
        late = folded.rows.before(closing)
        async with connection.pipeline():
            for day, rows in folded.rows.split(sql.MINUTES_PER_DAY):
                columns = sql.row_columns(rows, self._slot)
                await connection.execute(sql.merge_minutes(day), columns)
            if len(late.when):
                await connection.execute(sql.INSERT_LATE, sql.row_columns(late))
            if folded.marks:
                await connection.execute(sql.ADVANCE_MARKS, sql.mark_columns(folded.marks))
            for item in folded.quarantine:
                await connection.execute(sql.QUARANTINE, list(item))

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None:
            self._known.clear()
            self._days.clear()
            self._connection = await postgres.connect(self._dsn, "writer", **sql.BY_KEY)
            await migrations.heal_schema(self._connection, self._dsn)
            self._slot = await take_slot(self._connection)
            if self.retries:
                log.info("Postgres: connected")
        return self._connection

    async def close(self) -> None:
        """Close the connection, whatever state it is in; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await connection.close()
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.debug("closing a broken connection: %s", error)
