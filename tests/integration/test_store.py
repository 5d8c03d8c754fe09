"""The writing transaction on a real Postgres: once, whatever happens around COMMIT."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from signal import Signals

import pytest
from psycopg.conninfo import make_conninfo

from aggregator.postgres import connection as postgres
from aggregator.postgres import migrations
from aggregator.writing import store as store_module
from aggregator.writing.fold import Arrival, Verdict
from aggregator.writing.store import Store
from clickmill import messages
from tests.support import sql
from tests.support.fakes import NOW, FakeSource
from tests.support.fix_postgres import PostgresServer
from tests.support.proxy import running_proxy
from tests.support.stores import through, with_store
from tests.support.wait import aeventually

APPLIED, DUPLICATE, GAP, QUARANTINED = (
    Verdict.APPLIED, Verdict.DUPLICATE, Verdict.GAP, Verdict.QUARANTINED,
)  # fmt: skip


def test_a_batch_is_rows_marks_and_rollups(database: str) -> None:
    a, b = FakeSource(), FakeSource()

    async def test(store: Store) -> None:
        batch = [a.arrival({17: 3}), b.arrival({17: 2, 4: 1}), a.arrival({4: 5}, NOW - 1)]
        applied = await store.apply(batch)
        assert applied.verdicts == [APPLIED] * 3
        assert applied.marks[a.id][:2] == (2, 8)

    with_store(database, test)
    assert sql.counts(database) == {17: 5, 4: 6}
    minutes = sql.query(database, "SELECT minute, clicks FROM banner_minute WHERE banner_id = 4")
    moment = datetime.fromtimestamp(NOW * 60, UTC)
    assert dict(minutes)[moment] == 1
    assert (sql.mark(database, a.id), sql.mark(database, b.id)) == ((2, 8), (1, 3))
    sql.assert_rollups_equal_minutes(database)


def test_a_repeated_frame_is_a_duplicate_also_for_another_store(database: str) -> None:
    a = FakeSource()
    batch = [a.arrival({1: 1}) for _ in range(3)]

    async def test(store: Store) -> list[Verdict]:
        return (await store.apply(batch)).verdicts

    assert with_store(database, test) == [APPLIED] * 3
    assert with_store(database, test) == [DUPLICATE] * 3
    assert sql.counts(database) == {1: 3}


def test_frames_behind_a_gap_wait_until_it_is_filled(database: str) -> None:
    a = FakeSource()
    first, second, third = (a.arrival({1: 1}) for _ in range(3))

    async def test(store: Store) -> None:
        assert (await store.apply([first, third])).verdicts == [APPLIED, GAP]
        assert sql.mark(database, a.id) == (1, 1)
        assert (await store.apply([third, second])).verdicts == [APPLIED, APPLIED]

    with_store(database, test)
    assert sql.mark(database, a.id) == (3, 3)
    assert sql.counts(database) == {1: 3}


def test_the_quarantine_is_written_with_the_marks(database: str) -> None:
    a = FakeSource()
    nameless = Arrival(None, None, None, 1, b"junk", "no frame")

    async def test(store: Store) -> None:
        batch = [a.arrival({1: 1}), a.unreadable(), nameless, a.arrival({1: 1})]
        applied = await store.apply(batch)
        assert applied.verdicts == [APPLIED, QUARANTINED, QUARANTINED, APPLIED]

    with_store(database, test)
    assert sorted(sql.quarantine(database), key=str) == [
        (2, "unreadable", None),
        (None, "unreadable", None),
    ]
    assert sql.mark(database, a.id) == (3, 2)


@pytest.mark.parametrize("year", [1970, 2099])
def test_a_clock_gone_wrong_is_clamped_and_counted(database: str, year: int) -> None:
    a = FakeSource()
    minute = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 60

    async def test(store: Store) -> int:
        return (await store.apply([a.arrival({1: 7}, minute), a.arrival({1: 1})])).clamped

    assert with_store(database, test) == 1
    assert sql.counts(database) == {1: 8}
    ((first, last),) = sql.query(database, "SELECT min(minute), max(minute) FROM banner_minute")
    now = datetime.now(UTC)
    assert (now - first).days <= 32
    assert (last - now).total_seconds() <= 3600


def test_three_writers_on_the_same_sources_are_exact_and_never_deadlock(database: str) -> None:
    sources = [FakeSource() for _ in range(20)]
    frames = [s.arrival(dict.fromkeys(range(30), 1)) for _ in range(15) for s in sources]

    async def write(seed: int) -> list[int]:
        """Every writer applies everything, in small batches in an order of its own."""
        store, chance = Store(database), random.Random(seed)
        waiting = list(frames)
        while waiting:
            chance.shuffle(waiting)
            batch, waiting = waiting[:40], waiting[40:]
            applied = await store.apply(batch)
            late = [a for a, v in zip(batch, applied.verdicts, strict=True) if v is GAP]
            waiting += late
        await store.close()
        return [store.retries]

    async def race() -> list[list[int]]:
        return await asyncio.wait_for(asyncio.gather(*map(write, range(3))), 60)

    retries = asyncio.run(race())
    assert retries == [[0]] * 3, "a deadlock shows as a retry"
    assert sql.counts(database) == dict.fromkeys(range(30), len(frames))
    assert not sql.quarantine(database)
    sql.assert_rollups_equal_minutes(database)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_connection_cut_at_commit_counts_once(
    database: str, postgres_server: PostgresServer, cut: str
) -> None:
    a = FakeSource()
    with running_proxy(postgres_server.port) as proxy:

        async def test(store: Store) -> None:
            await store.apply([a.arrival({1: 1})])
            for _ in range(10):  # past the point where psycopg prepares the COMMIT
                proxy.cut = cut  # type: ignore[assignment]
                applied = await store.apply([a.arrival({1: 1})])
                landed = DUPLICATE if cut == "after" else APPLIED
                assert applied.verdicts == [landed]
                await store.apply([a.arrival({1: 1})])

        with_store(through(database, proxy.port), test)
        assert proxy.cuts[cut] == 10
    assert sql.counts(database) == {1: 21}
    assert sql.mark(database, a.id) == (21, 21)
    assert not sql.quarantine(database)


def test_terminated_backends_and_refused_connections_only_delay(
    database: str, postgres_server: PostgresServer
) -> None:
    a = FakeSource()
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()"
    )
    with running_proxy(postgres_server.port) as proxy:

        async def test(store: Store) -> None:
            for n in range(20):
                if n % 3 == 0:
                    sql.query(database, kill, database.rpartition("/")[2])
                if n % 5 == 0:
                    proxy.refuse = True
                    proxy.cut_all()
                    asyncio.get_running_loop().call_later(0.2, setattr, proxy, "refuse", False)
                await store.apply([a.arrival({1: 1})])

        with_store(through(database, proxy.port), test)
    assert sql.counts(database) == {1: 20}


def test_frames_that_postgres_refuses_are_quarantined_alone(database: str) -> None:
    full, other = FakeSource(), FakeSource()

    async def test(store: Store) -> None:
        await store.apply([full.arrival({1: 1})])
        sql.query(database, "UPDATE banner_minute SET clicks = 9223372036854775807")
        batch = [full.arrival({2: 1}), full.arrival({1: 5}), other.arrival({2: 1}),
                 full.arrival({2: 1})]  # fmt: skip
        applied = await store.apply(batch)
        assert applied.verdicts == [APPLIED, QUARANTINED, APPLIED, APPLIED]

    with_store(database, test)
    assert sql.counts(database)[2] == 3
    assert sql.quarantine(database) == [(2 + 1, "refused", 5)]
    assert sql.mark(database, full.id) == (4, 8)


def test_late_deltas_reach_the_rollups(database: str) -> None:
    chance = random.Random(7)
    a = FakeSource()

    async def test(store: Store) -> None:
        for _ in range(30):
            batch = [
                a.arrival({chance.randrange(5): chance.randrange(1, 9)},
                          NOW - chance.randrange(20 * 1440))
                for _ in range(chance.randrange(1, 20))
            ]  # fmt: skip
            await store.apply(batch)

    with_store(database, test)
    sql.assert_rollups_equal_minutes(database)
    assert sum(sql.counts(database).values()) == a.total


def test_a_source_is_closed_where_its_mark_has_reached_its_last_frame(database: str) -> None:
    a = FakeSource()
    closed = "SELECT closed FROM source"

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 2}), a.arrival({1: 3})])
        assert await store.close_source(a.id, 3) is None
        assert sql.query(database, closed) == [(False,)]
        assert await store.close_source(a.id, 2) == messages.Committed(2, 5, closed=True)
        assert await store.close_source(FakeSource().id, 0) is None
        assert sql.query(database, closed) == [(True,)]

    with_store(database, test)


def test_marks_that_went_back_are_filled_again(database: str) -> None:
    """Postgres loses its last commits: whatever is sent again counts, and counts once."""
    a = FakeSource()
    frames = [a.arrival({1: 1}) for _ in range(10)]

    async def test(store: Store) -> None:
        await store.apply(frames[:6])
        # The state after frame 4, rows and marks alike, as a restored copy would have them.
        for table in ("banner_minute", "rollup_hour", "rollup_day"):
            sql.query(database, f"UPDATE {table} SET clicks = 4")
        sql.query(database, "UPDATE source SET last_seq = 4, total = 4")
        assert (await store.apply(frames[6:])).verdicts == [GAP] * 4
        assert (await store.apply(frames)).verdicts == [DUPLICATE] * 4 + [APPLIED] * 6

    with_store(database, test)
    assert sql.counts(database) == {1: 10}
    assert not sql.quarantine(database)


def test_a_dropped_partition_is_recreated(database: str) -> None:
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        day = datetime.fromtimestamp(NOW * 60, UTC).strftime("%Y%m%d")
        sql.query(database, f"DROP TABLE banner_minute_{day}")
        assert (await store.apply([a.arrival({1: 1})])).verdicts == [APPLIED]

    with_store(database, test)
    assert sql.counts(database) == {1: 1}


def test_an_emptied_database_gets_its_schema_back(database: str) -> None:
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        sql.query(database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        assert (await store.apply([a.arrival({1: 1})])).verdicts == [GAP]

    with_store(database, test)


def test_the_schema_is_applied_by_several_at_once_and_again(database: str) -> None:
    async def race() -> None:
        await asyncio.gather(*(migrations.apply_schema(database) for _ in range(6)))
        await migrations.apply_schema(database)

    asyncio.run(race())
    assert sql.query(database, "SELECT count(*) FROM banner_minute") == [(0,)]


def test_the_schema_is_applied_beside_a_writer_without_waiting(database: str) -> None:
    """Waiting for writers would be a deadlock with one who inserts its sources first."""
    a = FakeSource()
    impatient = make_conninfo(database, options="-c lock_timeout=1s")

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        async with postgres.session(database, "writer") as writer, writer.transaction():
            for table in ("source", "banner_minute", "rollup_hour", "rollup_day"):
                await writer.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
            await migrations.apply_schema(impatient)

    with_store(database, test)


def test_postgres_ends_a_writer_that_hangs_in_its_transaction(database: str) -> None:
    """Its locks would stop all others; idle_in_transaction_session_timeout frees them."""
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        hung = await postgres.connect(database, "hung", idle_in_transaction_session_timeout="300ms")
        await hung.execute("BEGIN")
        await hung.execute("SELECT * FROM source FOR UPDATE")
        await store.apply([a.arrival({1: 1})])
        assert store.retries == 0
        await hung.close()

    with_store(database, test)
    assert sql.counts(database) == {1: 2}


def test_an_attempt_that_postgres_never_answers_is_given_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "APPLY_TIMEOUT_S", 0.5)
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        hung = await postgres.connect(database, "hung")
        await hung.execute("BEGIN")
        await hung.execute("SELECT * FROM source FOR UPDATE")
        applying = asyncio.create_task(store.apply([a.arrival({1: 1})]))

        async def tried() -> bool:
            return store.retries > 0

        await aeventually(tried, 10)
        await hung.close()
        assert (await applying).verdicts == [APPLIED]

    with_store(database, test)
    assert sql.counts(database) == {1: 2}


def test_a_restart_of_postgres_only_delays(own_postgres: PostgresServer) -> None:
    a = FakeSource()

    async def test(store: Store) -> None:
        await store.apply([a.arrival({1: 1})])
        for stop in (Signals.SIGINT, Signals.SIGQUIT):  # fast, immediate
            own_postgres.stop(stop)
            applying = asyncio.create_task(store.apply([a.arrival({1: 1})]))

            async def tried() -> bool:
                return store.retries > 0

            await aeventually(tried, 10)
            own_postgres.start()  # not in a thread: the server would die with it
            assert (await applying).verdicts == [APPLIED]

    with_store(own_postgres.dsn, test)
    assert sql.counts(own_postgres.dsn) == {1: 3}
