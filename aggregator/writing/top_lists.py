"""Makes the lists of the busiest banners of each unit that is rolled up; `top` reads them.

Which ones are to be made stands in their table, `rollup_top`: triggers note it in the transaction
that changes a rollup (see schema.sql). All that changes a rollup holds the lock on its mark, and so
does this: in every snapshot a list is missing, or it is what its rollup says.
"""

from __future__ import annotations

import time
from typing import Any, Final, LiteralString

from psycopg import AsyncConnection

LISTED: Final = 1_000
"""The most banners of a list. A longer one decides more top lists, and takes longer to read."""
AT_ONCE_S: Final = 0.3
"""Seconds for one transaction: what is complete by then is to be rolled up before older lists."""

UNITS: Final[tuple[LiteralString, ...]] = ("day", "hour", "quarter")
"""Those first that most of a long range is read from."""

# The newest first: it is asked for most.
_DUE: Final = """
SELECT start FROM rollup_top WHERE unit = %s AND banners IS NULL ORDER BY start DESC LIMIT 1
"""
_MAKE: Final[LiteralString] = """
WITH unit AS MATERIALIZED (
    SELECT banner_id, clicks FROM rollup_{unit} WHERE {unit} = %(start)s
), busiest AS (
    SELECT banner_id, clicks, row_number() OVER (ORDER BY clicks DESC, banner_id) AS place
    FROM (SELECT * FROM unit ORDER BY clicks DESC, banner_id LIMIT %(listed)s + 1) AS most
), list AS (
    SELECT coalesce(array_agg(banner_id ORDER BY place) FILTER (WHERE place <= %(listed)s), '{}')
           AS banners,
           coalesce(array_agg(clicks ORDER BY place) FILTER (WHERE place <= %(listed)s), '{}')
           AS clicks,
           coalesce(max(clicks) FILTER (WHERE place > %(listed)s), 0) AS below
    FROM busiest
)
UPDATE rollup_top SET (banners, clicks, below) = (SELECT banners, clicks, below FROM list),
    total = (SELECT coalesce(sum(clicks), 0) FROM unit)
WHERE unit = '{unit}' AND start = %(start)s
"""


async def make_lists(connection: AsyncConnection[Any]) -> bool:
    """Make lists that are due, for a moment; whether there are more.

    The caller's transaction has locked the mark.
    """
    end = time.monotonic() + AT_ONCE_S
    for unit in UNITS:
        make = _MAKE.replace("{unit}", unit)
        while row := await (await connection.execute(_DUE, [unit])).fetchone():
            if time.monotonic() >= end:
                return True
            await connection.execute(make, {"start": row[0], "listed": LISTED})
    return False
