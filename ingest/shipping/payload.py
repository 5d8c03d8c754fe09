"""The largest message that NATS takes, as it was last seen: how many pairs a frame may have.

Why a file: frames never change, and the first are sealed before there is a connection. A worker
that starts while NATS is away then makes frames of a size that NATS took the last time.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clickmill import wire

NOT_SEEN_YET: Final = 1 << 20
"""What a NATS server takes unless told otherwise."""

log = logging.getLogger("clickmill.payload")


class MaxPayload:
    """`max_payload` of the NATS server, in bytes."""

    def __init__(self, path: Path) -> None:
        """A file that is missing or can't be read counts as not seen yet."""
        self._path = path
        try:
            self._size = int(path.read_bytes())
        except (OSError, ValueError):
            self._size = NOT_SEEN_YET

    @property
    def pairs(self) -> int:
        """How many pairs fit in a frame."""
        return wire.pairs_within(self._size)

    @property
    def rows(self) -> int:
        """How many items of a batch fit in a frame."""
        return wire.rows_within(self._size)

    def seen(self, size: int) -> None:
        """Remember what the server says, where it says something new."""
        if size == self._size:
            return
        self._size = size
        beside = self._path.with_suffix(f".{os.getpid()}")
        try:
            beside.write_text(f"{size}\n", encoding="ascii")
            beside.replace(self._path)
        except OSError as error:
            log.error("%s can't be written (%s): NATS says it again after a start", beside, error)


def largest_frame(root: Path) -> int:
    """The bytes of the largest frame in the spools under `root`; 0 where there is none."""
    return max((size for path in root.glob("*/spool/*.frames") for size in _sizes(path)), default=0)


def _sizes(segment: Path) -> Iterator[int]:
    """The size of each frame, up to the first bytes that are none; a worker may be writing."""
    with contextlib.suppress(OSError, wire.FrameError), segment.open("rb") as file:
        while head := file.read(wire.HEADER_BYTES):
            yield wire.frame_length(head)
            file.seek(wire.frame_length(head) - wire.HEADER_BYTES, os.SEEK_CUR)
