"""Frames for tests, from plain (banner, clicks) pairs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from uuid import UUID

from clickmill import wire

SOURCE = UUID("6f1c2a0e-3f0b-4c7e-9a57-0d4f5b1c2d3e")
MINUTE = 29_000_000


def frame(
    seq: int = 1,
    clicks: Mapping[int, int] | None = None,
    total: int = 0,
    *,
    source: UUID = SOURCE,
    minute: int = MINUTE,
    closed: bool = False,
) -> wire.Frame:
    """A frame of these clicks by banner."""
    pairs = sorted((clicks or {}).items())
    ids = struct.pack(f"<{len(pairs)}I", *[banner for banner, _ in pairs])
    counts = struct.pack(f"<{len(pairs)}Q", *[count for _, count in pairs])
    return wire.Frame(source, seq, minute, minute * 60 * 10**9, total, closed, ids, counts)


def run_of(first: int, last: int, source: UUID = SOURCE) -> list[wire.Frame]:
    """Frames first to last; frame n has n clicks on banner n % 7, totals as they add up."""
    return [frame(n, {n % 7: n}, n * (n + 1) // 2, source=source) for n in range(first, last + 1)]
