"""A reader, however slow, never makes the writer wait, nor the making of partitions."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from uuid import uuid4

import psycopg

from aggregator.postgres import migrations
from aggregator.reading.cover import cover_of, total_start
from aggregator.reading.queries import Reader, make_pool
from aggregator.reading.timerange import Range
from aggregator.writing.fold import Arrival
from aggregator.writing.store import Store
from clickmill.wire import Frame

PROMPT_S = 3.0


def test_an_open_read_blocks_no_writer(database: str) -> None:
    now = int(datetime.now(UTC).timestamp()) // 60
    source = uuid4()

    def arrival(seq: int, minute: int) -> Arrival:
        ids, counts = (5).to_bytes(4, "little"), (1).to_bytes(8, "little")
        frame = Frame(source, seq, minute, minute * 60 * 10**9, seq, False, ids, counts)
        return Arrival(source, seq, frame)

    async def scenario() -> int:
        await migrations.apply_schema(database)
        store, pool = Store(database), make_pool(database)
        async with pool:
            await store.apply([arrival(1, now)])
            with psycopg.connect(database) as slow:
                # A transaction that has read everything and stays open, in the middle of a cursor.
                for table in ("banner_minute", "rollup_hour", "rollup_day"):
                    slow.execute(f"SELECT * FROM {table}".encode())
                began = time.monotonic()
                await store.apply([arrival(2, now), arrival(3, now - 20 * 1_440)])
                assert time.monotonic() - began < PROMPT_S
            span = Range(
                datetime.fromtimestamp((now - 30 * 1_440) * 60, UTC),
                datetime.fromtimestamp((now + 1) * 60, UTC),
            )
            cover = cover_of(span, total_start(span))
            (total, _), _ = await Reader(pool).top(cover, 5, raw=False)
        await store.close()
        return total

    assert asyncio.run(scenario()) == 3
