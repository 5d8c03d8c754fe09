"""Reads the statistics from Postgres: series by bucket, totals by banner.

Each answer is of one snapshot: how far the rollups reach, the rollups before that and the minutes
after it are read in one transaction. Reading takes no lock that a writer waits for; the pool and
the statement time-out bound what all readers together can take from the server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from aggregator.reading.buckets import MAX_POINTS, size_of
from aggregator.reading.cover import Cover
from aggregator.reading.kept import NOTHING, Kept
from aggregator.reading.pieces import (
    EVERYBODY,
    NOT_EMPTY,
    Ask,
    Params,
    Whose,
    fetch,
    in_snapshot,
    moment,
    of_banners,
    union,
)
from aggregator.reading.sharing import Sharing
from aggregator.reading.top import Top, read_top, sum_all, top_of
from clickmill.contract.problem import change_unknown, stats_unreadable
from clickmill.retry import first_line

POOL_MIN: Final = 1
POOL_MAX: Final = 6
POOL_WAIT_S: Final = 5.0
POOL_MAX_WAITING: Final = 256
STATEMENT_TIMEOUT_MS: Final = 5_000
# Also where Postgres hangs, and ends no statement by itself.
ANSWER_TIMEOUT_S: Final = 8.0
Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]

T = TypeVar("T")
Work = Callable[[AsyncConnection[TupleRow]], Awaitable[T]]

log = logging.getLogger("clickmill.queries")


class Recent(NamedTuple):
    """The last minutes: clicks by minute (Unix seconds), and by (banner, minute).

    `cut`: there are more banners than are listed; all minutes are there always.
    """

    minutes: dict[int, int]
    banners: dict[tuple[int, int], int]
    cut: bool = False


# Banner ID → (bucket's start in Unix seconds, clicks, correction), ascending, no empty buckets.
Series = dict[int, list[tuple[int, int, int]]]
Row = tuple[int, int, int, int]
"""Banner ID, bucket's start in Unix seconds, clicks, and how many of these are corrections."""

_LATEST: Final = """(
    SELECT banner_id, minute, clicks FROM banner_minute WHERE minute >= %(since)s UNION ALL
    SELECT banner_id, minute, clicks FROM correction_minute WHERE minute >= %(since)s) AS latest"""


def make_pool(dsn: str, max_size: int = POOL_MAX) -> Pool:
    """The readers' pool, not yet open. Bounded in size, in waiting, and in each statement."""
    options = (
        f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC -c jit=off"
        " -c idle_in_transaction_session_timeout=10000 -c lock_timeout=2000"
    )
    return AsyncConnectionPool(
        dsn,
        kwargs={
            "autocommit": True,
            "options": options,
            "application_name": "clickmill statistics",
            "connect_timeout": 3,
            # Planned for its own range each time: only then are partitions pruned before
            # they are locked.
            "prepare_threshold": None,
        },
        min_size=POOL_MIN,
        max_size=max_size,
        timeout=POOL_WAIT_S,
        max_waiting=POOL_MAX_WAITING,
        reconnect_timeout=5.0,
        open=False,
    )


class Reader:
    """Questions to Postgres. Each raises Problem (stats_unavailable) if it can't answer."""

    def __init__(self, pool: Pool, sharing: Sharing | None = None) -> None:
        self._pool, self._sharing = pool, sharing or Sharing()

    async def fetch(self, sql: LiteralString, params: Mapping[str, object]) -> list[TupleRow]:
        """All rows of one statement. A connection that broke is replaced and asked once more.
        Raises Problem 429 where too many statements of the client wait."""
        return await self._answer(lambda connection: fetch(connection, sql, params))

    async def fetch_over(self, cover: Cover, ask: Ask) -> list[TupleRow]:
        """All rows of the statement that `ask` makes for these pieces, read in one snapshot."""
        if not any(cover):
            return []
        if not cover.rollups:
            return await self.fetch(*ask(cover))
        return await self._answer(lambda connection: in_snapshot(connection, cover, ask))

    async def _answer(self, work: Work[T]) -> T:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._sharing.turn():
                return await self._twice(work)
        except (psycopg.Error, PoolTimeout, TimeoutError) as error:
            log.warning("statistics can't be read: %s", first_line(error))
            raise stats_unreadable() from error

    async def _twice(self, work: Work[T]) -> T:
        try:
            async with self._pool.connection() as connection:
                return await work(connection)
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.OperationalError:
            await self._pool.check()
            async with self._pool.connection() as connection:
                return await work(connection)

    async def series(
        self, banners: Sequence[int], starts: Sequence[int], cover: Cover, step: str, raw: bool
    ) -> Series:
        """Clicks by banner and bucket. `starts` and `cover` come from `buckets`."""
        if not banners:
            return {}
        series: Series = {}
        rows = await self.rows(of_banners(banners), starts, cover, step, raw)
        for banner_id, *value in rows:
            series.setdefault(banner_id, []).append((value[0], value[1], value[2]))
        return series

    async def rows(
        self, whose: Whose, starts: Sequence[int], cover: Cover, step: str, raw: bool,
        most: int | None = None,
    ) -> list[Row]:  # fmt: skip
        """Clicks by banner and bucket in this order, at most `most`, without empty buckets.

        `raw`: those that corrections have emptied are in it.
        """
        given: Params = {"most": most, "raw": raw}
        size = size_of(starts, step)
        if size is not None:
            bucket: LiteralString = "date_bin(%(size)s, t, 'epoch')"
            given["size"] = f"{size} seconds"
        else:
            bucket = "(%(starts)s::timestamptz[])[width_bucket(t, %(starts)s::timestamptz[])]"
            given["starts"] = [moment(start) for start in starts]

        def ask(pieces: Cover) -> tuple[LiteralString, Params]:
            params = dict(given)
            rows_of = union(pieces, params, whose)
            return (
                f"SELECT banner_id, extract(epoch FROM {bucket})::bigint AS at,"
                f" sum(clicks)::bigint, sum(correction)::bigint FROM ({rows_of}) AS piece"
                f" GROUP BY 1, 2 {NOT_EMPTY} ORDER BY 1, 2 LIMIT %(most)s"
            ), params

        return [(row[0], row[1], row[2], row[3]) for row in await self.fetch_over(cover, ask)]

    async def clicked(self, cover: Cover, raw: bool) -> list[int]:
        """IDs of the banners that have clicks in the pieces, ascending; at most MAX_POINTS + 1."""

        def ask(pieces: Cover) -> tuple[LiteralString, Params]:
            params: Params = {"limit": MAX_POINTS + 1, "raw": raw}
            rows_of = union(pieces, params, EVERYBODY)
            return (
                f"SELECT banner_id FROM ({rows_of}) AS piece"
                f" GROUP BY 1 {NOT_EMPTY} ORDER BY 1 LIMIT %(limit)s"
            ), params

        return [row[0] for row in await self.fetch_over(cover, ask)]

    async def oldest(self) -> int:
        """Unix seconds before which there are no clicks."""
        # A lower bound: what is not rolled up lies after the mark, or is late.
        sql: LiteralString = (
            "SELECT extract(epoch FROM least((SELECT min(day) FROM rollup_day),"
            " (SELECT date_trunc('day', min(minute), 'UTC') FROM rollup_late),"
            " (SELECT date_trunc('day', min(minute), 'UTC') FROM correction_minute),"
            " (SELECT day FROM rollup_mark)))::bigint"
        )
        rows = await self.fetch(sql, {})
        return rows[0][0] or 0

    async def change(self, work: Work[T]) -> T:
        """What `work` gives, in one transaction. It is not tried again: whether a COMMIT was done
        is not known where its answer is lost. Raises Problem."""
        try:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT_S),
                self._pool.connection() as connection,
                connection.transaction(),
            ):
                return await work(connection)
        except (psycopg.Error, PoolTimeout, TimeoutError) as error:
            log.warning("a change was not stored: %s", first_line(error))
            raise change_unknown() from error

    async def kept(self) -> Kept:
        """What retention has left."""
        sql: LiteralString = (
            "SELECT unit, extract(epoch FROM gone_from)::bigint,"
            " extract(epoch FROM kept_from)::bigint FROM retention UNION ALL"
            " SELECT 'quarter', extract(epoch FROM quarter_from)::bigint, 0 FROM rollup_mark"
        )
        found = {unit: (since, until) for unit, since, until in await self.fetch(sql, {})}
        minutes, rollups = found.get("minute", NOTHING), found.get("rollup", NOTHING)
        return Kept(minutes, rollups[1], found.get("quarter", NOTHING)[0])

    async def recent(self, since: int, most: int) -> Recent:
        """All minutes from `since` on; at most `most` rows by banner, the newest and busiest."""
        sql = (
            "WITH recent AS MATERIALIZED (SELECT banner_id, date_trunc('minute', minute) AS minute,"
            f" sum(clicks)::bigint AS clicks FROM {_LATEST} GROUP BY 1, 2)"
            " SELECT -1, extract(epoch FROM minute)::bigint, sum(clicks)::bigint"
            " FROM recent GROUP BY minute UNION ALL"
            " (SELECT banner_id, extract(epoch FROM minute)::bigint, clicks FROM recent"
            " ORDER BY minute DESC, clicks DESC LIMIT %(most)s)"
        )
        recent = Recent({}, {})
        for banner_id, minute, clicks in await self.fetch(
            sql, {"since": moment(since), "most": most}
        ):
            if banner_id < 0:
                recent.minutes[minute] = clicks
            else:
                recent.banners[banner_id, minute] = clicks
        return recent._replace(cut=len(recent.banners) >= most)

    async def minutes(self, since: int) -> dict[int, int]:
        """Clicks of all banners by minute (Unix seconds), from `since` on."""
        sql = (
            "SELECT extract(epoch FROM date_trunc('minute', minute))::bigint, sum(clicks)::bigint"
            f" FROM {_LATEST} GROUP BY 1 ORDER BY 1"
        )
        return dict(await self.fetch(sql, {"since": moment(since)}))

    async def top(self, cover: Cover, limit: int, raw: bool) -> Top:
        """The `limit` banners with most clicks, and all banners together."""
        if not cover.rollups:
            return top_of(await self.fetch_over(cover, sum_all(limit, raw)))
        return await self._answer(lambda connection: read_top(connection, cover, limit, raw))
