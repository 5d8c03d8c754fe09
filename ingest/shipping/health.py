"""What a worker reports of itself: its gauges, and why it is not ready."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from ingest.metrics import Slot
from ingest.shipping.adoption import Adoption
from ingest.shipping.keyed_batches import KeyedBatches
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.sealer import Sealer
from ingest.shipping.shipper import Shipper

MAX_TROUBLES: Final = 3
"""Sources whose trouble readiness reports: there may be hundreds with the same."""


class Health:
    """Reads the other parts of the worker; none of them knows it."""

    def __init__(
        self, link: NatsLink, sealer: Sealer, own: Shipper, adoption: Adoption,
        batches: KeyedBatches, limits: Limits, slot: Slot,
    ) -> None:  # fmt: skip
        self._link, self._sealer, self._own, self._adoption = link, sealer, own, adoption
        self._batches, self._limits, self._slot = batches, limits, slot

    async def run(self) -> None:
        """Set the gauges once each flush interval, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.flush_interval)
            self._set_gauges()

    def problems(self) -> list[str]:
        """What is wrong, a sentence each; empty while all is well."""
        connection, found = self._link.connection, []
        if not connection.is_connected:
            found.append(
                f"NATS can't be reached ({connection.reason}): clicks are counted and kept in "
                "the spool"
            )
        if self._sealer.trouble:
            found.append(self._sealer.trouble)
        return found + [s.trouble for s in self._shippers() if s.trouble][:MAX_TROUBLES]

    def _shippers(self) -> list[Shipper]:
        return [self._own, *self._batches.shippers, *self._adoption.shippers]

    def _set_gauges(self) -> None:
        shippers, slot = self._shippers(), self._slot
        slot.set("clickmill_spool_bytes", sum(s.source.spool.size for s in shippers))
        slot.set("clickmill_spool_frames", sum(s.outbox.outstanding for s in shippers))
        slot.set("clickmill_spool_max_bytes", self._limits.spool_max_bytes * len(shippers))
        slot.set("clickmill_frames_too_large", sum(s.too_large for s in shippers))
        short = self._own.outbox.keep_short(time.monotonic())
        slot.set("clickmill_spool_keep_short_seconds", math.ceil(short))
        slot.set("clickmill_unsealed_clicks", self._sealer.counters.pending)
        slot.set("clickmill_workers_connected", self._link.connection.is_connected)
        slot.sample_process()
