"""Which idempotency keys are counted: a worker asks, so that it need not store a batch again.

A worker that gets no answer stores the batch all the same; the writing transaction decides.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from aggregator.reading.queries import Pool
from clickmill.messages import KeysReply, KeysRequest

_FIND: Final = "SELECT key, digest FROM idempotency_key WHERE key = ANY(%s)"


async def find(pool: Pool, request: KeysRequest) -> KeysReply:
    """What is counted of these keys. Raises psycopg.Error where Postgres can't be asked."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_FIND, [request.keys])
        found: dict[UUID, UUID] = dict(await cursor.fetchall())
    return KeysReply([found.get(key) for key in request.keys])
