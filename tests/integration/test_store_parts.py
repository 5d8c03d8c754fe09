"""A batch that takes several transactions, and what a transaction must check before it counts.

A batch with a frame that Postgres refuses is halved until that frame is alone. Banner FULL has
the largest count that there is, so that one more click of it is refused.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from aggregator.writing.fold import Arrival, Folded, Verdict
from aggregator.writing.store import Applied, Store
from tests.support import sql
from tests.support.fakes import NOW, FakeSource, arrival
from tests.support.fix_postgres import PostgresServer
from tests.support.proxy import running_proxy
from tests.support.stores import through, with_store

APPLIED, DUPLICATE, GAP, QUARANTINED = (
    Verdict.APPLIED, Verdict.DUPLICATE, Verdict.GAP, Verdict.QUARANTINED,
)  # fmt: skip
FULL = 99


def source(number: int) -> FakeSource:
    """Halves are sorted by source, so the number says which half the source's frames are in."""
    return FakeSource(UUID(int=number))


async def fill(store: Store, dsn: str) -> FakeSource:
    """Makes every further click of FULL a refusal; a source of such clicks, last in any order."""
    last = source(2**128 - 1)
    await store.apply([last.arrival({FULL: 1})])
    sql.query(dsn, "UPDATE banner_minute SET clicks = 9223372036854775807")
    return last


def test_halves_are_in_order_for_any_order_of_the_frames(database: str) -> None:
    a = source(1)

    async def test(store: Store) -> None:
        last = await fill(store, database)
        batch = [a.arrival({1: 1}) for _ in range(6)][::-1]
        applied = await store.apply([*batch, last.arrival({FULL: 1})])
        assert applied.verdicts == [APPLIED] * 6 + [QUARANTINED]

    with_store(database, test)
    assert sql.mark(database, a.id) == (6, 6)


def test_a_first_available_seq_applies_to_both_halves(database: str) -> None:
    """Frames 2 to 7 are lost; 8 and 9 are in hand, and the floor that says so came with 10."""
    a = source(1)

    async def test(store: Store) -> None:
        last = await fill(store, database)
        await store.apply([a.arrival({1: 1})])
        for _ in range(6):
            a.frame({1: 1})
        batch = [a.arrival({1: 1}), a.arrival({1: 1}), a.arrival({1: 1}, floor=10)]
        applied = await store.apply([*batch, last.arrival({FULL: 1})])
        assert applied.verdicts == [APPLIED, APPLIED, APPLIED, QUARANTINED]
        assert [item.seq for item in applied.quarantine] == [8, 2], "of both halves"

    with_store(database, test)
    assert sql.counts(database)[1] == 1 + 3
    assert sql.mark(database, a.id) == (10, 10)
    assert sql.quarantine(database) == [(8, "lost_range", 6), (2, "refused", 1)]


def test_a_readable_copy_is_taken_before_a_damaged_one_in_another_half(database: str) -> None:
    a = source(1)

    async def test(store: Store) -> None:
        last = await fill(store, database)
        first, second = a.arrival({1: 1}), a.frame({1: 5})
        damaged = Arrival(a.id, 2, None, 1, b"\xff", "the CRC does not match")
        batch = [first, damaged, arrival(second), last.arrival({FULL: 1})]
        applied = await store.apply(batch)
        assert applied.verdicts == [APPLIED, DUPLICATE, APPLIED, QUARANTINED]

    with_store(database, test)
    assert sql.counts(database)[1] == 6
    assert sql.quarantine(database) == [(2, "refused", 1)]


def test_marks_of_a_lost_primary_are_not_reported(
    database: str, postgres_server: PostgresServer
) -> None:
    """The first part is committed, then Postgres is replaced by one that lacks that commit.

    Its mark would be told to the worker, which would then never send those frames again.
    """
    a, b = source(1), source(2)
    retried = []
    with running_proxy(postgres_server.port) as proxy:

        def fail_over() -> None:
            retried.append(sql.mark(database, a.id))
            sql.query(database, "DELETE FROM banner_minute WHERE banner_id = 1")
            sql.query(database, "UPDATE source SET last_seq = 0, total = 0 WHERE source = %s", a.id)

        async def test(store: Store) -> None:
            last = await fill(store, database)
            batch = [a.arrival({1: 1}), b.arrival({2: 1}), last.arrival({FULL: 1})]
            proxy.every = proxy.commits + 2  # the commit of the second part
            applied = await store.apply(batch)
            assert applied.verdicts == [APPLIED, APPLIED, QUARANTINED]
            for each, mark in applied.marks.items():
                assert sql.mark(database, each) == mark[:2], each
            assert last.id in applied.marks
            assert (await store.apply(batch)).verdicts == [APPLIED, DUPLICATE, DUPLICATE]

        with_store(through(database, proxy.port), test, on_retry=fail_over)
    assert retried == [(1, 1)], "the first part was committed"
    assert sql.counts(database)[1] == 1


class FailsInSilence(Store):
    """Its first transaction can only be rolled back, and no error tells of it before COMMIT."""

    failed = False

    async def _write(self, connection: AsyncConnection[Any], folded: Folded, closing: int) -> None:
        await super()._write(connection, folded, closing)
        if not self.failed:
            self.failed = True
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")


def test_a_commit_answered_by_rollback_is_no_commit(database: str) -> None:
    a = FakeSource()

    async def test(store: Store) -> None:
        assert (await store.apply([a.arrival({1: 3})])).verdicts == [APPLIED]
        assert store.retries == 1

    with_store(database, test, kind=FailsInSilence)
    assert sql.counts(database) == {1: 3}
    assert sql.mark(database, a.id) == (1, 3)


def test_without_its_row_no_source_is_counted(database: str) -> None:
    """As where the tables are emptied under an open connection: no mark could be advanced."""
    a = FakeSource()
    batch = [a.arrival({1: 1}) for _ in range(3)]

    async def test(store: Store) -> None:
        await store.apply(batch)
        sql.query(database, "TRUNCATE source, banner_minute, rollup_hour, rollup_day")
        assert (await store.apply(batch)).verdicts == [APPLIED] * 3
        assert sql.mark(database, a.id) == (3, 3)
        assert (await store.apply(batch)).verdicts == [DUPLICATE] * 3

    with_store(database, test)
    assert sql.counts(database) == {1: 3}


def test_nothing_is_written_before_the_retention_limit(database: str) -> None:
    """Rows of a day that was dropped already would make its partition again."""
    a = FakeSource()

    async def test(store: Store) -> int:
        return (await store.apply([a.arrival({1: 7}, NOW - 10 * 1440)])).clamped

    assert with_store(database, test, retention_days=2) == 1
    ((minute,),) = sql.query(database, "SELECT minute FROM banner_minute")
    assert timedelta(days=1) < datetime.now(UTC) - minute <= timedelta(days=2, minutes=5)


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(%s); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON source FOR EACH ROW EXECUTE FUNCTION slow()
"""


async def apply_slowly(store: Store, dsn: str, batch: list[Arrival], seconds: float) -> Applied:
    """Each source takes `seconds`, and a statement of this connection may take 0.4 s."""
    sql.query(dsn, SLOW % seconds)
    assert store._connection is not None
    await store._connection.execute("SET statement_timeout = '400ms'")
    return await store.apply(batch)


@pytest.mark.parametrize(("number", "seconds"), [(16, 0.05), (2, 0.3)])
def test_a_batch_that_takes_too_long_is_halved(database: str, number: int, seconds: float) -> None:
    """A statement_timeout that whole batches exceed must not be tried for ever."""
    sources = [FakeSource() for _ in range(number)]

    async def test(store: Store) -> None:
        await store.apply([s.arrival({1: 1}) for s in sources])
        batch = [s.arrival({1: 1}) for s in sources]
        applied = await apply_slowly(store, database, batch, seconds)
        assert applied.verdicts == [APPLIED] * number
        assert len(applied.seconds) == 2
        assert all(0 < took < 10 for took in applied.seconds)
        assert (applied.clicks, applied.pairs, applied.rows) == (number, number, 2)
        assert {id_: mark[:2] for id_, mark in applied.marks.items()} == {
            s.id: (2, 2) for s in sources
        }

    with_store(database, test)
    assert sql.counts(database) == {1: 2 * number}
    assert not sql.quarantine(database)


def test_a_frame_that_takes_too_long_is_tried_again(database: str) -> None:
    """Postgres was slow, so it did not refuse the frame's counts."""
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        applied = await apply_slowly(store, database, [a.arrival({1: 1})], 0.6)
        assert applied.verdicts == [APPLIED]
        assert store.retries == 1

    with_store(database, test)
    assert sql.counts(database) == {1: 2}
    assert not sql.quarantine(database)
