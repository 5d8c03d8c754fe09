"""A stream whose disk was full: nats-server refuses it for good, until we make it anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext

from clickmill import bus, wire
from ingest.stuck import STUCK_AFTER_S, StuckStream
from tests.crash.stage import can_mount, fill, small_disk
from tests.fix_nats import MAX_BYTES, NatsServer

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
def test_it_is_made_anew_once_it_has_taken_nothing_for_long(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    async def run(disk: Path) -> None:
        client = await bus.connect(server.url, "test")
        jetstream = client.jetstream(timeout=0.5)
        await bus.ensure_stream(jetstream, STREAM_BYTES)
        assert await is_taken(jetstream)
        filler = fill(disk)
        assert not await is_taken(jetstream)
        filler.unlink()
        assert not await is_taken(jetstream), "NATS recovers by itself now: ingest/stuck.py may go"
        stuck = StuckStream(STREAM_BYTES)
        assert not await stuck.timed_out(jetstream, 100.0)
        assert not await stuck.timed_out(jetstream, 99.9 + STUCK_AFTER_S)
        assert await stuck.timed_out(jetstream, 100.0 + STUCK_AFTER_S)
        assert await is_taken(jetstream)
        assert not await stuck.timed_out(jetstream, 200.0), "patience begins anew"
        await bus.close(client)

    with small_disk(server.server.cwd / "store", "16m") as disk:
        server.start()
        try:
            asyncio.run(run(disk))
        finally:
            server.stop()


def test_a_stream_that_takes_others_messages_is_left_alone(nats: NatsServer) -> None:
    async def run() -> None:
        client = await bus.connect(nats.url, "test")
        jetstream = client.jetstream()
        await bus.ensure_stream(jetstream, STREAM_BYTES)
        stuck = StuckStream(STREAM_BYTES)
        for n in range(4):
            assert not await stuck.timed_out(jetstream, n * 2 * STUCK_AFTER_S)
            await jetstream.publish(SUBJECT, DATA)
        assert (await jetstream.stream_info(wire.STREAM)).state.messages == 4
        await bus.close(client)

    asyncio.run(run())
