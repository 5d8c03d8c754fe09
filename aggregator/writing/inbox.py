"""Frames that were delivered and are in no batch yet: a queue with bounds, by shard and in all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from aggregator.writing.fold import MAX_BATCH_FRAMES
from aggregator.writing.message import Delivery
from aggregator.writing.pull import PULL_MESSAGES
from clickmill import wire

MAX_BATCH_BYTES: Final = 32 * 1024 * 1024
"""About 2.8 million pairs. As much may wait while a batch is written."""
TAKEN_FRAMES: Final = MAX_BATCH_FRAMES // 2
"""The rest of a batch is for frames from the reorder buffer."""


class Inbox:
    """Deliveries in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._frames = [0] * wire.SHARDS
        self._bytes = 0
        self._full_shards: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Delivery]:
        return iter(self._waiting)

    @property
    def full(self) -> bool:
        """Whether a batch should not wait for more frames."""
        return self._too_large or bool(self._full_shards) or len(self._waiting) >= TAKEN_FRAMES

    @property
    def _too_large(self) -> bool:
        return self._bytes >= MAX_BATCH_BYTES

    def full_shards(self) -> set[int]:
        """The shards of which no more may be asked for."""
        return set(range(wire.SHARDS)) if self._too_large else self._full_shards

    def put(self, delivery: Delivery) -> None:
        """Add one at the end."""
        self._waiting.append(delivery)
        self._bytes += len(delivery.arrival.raw)
        self._frames[delivery.shard] += 1
        if self._frames[delivery.shard] >= PULL_MESSAGES:
            self._full_shards.add(delivery.shard)

    def take(self) -> list[Delivery]:
        """Remove and return as many as go into one batch."""
        batch: list[Delivery] = []
        size = 0
        while self._waiting and len(batch) < TAKEN_FRAMES and size < MAX_BATCH_BYTES:
            delivery = self._waiting.popleft()
            self._frames[delivery.shard] -= 1
            size += len(delivery.arrival.raw)
            batch.append(delivery)
        self._bytes -= size
        self._full_shards = {s for s in self._full_shards if self._frames[s] >= PULL_MESSAGES}
        return batch
