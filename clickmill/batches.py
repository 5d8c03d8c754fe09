"""Batches of clicks with an Idempotency-Key, which count once however often they are sent.

Such a batch is one frame (`wire.Batch`) of a source that its worker has for them alone. The frame
is on disk, synced, before the request is answered. Sent again, to whichever worker, the batch is
another frame with the same key; the aggregator counts the first that it applies.

Both are made from the text of the request alone, so that every worker comes to the same: the key,
and the digest of what is to be counted. Another body with the same key has another digest.
"""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

from clickmill import wire

MAX_KEY_CHARS: Final = 64
KEY_DAYS: Final = 7
"""A batch that is sent again within so many days of the first time counts once."""
LATE_DAYS: Final = 7
"""A frame that reaches Postgres later than this after it was sealed is not counted unseen: the
first one with its key may be forgotten by then. It is set aside, and reported."""
MAX_AHEAD_S: Final = 300
"""How far in the future the time of a click may be."""
NO_TIME: Final = 2**32 - 1
"""Minute of a click without a time of its own, in what the digest is made of."""


class KeyedBatch(NamedTuple):
    """A batch as a request asks for it: its arrays as in `wire.Frame` and `wire.Batch`."""

    key: UUID
    digest: UUID
    minute: int
    ids: bytes
    counts: bytes
    minutes: bytes
    clicks: int

    @property
    def rows(self) -> int:
        """How many clicks with a minute and a banner it has."""
        return len(self.minutes) // 4

    def frame(self, source: UUID, seq: int, sealed_at: int, total: int) -> wire.Frame:
        """The frame of this batch; `total` is the source's, these clicks included."""
        batch = wire.Batch(self.key, self.digest, self.minutes)
        return wire.Frame(
            source, seq, self.minute, sealed_at, total, False, self.ids, self.counts, batch
        )


def key_of(text: str) -> UUID:
    """The key of an Idempotency-Key."""
    return _digest(text.encode())


def make(
    key: UUID, ids: list[int], counts: list[int], minutes: list[int | None], now: int
) -> KeyedBatch:
    """The batch of these clicks, item by item. A click without a minute is in the minute `now`."""
    packed_ids, packed_counts = array("I", ids).tobytes(), array("Q", counts).tobytes()
    asked = array("I", [NO_TIME if minute is None else minute for minute in minutes])
    digest = _digest(packed_ids + packed_counts + asked.tobytes())
    when = [now if minute is None else minute for minute in minutes]
    first = min(when, default=now)
    after = array("I", [minute - first for minute in when]).tobytes()
    return KeyedBatch(key, digest, first, packed_ids, packed_counts, after, sum(counts))


def show(at: float) -> str:
    """A time in Unix seconds as it may stand in a message."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at)


def _digest(data: bytes) -> UUID:
    return UUID(bytes=blake2b(data, digest_size=16).digest())
