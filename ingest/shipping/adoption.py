"""Adopts the sources of dead workers: seals what they left, ships it, removes the directory."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from pathlib import Path
from typing import Final

from ingest.durable.source import Source, adopt
from ingest.durable.spool import SpoolError
from ingest.metrics import Slot
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.shipper import Shipper

ADOPT_EVERY_S: Final = 5.0
MAX_FIRST_RESEND: Final = 10**9

log = logging.getLogger("clickmill.adoption")


class Adoption:
    """Every source under `root` whose process is gone. `shippers` are those at work."""

    def __init__(self, root: Path, link: NatsLink, limits: Limits, slot: Slot) -> None:
        self._root, self._link, self._limits, self._slot = root, link, limits, slot
        self.shippers: list[Shipper] = []
        self.searched = asyncio.Event()
        """Whether the directory was searched once."""

    async def run(self) -> None:
        """Search, adopt and ship until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                for shipper in list(self.shippers):
                    await _seal_rest(shipper)
                await self._search(group)
                self.searched.set()
                await asyncio.sleep(ADOPT_EVERY_S)

    async def _search(self, group: asyncio.TaskGroup) -> None:
        # In a thread: a long spool takes longer to read than a heartbeat may be late.
        found = adopt(self._root, self._limits.spool_max_bytes)
        try:
            while (source := await asyncio.to_thread(next, found, None)) is not None:
                shipper = await self._adopt(source)
                group.create_task(self._ship_and_remove(shipper))
        except OSError as error:
            log.error("%s can't be searched for what to adopt: %s", self._root, error)

    async def _adopt(self, source: Source) -> Shipper:
        outbox = self._limits.outbox(mark=None)
        # Message IDs that were not used yet: what the dead worker has sent again under -r1, -r2
        # may be lost by now, and would be swallowed as known for two minutes.
        outbox.resends = random.randrange(1, MAX_FIRST_RESEND)
        for seq in source.spool.seqs():
            outbox.sealed(seq, time.monotonic())
        self._slot.add("clickmill_sources_adopted")
        self._slot.add("clickmill_spool_damages", len(source.spool.damages))
        limits = self._limits
        shipper = Shipper(source, outbox, self._slot, limits.stream, limits.node_name)
        self.shippers.append(shipper)
        await _seal_rest(shipper)
        log.info("adopted %s with %d frames", source.id, source.spool.frames)
        return shipper

    async def _ship_and_remove(self, shipper: Shipper) -> None:
        try:
            await self._link.ship(shipper)
            _remove(shipper.source)
        finally:
            self.shippers.remove(shipper)
            shipper.source.release()


async def _seal_rest(shipper: Shipper) -> None:
    """Seal what a dead worker's epochs hold, if that is still to be done.

    Where the disk is full it waits, while the frames go out that the spool has: they make the room.
    """
    source, before = shipper.source, shipper.source.sealed_seq
    try:
        async with shipper.disk:
            await asyncio.to_thread(source.seal_rest)
    except (SpoolError, OSError) as error:
        log.error("%s: not all of it can be sealed yet: %s", source.directory, error)
    for seq in source.spool.seqs():
        if seq > before:
            shipper.outbox.sealed(seq, time.monotonic())
    shipper.wake()


def _remove(source: Source) -> None:
    try:
        source.remove()
    except OSError as error:
        log.error("%s has nothing to ship and can't be removed: %s", source.directory, error)
