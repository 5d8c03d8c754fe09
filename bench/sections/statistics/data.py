"""The tables that are read: filled beforehand, and written to meanwhile as the aggregator does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

DAY_S: Final = 86_400
ROWS_A_MINUTE: Final = 100_000
LISTS_S: Final = 900.0

_MAKE_DAY: Final = "SELECT clickmill_make_partition(to_timestamp(%s)::date)"
_FILL: Final = """
INSERT INTO banner_minute SELECT banner, to_timestamp(at), 1 + (banner * 7 + at / 60) %% 40
FROM generate_series(%(first)s::bigint, %(end)s::bigint - 1, %(gap)s::bigint) AS at,
     generate_series(1, %(banners)s) AS banner
ON CONFLICT DO NOTHING
"""
_ROLL_UP: Final = """
INSERT INTO rollup_{unit} SELECT banner_id, date_bin('{size}', minute, 'epoch'), sum(clicks)
FROM banner_minute WHERE minute >= to_timestamp(%(first)s) AND minute < to_timestamp(%(end)s)
GROUP BY 1, 2
"""
_SIZES: Final = {"quarter": "15 minutes", "hour": "1 hour", "day": "1 day"}
_DUE: Final = """
SELECT clickmill_top_is_due(%(unit)s, ARRAY (SELECT generate_series(
    to_timestamp(%(first)s), to_timestamp(%(end)s) - %(size)s::interval, %(size)s::interval)))
"""
_BEGIN_AT: Final = """
UPDATE rollup_mark SET (closing, quarter, hour, day) = (t, t, t, t) FROM to_timestamp(%(at)s) AS t
"""
_ALL_MADE: Final = """
SELECT quarter > now() - interval '17 minutes'
       AND NOT EXISTS (SELECT FROM rollup_top WHERE banners IS NULL) FROM rollup_mark
"""
_UPSERT: Final = """
INSERT INTO banner_minute AS t (banner_id, minute, clicks)
SELECT id, date_trunc('minute', now()), 1 FROM unnest(%s::int[]) AS n (id) ORDER BY id
ON CONFLICT (banner_id, minute) DO UPDATE SET clicks = t.clicks + excluded.clicks
"""


def fill(dsn: str, banners: int, days: int, dense: int) -> int:
    """Makes the data; the number of minute rows."""
    now = int(time.time()) // 60 * 60
    midnight = now // DAY_S * DAY_S
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute(
            "TRUNCATE banner_minute, rollup_quarter, rollup_hour, rollup_day, rollup_top"
        )
        connection.execute("SET synchronous_commit = off")
        for day in range(days, -1, -1):
            first = midnight - day * DAY_S
            connection.execute(_MAKE_DAY, [first])
            gap = 60 if day < dense else 3_600
            values = {"first": first, "end": min(first + DAY_S, now), "gap": gap}
            connection.execute(_FILL, {**values, "banners": banners})
            # The running day is left to the aggregator.
            for unit, size in _SIZES.items() if day else ():
                connection.execute(_ROLL_UP.format(unit=unit, size=size).encode(), values)
        connection.execute("VACUUM ANALYZE")
        first = midnight - days * DAY_S
        for unit, size in _SIZES.items():
            connection.execute(_DUE, {"unit": unit, "first": first, "end": midnight, "size": size})
        connection.execute(_BEGIN_AT, {"at": midnight})
        row = connection.execute("SELECT count(*) FROM banner_minute").fetchone()
    assert row is not None
    wait_for_lists(dsn)
    return int(row[0])


def wait_for_lists(dsn: str) -> float:
    """Seconds until the aggregator has rolled up what is due, and made all lists of the busiest.

    Raises TimeoutError.
    """
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() - began < LISTS_S:
            if connection.execute(_ALL_MADE).fetchone() == (True,):
                return time.monotonic() - began
            time.sleep(0.2)
    raise TimeoutError("the lists of busiest banners were not made")


@contextmanager
def writing(dsn: str, banners: int) -> Iterator[list[int]]:
    """Meanwhile rows are written, once a second, as the writer does; yields rows written."""
    stop = threading.Event()
    written = [0]

    def write() -> None:
        per_second = ROWS_A_MINUTE // 60
        each = min(per_second, banners)
        with psycopg.connect(dsn, autocommit=True) as connection:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += each / per_second
                with connection.transaction():
                    connection.execute(_UPSERT, [list(range(1, each + 1))])
                written[0] += each

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()
