"""Deletes what is past its time: minutes after some days, rollups after more, or never.

In three steps, so that no query waits and no answer is wrong meanwhile:

1. What is to go is written into the table `retention`. Answers look there (see `kept`).
2. Once every answer that began before is over, old rollups go in small batches.
3. The minutes of each old day go with their partition, which is short; where somebody uses it,
   it is tried again soon.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, LiteralString, NamedTuple

import psycopg
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from aggregator.postgres import partitions
from clickmill.batches import KEY_DAYS, LATE_DAYS
from clickmill.retry import first_line

EVERY_S: Final = 600.0
RETRY_S: Final = 5.0
# Longer than any answer takes, all its questions to Postgres together (queries.ANSWER_TIMEOUT_S).
GRACE_S: Final = 60.0
# Some hundredths of a second, so that a writer of late clicks to the same rows hardly waits.
BATCH_ROWS: Final = 5_000
QUARANTINE_ROWS: Final = 100_000
KEY_ROWS_DAYS: Final = KEY_DAYS + LATE_DAYS
"""A batch may be sent again for KEY_DAYS, and that copy may reach Postgres LATE_DAYS later."""

_MINUTES: Final = "minute"
_ROLLUPS: Final = "rollup"
_START: Final = datetime.min.replace(tzinfo=UTC)
_GIVE_UP: Final = """
INSERT INTO retention AS r (unit, gone_from, kept_from) VALUES (%s, %s, %s)
ON CONFLICT (unit) DO UPDATE SET gone_from = least(r.gone_from, excluded.gone_from),
    kept_from = greatest(r.kept_from, excluded.kept_from), moved_at = now()
WHERE r.gone_from > excluded.gone_from OR r.kept_from < excluded.kept_from
"""
_GIVEN_UP: Final = """
SELECT unit, kept_from, moved_at <= now() - %s * interval '1 second' FROM retention
"""
_OLDEST_ROLLUP: Final = """
SELECT (least((SELECT min(quarter) FROM rollup_quarter), (SELECT min(hour) FROM rollup_hour),
    (SELECT min(day) FROM rollup_day)) AT TIME ZONE 'UTC')::date
"""
# From key to key, so that no batch walks over what those before it have deleted.
_DELETE: Final[LiteralString] = """
WITH old AS (
    SELECT ctid AS place, {unit}, banner_id FROM rollup_{unit}
    WHERE ({unit}, banner_id) > (%s, %s) AND {unit} < %s ORDER BY {unit}, banner_id LIMIT %s
), gone AS (
    DELETE FROM rollup_{unit} WHERE ctid = ANY (ARRAY (SELECT place FROM old))
)
SELECT {unit}, banner_id FROM old ORDER BY {unit} DESC, banner_id DESC LIMIT 1
"""
_DELETE_KEYS: Final = """
DELETE FROM idempotency_key WHERE key = ANY (ARRAY (
    SELECT key FROM idempotency_key WHERE counted_at < now() - %s * interval '1 day'
    ORDER BY counted_at LIMIT %s))
"""
_UNITS: Final[tuple[LiteralString, ...]] = ("quarter", "hour", "day")
_TABLES: Final = tuple(_DELETE.replace("{unit}", unit) for unit in _UNITS)

log = logging.getLogger("clickmill.retention")


class Days(NamedTuple):
    """For how many days minutes, and their rollups, are kept; 0: forever."""

    minutes: int
    rollups: int


async def keep_maintained(dsn: str, days: Days) -> None:
    """Maintain forever; an error is logged and tried again."""
    while True:
        done = False
        try:
            # A DROP must not wait for a disk while it holds its lock; a crash repeats it.
            async with postgres.session(dsn, "partitions", synchronous_commit="off") as connection:
                done = await maintain(connection, days)
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("partitions: %s; trying again", first_line(error))
        await asyncio.sleep(EVERY_S if done else RETRY_S)


async def maintain(connection: AsyncConnection[Any], days: Days, grace_s: float = GRACE_S) -> bool:
    """Make the coming days, delete what is past its time, bound the quarantine.

    Returns whether that is all; if not, something is to be deleted soon.
    """
    today = await _today(connection)
    await partitions.make_ahead(connection, today)
    await connection.execute(
        "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - %s",
        [QUARANTINE_ROWS],
    )
    while (await connection.execute(_DELETE_KEYS, [KEY_ROWS_DAYS, BATCH_ROWS])).rowcount:
        pass
    if days.minutes:
        first = await partitions.oldest(connection)
        await _give_up(connection, _MINUTES, first, today - timedelta(days=days.minutes))
    if days.rollups:
        row = await (await connection.execute(_OLDEST_ROLLUP)).fetchone()
        first = row[0] if row else None
        await _give_up(connection, _ROLLUPS, first, today - timedelta(days=days.rollups))
    return await _delete(connection, grace_s)


async def _give_up(
    connection: AsyncConnection[Any], unit: str, first: date | None, kept_from: date
) -> None:
    """Say that what lies before this day goes, if there is something."""
    if first is not None and first < kept_from:
        await connection.execute(_GIVE_UP, [unit, _midnight(first), _midnight(kept_from)])


async def _delete(connection: AsyncConnection[Any], grace_s: float) -> bool:
    """Delete what `retention` gives up, once its grace is over; whether nothing is left to do."""
    cursor = await connection.execute(_GIVEN_UP, [grace_s])
    given_up = {unit: (kept_from, over) for unit, kept_from, over in await cursor.fetchall()}
    done = all(over for _, over in given_up.values())
    kept_from, over = given_up.get(_ROLLUPS, (_START, False))
    if over:
        for statement in _TABLES:
            await _delete_rows(connection, statement, kept_from)
        await connection.execute("DELETE FROM rollup_top WHERE start < %s", [kept_from])
    kept_from, over = given_up.get(_MINUTES, (_START, False))
    if over:
        done = await partitions.drop_before(connection, kept_from.date()) and done
    return done


async def _delete_rows(
    connection: AsyncConnection[Any], statement: LiteralString, before: datetime
) -> None:
    last: tuple[datetime, int] | None = (_START, -1)
    while last is not None:
        cursor = await connection.execute(statement, [*last, before, BATCH_ROWS])
        last = await cursor.fetchone()


async def _today(connection: AsyncConnection[Any]) -> date:
    cursor = await connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date")
    row = await cursor.fetchone()
    assert row is not None
    today: date = row[0]
    return today


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
