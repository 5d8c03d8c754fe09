"""Frames that came before their turn, kept until the gap before them is filled.

Why: JetStream delivers a lost message again only after a wait, long after its successors. Were
those left to be delivered again too, each would come too late in its turn, and the source would
stay behind for good. They are not acknowledged meanwhile, so a death of this process loses none.

Frames of a shard that was revoked are not kept: whoever has it next gets them from JetStream.

Bounded: what does not fit is handed out as overflow, and may be acknowledged uncounted: the
worker's spool still has it, and sends it again from the mark.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from aggregator.writing.message import Delivery
from clickmill import wire

MAX_FRAMES: Final = 50_000
MAX_BYTES: Final = 64 * 1024 * 1024


class Held:
    """Deliveries by (source, seq); a later copy of a frame takes the place of the earlier."""

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._kept: OrderedDict[UUID, dict[int, Delivery]] = OrderedDict()
        self._since: dict[UUID, float] = {}
        self._shards: set[int] = set()
        self.frames = self.bytes = 0

    @property
    def sources(self) -> int:
        """How many sources wait behind a gap."""
        return len(self._kept)

    def waiting_for(self, source: UUID | None, now: float) -> float:
        """Seconds that this source has been behind a gap; 0 where it is not."""
        since = self._since.get(source) if source is not None else None
        return now - since if since is not None else 0.0

    def assign(self, shard: int) -> None:
        """From here on frames of this shard are kept."""
        self._shards.add(shard)

    def revoke(self, shard: int) -> None:
        """Drop what is kept of a shard, and what turns up late: a batch may be under way."""
        self._shards.discard(shard)
        self.take([source for source in self._kept if wire.shard_of(source) == shard])
        self._since = {s: at for s, at in self._since.items() if wire.shard_of(s) != shard}

    def keep(self, delivery: Delivery, now: float) -> list[Delivery]:
        """Keep one whose turn has not come; return what had to go to make room for it."""
        source, seq = delivery.arrival.source, delivery.arrival.seq
        assert source is not None
        assert seq is not None
        if wire.shard_of(source) not in self._shards:
            return []
        of_source = self._kept.setdefault(source, {})
        self._since.setdefault(source, now)
        before = of_source.get(seq)
        of_source[seq] = delivery
        self._count(delivery, 1)
        if before is not None:
            self._count(before, -1)
        overflow = []
        while self.frames > self._max_frames or self.bytes > self._max_bytes:
            overflow += self._drop_oldest_source()
        return overflow

    def take(self, sources: Iterable[UUID | None]) -> list[Delivery]:
        """Take back all that is kept of these sources: their turn may have come.

        What is kept again keeps its place in time, until `settle` says that nothing waits.
        """
        taken: list[Delivery] = []
        for source in sources:
            if source is not None and source in self._kept:
                taken += self._kept.pop(source).values()
        for delivery in taken:
            self._count(delivery, -1)
        taken.sort(key=lambda delivery: delivery.arrival.seq or 0)
        return taken

    def settle(self, sources: Iterable[UUID | None]) -> None:
        """Of these sources nothing waits any more, unless it is kept right now."""
        for source in sources:
            if source is not None and source not in self._kept:
                self._since.pop(source, None)

    def _drop_oldest_source(self) -> list[Delivery]:
        source, dropped = self._kept.popitem(last=False)
        self._since.pop(source, None)
        for delivery in dropped.values():
            self._count(delivery, -1)
        return list(dropped.values())

    def _count(self, delivery: Delivery, sign: int) -> None:
        self.frames += sign
        self.bytes += sign * len(delivery.arrival.raw)
