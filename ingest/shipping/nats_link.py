"""The worker's connection to NATS: the stream is made, and frames are cut to what NATS takes."""

from __future__ import annotations

import asyncio
import logging

from clickmill.connection import Connection
from clickmill.stream import ReplicasError, StreamOptions, ensure_stream
from ingest.shipping.payload import MaxPayload
from ingest.shipping.shipper import Shipper

log = logging.getLogger("clickmill.nats")


class NatsLink:
    """One for each process."""

    def __init__(self, url: str, name: str, max_payload: MaxPayload, stream: StreamOptions) -> None:
        """As `Connection`. Raises ValueError where `url` names no server."""
        self.connection = Connection(url, name)
        self._max_payload, self._stream = max_payload, stream
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.connection.run())
            await self.connection.connected()
            await self._make_stream()
            self._ready.set()

    async def ship(self, shipper: Shipper) -> None:
        """Run it, once there was a connection and the stream had its first try."""
        await self._ready.wait()
        await shipper.run(self.connection)

    def max_pairs(self) -> int:
        """How many pairs a frame may have, as the server said last."""
        if self.connection.is_connected:
            self._max_payload.seen(self.connection.max_payload)
        return self._max_payload.pairs

    def max_rows(self) -> int:
        """How many items a batch with an Idempotency-Key may have, as the server said last."""
        return self._max_payload.rows

    async def _make_stream(self) -> None:
        try:
            await ensure_stream(self.connection.jetstream(), self._stream)
        except ReplicasError as error:
            log.error("%s", error)
        except Exception as error:  # publishing tries again; clicks are counted meanwhile
            log.warning(
                "the stream can't be made yet (%r): see that NATS has JetStream and room for "
                "CLICKMILL_NATS_MAX_BYTES", error,
            )  # fmt: skip
