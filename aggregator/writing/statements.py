"""The statements of the writing transaction, and how values become their parameters.

Each is sent once for a whole batch; its rows travel as arrays (see `postgres/arrays`), sorted.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from psycopg.sql import SQL, Composed, Literal

from aggregator.postgres import arrays
from aggregator.writing.fold import Mark
from aggregator.writing.sums import Rows
from clickmill import wire

MINUTES_PER_DAY: Final = 1440
SECONDS_PER_DAY: Final = MINUTES_PER_DAY * wire.SECONDS_PER_MINUTE

INSERT_UNKNOWN: Final = """
INSERT INTO source (source, shard) SELECT * FROM unnest(%s, %s) ON CONFLICT DO NOTHING
"""

# Sorted, so that two aggregators that share sources wait for each other instead of deadlocking.
LOCK_MARKS: Final = """
SELECT source, last_seq, total, (extract(epoch FROM sealed_at) * 1000000)::bigint * 1000, closed,
       uncounted
FROM source WHERE source = ANY(%s) ORDER BY source FOR UPDATE
"""

# Sorted, as all rows are: where two transactions have a key, the second waits here for the first.
CLAIM_KEYS: Final = """
INSERT INTO idempotency_key (key, digest) SELECT * FROM unnest(%s, %s)
ON CONFLICT DO NOTHING RETURNING key
"""
FIND_KEYS: Final = "SELECT key, digest FROM idempotency_key WHERE key = ANY(%s)"

# Held until the transaction ends. Statements after it see the mark `closing` as it stays meanwhile.
HOLD_CLOSING: Final = "SELECT pg_advisory_xact_lock_shared(%s, %s)"

NOW_AND_CLOSING: Final = """
SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::bigint,
       (SELECT ceil(extract(epoch FROM closing) / 60)::bigint FROM rollup_mark)
"""

# Not INSERT … ON CONFLICT: that locks each row before it updates it, and marks each new row as not
# yet certain, each with a record in the WAL.
# Two writers that add one new row at once, as they may where they share a slot, are told by an
# error; and so is one whose rows have a key twice.
# The bounds are constants, so that only the partition of that day is planned for and locked.
# The rows come sorted by (time, banner): writers that share a slot lock rows in one order.
_MERGE_MINUTES: Final = SQL("""
MERGE INTO banner_minute AS t USING unnest(%s, %s, %s) AS n (banner_id, minute, clicks)
ON t.banner_id = n.banner_id AND t.minute = n.minute AND t.minute >= {first} AND t.minute < {end}
WHEN MATCHED THEN UPDATE SET clicks = t.clicks + n.clicks
WHEN NOT MATCHED THEN
    INSERT (banner_id, minute, clicks) VALUES (n.banner_id, n.minute, n.clicks)
""")

# For the session that merges: each row is found by its key. With the statistics of a partition that
# was just made, Postgres would now and then prefer to read all of it.
BY_KEY: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

INSERT_LATE: Final = """
INSERT INTO rollup_late (banner_id, minute, clicks) SELECT * FROM unnest(%s, %s, %s)
"""

ADVANCE_MARKS: Final = """
UPDATE source AS s SET last_seq = n.last_seq, total = n.total, sealed_at = n.sealed_at,
       closed = n.closed, uncounted = n.uncounted, updated_at = now()
FROM unnest(%s, %s, %s, %s, %s, %s) AS n (source, last_seq, total, sealed_at, closed, uncounted)
WHERE s.source = n.source
"""

QUARANTINE: Final = """
INSERT INTO quarantine (source, seq, reason, clicks, raw) VALUES (%s, %s, %s, %s, %s)
"""

CLOSE: Final = """
UPDATE source SET closed = true, updated_at = now()
WHERE source = %s AND last_seq >= %s
RETURNING last_seq, total
"""


@functools.lru_cache(maxsize=64)
def merge_minutes(day: int) -> Composed:
    """The statement that adds rows of one day, in whole UTC days since 1970, to its minutes."""
    first = datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC)
    return _MERGE_MINUTES.format(first=Literal(first), end=Literal(first + timedelta(days=1)))


def row_columns(rows: Rows, slot: int = 0) -> list[object]:
    """The parameters of `merge_minutes` or INSERT_LATE; `when` of the rows is in minutes."""
    return [
        arrays.int4s(rows.banner),
        arrays.timestamps(rows.when * wire.SECONDS_PER_MINUTE, microseconds=slot),
        arrays.int8s(rows.clicks),
    ]


def claim_columns(claims: Mapping[UUID, UUID]) -> list[object]:
    """The parameters of CLAIM_KEYS, by key."""
    keys = sorted(claims)
    return [arrays.uuids(keys), arrays.uuids([claims[key] for key in keys])]


def mark_columns(marks: Mapping[UUID, Mark]) -> list[object]:
    """The parameters of ADVANCE_MARKS, by source."""
    sources = sorted(marks)
    chosen = [marks[source] for source in sources]
    return [
        arrays.uuids(sources),
        arrays.int8s([mark.last_seq for mark in chosen]),
        arrays.int8s([mark.total for mark in chosen]),
        arrays.timestamps_ns([mark.sealed_at for mark in chosen]),
        arrays.bools(mark.closed for mark in chosen),
        arrays.int8s([mark.uncounted for mark in chosen]),
    ]
