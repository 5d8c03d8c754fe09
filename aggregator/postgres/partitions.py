"""The daily partitions of banner_minute: made ahead, made on demand, dropped by retention.

A day is counted here as whole UTC days since 1970-01-01, like a minute as Unix time // 60.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

DAYS_BEHIND: Final = 1
DAYS_AHEAD: Final = 3

_EPOCH: Final = date(1970, 1, 1)

log = logging.getLogger("clickmill.partitions")


async def make_ahead(connection: AsyncConnection[Any], today: date) -> None:
    """Make the partitions that will soon be written to."""
    number = (today - _EPOCH).days
    await make(connection, range(number - DAYS_BEHIND, number + DAYS_AHEAD + 1))


async def make(connection: AsyncConnection[Any], days: Iterable[int]) -> set[int]:
    """Make the partitions of these days where they are missing; return all days that exist."""
    for day in sorted(days):
        await connection.execute("SELECT clickmill_make_partition(%s::date)", [_date(day)])
    return await existing(connection)


async def existing(connection: AsyncConnection[Any]) -> set[int]:
    """The days that have a partition."""
    rows = await connection.execute("SELECT clickmill_partition_days()")
    return {(day - _EPOCH).days for (day,) in await rows.fetchall()}


async def oldest(connection: AsyncConnection[Any]) -> date | None:
    """The first day that has a partition."""
    return min(map(_date, await existing(connection)), default=None)


async def drop_before(connection: AsyncConnection[Any], first_kept: date) -> bool:
    """Drop the minutes of every day before this one; whether all of them are gone.

    False where somebody uses them: try again soon.
    """
    for day in sorted(await existing(connection)):
        if _date(day) >= first_kept:
            break
        try:
            await connection.execute("SELECT clickmill_drop_day(%s::date)", [_date(day)])
            log.info("dropped the minutes of %s, past CLICKMILL_RETENTION_DAYS", _date(day))
        except psycopg.errors.LockNotAvailable:
            log.debug("the minutes of %s are in use; dropping them later", _date(day))
            return False
    return True


def _date(day: int) -> date:
    return _EPOCH + timedelta(days=day)
