"""How rows of minutes are added: each found by its key, on whichever day, beside other writers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from aggregator.postgres import migrations
from aggregator.writing import statements
from aggregator.writing import store as store_module
from aggregator.writing.store import Store
from tests.support import sql
from tests.support.fakes import NOW, FakeSource
from tests.support.stores import with_store
from tests.support.wait import eventually

DAY = 1_440
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def test_rows_of_several_days(database: str) -> None:
    a = FakeSource()

    async def test(store: Store) -> None:
        for _ in range(2):
            batch = [a.arrival({1: 2, 7: 3}, NOW - days * DAY) for days in (3, 0, 1, 3)]
            await store.apply(batch)

    with_store(database, test)
    by_day = "SELECT date_trunc('day', minute), sum(clicks) FROM banner_minute GROUP BY 1"
    today = datetime.fromtimestamp(NOW * 60, UTC).replace(hour=0, minute=0)
    assert dict(sql.query(database, by_day)) == {
        today: 10, today - timedelta(days=1): 10, today - timedelta(days=3): 20,
    }  # fmt: skip
    assert sql.counts(database) == {1: 16, 7: 24}


@pytest.mark.parametrize("rows", [0, 200_000])
def test_rows_are_found_by_their_key_however_many_there_are(database: str, rows: int) -> None:
    """By default Postgres would read the whole partition, which may have hundreds of millions."""
    asyncio.run(migrations.apply_schema(database))
    day = NOW // DAY
    sql.query(database, f"SELECT clickmill_make_partition(to_timestamp({day * 86_400})::date)")
    sql.query(
        database,
        "INSERT INTO banner_minute SELECT n %% 20000, to_timestamp(%s) + n / 20000"
        " * interval '1 min', 1 FROM generate_series(0, %s - 1) AS n",
        day * 86_400, rows,
    )  # fmt: skip
    if rows:
        sql.query(database, "ANALYZE banner_minute")

    async def test(store: Store) -> None:
        connection = await store._connected()
        explain = b"EXPLAIN " + statements.merge_minutes(day).as_bytes(connection)
        many = [list(range(50_000)), [datetime.fromtimestamp(day * 86_400, UTC)] * 50_000]
        found = await connection.execute(explain, [*many, [1] * 50_000])
        plan = "\n".join(line for (line,) in await found.fetchall())
        assert "Index Scan using banner_minute_" in plan, plan
        assert "Seq Scan" not in plan
        assert "JIT" not in plan
        assert plan.count("_pkey") == 1, "no other partition is looked at"

    with_store(database, test)


def test_a_row_that_another_writer_of_the_slot_adds_meanwhile(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt fails because the key is there by then, and the next one adds to it."""

    async def slot_zero(_: object) -> int:
        return 0

    monkeypatch.setattr(store_module, "take_slot", slot_zero)
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        async with await psycopg.AsyncConnection.connect(database) as other:
            await other.execute(
                "INSERT INTO banner_minute VALUES (2, to_timestamp(%s), 10)", [NOW * 60]
            )
            applying = asyncio.create_task(store.apply([a.arrival({1: 1, 2: 5})]))
            await asyncio.to_thread(eventually, lambda: sql.query(database, WAITING)[0][0])
            await other.commit()
        await applying
        assert store.retries == 1

    with_store(database, test)
    assert sql.counts(database) == {1: 2, 2: 15}
    assert sql.quarantine(database) == []
