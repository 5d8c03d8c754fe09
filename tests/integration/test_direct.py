"""While NATS' stream takes nothing, frames go past it: committed, counted once, and by the stream
again as soon as it takes them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clickmill import wire
from tests.support import sql
from tests.support.aggregators import Aggregator, Bus, FakeWorker, aggregator, store_held_up
from tests.support.connections import limit_messages
from tests.support.fix_nats import NatsServer
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.wait import eventually

LATE_S = 6.0
TRIED_AGAIN_S = 10.0
"""A worker tries the stream again within three seconds; until then frames go past it."""


@contextmanager
def stream_that_takes_nothing(nats: NatsServer) -> Iterator[None]:
    asyncio.run(limit_messages(nats.url, 1))
    yield
    asyncio.run(limit_messages(nats.url))


@contextmanager
def worker(nats: NatsServer, data_dir: Path) -> Iterator[Worker]:
    running = Worker(nats, data_dir, {"CLICKMILL_DRAIN_TIMEOUT": "30"})
    running.tap.close()  # it would answer as an aggregator that has committed what it sees
    running.start()
    try:
        yield running
    finally:
        running.stop()


def click(running: Worker, times: int) -> None:
    for _ in range(times):
        assert ask(running.port, "POST", "/counter/7").status == 200


def directly(running: Aggregator) -> int:
    return int(running.metric("clickmill_frames_direct_total"))


def is_counted(dsn: str, clicks: int) -> None:
    eventually(lambda: sql.counts(dsn) == {7: clicks}, LATE_S, f"{clicks} are in Postgres")


def test_clicks_are_committed_while_the_stream_takes_nothing(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    with aggregator(nats.url, database) as running, worker(nats, tmp_path) as ingest:
        click(ingest, 3)
        is_counted(database, 3)
        assert directly(running) == 0, "the stream takes frames"
        with stream_that_takes_nothing(nats):
            for n in range(1, 4):
                click(ingest, 5)
                is_counted(database, 3 + 5 * n)
            assert directly(running) >= 3
        click(ingest, 2)
        is_counted(database, 20)
        clicks = itertools.count(21)

        def by_the_stream() -> bool:
            before = directly(running)
            click(ingest, 1)
            is_counted(database, next(clicks))
            return directly(running) == before

        eventually(by_the_stream, TRIED_AGAIN_S, "the stream takes frames again")
        assert all(by_the_stream() for _ in range(3)), "and all of them go there"
        assert ingest.stop() == 0


def test_a_worker_stops_clean_while_the_stream_takes_nothing(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    with aggregator(nats.url, database), worker(nats, tmp_path) as ingest:
        click(ingest, 1)
        is_counted(database, 1)
        with stream_that_takes_nothing(nats):
            click(ingest, 4)
            assert ingest.stop() == 0, ingest.text
            assert sql.counts(database) == {7: 5}
            assert sql.query(database, "SELECT count(*) FROM source WHERE NOT closed") == [(0,)]


async def send(bus: Bus, source: FakeWorker, seq: int) -> None:
    await bus.client.publish(wire.direct_subject(source.id), wire.encode(source.spool[seq]))


def test_a_frame_that_comes_both_ways_counts_once(nats: NatsServer, database: str) -> None:
    async def run() -> None:
        async with Bus(nats.url) as bus:
            source = bus.worker()
            for n in range(1, 5):
                source.seal({17: n})
            await send(bus, source, 1)
            await source.committed(1)
            await source.publish(1)
            await send(bus, source, 3)  # before its turn
            await source.publish(3)
            await send(bus, source, 2)
            await source.committed(3)
            await source.publish(2)
            await source.publish(4)
            await send(bus, source, 4)
            await source.committed(4)
            await bus.drained()

    with aggregator(nats.url, database):
        asyncio.run(run())
        assert sql.counts(database) == {17: 10}
        assert sql.query(database, "SELECT count(*) FROM quarantine") == [(0,)]


def test_those_from_the_stream_are_acknowledged_beside_them(
    nats: NatsServer, database: str
) -> None:
    async def run() -> None:
        async with Bus(nats.url) as bus:
            first, second = bus.worker(), bus.worker()
            async with store_held_up(database, bus.worker()):
                await send(bus, first, first.seal({17: 1}))
                await second.send({17: 2})
                await running.buffers(2)
            await bus.drained()
            assert running.metric("clickmill_frames_direct_total") == 1
            assert running.metric("clickmill_frames_duplicate_total") == 0, "delivered again"

    with aggregator(nats.url, database) as running:
        asyncio.run(run())
    assert sql.counts(database)[17] == 3
