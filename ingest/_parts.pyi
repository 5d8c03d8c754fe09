"""The contract of the parts that an epoch is sealed in."""

from typing import TypeAlias

__pyx_capi__: dict[str, object]
"""The C functions that other compiled modules call."""

MAX_PAIRS: int

Part: TypeAlias = tuple[int, int, int, int, bytes, bytes]
"""(seq, minute, sealed_at, total, ids, counts): what becomes one frame, see clickmill.wire.

minute is Unix time // 60; sealed_at is Unix nanoseconds in the last part of an epoch and 0 in
the others; total is the source's running total; ids and counts are packed u32 and u64, by ID.
"""
