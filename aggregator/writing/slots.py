"""The slot of a writer: minute rows of its own, so that aggregators never wait for each other's.

A slot is an advisory lock of the writing session, so it ends with the session. Nothing depends on
it but speed: two writers of one slot wait for each other's rows and count as right as any others.
"""

from __future__ import annotations

from typing import Any, Final

from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from clickmill import wire

SLOTS: Final = wire.SHARDS
"""An aggregator without a shard has nothing to write."""

_TAKE: Final = """
SELECT slot FROM generate_series(0, %s - 1) AS slot
WHERE pg_try_advisory_lock(%s, %s + slot) LIMIT 1
"""


async def take_slot(connection: AsyncConnection[Any]) -> int:
    """A slot for the life of this connection; 0 where all are taken."""
    cursor = await connection.execute(_TAKE, [SLOTS, postgres.LOCK_CLASS, postgres.LOCK_SLOTS])
    row = await cursor.fetchone()
    return row[0] if row else 0
