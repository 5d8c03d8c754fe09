"""The stream is made by whoever comes first, and whoever comes second finds nothing wrong."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from nats.js.errors import APIError

from clickmill import bus, wire
from clickmill.stream import StreamOptions, ensure_stream
from ingest.shipping.drain import NOT_DRAINED
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.fix_system import SystemFactory
from tests.support.raw import Answer, ask
from tests.support.wait import eventually


def test_several_processes_create_the_stream_at_once(nats: NatsServer) -> None:
    """There is room for it once: while the first is at it, the others are told there is none."""

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = [await bus.connect(nats.url, f"test-{n}") for n in range(6)]
            for client in clients:
                stack.push_async_callback(bus.close, client)
            for _ in range(5):
                streams = [client.jetstream() for client in clients]
                await asyncio.gather(
                    *(ensure_stream(js, StreamOptions(MAX_BYTES)) for js in streams)
                )
                assert (await streams[0].stream_info(wire.STREAM)).config.max_bytes == MAX_BYTES
                await streams[0].delete_stream(wire.STREAM)

    asyncio.run(story())


def test_no_space_for_the_stream_is_an_error(nats: NatsServer) -> None:
    async def story() -> None:
        client = await bus.connect(nats.url, "test")
        with pytest.raises(APIError, match="insufficient storage"):
            await ensure_stream(client.jetstream(), StreamOptions(2 * MAX_BYTES))
        await bus.close(client)

    asyncio.run(story())


def test_a_worker_says_that_its_server_cannot_store_three_replicas(
    system: SystemFactory, nats: NatsServer
) -> None:
    one = system("ingest", ready=False, nats_url=nats.url, nats_replicas=3)
    one.expected_code = NOT_DRAINED
    eventually(lambda: "can't have 3 replicas" in one.output, 20, "the log says so")
    assert one.click(1) == 1

    def reported() -> Answer | None:
        answer = ask(one.port, "GET", "/readyz")
        return answer if b"can't have 3 replicas" in answer.body else None

    answer = eventually(reported, 20, "readiness says so")
    assert answer is not None
    assert answer.status == 503
    assert b"CLICKMILL_NATS_REPLICAS" in answer.body
