"""Sends frames past the stream, straight to the aggregators, while the stream takes none.

Why: a NATS cluster that lost a leader takes no message for the stream until it has elected another,
after 4 to 9 s; one without a quorum takes none until it has one again. A message outside the stream
needs neither. Nothing depends on it: the spool keeps the frame until its commit is certain, the
stream gets it later if it was not committed, and the mark makes it count once, however it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from nats.errors import Error as NatsError

from clickmill import wire
from clickmill.connection import Connection
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source

EVERY_S: Final = 1.0
AGAIN_AFTER_S: Final = 3.0
"""How long the mark may stand still until what follows it is sent again."""
MAX_FRAMES: Final = 64
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one source in one round: the way of a backlog is the stream."""


class Direct:
    """The frames of one source that go past the stream."""

    def __init__(self, source: Source, outbox: Outbox) -> None:
        self._source, self._outbox = source, outbox
        self._sent = self._mark = 0
        self._moved_at = 0.0
        self.needed = asyncio.Event()
        """Whether the stream takes no frame at present."""

    async def run(self, connection: Connection) -> None:
        """Send whenever it is needed, until cancelled."""
        while True:
            await self.needed.wait()
            # What can't be read or sent is left to the stream, whose sender says why.
            with contextlib.suppress(KeyError, wire.FrameError, OSError, NatsError):
                await self._send(connection, time.monotonic())
            await asyncio.sleep(EVERY_S)

    async def _send(self, connection: Connection, now: float) -> None:
        mark = self._outbox.mark or 0
        if mark != self._mark:
            self._mark, self._moved_at = mark, now
        elif now - self._moved_at >= AGAIN_AFTER_S:
            self._sent, self._moved_at = mark, now
        size, subject = 0, wire.direct_subject(self._source.id)
        for seq in self._outbox.next_to_commit(MAX_FRAMES):
            if seq > self._sent and size < MAX_BYTES:
                data = self._source.spool.read(seq)
                await connection.publish(subject, data)
                self._sent, size = seq, size + len(data)
