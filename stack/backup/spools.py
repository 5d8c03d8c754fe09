"""The frames in the spools of a data directory that a database has not committed.

The workers may be running: they append frames and delete committed segments meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final, NamedTuple
from uuid import UUID

from clickmill import wire
from ingest.durable.segment import pieces
from ingest.durable.source import directories
from ingest.durable.source_lock import is_held
from ingest.durable.spool import SUFFIX
from stack.errors import StackError

COUNTERS: Final = "counters"


class Uncommitted(NamedTuple):
    """How many there are."""

    frames: int
    clicks: int


def collect(root: Path, marks: Mapping[UUID, int], out: IO[bytes]) -> Uncommitted:
    """Writes each frame after its source's mark to `out`, by source and seq.

    Raises StackError if a spool is of a newer release.
    """
    frames = clicks = 0
    for directory in _sources(root):
        last = marks.get(UUID(directory.name), 0)
        for frame, data in _frames(directory):
            if frame.seq <= last:
                continue
            out.write(data)
            frames, clicks, last = frames + 1, clicks + frame.clicks, frame.seq
    return Uncommitted(frames, clicks)


def unsealed(root: Path) -> list[Path]:
    """The directories of ended workers whose counters are not in a frame yet."""
    return [
        directory
        for directory in _sources(root)
        if (directory / COUNTERS).exists() and not is_held(directory)
    ]


def _sources(root: Path) -> list[Path]:
    return directories(root) if root.is_dir() else []


def _frames(directory: Path) -> Iterator[tuple[wire.Frame, bytes]]:
    """The valid frames in ascending order. Bytes that are not a frame are left to the worker."""
    for segment in sorted((directory / "spool").glob(f"*{SUFFIX}")):
        try:
            data = segment.read_bytes()
        except FileNotFoundError:  # deleted, because its frames are committed
            continue
        try:
            for start, end, frame, _ in pieces(data):
                if frame is not None:
                    yield frame, data[start:end]
        except wire.NewerFrameError as error:
            raise StackError(
                f"{segment} was written by a newer release: back it up with that release."
            ) from error


def read(data: IO[bytes]) -> Iterator[bytes]:
    """The frames that `collect` wrote. Raises wire.FrameError if they are damaged."""
    while head := data.read(wire.HEADER_BYTES):
        yield head + data.read(wire.frame_length(head) - wire.HEADER_BYTES)
