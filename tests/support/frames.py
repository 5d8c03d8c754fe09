"""Frames for tests, from plain (banner, clicks) pairs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from uuid import UUID

import google_crc32c

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


def with_features(sealed: wire.Frame, features: int, more: bytes = b"") -> bytes:
    """A frame as a later release may make it: with these feature bits, and bytes of its own."""
    return _altered(wire.encode(sealed) + more, wire.MAGIC, features)


def of_another_version(sealed: wire.Frame, magic: bytes = b"CMF2") -> bytes:
    """A frame of a version that shares no more with today's than its first twelve bytes."""
    return _altered(wire.encode(sealed) + b"new", magic, 0)


def _altered(data: bytes, magic: bytes, features: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into("<4s", changed, 0, magic)
    closed = struct.unpack_from("<I", changed, 12)[0]
    struct.pack_into("<II", changed, 8, len(changed), features | closed)
    covered = bytes(changed[8:]) if magic == wire.MAGIC else magic + bytes(changed[8:])
    struct.pack_into("<I", changed, 4, google_crc32c.value(covered))
    return bytes(changed)
