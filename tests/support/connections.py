"""A running `Connection` for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nats.errors import Error as NatsError

from clickmill import bus, wire
from clickmill.connection import Connection
from tests.support.wait import aeventually

CONNECT_S = 10.0


@contextlib.asynccontextmanager
async def connection(url: str, name: str = "test") -> AsyncIterator[Connection]:
    """A connection that stands; whatever happens to it, it must still be at work at the end."""
    made = Connection(url, name)
    running = asyncio.create_task(made.run())
    try:
        await asyncio.wait_for(made.connected(), CONNECT_S)
        yield made
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def works(connection: Connection, within: float = 10.0) -> None:
    """Until the server answers a question over this connection."""

    async def answered() -> bool:
        try:
            await connection.jetstream(1.0).account_info()
        except (NatsError, OSError):
            return False
        return True

    await aeventually(answered, within, "the connection works")


async def limit_messages(url: str, most: int = -1) -> None:
    """Let the stream take messages of so many bytes at most: with 1 no frame, with -1 all."""
    client = await bus.connect(url, "test")
    jetstream = client.jetstream()
    config = (await jetstream.stream_info(wire.STREAM)).config
    await jetstream.update_stream(config.evolve(max_msg_size=most))
    await bus.close(client)
