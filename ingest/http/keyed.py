"""A batch with an Idempotency-Key: reads the header, and the times that its items may have.

Why apart from `batch`: an ordinary batch is added to the counters, this one becomes a frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from clickmill import batches, wire
from clickmill.batches import MAX_AHEAD_S, show
from clickmill.contract.params import unknown_banner
from clickmill.contract.problem import bad, quote
from ingest.http.batch import TimedClick

HEADER: Final = "idempotency-key"
SECONDS_PER_DAY: Final = 86_400
_KEY: Final = re.compile(r'"([ -!#-\[\]-~]{1,64})"|([!#-\[\]-~]{1,64})')


def parse_key(values: Sequence[str]) -> str:
    """The key of the header's values; in quotes, as the IETF draft writes it, or without.

    Raises Problem 400.
    """
    match = _KEY.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        raise bad(
            "invalid_idempotency_key",
            f"Idempotency-Key is one UUID, or one text of 1 to {batches.MAX_KEY_CHARS} printable "
            f"ASCII characters, not {quote(', '.join(values))}; nothing was counted",
        )
    return match[1] or match[2]


def read(
    key: str, items: Sequence[TimedClick], backdate_days: int, capacity: int, now: float
) -> batches.KeyedBatch:
    """The batch. Raises Problem 400 that names the first item which can't be counted."""
    ids = [item.bannerID for item in items]
    if max(ids, default=0) >= capacity:
        index = next(i for i, banner in enumerate(ids) if banner >= capacity)
        raise unknown_banner(str(ids[index]), capacity - 1, 400, f"item {index}: ")
    seconds = [_seconds(item.ts) for item in items]
    _check_times(seconds, backdate_days, now)
    minutes = [at if at is None else at // wire.SECONDS_PER_MINUTE for at in seconds]
    counts = [item.count for item in items]
    return batches.make(batches.key_of(key), ids, counts, minutes, wire.minute_of(now))


def _check_times(seconds: Sequence[int | None], backdate_days: int, now: float) -> None:
    first, last = int(now) - backdate_days * SECONDS_PER_DAY, int(now) + MAX_AHEAD_S
    for index, at in enumerate(seconds):
        if at is not None and not first <= at <= last:
            raise bad(
                "invalid_ts",
                f"item {index}: ts is {show(at)} and it is {show(now)}: at most {backdate_days} "
                "days before (CLICKMILL_MAX_BACKDATE_DAYS, CLICKMILL_RETENTION_DAYS) and "
                f"{MAX_AHEAD_S // 60} minutes after are taken; nothing was counted",
            )


def _seconds(ts: datetime | int | None) -> int | None:
    return int(ts.timestamp()) if isinstance(ts, datetime) else ts
