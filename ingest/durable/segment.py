"""What the bytes of one segment file are: frames, and places that are none. Pure: bytes in.

Why apart: what a torn or damaged file means is a rule of its own. Nothing is guessed at: a piece is
a frame whose checksum is right, or it is set aside up to the next one that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from clickmill import wire


class Piece(NamedTuple):
    """The bytes from `start` to `end`: a frame, or the reason why they are none."""

    start: int
    end: int
    frame: wire.Frame | None
    reason: str = ""


def pieces(data: bytes) -> Iterator[Piece]:
    """All of a segment, piece by piece, without a gap.

    Raises wire.NewerFrameError: nothing may be done with a segment that is not understood.
    """
    start = 0
    while start < len(data):
        try:
            frame, end = _frame_at(data, start)
            piece = Piece(start, end, frame)
        except wire.FrameError as error:
            piece = Piece(start, _next_frame(data, start + 1), None, str(error))
        yield piece
        start = piece.end


def _frame_at(data: bytes, start: int) -> tuple[wire.Frame, int]:
    end = start + wire.frame_length(data[start : start + wire.HEADER_BYTES])
    return wire.decode(data[start:end]), end


def _next_frame(data: bytes, start: int) -> int:
    """Where the next whole frame begins at or after `start`; the end where there is none."""
    found = data.find(wire.MAGIC_OF_EVERY_VERSION, start)
    while found >= 0 and not _is_frame(data, found):
        found = data.find(wire.MAGIC_OF_EVERY_VERSION, found + 1)
    return found if found >= 0 else len(data)


def _is_frame(data: bytes, start: int) -> bool:
    try:
        _frame_at(data, start)
    except wire.FrameError:
        return False
    except wire.NewerFrameError:
        pass  # whole as well: the next piece finds that out
    return True
