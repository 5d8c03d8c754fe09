"""Leases that end with their session: what is here is left to the next aggregator at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.fold import Arrival
from aggregator.writing.metrics import Metrics
from clickmill import bus, wire
from clickmill.connection import Connection
from clickmill.stream import StreamOptions
from tests.support.connections import connection
from tests.support.fakes import FakeSource
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.wait import aeventually

LONG_S = 60.0


class Stuck:
    """Stands for the store of an aggregator that Postgres does not answer."""

    def __init__(self) -> None:
        self.frames: list[int] = []

    async def apply(self, arrivals: Sequence[Arrival]) -> None:
        self.frames.append(len(arrivals))
        await asyncio.Event().wait()


async def publish(it: Connection, source: FakeSource) -> int:
    """A frame of the source; its seq."""
    frame = source.frame({1: 1})
    await it.jetstream().publish(wire.delta_subject(frame.source), wire.encode(frame))
    return frame.seq


async def fetch(it: Connection, shard: int, number: int) -> set[int]:
    """The seqs that another aggregator gets from this shard within ten seconds."""
    subscription = await it.jetstream().pull_subscribe_bind(bus.consumer_name(shard), wire.STREAM)
    messages = await subscription.fetch(number, timeout=10)
    return {wire.decode(message.data).seq for message in messages}


def test_what_is_here_is_delivered_to_the_next_one_at_once(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what waits and what is being written; not what came by shards that are kept."""
    monkeypatch.setattr(bus, "ACK_WAIT_S", LONG_S)
    lost = FakeSource()
    shard = wire.shard_of(lost.id)
    kept = next(s for s in iter(FakeSource, None) if wire.shard_of(s.id) != shard)

    async def story() -> None:
        async with connection(nats.url) as it:
            store: Any = Stuck()
            consumer = Consumer(
                it, store, Progress(), Metrics(CollectorRegistry()),
                StreamOptions(MAX_BYTES // 2), LONG_S,
            )  # fmt: skip
            await consumer.start()
            running = asyncio.create_task(consumer.run())
            consumer.assign(shard)
            consumer.assign(wire.shard_of(kept.id))
            await aeventually(lambda: ready(consumer), 10)
            written = await publish(it, lost)
            await aeventually(lambda: holds(store.frames, [1]), 10)
            waiting = await publish(it, lost)
            await publish(it, kept)
            await aeventually(lambda: holds(consumer.buffered, 2), 10)

            await consumer.lose({shard})
            assert await fetch(it, shard, 2) == {written, waiting}
            assert consumer.shards == {wire.shard_of(kept.id)}
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(fetch(it, wire.shard_of(kept.id), 1), 1)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    asyncio.run(story())


async def ready(consumer: Consumer) -> bool:
    return not consumer.trouble


async def holds(value: object, wanted: object) -> bool:
    return value == wanted
