"""Turns what was counted into frames on disk: flip, append, sync, and only then clear.

Why apart from publishing: sealing goes on whether or not anything beyond this machine works.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from clickmill import wire
from clickmill.failpoints import failpoint
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.durable.spool import SpoolError
from ingest.metrics import Slot
from ingest.shipping.appender import Appender
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.shipper import Shipper

MAX_OUTSTANDING: Final = 10
"""Frames not committed until sealing slows down to once a minute."""


class Sealer:
    """Seals the epochs of this process's own source. `trouble` is "" or what is wrong."""

    def __init__(self, source: Source, outbox: Outbox, disk: asyncio.Lock, slot: Slot) -> None:
        assert source.counters is not None
        self.source, self.outbox, self.slot = source, outbox, slot
        self.counters = source.counters
        self.trouble = ""
        self._appender = Appender(source, outbox, disk, slot)
        self._sealing = asyncio.Lock()

    async def run(self, interval: float, link: NatsLink, shipper: Shipper) -> None:
        """Seal every `interval` seconds, until cancelled."""
        due = time.monotonic() + interval
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + interval, time.monotonic())
            self.counters.max_pairs = link.max_pairs()
            too_many = self.outbox.outstanding > MAX_OUTSTANDING
            await self.seal(edges_only=too_many or not link.connection.is_connected)
            shipper.wake()

    async def seal(self, *, edges_only: bool = False) -> bool:
        """Seal the frozen epoch, and then the active one; whether all of it is on disk now.

        `edges_only` leaves the active epoch to go on until its minute is over: while no frame
        is taken, a minute then costs one frame and not sixty.
        """
        # One at a time: of two, the second would clear an epoch that the first has just frozen.
        async with self._sealing:
            flipped = False  # once is enough: under load there is always something new to flip
            while True:
                if parts := self.counters.frozen():
                    if not await self._store(self.source.frames(parts)):
                        return False
                elif flipped or (edges_only and self._minute_goes_on()) or not self.counters.flip():
                    return True
                else:
                    flipped = True
                failpoint("ingest.flip")

    def _minute_goes_on(self) -> bool:
        return self.counters.active_minute == wire.minute_of(self.counters.now() / 1e9)

    async def _store(self, frames: list[wire.Frame]) -> bool:
        if frames and not await self._append(frames):
            return False
        failpoint("ingest.clear")
        self.counters.clear()
        failpoint("ingest.cleared")
        return True

    async def _append(self, frames: list[wire.Frame]) -> bool:
        try:
            await self._appender.append(frames)
        except (SpoolError, OSError) as error:
            self.trouble = str(error)
            return False
        self.trouble = ""
        return True
