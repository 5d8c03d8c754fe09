"""What travels between a worker and the aggregator: frames, and the subjects of all messages.

Why one module: both ends and the spool on disk read the same bytes, and a frame never changes
once it is written, so its layout may live in one place only. No I/O and no clock.

Layout of a frame, little-endian, without padding:

    offset  size  field
    0       4     magic "CMF1"
    4       4     CRC32C of everything from offset 8 to the end
    8       4     length of the whole frame in bytes
    12      4     features, see below: bit 0 = last frame of its source
    16      16    source (UUID, big-endian bytes as RFC 9562 writes them)
    32      8     seq, from 1, without gaps
    40      8     minute: Unix time in seconds // 60
    48      8     sealed_at: Unix time in nanoseconds
    56      8     total: clicks of the source in all frames up to and with this one
    64      4     n: number of (banner, count) pairs, 0 to MAX_PAIRS
    68      4     zero
    72      8*n   counts, u64
    72+8*n  4*n   banner IDs, u32, ascending, each once

Bit 1 of the features: the frame is one whole batch of clicks with an Idempotency-Key (see `Batch`).
Its pairs are in the client's order, an ID may come more than once, and each has its own minute:

    72       16   key (UUID)
    88       16   digest of what the batch asked to count (UUID)
    104      8*n  counts, u64
    104+8*n  4*n  banner IDs, u32
    104+12*n 4*n  minutes after the frame's minute, u32

Versions. Programs of two releases run side by side during an upgrade, so a frame says what its
reader has to understand, as the superblock of ext4 does. Bits 24 to 31 of the features may be
ignored by a reader that doesn't know them; any other unknown bit, and a word at offset 68 that is
not zero, change what the frame means. A layout that shares no more than the first twelve bytes has
another magic, "CMF" and a character that is not "1", and its CRC covers the magic too, so that a
flipped bit in a frame of today is never taken for a frame of tomorrow.

A frame that is whole and not understood is `NewerFrameError`, which is not damage: it is left where
it is, for a program that understands it.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple
from uuid import UUID

import google_crc32c

STREAM: Final = "CLICKMILL"
SHARDS: Final = 16
DELTAS_PREFIX: Final = "clickmill.deltas"
DIRECT_PREFIX: Final = "clickmill.direct"
STATS_SUBJECT: Final = "clickmill.stats"
COMMITTED_SUBJECT: Final = "clickmill.committed"
SOURCES_SUBJECT: Final = "clickmill.sources"
KEYS_SUBJECT: Final = "clickmill.keys"
AGGREGATORS_SUBJECT: Final = "clickmill.aggregators"
BANNERS_SUBJECT: Final = "clickmill.banners"
BANNERS_CHANGED_SUBJECT: Final = "clickmill.banners.changed"

MSG_ID_HEADER: Final = "Nats-Msg-Id"
FLOOR_HEADER: Final = "Clickmill-Floor"
STATUS_HEADER: Final = "Clickmill-Status"
CONTENT_TYPE_HEADER: Final = "Content-Type"
# What an answer to a statistics request may carry besides; passed on over HTTP.
PASSED_ON_HEADERS: Final = ("Clickmill-Complete-Through", "Content-Disposition", "Retry-After")
MORE_HEADER: Final = "Clickmill-More"
# Its value on the last page of a table.
NO_MORE: Final = "none"

SECONDS_PER_MINUTE: Final = 60
MAGIC: Final = b"CMF1"
MAGIC_OF_EVERY_VERSION: Final = MAGIC[:3]
MAX_PAIRS: Final = 65_536
MAX_MINUTE: Final = 2**40
_HEADER: Final = struct.Struct("<4sIII16sQqqQII")
_CHECKED_FROM: Final = 8
HEADER_BYTES: Final = _HEADER.size
BYTES_PER_PAIR: Final = 12
MAX_FRAME_BYTES: Final = HEADER_BYTES + BYTES_PER_PAIR * MAX_PAIRS
KEY_BYTES: Final = 32
BYTES_PER_ROW: Final = 16
"""What a pair with its minute takes in the frame of a batch."""
MAX_ROWS: Final = 32_768
_CLOSED: Final = 1
_BATCH: Final = 2
_MAY_BE_IGNORED: Final = 0xFF00_0000
MAX_NEWER_BYTES: Final = 1024 * 1024
"""The longest frame that any version may make: what NATS takes as one message."""
HEADERS_BYTES: Final = 512
"""What the NATS headers of a frame take at most: they count as part of the message."""

# NATS refuses a message over 1 MiB, unless told otherwise.
assert HEADER_BYTES == 72
assert MAX_FRAME_BYTES + HEADERS_BYTES < 1024 * 1024
assert HEADER_BYTES + KEY_BYTES + MAX_ROWS * BYTES_PER_ROW + HEADERS_BYTES < 1024 * 1024
assert sys.byteorder == "little", "counts and IDs are read in place, as little-endian words"


class FrameError(ValueError):
    """Bytes that are not one whole, undamaged frame; the message says what is wrong with them."""


class NewerFrameError(Exception):
    """A whole frame of a newer version: neither damaged nor to be used; upgrade this program."""


class Batch(NamedTuple):
    """What makes a frame count once however often its batch was sent: see `clickmill/batches.py`.

    `minutes` is a packed array (u32) of each pair's minute, counted from the frame's.
    """

    key: UUID
    digest: UUID
    minutes: bytes | memoryview


class Frame(NamedTuple):
    """The clicks of one source in one minute, sealed: immutable, with the source's running total.

    `ids` and `counts` are packed little-endian arrays (u32 and u64) of the same length, IDs
    ascending, so that neither end has to build an object for each pair. A frame with a `batch`
    has pairs of several minutes, in any order.
    """

    source: UUID
    seq: int
    minute: int
    sealed_at: int
    total: int
    closed: bool
    ids: bytes | memoryview
    counts: bytes | memoryview
    batch: Batch | None = None

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The (banner ID, count) pairs as Python integers, in the frame's order."""
        ids = memoryview(self.ids).cast("B").cast("I")
        return list(zip(ids, memoryview(self.counts).cast("B").cast("Q"), strict=True))

    @property
    def clicks(self) -> int:
        """The sum of the frame's counts."""
        return sum(memoryview(self.counts).cast("B").cast("Q"))


def minute_of(unix_seconds: float) -> int:
    """The minute, as Unix time // 60, that holds this moment (seconds since 1970, UTC)."""
    return int(unix_seconds // SECONDS_PER_MINUTE)


def encode(frame: Frame) -> bytes:
    """The frame's bytes, as they stand in the spool and on the wire.

    Raises FrameError where the frame has more than MAX_PAIRS pairs or its arrays disagree.
    """
    n, rest = divmod(len(frame.ids), 4)
    batch, most = frame.batch, MAX_ROWS if frame.batch else MAX_PAIRS
    if rest or n * 8 != len(frame.counts) or n > most or (batch and n * 4 != len(batch.minutes)):
        raise FrameError(
            f"a frame holds 0 to {most} pairs of u32 and u64, not {len(frame.ids)} bytes "
            f"of IDs and {len(frame.counts)} bytes of counts: split it when sealing"
        )
    features = (_CLOSED if frame.closed else 0) | (_BATCH if batch else 0)
    key = batch.key.bytes + batch.digest.bytes if batch else b""
    body = _HEADER.pack(
        MAGIC, 0, _length(n, features), features, frame.source.bytes, frame.seq,
        frame.minute, frame.sealed_at, frame.total, n, 0,
    )[_CHECKED_FROM:] + key + bytes(frame.counts) + bytes(frame.ids)  # fmt: skip
    body += bytes(batch.minutes) if batch else b""
    return MAGIC + struct.pack("<I", google_crc32c.value(body)) + body


def _length(n: int, features: int) -> int:
    if features & _BATCH:
        return HEADER_BYTES + KEY_BYTES + n * BYTES_PER_ROW
    return HEADER_BYTES + n * BYTES_PER_PAIR


def rows_within(max_payload: int) -> int:
    """How many clicks a batch may have for a server that takes messages of so many bytes."""
    return (max_payload - HEADERS_BYTES - HEADER_BYTES - KEY_BYTES) // BYTES_PER_ROW


def pairs_within(max_payload: int) -> int:
    """How many pairs a frame may have for a server that takes messages of so many bytes."""
    pairs = (max_payload - HEADERS_BYTES - HEADER_BYTES) // BYTES_PER_PAIR
    return max(1, min(pairs, MAX_PAIRS))


def frames_bytes(pairs: int) -> int:
    """What the frames of so many pairs, 1 or more, take in all."""
    frames = -(-pairs // MAX_PAIRS)
    return frames * HEADER_BYTES + pairs * BYTES_PER_PAIR


def pairs_in(size: int) -> int:
    """The most pairs whose frames fit in so many bytes."""
    frames, rest = divmod(size, MAX_FRAME_BYTES)
    return frames * MAX_PAIRS + max(0, rest - HEADER_BYTES) // BYTES_PER_PAIR


def frame_length(head: bytes | memoryview) -> int:
    """The length in bytes that a frame's first HEADER_BYTES claim, before any CRC is checked.

    Raises FrameError where they can't be the start of a frame.
    """
    if len(head) < HEADER_BYTES:
        raise FrameError(f"cut off: {len(head)} bytes where a header has {HEADER_BYTES}")
    magic, _, length, features, *_, n, zero = _HEADER.unpack_from(head)
    if magic[:3] != MAGIC_OF_EVERY_VERSION:
        raise FrameError(f"no frame: it begins with {bytes(magic)!r}, not {MAGIC!r}")
    if _is_newer(magic, features, zero):
        if not HEADER_BYTES <= length <= MAX_NEWER_BYTES:
            raise FrameError(f"a length of {length} bytes is that of no frame")
    elif n > (MAX_ROWS if features & _BATCH else MAX_PAIRS) or length != _length(n, features):
        raise FrameError(f"a length of {length} bytes does not fit {n} pairs")
    return int(length)


def _is_newer(magic: bytes, features: int, zero: int) -> bool:
    return magic != MAGIC or bool(features & ~(_CLOSED | _BATCH | _MAY_BE_IGNORED)) or bool(zero)


def decode(data: bytes | memoryview) -> Frame:
    """The frame that these bytes are; `ids` and `counts` are views into `data`.

    Raises FrameError where they are cut, damaged, or hold anything besides; NewerFrameError where
    they are whole and can't be understood.
    """
    view = memoryview(data)
    length = frame_length(view)
    if length != len(view):
        raise FrameError(f"{len(view)} bytes where the header says {length}")
    magic, crc, _, features, source, seq, minute, sealed_at, total, n, zero = _HEADER.unpack_from(
        view
    )
    covered = b"" if magic == MAGIC else magic
    if google_crc32c.value(covered + bytes(view[_CHECKED_FROM:])) != crc:
        raise FrameError("the CRC does not match: the bytes were changed")
    if _is_newer(magic, features, zero):
        raise NewerFrameError(
            f"a frame {magic!r} with features {features:#x} {zero:#x} is of a newer version"
        )
    begin, batch = HEADER_BYTES, None
    if features & _BATCH:
        begin += KEY_BYTES
        key, digest = UUID(bytes=bytes(view[72:88])), UUID(bytes=bytes(view[88:104]))
        batch = Batch(key, digest, view[begin + 12 * n :])
    split, end = begin + 8 * n, begin + 12 * n
    return Frame(
        UUID(bytes=source), seq, minute, sealed_at, total, bool(features & _CLOSED),
        view[split:end], view[begin:split], batch,
    )  # fmt: skip


def shard_of(source: UUID) -> int:
    """The shard of a source, 0 to SHARDS-1: random UUIDs need no further hashing."""
    return source.int % SHARDS


def delta_subject(source: UUID) -> str:
    """The JetStream subject on which this source publishes its frames."""
    return f"{DELTAS_PREFIX}.{shard_of(source)}.{source}"


def direct_subject(source: UUID) -> str:
    """The subject on which this source sends frames past the stream, while that takes none."""
    return f"{DIRECT_PREFIX}.{shard_of(source)}.{source}"


def shard_filter(shard: int) -> str:
    """The subject filter that takes in every source of one shard."""
    return f"{DELTAS_PREFIX}.{shard}.>"


def message_id(source: UUID, seq: int, resend: int = 0) -> str:
    """The Nats-Msg-Id of a frame; a resend gets its own, or deduplication would swallow it."""
    return f"{source}-{seq}-r{resend}" if resend else f"{source}-{seq}"


def parse_message_id(text: str) -> tuple[UUID, int]:
    """(source, seq) of a Nats-Msg-Id. Raises FrameError where it is not a Clickmill ID."""
    try:
        seq = text[37:].partition("-")[0]
        if text[36] != "-" or not (seq.isascii() and seq.isdigit()):
            raise ValueError
        return UUID(text[:36]), int(seq)
    except (ValueError, IndexError):
        raise FrameError(f"a message ID is <source>-<seq>, not {text!r}") from None


def committed_subject(source: UUID) -> str:
    """Where the aggregator broadcasts that source's mark after each commit."""
    return f"{COMMITTED_SUBJECT}.{source}"
