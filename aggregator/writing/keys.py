"""Which batches of a transaction count, by their idempotency keys: once for each key.

Pure. The keys of the batches whose turn has come are claimed in Postgres, in the transaction that
counts them; those that were there before come back with the digest of what was counted. A batch
with another digest is another body: it never counts beside the first, and is reported.

A key is forgotten some time after it was counted. So a batch that was sealed long ago claims none:
without a row of its key nobody knows whether it was counted, and it is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from clickmill.batches import LATE_DAYS
from clickmill.wire import Batch

OTHER_BODY = "key: another batch was counted with this Idempotency-Key"
LATE = f"late: sealed over {LATE_DAYS} days ago, and its Idempotency-Key may be forgotten"


class _Seen(NamedTuple):
    place: int
    batch: Batch
    is_late: bool


class Keys:
    """The keys of one transaction, in the order in which their batches are applied."""

    def __init__(self, late_before: int) -> None:
        """Batches sealed before `late_before`, in Unix nanoseconds, are late."""
        self._late_before = late_before
        self._seen: list[_Seen] = []
        self.claims: dict[UUID, UUID] = {}
        """The digest of the first batch with each key that is not late."""

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def all(self) -> set[UUID]:
        """The keys claimed, and those of late batches."""
        return {seen.batch.key for seen in self._seen}

    def saw(self, place: int, batch: Batch, sealed_at: int) -> None:
        """A batch that its source's mark advances over; `place`: among the arrivals."""
        is_late = sealed_at < self._late_before
        self._seen.append(_Seen(place, batch, is_late))
        if not is_late:
            self.claims.setdefault(batch.key, batch.digest)

    def left_out(self, counted: Mapping[UUID, UUID]) -> dict[int, str]:
        """The batches that don't count, with the reason to report; "" where there is none.

        `counted`: the digest of each key that was counted before this transaction.
        """
        digests, reasons = dict(counted), {}
        for place, batch, is_late in sorted(self._seen, key=lambda seen: seen.is_late):
            if batch.key not in digests and not is_late:
                digests[batch.key] = batch.digest
            elif batch.key not in digests:
                reasons[place] = LATE
            else:
                reasons[place] = "" if digests[batch.key] == batch.digest else OTHER_BODY
        return reasons
