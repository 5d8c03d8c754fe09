"""The frames of one source on disk: append, read, trim; what a torn or damaged file means.

Why: a frame lies here, synced, before its epoch is cleared, and until Postgres has had it for the
keep time. So NATS may lose everything it has, and nothing is lost.

Frames lie one behind another in segment files named after their first seq. Trimming removes whole
segments. A frame is never changed and never written over.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from clickmill import wire
from clickmill.failpoints import failpoint
from ingest.durable.directory import sync_directory
from ingest.durable.segment import pieces

SEGMENT_BYTES: Final = 1024 * 1024
SEGMENT_FRAMES: Final = 256
SUFFIX: Final = ".frames"

log = logging.getLogger("clickmill.spool")


class SpoolError(Exception):
    """Frames could not be made durable: nothing of them counts as written; trying again helps."""


class SpoolFullError(SpoolError):
    """The spool is at its maximum: raise it, or bring back what should be emptying it.

    `lacking` is how many bytes there are too few.
    """

    def __init__(self, text: str, lacking: int) -> None:
        super().__init__(text)
        self.lacking = lacking


class Damage(NamedTuple):
    """Bytes of a segment that are no frame. `torn`: at its very end, as a power cut leaves them."""

    segment: Path
    offset: int
    length: int
    torn: bool
    reason: str


class _Entry(NamedTuple):
    segment: Path
    offset: int
    length: int


@dataclass
class Spool:
    """The frames of one source, by seq. Not for two threads at once.

    `max_bytes` bounds what lies on disk; `sync` makes a file's content durable (fdatasync).
    """

    directory: Path
    max_bytes: int
    sync: Callable[[int], None] = os.fdatasync
    damages: list[Damage] = field(default_factory=list)
    last_seq: int = 0
    """The highest seq ever held since it was opened; 0 where there was none."""
    last_total: int = 0
    last_closed: bool = False
    _entries: dict[int, _Entry] = field(default_factory=dict)
    _segments: dict[Path, int] = field(default_factory=dict)
    _tail: int = -1
    _tail_path: Path | None = None
    _tail_frames: int = 0
    _failed: Path | None = None

    def __post_init__(self) -> None:
        if not self.directory.exists():
            self.directory.mkdir(mode=0o700)
            sync_directory(self.directory.parent)
        found = [
            (path, self._scan(path, path.read_bytes()))
            for path in sorted(self.directory.glob(f"*{SUFFIX}"))
        ]
        for path, damages in found:  # only now: a newer spool is left as it is
            for damage, data in damages:
                self._set_aside(path, damage, data)

    # --- what is in it --------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes on disk, in all segments."""
        return sum(self._segments.values())

    @property
    def frames(self) -> int:
        """Frames that can be read."""
        return len(self._entries)

    def seqs(self) -> list[int]:
        """Every seq held, ascending."""
        return list(self._entries)

    def read(self, seq: int) -> bytes:
        """A frame's bytes as they were written. Raises KeyError, OSError, wire.FrameError."""
        entry = self._entries[seq]
        with entry.segment.open("rb") as file:
            data = os.pread(file.fileno(), entry.length, entry.offset)
        wire.decode(data)
        return data

    # --- append -----------------------------------------------------------------------------

    def append(self, frames: Sequence[wire.Frame], *, bounded: bool = True) -> None:
        """Write frames and make them durable: all of them, or SpoolError and none.

        The frames follow each other in seq. After an error the file is given up, since a failed
        sync says nothing of what is on disk: the next append begins a new one.
        Raises SpoolFullError at `max_bytes`, unless `bounded` is off; an empty spool takes whatever
        comes first, or a bound that is too low would hold it up forever.
        """
        failpoint("ingest.append")
        encoded = [wire.encode(frame) for frame in frames]
        size = sum(map(len, encoded))
        lacking = self.size + size - self.max_bytes
        if bounded and self._entries and lacking > 0:
            raise SpoolFullError(
                f"the spool {self.directory} holds {self.size} of at most {self.max_bytes} bytes: "
                "see why the aggregator does not commit, or raise CLICKMILL_SPOOL_MAX_BYTES",
                lacking,
            )
        try:
            path, offset = self._write(frames[0].seq, b"".join(encoded))
        except OSError as error:
            self._abandon_tail()
            raise SpoolError(
                f"the spool {self.directory} can't be written ({error.strerror}): clicks go on "
                "being counted in memory; free the disk, or replace it"
            ) from error
        self._segments[path] = offset + size
        self._tail_frames += len(frames)
        for frame, data in zip(frames, encoded, strict=True):
            self._index(frame, _Entry(path, offset, len(data)))
            offset += len(data)

    def _index(self, frame: wire.Frame, entry: _Entry) -> None:
        self._entries[frame.seq] = entry
        if frame.seq > self.last_seq:
            self.last_seq, self.last_total = frame.seq, frame.total
            self.last_closed = frame.closed

    def _write(self, seq: int, data: bytes) -> tuple[Path, int]:
        self._cut_off_failed()
        path = self._open_tail(seq)
        offset = self._segments.get(path, 0)
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._tail, view[done:], offset + done)
        failpoint("ingest.appended")
        self.sync(self._tail)
        failpoint("ingest.fsync")
        return path, offset

    def _open_tail(self, seq: int) -> Path:
        """The segment to append to: a new one where there is none or the last is full."""
        path = self._tail_path
        full = self._tail_frames >= SEGMENT_FRAMES
        if path is not None and not full and self._segments.get(path, 0) < SEGMENT_BYTES:
            return path
        self.close()
        # Two files may begin at the same seq: the first of them was given up after an error.
        attempt = 0
        while (new := self.directory / f"{seq:020d}-{attempt:04d}{SUFFIX}").exists():
            attempt += 1
        self._tail = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._tail_path, self._tail_frames, self._segments[new] = new, 0, 0
        sync_directory(self.directory)
        return new

    def close(self) -> None:
        """Let go of the open file; the frames stay, and the next append begins a new one."""
        if self._tail >= 0:
            with contextlib.suppress(OSError):
                os.close(self._tail)
        self._tail, self._tail_path, self._tail_frames = -1, None, 0

    def _abandon_tail(self) -> None:
        self._failed = self._tail_path or self._failed
        self.close()
        with contextlib.suppress(OSError):
            self._cut_off_failed()

    def _cut_off_failed(self) -> None:
        """Bytes that a sync refused can still be read for a while, and other frames may get their
        seqs: nothing is appended before they are gone. Raises OSError."""
        if (path := self._failed) is None:
            return
        if size := self._segments.get(path):
            with path.open("r+b") as file:
                file.truncate(size)
                self.sync(file.fileno())
        else:
            path.unlink(missing_ok=True)
            self._segments.pop(path, None)
            sync_directory(self.directory)
        self._failed = None

    # --- trim -------------------------------------------------------------------------------

    def oldest(self, size: int, limit: int) -> int:
        """The lowest seq that may be trimmed through to have `size` bytes more, or all there are;
        0 where that would take a frame above `limit`."""
        ends = {entry.segment: seq for seq, entry in self._entries.items()}
        freed, through = 0, 0
        for segment, seq in ends.items():
            if freed >= size:
                break
            freed, through = freed + self._segments[segment], seq
        return through if through <= limit else 0

    def trim(self, through: int) -> None:
        """Forget frames up to `through`, and remove the segments that hold no other."""
        failpoint("ingest.trim")
        for seq in [seq for seq in self._entries if seq <= through]:
            del self._entries[seq]
        used = {entry.segment for entry in self._entries.values()}
        for path in [p for p in self._segments if p not in used]:
            if path == self._tail_path:
                self.close()
            path.unlink(missing_ok=True)
            del self._segments[path]

    def note_loss(self, seq: int, reason: str) -> None:
        """A frame can't be read any more: what is left is kept."""
        entry = self._entries.get(seq)
        if entry is not None:
            self.damages.append(Damage(entry.segment, entry.offset, entry.length, False, reason))

    def sync_all(self) -> None:
        """Make durable what was found here: its writer may have died before the sync.

        Raises SpoolError; trying again helps.
        """
        try:
            for path in self._segments:
                with path.open("rb") as file:
                    self.sync(file.fileno())
            sync_directory(self.directory)
        except OSError as error:
            why = f"the spool {self.directory} can't be made durable ({error.strerror})"
            raise SpoolError(f"{why}: replace the disk") from error

    # --- opening what is there ----------------------------------------------------------------

    def _scan(self, path: Path, data: bytes) -> list[tuple[Damage, bytes]]:
        """Index a segment's frames; what in it is not a frame. Raises wire.NewerFrameError."""
        damages = []
        for start, end, frame, reason in pieces(data):
            if frame is None:
                damage = Damage(path, start, end - start, end == len(data), reason)
                damages.append((damage, data[start:end]))
            elif frame.seq not in self._entries:
                self._index(frame, _Entry(path, start, end - start))
        self._segments[path] = len(data)
        self._entries = dict(sorted(self._entries.items()))
        return damages

    def _set_aside(self, path: Path, damage: Damage, data: bytes) -> None:
        """Keep a copy of the bytes that are no frame, and say so: they are never guessed at."""
        self.damages.append(damage)
        suffix = "torn" if damage.torn else "damaged"
        copy = path.with_name(f"{path.name}.{damage.offset}.{suffix}")
        copy.write_bytes(data)
        log.log(
            logging.WARNING if damage.torn else logging.ERROR,
            "%s: %d bytes from offset %d are no frame (%s); set aside as %s",
            path, damage.length, damage.offset, damage.reason, copy.name,
        )  # fmt: skip
