"""Frames that came before their turn, retained until the gap before them is filled.

Why: JetStream delivers a lost message again only after a wait, long after its successors. Were
those left to be delivered again too, each would come too late in its turn, and the source would
stay behind for good. They are not acknowledged meanwhile, so a death of this process loses none.

Frames of a revoked shard are not retained: its next aggregator gets them from JetStream.

Bounded: what does not fit is returned as overflow, and may be acknowledged uncounted: it is still
in the worker's spool, which sends it again from the mark.
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


class ReorderBuffer:
    """Deliveries by (source, seq); a later copy of a frame takes the place of the earlier."""

    def __init__(self, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._frames: OrderedDict[UUID, dict[int, Delivery]] = OrderedDict()
        self._since: dict[UUID, float] = {}
        self._shards: set[int] = set()
        self.frames = self.bytes = 0

    @property
    def sources(self) -> int:
        """How many sources wait behind a gap."""
        return len(self._frames)

    def waiting_for(self, source: UUID | None, now: float) -> float:
        """Seconds that this source has been behind a gap; 0 where it is not."""
        since = self._since.get(source) if source is not None else None
        return now - since if since is not None else 0.0

    def assign(self, shard: int) -> None:
        """From here on frames of this shard are retained."""
        self._shards.add(shard)

    def revoke(self, shard: int) -> None:
        """Drop a shard's frames, now and later: a batch that holds some may be under way."""
        self._shards.discard(shard)
        self.pop([source for source in self._frames if wire.shard_of(source) == shard])
        self._since = {s: at for s, at in self._since.items() if wire.shard_of(s) != shard}

    def retain(self, delivery: Delivery, now: float) -> list[Delivery]:
        """Retain a frame whose turn has not come; return those removed to make room for it."""
        source, seq = delivery.arrival.source, delivery.arrival.seq
        assert source is not None
        assert seq is not None
        if wire.shard_of(source) not in self._shards:
            return []
        of_source = self._frames.setdefault(source, {})
        self._since.setdefault(source, now)
        before = of_source.get(seq)
        of_source[seq] = delivery
        self._count(delivery, 1)
        if before is not None:
            self._count(before, -1)
        overflow = []
        while self.frames > self._max_frames or self.bytes > self._max_bytes:
            overflow += self._shed_oldest_source()
        return overflow

    def pop(self, sources: Iterable[UUID | None]) -> list[Delivery]:
        """Remove and return the frames of these sources: their turn may have come.

        A source whose frames are retained again is behind its gap since the same moment as before,
        until `gap_closed`.
        """
        popped: list[Delivery] = []
        for source in sources:
            if source is not None and source in self._frames:
                popped += self._frames.pop(source).values()
        for delivery in popped:
            self._count(delivery, -1)
        popped.sort(key=lambda delivery: delivery.arrival.seq or 0)
        return popped

    def gap_closed(self, sources: Iterable[UUID | None]) -> None:
        """These sources are behind no gap any more, except those with frames in here."""
        for source in sources:
            if source is not None and source not in self._frames:
                self._since.pop(source, None)

    def _shed_oldest_source(self) -> list[Delivery]:
        source, shed = self._frames.popitem(last=False)
        self._since.pop(source, None)
        for delivery in shed.values():
            self._count(delivery, -1)
        return list(shed.values())

    def _count(self, delivery: Delivery, sign: int) -> None:
        self.frames += sign
        self.bytes += sign * len(delivery.arrival.raw)
