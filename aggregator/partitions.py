"""The daily partitions of banner_minute: made ahead, made on demand, dropped by retention.

A day is counted here as whole UTC days since 1970-01-01, like a minute as Unix time // 60.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from aggregator import postgres

DAYS_BEHIND: Final = 1
DAYS_AHEAD: Final = 3
EVERY_S: Final = 600.0
RETRY_S: Final = 5.0
# A reader that holds a partition makes a DROP wait, and everyone else behind the DROP: give up
# soon and come back.
DROP_LOCK_TIMEOUT: Final = "250ms"
QUARANTINE_ROWS: Final = 100_000

_EPOCH: Final = date(1970, 1, 1)

log = logging.getLogger("clickmill.partitions")


async def make(connection: AsyncConnection[Any], days: Iterable[int]) -> set[int]:
    """Make the partitions of these days where they are missing; return all days that exist."""
    for day in sorted(days):
        await connection.execute("SELECT clickmill_make_partition(%s::date)", [_date(day)])
    return await existing(connection)


async def existing(connection: AsyncConnection[Any]) -> set[int]:
    """The days that have a partition."""
    rows = await connection.execute("SELECT clickmill_partition_days()")
    return {(day - _EPOCH).days for (day,) in await rows.fetchall()}


async def maintain(connection: AsyncConnection[Any], retention_days: int) -> None:
    """Make the coming days, drop those past retention (0: none), bound the quarantine."""
    today = await _today(connection)
    await make(connection, range(today - DAYS_BEHIND, today + DAYS_AHEAD + 1))
    if retention_days:
        await drop_before(connection, today - retention_days)
    await connection.execute(
        "DELETE FROM quarantine WHERE id <= (SELECT max(id) FROM quarantine) - %s",
        [QUARANTINE_ROWS],
    )


async def drop_before(connection: AsyncConnection[Any], day: int) -> None:
    """Drop every day before this one, with its rollups; a day that is in use waits for later."""
    await connection.execute("SELECT set_config('lock_timeout', %s, false)", [DROP_LOCK_TIMEOUT])
    for old in sorted(await existing(connection)):
        if old >= day:
            return
        try:
            await connection.execute("SELECT clickmill_drop_day(%s::date)", [_date(old)])
            log.info("dropped the minutes of %s, past CLICKMILL_RETENTION_DAYS", _date(old))
        except psycopg.errors.LockNotAvailable:
            log.info("the minutes of %s are being read; dropping them later", _date(old))


async def keep_maintained(dsn: str, retention_days: int) -> None:
    """Maintain for ever, every EVERY_S; an error is logged and tried again."""
    while True:
        try:
            async with postgres.session(dsn, "partitions") as connection:
                await maintain(connection, retention_days)
            await asyncio.sleep(EVERY_S)
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("partitions: %s; trying again", str(error).partition("\n")[0])
            await asyncio.sleep(RETRY_S)


async def _today(connection: AsyncConnection[Any]) -> int:
    cursor = await connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date")
    row = await cursor.fetchone()
    assert row is not None
    return int((row[0] - _EPOCH).days)


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)
