"""Writes frames to the spool of a source of this process, off the event loop.

Why apart: counters are sealed into frames, and batches with an Idempotency-Key are frames from the
start; both are written in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from clickmill import wire
from clickmill.retry import Throttle
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.durable.spool import SpoolError, SpoolFullError
from ingest.metrics import Slot

WARN_EVERY_S: Final = 300.0

log = logging.getLogger("clickmill.spool")


class Appender:
    """Appends to one source, whose files are used under the lock `disk`."""

    def __init__(self, source: Source, outbox: Outbox, disk: asyncio.Lock, slot: Slot) -> None:
        self._source, self._outbox, self._disk, self._slot = source, outbox, disk, slot
        self._errors, self._short_keep = Throttle(), Throttle(WARN_EVERY_S)

    async def append(self, frames: Sequence[wire.Frame]) -> None:
        """Write frames and sync them: all of them, or none. Raises SpoolError, OSError."""
        try:
            async with self._disk:
                await self._write(frames)
        except (SpoolError, OSError) as error:
            self._slot.add("clickmill_spool_errors")
            if self._errors.allows(time.monotonic()):
                log.error("%s", error)
            raise
        self._slot.add("clickmill_frames_sealed", len(frames))
        for frame in frames:
            self._outbox.sealed(frame.seq, time.monotonic())

    async def _write(self, frames: Sequence[wire.Frame]) -> None:
        append = self._source.spool.append
        try:
            await asyncio.to_thread(append, frames)
        except SpoolFullError as full:
            if not self._make_room(full.lacking):
                raise
            await asyncio.to_thread(append, frames)

    def _make_room(self, size: int) -> bool:
        """Give up committed frames before their keep time is over, the oldest first: clicks that
        Postgres does not have are worth more. Raises OSError."""
        through = self._source.spool.oldest(size, self._outbox.spare)
        if not through:
            return False
        self._outbox.release(through)
        self._source.spool.trim(through)
        self._warn_of_short_keep()
        return True

    def _warn_of_short_keep(self) -> None:
        now, keep = time.monotonic(), self._outbox.keep_s
        short = self._outbox.keep_short(now)
        if short and self._short_keep.allows(now):
            log.warning(
                "the spool is at its limit of %d bytes: committed frames are kept for %.0f s "
                "instead of the %g s of CLICKMILL_SPOOL_KEEP_SECONDS; raise "
                "CLICKMILL_SPOOL_MAX_BYTES, or lower it",
                self._source.spool.max_bytes, keep - short, keep,
            )  # fmt: skip
