"""Batches with an Idempotency-Key on a real Postgres: once, with several writers too."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from aggregator.postgres import connection as postgres
from aggregator.postgres import retention
from aggregator.writing import store as store_module
from aggregator.writing.fold import Verdict
from aggregator.writing.store import Store
from clickmill.batches import key_of
from tests.support import sql
from tests.support.fakes import NOW, FakeSource
from tests.support.fix_postgres import PostgresServer
from tests.support.proxy import running_proxy
from tests.support.stores import through, with_store

APPLIED, REPEATED, DUPLICATE, GAP, QUARANTINED = (
    Verdict.APPLIED, Verdict.REPEATED, Verdict.DUPLICATE, Verdict.GAP, Verdict.QUARANTINED,
)  # fmt: skip
COUNTED = "SELECT coalesce(sum(total - uncounted), 0)::bigint FROM source"
KEYS = "SELECT count(*)::int FROM idempotency_key"


def test_a_batch_counts_once_over_transactions_stores_and_sources(database: str) -> None:
    a, b = FakeSource(), FakeSource()
    clicks = [(7, 3, None), (8, 2, NOW - 10 * 1440), (9, 1, NOW - 31 * 1440)]
    first, again, copy = a.batch("k", clicks), a.batch("k", clicks), b.batch("k", clicks)
    other = b.batch("k", [(7, 100, None)])

    async def test(store: Store) -> list[Verdict]:
        return (await store.apply([first, again])).verdicts

    async def later(store: Store) -> list[Verdict]:
        applied = await store.apply([copy, first, other])
        assert applied.marks[b.id].counted == 0
        return applied.verdicts

    assert with_store(database, test) == [APPLIED, REPEATED]
    assert with_store(database, later) == [REPEATED, DUPLICATE, QUARANTINED]
    assert sql.counts(database) == {7: 3, 8: 2, 9: 1}
    assert sql.query(database, COUNTED) == [(6,)]
    assert sql.quarantine(database) == [(2, "key", 100)]
    minutes = sql.query(database, "SELECT minute FROM banner_minute ORDER BY minute")
    days = [(datetime.now(UTC) - minute).days for (minute,) in minutes]
    assert days == [31, 10, 0]
    sql.assert_rollups_equal_minutes(database)


def test_a_batch_that_waits_behind_a_gap_leaves_its_key_free(database: str) -> None:
    a, b = FakeSource(), FakeSource()
    missing, early = a.arrival({1: 1}), a.batch("k", [(7, 3, None)])
    turn = b.batch("k", [(7, 3, None)])

    async def test(store: Store) -> None:
        assert (await store.apply([early])).verdicts == [GAP]
        assert sql.query(database, KEYS) == [(0,)]
        assert (await store.apply([turn])).verdicts == [APPLIED]
        assert (await store.apply([missing, early])).verdicts == [APPLIED, REPEATED]

    with_store(database, test)
    assert sql.counts(database) == {1: 1, 7: 3}


def test_three_writers_with_the_same_keys_are_exact_and_never_deadlock(database: str) -> None:
    """Each writer has sources of its own with copies of the same batches, in another order."""
    keys = [f"key {n}" for n in range(150)]

    async def write(seed: int) -> int:
        store, chance = Store(database), random.Random(seed)
        source, order = FakeSource(), keys[:]
        chance.shuffle(order)
        frames = [source.batch(key, [(int(key[4:]) % 7, 1, None)]) for key in order]
        while frames:
            batch, frames = frames[:20], frames[20:]
            await store.apply(batch)
        await store.close()
        return store.retries

    async def race() -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*map(write, range(3))), 60)

    assert asyncio.run(race()) == [0, 0, 0], "a deadlock shows as a retry"
    assert sum(sql.counts(database).values()) == len(keys)
    assert sql.query(database, COUNTED) == [(len(keys),)]
    assert sql.query(database, "SELECT sum(total)::int FROM source") == [(3 * len(keys),)]
    assert not sql.quarantine(database)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_cut_at_commit_counts_a_batch_once(
    database: str, postgres_server: PostgresServer, cut: str
) -> None:
    a, b = FakeSource(), FakeSource()
    with running_proxy(postgres_server.port) as proxy:

        async def test(store: Store) -> None:
            await store.apply([a.arrival({1: 1})])
            for n in range(5):
                proxy.cut = cut  # type: ignore[assignment]
                applied = await store.apply([a.batch(f"key {n}", [(7, 3, None)])])
                assert applied.verdicts == [DUPLICATE if cut == "after" else APPLIED]
                assert (await store.apply([b.batch(f"key {n}", [(7, 3, None)])])).verdicts == [
                    REPEATED
                ]

        with_store(through(database, proxy.port), test)
        assert proxy.cuts[cut] == 5
    assert sql.counts(database) == {1: 1, 7: 15}


def test_a_batch_that_was_sealed_over_a_week_ago_is_set_aside(database: str) -> None:
    a = FakeSource()
    week_ago = int((datetime.now(UTC) - timedelta(days=7)).timestamp() * 1e9)

    async def test(store: Store) -> list[Verdict]:
        return (
            await store.apply(
                [
                    a.batch("old", [(7, 3, None)], week_ago - 120 * 10**9),
                    a.batch("young", [(7, 2, None)], week_ago + 120 * 10**9),
                ]
            )
        ).verdicts

    assert with_store(database, test) == [QUARANTINED, APPLIED]
    assert sql.counts(database) == {7: 2}
    assert sql.quarantine(database) == [(1, "late", 3)]
    assert sql.query(database, "SELECT key FROM idempotency_key") == [(key_of("young"),)]


def test_keys_go_after_their_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.batch(f"key {n}", [(7, 1, None)]) for n in range(9)])

    with_store(database, test)
    age = "UPDATE idempotency_key SET counted_at = now() - interval '1 hour' * %s WHERE key = %s"
    for n in range(6):
        sql.query(database, age, 14 * 24 + 1 if n < 5 else 14 * 24 - 1, key_of(f"key {n}"))

    async def maintain() -> None:
        async with postgres.session(database, "test") as connection:
            await retention.maintain(connection, retention.Days(400, 0))

    asyncio.run(maintain())
    left = {key for (key,) in sql.query(database, "SELECT key FROM idempotency_key")}
    assert left == {key_of(f"key {n}") for n in range(5, 9)}


def test_a_transaction_that_ends_after_its_keys_leaves_none(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = FakeSource()
    fails = [True]

    def failpoint(name: str) -> None:
        if name == "aggregator.keys" and fails:
            fails.clear()
            raise psycopg.OperationalError("the process ends here")

    monkeypatch.setattr(store_module, "failpoint", failpoint)

    async def test(store: Store) -> list[Verdict]:
        return (await store.apply([a.batch("k", [(7, 3, None)])])).verdicts

    assert with_store(database, test) == [APPLIED]
    assert sql.counts(database) == {7: 3}
