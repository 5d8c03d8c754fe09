"""A stream whose disk was full: nats-server rejects all messages until the stream is recreated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext, api

from clickmill import bus, wire
from clickmill.retry import Backoff
from clickmill.stream import StreamOptions, ensure_stream
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.metrics import Slot, cell
from ingest.shipping import shipper as shipper_module
from ingest.shipping import stream_repair as stuck_module
from ingest.shipping.shipper import Shipper
from ingest.shipping.stream_repair import STUCK_AFTER_S, StuckStream
from tests.crash.stage import can_mount, fill, small_disk
from tests.support.connections import connection
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.refusing import Refusing
from tests.support.wait import aeventually

SUBJECT = f"{wire.DELTAS_PREFIX}.0.test"
STREAM_BYTES = MAX_BYTES // 2
DATA = b"x" * 20_000


async def is_taken(jetstream: JetStreamContext) -> bool:
    try:
        await jetstream.publish(SUBJECT, DATA)
    except NatsTimeoutError:
        return False
    return True


@pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk to fill up")
def test_a_stuck_stream_is_recreated_after_the_time_limit(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    async def run(disk: Path) -> None:
        client = await bus.connect(server.url, "test")
        jetstream = client.jetstream(timeout=0.5)
        await ensure_stream(jetstream, StreamOptions(STREAM_BYTES))
        assert await is_taken(jetstream)
        filler = fill(disk)
        assert not await is_taken(jetstream)
        filler.unlink()
        assert not await is_taken(jetstream), (
            "NATS recovers by itself now: ingest/shipping/stream_repair.py may go"
        )
        stuck = StuckStream()
        assert not await stuck.timed_out(jetstream, 100.0)
        assert not await stuck.timed_out(jetstream, 99.9 + STUCK_AFTER_S)
        assert await stuck.timed_out(jetstream, 100.0 + STUCK_AFTER_S)
        assert await is_taken(jetstream)
        assert not await stuck.timed_out(jetstream, 200.0), "the time starts again"
        await bus.close(client)

    with small_disk(server.server.cwd / "store", "16m") as disk:
        server.start()
        try:
            asyncio.run(run(disk))
        finally:
            server.stop()


def test_a_stream_that_accepts_other_messages_is_not_recreated(nats: NatsServer) -> None:
    async def run() -> None:
        client = await bus.connect(nats.url, "test")
        jetstream = client.jetstream()
        await ensure_stream(jetstream, StreamOptions(STREAM_BYTES))
        stuck = StuckStream()
        for n in range(4):
            assert not await stuck.timed_out(jetstream, n * 2 * STUCK_AFTER_S)
            await jetstream.publish(SUBJECT, DATA)
        assert (await jetstream.stream_info(wire.STREAM)).state.messages == 4
        await bus.close(client)

    asyncio.run(run())


OPERATORS = {
    "description": "kept by the operator of NATS",
    "max_msg_size": 900_000,
    "max_age": 86_400.0,
    "compression": api.StoreCompression.S2,
    "metadata": {"owner": "an operator"},
}
"""A configuration that Clickmill would not create."""


@pytest.mark.parametrize("others_are_first", [False, True])
def test_the_stream_is_recreated_with_its_configuration(
    nats: NatsServer, others_are_first: bool
) -> None:
    async def run() -> None:
        client = await bus.connect(nats.url, "test")
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamOptions(STREAM_BYTES // 2).config(1).evolve(**OPERATORS))
        before = await jetstream.stream_info(wire.STREAM)
        if others_are_first:
            _race(jetstream)
        stuck = StuckStream()
        assert not await stuck.timed_out(jetstream, 100.0)
        assert not await stuck.timed_out(jetstream, 100.0 + STUCK_AFTER_S), "two messages are few"
        assert await stuck.timed_out(jetstream, 100.0 + STUCK_AFTER_S)
        after = await jetstream.stream_info(wire.STREAM)
        assert after.created != before.created, "it is another stream"
        assert _chosen(after.config) == _chosen(before.config)
        await bus.close(client)

    asyncio.run(run())


def _chosen(config: api.StreamConfig) -> api.StreamConfig:
    """The configuration without what the server itself writes into it."""
    ours = {k: v for k, v in (config.metadata or {}).items() if not k.startswith("_nats")}
    return config.evolve(metadata=ours)


def _race(jetstream: JetStreamContext) -> None:
    """As soon as the stream is deleted, another process creates it with its defaults."""
    delete = jetstream.delete_stream

    async def delete_and_make(name: str) -> bool:
        gone = await delete(name)
        await jetstream.add_stream(StreamOptions(STREAM_BYTES).config(1))
        return gone

    jetstream.delete_stream = delete_and_make  # type: ignore[method-assign]


def test_a_stream_that_rejects_only_this_client_is_not_recreated(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not publish: the stream and the messages of other clients must not change."""
    monkeypatch.setattr(shipper_module, "PUBLISH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(shipper_module, "Backoff", lambda: Backoff(0.01, 0.01))
    monkeypatch.setattr(stuck_module, "STUCK_AFTER_S", 0.5)
    source = Source.create(tmp_path, 100, 1 << 20)
    assert source.counters is not None
    source.counters.hit(7)
    source.counters.flip()
    source.spool.append(source.frames(source.counters.frozen()))
    outbox = Outbox(keep_s=900, resend_after_s=900, mark=0)
    outbox.sealed(1, 0.0)
    slot = Slot(tmp_path / "meters")
    shipper = Shipper(source, outbox, slot, StreamOptions(STREAM_BYTES))
    tries = lambda: slot.meters.get(cell("clickmill_publish_failures"))  # noqa: E731
    refusing = Refusing(nats)
    everything = f"{wire.DELTAS_PREFIX}.>"

    async def run() -> None:
        other = await bus.connect(refusing.url, "other")
        await ensure_stream(other.jetstream(), StreamOptions(STREAM_BYTES))
        await other.jetstream().publish(SUBJECT, DATA)
        before = await other.jetstream().stream_info(wire.STREAM)
        await asyncio.to_thread(refusing.forbid, everything)
        async with connection(nats.url) as it:
            delivering = asyncio.create_task(shipper.run(it))
            await aeventually(_so_many(tries, 20), 20, "it has tried for long")
            after = await other.jetstream().stream_info(wire.STREAM)
            assert (after.created, after.state.messages) == (before.created, 1)
            assert f"may not publish to {wire.delta_subject(source.id)}" in shipper.trouble
            await asyncio.to_thread(refusing.allow_again, everything)
            await aeventually(_so_many(lambda: outbox.acknowledged, 1), 10, "it is taken")
            assert not shipper.trouble
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
        await bus.close(other)

    asyncio.run(run())


def _so_many(count: Callable[[], int], wanted: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return count() >= wanted

    return reached
