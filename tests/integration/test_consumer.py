"""From the bus into Postgres through the real process: once, in order, and by itself again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from clickmill import bus as bus_module
from clickmill import messages, wire
from tests.support import sql
from tests.support.aggregators import Aggregator, Bus, aggregator, store_held_up
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.frames import of_another_version, with_features
from tests.support.proxy import running_proxy
from tests.support.stores import through
from tests.support.wait import aeventually, eventually

Test = Callable[[Bus, Aggregator], Awaitable[None]]


def on(nats: NatsServer, dsn: str, test: Test, failpoints: str = "") -> None:
    """Runs a test against one ready aggregator."""

    async def run(running: Aggregator) -> None:
        async with Bus(nats.url) as bus:
            await asyncio.wait_for(test(bus, running), 90)

    with aggregator(nats.url, dsn, failpoints) as running:
        try:
            asyncio.run(run(running))
        except BaseException as error:
            error.add_note(running.output[-6000:])
            raise


def test_frames_become_statistics_and_leave_the_stream(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a, b = bus.worker(), bus.worker()
        broadcasts = await bus.client.subscribe(wire.committed_subject(a.id))
        for n in range(5):
            await a.send({17: n + 1})
            await b.send({17: 10, 4: 1})
        assert (await a.committed()).total == a.total == 15
        await b.committed()
        assert (await broadcasts.next_msg(5)).data
        await bus.drained()
        assert sql.counts(database) == {17: 65, 4: 5}
        assert running.metric("clickmill_frames_applied_total") == 10
        assert running.metric("clickmill_clicks_committed_total") == 70

    on(nats, database, test)
    sql.assert_rollups_equal_minutes(database)


def test_out_of_order_and_twice_counts_once_without_waiting(
    nats: NatsServer, database: str
) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        for n in range(6):
            a.seal({n: 1})
        for seq in (3, 2, 2, 5, 6, 6):
            await a.publish(seq, again=True)
        assert (await a.committed(0)).total == 0
        began = time.monotonic()
        await a.publish(1)
        await a.committed(3)
        await a.publish(4)
        await a.committed(6)
        assert time.monotonic() - began < bus_module.ACK_WAIT_S, "held, not delivered again"
        await bus.drained()
        assert running.metric("clickmill_frames_gap_total") >= 4
        assert running.metric("clickmill_frames_duplicate_total") >= 1

    on(nats, database, test)
    assert sql.counts(database) == dict.fromkeys(range(6), 1)


def test_frames_beyond_one_batch_go_into_the_next(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        for _ in range(12):
            a.seal(dict.fromkeys(range(20_000), 1))  # 240 KB each: more than a batch together
        for seq in range(1, 13):
            await a.publish(seq)
        await a.committed(12)
        await bus.drained()
        assert running.metric("clickmill_frames_duplicate_total") == 0, "delivered again"

    on(nats, database, test)
    assert set(sql.counts(database).values()) == {12}


def test_frames_of_many_banners_are_gathered_before_they_are_committed(
    nats: NatsServer, database: str
) -> None:
    """The interval stretches with the rows of the first: the next three are written once."""
    banners = dict.fromkeys(range(60_000), 1)

    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        for _ in range(4):
            a.seal(banners)
        await a.publish(1)
        await a.committed(1)
        for seq in (2, 3, 4):
            await a.publish(seq)
        await a.committed(4)
        await bus.drained()
        assert running.metric("clickmill_pairs_committed_total") == 4 * 60_000
        written = running.metric("clickmill_rows_written_total")
        assert written <= 3 * 60_000, "a minute may end meanwhile"
        assert running.metric("clickmill_commit_interval_seconds") > 0.1
        few = bus.worker()
        await few.publish(few.seal({1: 1}, closed=True))  # its worker waits for the commit
        await few.committed()

    on(nats, database, test)
    assert set(sql.counts(database).values()) == {4, 5}


def test_frames_that_wait_for_a_slow_commit_are_not_delivered_again(
    nats: NatsServer, database: str
) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a, other = bus.worker(), bus.worker()
        await other.send({2: 1})
        await other.committed()
        async with store_held_up(database, other):
            for _ in range(3):
                await a.send({1: 1})
            await asyncio.sleep(2 * bus_module.ACK_WAIT_S)  # the slow commit takes this long
        await a.committed()
        await bus.drained()
        assert running.metric("clickmill_frames_duplicate_total") == 0

    on(nats, database, test)


def test_a_halved_batch_whose_connection_is_lost_goes_on(
    nats: NatsServer, database: str, postgres_server: PostgresServer
) -> None:
    """What its first part had committed is told once it is read again, and not before."""
    with running_proxy(postgres_server.port) as proxy:

        async def test(bus: Bus, running: Aggregator) -> None:
            full, *others = workers = [bus.worker() for _ in range(4)]
            await full.send({1: 1})
            await full.committed()
            sql.query(database, "UPDATE banner_minute SET clicks = 9223372036854775807")
            async with store_held_up(database, full):  # so that what comes now is one batch
                for worker in workers:
                    await worker.send({1: 1} if worker is full else {2: 1})
                await running.buffers(4)
                proxy.every = proxy.commits + 3  # the commit of the batch's second part
            await bus.drained()
            for worker in others:
                await worker.send({2: 1})
                await worker.committed()
            assert proxy.cuts["before"] == 1

        on(nats, through(database, proxy.port), test)
    assert sql.counts(database)[2] == 6
    assert sql.quarantine(database) == [(3, "refused", 1)]


def test_an_unreadable_message_is_quarantined(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        await a.send({1: 1})
        damaged = bytearray(wire.encode(a.spool[a.seal({1: 100})]))
        damaged[-1] ^= 1
        await a.publish(2, raw=bytes(damaged))
        await a.send({1: 1})
        await a.committed()
        js = bus.client.jetstream()
        for shard in (0, 15):
            await js.publish(f"clickmill.deltas.{shard}.nobody", b"junk")
        await js.publish(wire.delta_subject(bus.worker().id), wire.encode(a.spool[1]))
        await bus.drained()
        assert running.metric('clickmill_quarantined_total{reason="unreadable"}') == 4

    on(nats, database, test)
    assert sql.counts(database) == {1: 2}
    rows = sql.quarantine(database)
    assert sorted(rows, key=str) == sorted(
        [(2, "unreadable", None), (3, "total", 100)] + [(None, "unreadable", None)] * 3, key=str
    )


@pytest.mark.parametrize("make", [lambda f: with_features(f, 4), of_another_version])
def test_a_frame_of_a_newer_release_waits_for_an_upgrade(
    nats: NatsServer, database: str, make: Callable[[wire.Frame], bytes]
) -> None:
    """Neither applied nor quarantined nor acknowledged; other sources go on."""

    async def test(bus: Bus, running: Aggregator) -> None:
        a, b = bus.worker(), bus.worker()
        await a.send({1: 1})
        await a.publish(a.seal({1: 100}), raw=make(a.spool[2]))
        await a.send({1: 1})
        await b.send({2: 5})
        await b.committed()
        await a.committed(1)
        await asyncio.sleep(2 * bus_module.ACK_WAIT_S)  # long enough for a second delivery
        assert running.metric("clickmill_sources_newer") == 1
        assert "upgrade this aggregator" in running.output
        assert (await a.committed(1)).total == 1
        assert await bus.messages() == 2, "what is not understood stays in the stream"
        assert sql.quarantine(database) == []
        await a.publish(2, again=True)  # as an aggregator of that release reads it
        await a.committed(3)

    on(nats, database, test)
    assert sql.counts(database) == {1: 102, 2: 5}


def test_frames_lost_forever_are_skipped_after_a_while_and_reported(
    nats: NatsServer, database: str
) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a, b = bus.worker(), bus.worker()
        for worker in (a, b):
            for n in range(5):
                worker.seal({n: n + 1})
            await worker.publish(1)
            await worker.publish(5, floor=5)
        await a.committed(1)
        await asyncio.sleep(bus_module.ACK_WAIT_S + 1)  # a floor alone is no proof of a loss
        assert not sql.quarantine(database)
        for seq in (2, 3, 4):
            await b.publish(seq)  # what the worker has no more may still be on its way
        await b.committed(5)
        await a.committed(5)
        await bus.drained()
        assert running.metric("clickmill_clicks_missing_total") == 2 + 3 + 4

    on(nats, database, test)
    assert sql.quarantine(database) == [(5, "lost_range", 9)]
    assert sql.counts(database) == {0: 2, 1: 2, 2: 3, 3: 4, 4: 10}


def test_messages_outside_all_shards_do_no_harm(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        for subject in ("clickmill.deltas.99.x", "clickmill.deltas.x", "clickmill.deltas.-1.y"):
            await bus.client.jetstream().publish(subject, b"junk")
        a = bus.worker()
        await a.send({1: 1})
        await a.committed()

    on(nats, database, test)


def test_a_deleted_stream_is_recreated_within_seconds(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        await a.send({1: 1})
        await a.committed()
        js = bus.client.jetstream()
        for _ in range(2):
            await js.delete_stream(wire.STREAM)

            async def is_back() -> bool:
                info = await js.stream_info(wire.STREAM)
                return info.state.consumer_count == wire.SHARDS

            async def there() -> bool:
                try:
                    return await is_back()
                except Exception:  # not yet
                    return False

            await aeventually(there, 8)
            await a.send({1: 1})
            await a.committed()

    on(nats, database, test)
    assert sql.counts(database) == {1: 3}


def test_deleted_consumers_are_recreated_within_seconds(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        js = bus.client.jetstream()
        for _ in range(3):
            await a.send({1: 1})
            for shard in range(wire.SHARDS):
                await js.delete_consumer(wire.STREAM, bus_module.consumer_name(shard))
            await a.send({1: 1})
            await a.committed(timeout=8)
        await bus.drained()

    on(nats, database, test)
    assert sql.counts(database) == {1: 6}


def test_nats_killed_and_started_again(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        for number in (9, 15, 9):
            await a.send({1: 1})
            nats.stop(number)  # type: ignore[arg-type]
            await aeventually(lambda: _says(running, "NATS"), 10)
            nats.start()
            await aeventually(lambda: _says(running, ""), 10)
            a.seal({1: 1})
            await a.deliver(30, patience=1.0)
        await bus.drained()

    on(nats, database, test)
    assert sql.counts(database) == {1: 6}


async def _says(running: Aggregator, word: str) -> bool:
    """Whether readiness complains of this; of nothing, where the word is empty."""
    reason = await asyncio.to_thread(running.not_ready)
    return word in (reason or "") if word else reason is None


def test_it_starts_before_its_servers_and_reports_what_is_missing(
    nats: NatsServer, own_postgres: PostgresServer
) -> None:
    nats.stop()
    own_postgres.stop()
    with aggregator(nats.url, own_postgres.dsn, wait=False) as running:
        eventually(lambda: running.get("/livez")[0] == 200, 15)
        assert "Postgres" in (running.not_ready() or "")
        own_postgres.start()
        eventually(lambda: "NATS" in (running.not_ready() or ""), 10)
        nats.start()
        running.wait_ready(10)
        own_postgres.stop()
        eventually(lambda: "Postgres" in (running.not_ready() or ""), 10)
        own_postgres.start()
        running.wait_ready(10)
        assert running.process.poll() is None
        assert "Traceback" not in running.output


def test_a_stop_is_quick_and_leaves_nothing_unacknowledged(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        for _ in range(50):
            await a.send({1: 1})
        code, seconds = await asyncio.to_thread(running.stop)
        assert (code, seconds < 3) == (0, True), (code, seconds)
        mark = sql.mark(database, a.id)
        assert mark is not None
        assert await bus.messages() == 50 - mark[0], "what is committed is acknowledged too"

    on(nats, database, test)


def test_a_stop_is_quick_without_its_servers(nats: NatsServer, database: str) -> None:
    with aggregator(nats.url, database) as running:
        nats.stop()
        code, seconds = running.stop()
        assert (code, seconds < 3.5) == (0, True), (code, seconds)


def test_postgres_unavailable_for_longer_than_the_redelivery(
    nats: NatsServer, database: str, postgres_server: PostgresServer
) -> None:
    with running_proxy(postgres_server.port) as proxy:
        dsn = through(database, proxy.port)

        async def test(bus: Bus, running: Aggregator) -> None:
            a = bus.worker()
            await a.send({1: 1})
            await a.committed()
            proxy.refuse = True
            proxy.cut_all()
            for _ in range(3):
                await a.send({1: 1})
            await asyncio.sleep(bus_module.ACK_WAIT_S + 2)  # the fault itself takes this long
            assert sql.counts(database) == {1: 1}
            proxy.refuse = False
            await a.committed(timeout=10)
            await bus.drained()

        on(nats, dsn, test)
    assert sql.counts(database) == {1: 4}


def test_a_source_is_closed_on_request_once_its_mark_is_there(
    nats: NatsServer, database: str
) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        a = bus.worker()
        await a.send({1: 1})
        await a.committed()
        last = a.seal({1: 1})
        await a.ask(closed=True)
        assert not _closed(database, a.id), "a frame is still to come"
        await a.publish(last)
        await a.committed()

        async def closed() -> bool:
            await a.ask(closed=True)
            return _closed(database, a.id)

        await aeventually(closed, 5)
        assert await a.ask() == messages.Committed(2, 2), "looked up although it is closed"

    on(nats, database, test)


def _closed(dsn: str, source: object) -> bool:
    return bool(sql.query(dsn, "SELECT closed FROM source WHERE source = %s", source)[0][0])


def test_an_unknown_source_has_the_mark_0(nats: NatsServer, database: str) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        assert await bus.worker().ask(timeout=3) == messages.Committed(0, 0)
        stranger = bus.worker()
        stranger.seal({1: 1})
        assert await stranger.ask(timeout=3) == messages.Committed(0, 0)

    on(nats, database, test)


@pytest.mark.parametrize("junk", [b"", b"{", b'{"source": 1}', b"\xff" * 100])
def test_an_invalid_request_for_a_mark_does_no_harm(
    nats: NatsServer, database: str, junk: bytes
) -> None:
    async def test(bus: Bus, running: Aggregator) -> None:
        await bus.client.publish(wire.COMMITTED_SUBJECT, junk, reply="x")
        a = bus.worker()
        await a.send({1: 1})
        await a.committed()

    on(nats, database, test)
