"""The stream is made by whoever comes first, and whoever comes second finds nothing wrong."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from nats.js.errors import APIError

from clickmill import bus, wire
from tests.support.fix_nats import MAX_BYTES, NatsServer


def test_several_processes_create_the_stream_at_once(nats: NatsServer) -> None:
    """There is room for it once: while the first is at it, the others are told there is none."""

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await bus.connect(nats.url, f"test-{n}") for n in range(6)]
            for client in clients:
                stack.push_async_callback(bus.close, client)
            for _ in range(5):
                streams = [client.jetstream() for client in clients]
                await asyncio.gather(*(bus.ensure_stream(js, MAX_BYTES) for js in streams))
                assert (await streams[0].stream_info(wire.STREAM)).config.max_bytes == MAX_BYTES
                await streams[0].delete_stream(wire.STREAM)

    asyncio.run(story())


def test_no_space_for_the_stream_is_an_error(nats: NatsServer) -> None:
    async def story() -> None:
        client = await bus.connect(nats.url, "test")
        with pytest.raises(APIError, match="insufficient storage"):
            await bus.ensure_stream(client.jetstream(), 2 * MAX_BYTES)
        await bus.close(client)

    asyncio.run(story())
