"""Rolls minutes up into quarter-hours, hours and days: each once, when its time is complete.

Why not with each commit: three upserts for each pair made the rows the limit of an aggregator, and
aggregators waited for each other's rows. Here minutes are summed once, by one aggregator at a time.

Exactness, whichever process dies at any time: before its mark, a rollup and `rollup_late` together
equal the minutes, in every snapshot. Three rules ensure that:

1. `closing` is moved while no writer is at work. From then on writers add the clicks of earlier
   minutes to `rollup_late` too, in the transaction that counts them.
2. Everything else is one transaction with one snapshot: the late clicks that it sees go to the
   rollups that their time is in, the next minutes before `closing` are summed, and the mark moves.
   Late clicks that it does not see stay in `rollup_late`, and are not in its sums.
3. The transaction locks the mark, so one aggregator rolls up at a time.

Where nothing else is due, the lists of the busiest banners are made (see `top_lists`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection, IsolationLevel

from aggregator.postgres import connection as postgres
from aggregator.postgres import partitions
from aggregator.writing.top_lists import make_lists
from clickmill.failpoints import failpoint
from clickmill.retry import first_line

EVERY_S: Final = 5.0
MORE_S: Final = 0.1
"""The pause between two parts of much work: others want the disk, too."""
TIMEOUT: Final = "600s"
CLOSE_TIMEOUT: Final = "10s"
"""While `closing` waits for the writers under way, no other one begins."""

GRACE: Final = timedelta(seconds=30)
PATIENCE: Final = timedelta(hours=1)
"""So long a source may hold rollups back; what it sends later is late."""
QUARTER: Final = timedelta(minutes=15)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
LATE_ROWS: Final = 200_000
"""The most late rows of one transaction."""

log = logging.getLogger("clickmill.rollup")

_NOW: Final = "SELECT clock_timestamp()"
_CLOSE: Final = """
UPDATE rollup_mark SET closing = %(until)s WHERE closing < %(until)s RETURNING closing
"""
_LOCK_MARK: Final = """
SELECT closing, quarter_from, quarter, hour, day FROM rollup_mark FOR UPDATE SKIP LOCKED
"""
_MOVE: Final = """
UPDATE rollup_mark SET quarter_from = %s, quarter = %s, hour = %s, day = %s
"""
_HAS_LATE: Final = "SELECT EXISTS (SELECT FROM rollup_late)"
# Minutes at or after the mark are in no rollup yet: they are summed with the others of their time.
_FOLD: Final = """
WITH late AS (
    DELETE FROM rollup_late WHERE ctid = ANY (ARRAY (SELECT ctid FROM rollup_late LIMIT %(rows)s))
    RETURNING banner_id, minute, clicks
), quarters AS (
    INSERT INTO rollup_quarter AS t (banner_id, quarter, clicks)
    SELECT banner_id, date_bin('15 minutes', minute, 'epoch'), sum(clicks) FROM late
    WHERE minute >= %(quarter_from)s AND minute < %(quarter)s GROUP BY 1, 2 ORDER BY 2, 1
    ON CONFLICT (banner_id, quarter) DO UPDATE SET clicks = t.clicks + excluded.clicks
), hours AS (
    INSERT INTO rollup_hour AS t (banner_id, hour, clicks)
    SELECT banner_id, date_trunc('hour', minute, 'UTC'), sum(clicks) FROM late
    WHERE minute < %(hour)s GROUP BY 1, 2 ORDER BY 2, 1
    ON CONFLICT (banner_id, hour) DO UPDATE SET clicks = t.clicks + excluded.clicks
), days AS (
    INSERT INTO rollup_day AS t (banner_id, day, clicks)
    SELECT banner_id, date_trunc('day', minute, 'UTC'), sum(clicks) FROM late
    WHERE minute < %(day)s GROUP BY 1, 2 ORDER BY 2, 1
    ON CONFLICT (banner_id, day) DO UPDATE SET clicks = t.clicks + excluded.clicks
)
SELECT count(*) FROM late
"""
# There is nothing to delete, unless somebody else wrote here.
_CLEAR: Final[LiteralString] = "DELETE FROM rollup_{unit} WHERE {unit} >= %s AND {unit} < %s"
_SUM: Final[LiteralString] = """
INSERT INTO rollup_{unit} (banner_id, {unit}, clicks)
SELECT banner_id, date_bin('{size}', {from_unit}, 'epoch'), sum(clicks) FROM {table}
WHERE {from_unit} >= %s AND {from_unit} < %s GROUP BY 1, 2 ORDER BY 2, 1
"""
_GONE: Final = "SELECT kept_from FROM retention WHERE unit = 'minute'"


class Mark(NamedTuple):
    """A row of rollup_mark; see schema.sql."""

    closing: datetime
    quarter_from: datetime
    quarter: datetime
    hour: datetime
    day: datetime


class _Unit(NamedTuple):
    """How the rows of one rollup are made."""

    clear: LiteralString
    sum: LiteralString


def _unit(
    name: LiteralString, size: LiteralString, table: LiteralString, column: LiteralString
) -> _Unit:
    summed = _SUM.replace("{unit}", name).replace("{size}", size)
    summed = summed.replace("{from_unit}", column).replace("{table}", table)
    return _Unit(_CLEAR.replace("{unit}", name), summed)


_QUARTERS: Final = _unit("quarter", "15 minutes", "banner_minute", "minute")
_HOURS: Final = _unit("hour", "1 hour", "rollup_quarter", "quarter")
_DAYS: Final = _unit("day", "1 day", "rollup_hour", "hour")


def due(now: datetime, complete: datetime | None) -> datetime:
    """Up to which quarter-hour minutes are to be rolled up, given completeThrough."""
    oldest, newest = now - PATIENCE, now - GRACE
    return floor(max(oldest, min(newest, complete or oldest)), QUARTER)


def floor(moment: datetime, size: timedelta) -> datetime:
    """Rounded down to a multiple of `size` since 1970."""
    return moment - (moment - datetime.fromtimestamp(0, UTC)) % size


async def keep_rolled_up(dsn: str, complete: Callable[[], datetime | None]) -> None:
    """Roll up forever; an error is logged and tried again."""
    while True:
        try:
            async with postgres.session(dsn, "rollup", statement_timeout=TIMEOUT) as connection:
                await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
                while True:
                    more = await roll_up(connection, complete())
                    await asyncio.sleep(MORE_S if more else EVERY_S)
        except psycopg.errors.SerializationFailure as error:
            log.debug("rollup: %s; trying again", first_line(error))
        except psycopg.errors.LockNotAvailable:
            log.info("rollup: a writer takes long; trying again")
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("rollup: %s; trying again", first_line(error))
        await asyncio.sleep(EVERY_S)


async def roll_up(connection: AsyncConnection[Any], complete: datetime | None) -> bool:
    """Do a part of what is due; whether there is more. The connection's isolation is
    REPEATABLE READ."""
    cursor = await connection.execute(_NOW)
    (now,) = await cursor.fetchone() or (datetime.max.replace(tzinfo=UTC),)
    # The earlier of two clocks: were `closing` in the future, every click would be late.
    await _close(connection, due(min(now, datetime.now(UTC)), complete))
    async with connection.transaction():
        cursor = await connection.execute(_LOCK_MARK)
        row = await cursor.fetchone()
        if row is None:
            return False  # another aggregator is at it
        mark = Mark(*row)
        folded = await _fold(connection, mark)
        failpoint("rollup.folded")
        if folded >= LATE_ROWS:
            return True
        moved = await _derive(connection, mark)
        if moved != mark:
            await connection.execute(_MOVE, list(moved[1:]))
        more = moved != mark or await make_lists(connection)
        failpoint("rollup.before_commit")
    failpoint("rollup.committed")
    return more


async def _close(connection: AsyncConnection[Any], until: datetime) -> None:
    """Move `closing`, once no writer is at work that has read the one before."""
    cursor = await connection.execute("SELECT closing < %s FROM rollup_mark", [until])
    (is_due,) = await cursor.fetchone() or (False,)
    if not is_due:
        return
    failpoint("rollup.close")
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{CLOSE_TIMEOUT}'")
        keys = [postgres.LOCK_CLASS, postgres.LOCK_CLOSING]
        await connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", keys)
        await connection.execute(_CLOSE, {"until": until})
    failpoint("rollup.closed")


async def _fold(connection: AsyncConnection[Any], mark: Mark) -> int:
    """Move late clicks to the rollups; how many rows they were."""
    cursor = await connection.execute(_HAS_LATE)
    if await cursor.fetchone() != (True,):
        return 0
    cursor = await connection.execute(_FOLD, {**mark._asdict(), "rows": LATE_ROWS})
    (rows,) = await cursor.fetchone() or (0,)
    return int(rows)


async def _derive(connection: AsyncConnection[Any], mark: Mark) -> Mark:
    """Sum the next time that is complete, an hour at most, or an older day of quarter-hours."""
    until = min(mark.closing, floor(mark.quarter, HOUR) + HOUR)
    if until <= mark.quarter:
        return await _backfill(connection, mark)
    await _sum(connection, _QUARTERS, mark.quarter, until)
    failpoint("rollup.derived")
    hour, day = max(mark.hour, floor(until, HOUR)), max(mark.day, floor(until, DAY))
    await _sum(connection, _HOURS, mark.hour, hour)
    await _sum(connection, _DAYS, mark.day, day)
    return mark._replace(quarter=until, hour=hour, day=day)


async def _sum(
    connection: AsyncConnection[Any], unit: _Unit, since: datetime, until: datetime
) -> None:
    if since < until:
        await connection.execute(unit.clear, [since, until])
        await connection.execute(unit.sum, [since, until])


async def _backfill(connection: AsyncConnection[Any], mark: Mark) -> Mark:
    """The quarter-hours of the day before the oldest, while its minutes are kept.

    Databases of releases before 0.3 have hours and days, and no quarter-hours.
    """
    day = floor(mark.quarter_from - timedelta(microseconds=1), DAY)
    oldest = await partitions.oldest(connection)
    if oldest is None or day.date() < oldest:
        return mark
    cursor = await connection.execute(_GONE)
    row = await cursor.fetchone()
    if row is not None and day < row[0]:
        return mark
    await _sum(connection, _QUARTERS, day, mark.quarter_from)
    failpoint("rollup.derived")
    return mark._replace(quarter_from=day)
