"""Sources without a worker: frames and arrivals written as short as one thinks them.

a = FakeSource()
a.frame({17: 3})        # the next frame of a, with its running total
a.arrival({17: 3})      # the same as it comes off the bus
"""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import numpy as np

from aggregator.writing.fold import Arrival
from clickmill import batches, wire

NOW = int(time.time()) // 60


class FakeSource:
    """A worker's source: gives out frames with seq and total as a real one does."""

    def __init__(self, source: UUID | None = None) -> None:
        self.id = source or uuid4()
        self.seq = self.total = 0

    def frame(self, counts: dict[int, int], minute: int = NOW, closed: bool = False) -> wire.Frame:
        self.seq += 1
        self.total += sum(counts.values())
        ids = sorted(counts)
        return wire.Frame(
            self.id, self.seq, minute, time.time_ns(), self.total, closed,
            np.array(ids, "<u4").tobytes(), np.array([counts[i] for i in ids], "<u8").tobytes(),
        )  # fmt: skip

    def arrival(
        self, counts: dict[int, int], minute: int = NOW, closed: bool = False, floor: int = 1
    ) -> Arrival:
        return arrival(self.frame(counts, minute, closed), floor)

    def batch(
        self, key: str, clicks: list[tuple[int, int, int | None]], sealed_at: int | None = None
    ) -> Arrival:
        """The next frame: a batch with this key, of (banner, clicks, minute or None)."""
        ids, counts = [row[0] for row in clicks], [row[1] for row in clicks]
        made = batches.make(batches.key_of(key), ids, counts, [row[2] for row in clicks], NOW)
        self.seq += 1
        self.total += made.clicks
        at = time.time_ns() if sealed_at is None else sealed_at
        return arrival(made.frame(self.id, self.seq, at, self.total))

    def unreadable(self) -> Arrival:
        """The next frame with its bytes damaged; its clicks count towards the total."""
        self.seq += 1
        return Arrival(self.id, self.seq, None, 1, b"\xff damaged", "the CRC does not match")


def arrival(frame: wire.Frame, floor: int = 1) -> Arrival:
    """A frame as it comes off the bus."""
    return Arrival(frame.source, frame.seq, frame, floor, wire.encode(frame))
