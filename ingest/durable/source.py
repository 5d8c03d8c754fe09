"""One source: the directory, lock, counters and spool of one incarnation of one worker.

Why a directory for each: a worker that dies leaves everything that it knew in one place, under a
lock that the kernel drops with it, and the next holder of the lock carries on. Nothing in here
uses the network. "Source", as in the tables and on the wire: where deltas come from.

    <data>/ingest/<uuid>/lock       held with flock for the source's whole life
    <data>/ingest/<uuid>/counters   the epochs; gone once they are sealed by an adopter
    <data>/ingest/<uuid>/spool/     the frames

A worker has a second source, without counters, for batches with an Idempotency-Key: each of them
is a frame from the start (see `shipping/keyed_batches`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from clickmill import wire
from clickmill.failpoints import failpoint
from ingest._epochs import CountersError
from ingest._fastcount import Counters
from ingest._parts import MAX_PAIRS, Part
from ingest.durable.counters_file import FOREIGN, make_counters, open_counters
from ingest.durable.directory import sync_directory
from ingest.durable.source_lock import lock_of, make_locked
from ingest.durable.spool import Spool

SET_ASIDE: Final = "set-aside"
SWEEP_AFTER_S: Final = 60.0
"""A directory in the making this old has no maker any more: it takes milliseconds."""

log = logging.getLogger("clickmill.source")

assert MAX_PAIRS == wire.MAX_PAIRS


class Source:
    """A locked source directory: this process's own, or one that it has adopted.

    `counters` is None once they were sealed for good. `trusted` says whether new frames may be
    made under this source; where not (the machine was down, or the directory is a copy), only
    what the spool holds goes out, and the source is closed by a message instead of a frame.
    """

    def __init__(self, directory: Path, lock: int, max_bytes: int) -> None:
        self.directory = directory
        self.id = UUID(directory.name)
        self.spool = Spool(directory / "spool", max_bytes)
        self.counters: Counters | None = None
        self.trusted = True
        self.accepting = False
        """Whether this process appends frames of its own making: batches, without counters."""
        self.created_at = 0
        """When it was made, in Unix nanoseconds; not known of one that is adopted."""
        self._lock = lock
        self._is_synced = False

    @classmethod
    def create(
        cls, root: Path, capacity: int, max_bytes: int, counters_dir: Path | None = None
    ) -> Source:
        """A new source of this process; it appears under `root` whole, and locked, or not at all.

        `capacity` is the number of banner IDs, `max_bytes` the spool's bound; `counters_dir` puts
        the counters on another file system (a tmpfs), with a link to them in the directory.
        Raises OSError where the disk has no room; what was made until then is removed, since a
        disk that is nearly full has no room for the remains of every try.
        """
        fill = partial(make_counters, capacity=capacity, elsewhere=counters_dir)
        return cls._make(root, max_bytes, fill)

    @classmethod
    def create_for_batches(cls, root: Path, max_bytes: int) -> Source:
        """A new source of this process without counters, as `create`."""
        source = cls._make(root, max_bytes, lambda path, name: None)
        source.accepting, source.created_at = True, time.time_ns()
        return source

    @classmethod
    def _make(
        cls, root: Path, max_bytes: int, fill: Callable[[Path, UUID], Counters | None]
    ) -> Source:
        name = uuid4()
        making, home = root / f".{name}", root / str(name)
        with contextlib.ExitStack() as undo:
            undo.callback(_discard, making)
            lock = make_locked(making)
            undo.callback(os.close, lock)  # after what follows: until then it must not be adopted
            undo.callback(_discard, home)
            undo.callback(_discard, making)
            counters = fill(making / "counters", name)
            making.rename(home)
            sync_directory(root)
            source = cls(home, lock, max_bytes)
            source.counters = counters
            source.created_at = counters.now() if counters is not None else 0
            undo.pop_all()
        return source

    @property
    def is_sealed(self) -> bool:
        """Whether no frame will be added."""
        return self.counters is None and not self.accepting

    def idle_as_of(self) -> int:
        """A moment before which every click that was answered is in the spool, in Unix
        nanoseconds; 0 where there is none. A batch is answered only when it is in the spool."""
        return time.time_ns() if self.counters is None else self.counters.idle_as_of()

    @property
    def sealed_seq(self) -> int:
        """The last seq in the spool; 0 before the first."""
        return self.spool.last_seq

    def frames(self, parts: list[Part], *, closed: bool = False) -> list[wire.Frame]:
        """Frames of an epoch's parts, without those that the spool has; `closed` marks the last."""
        return [
            wire.Frame(self.id, seq, minute, at, total, closed and i == len(parts), ids, counts)
            for i, (seq, minute, at, total, ids, counts) in enumerate(parts, 1)
            if seq > self.spool.last_seq
        ]

    def clicks_after(self, mark: int) -> int:
        """Clicks in the frames after `mark` and in the counters, by the frames' running totals."""
        unsealed = self.counters.pending if self.counters is not None and self.trusted else 0
        for seq in self.spool.seqs():
            if seq > mark:
                with contextlib.suppress(OSError, wire.FrameError):
                    frame = wire.decode(self.spool.read(seq))
                    return self.spool.last_total - frame.total + frame.clicks + unsealed
        return unsealed

    def seal_rest(self) -> None:
        """Seal what a dead process left in its epochs, and discard them. Repeatable.

        Raises SpoolError where the frames can't be written: the epochs stay as they are.
        """
        if self.counters is None:
            self._sync()
            return
        frames = self._rest(self.counters)
        failpoint("adopt.seal")
        if frames:
            # The spool's bound doesn't hold for these few: it can't be emptied before they are in.
            self.spool.append(frames, bounded=False)
        self._sync()
        failpoint("adopt.sealed")
        self.counters = None
        path = self.directory / "counters"
        if not self.trusted:
            log.error(
                "%s: counters of another boot or a copy: kept as %s, not counted; the spool is",
                self.directory, FOREIGN,
            )  # fmt: skip
            path.rename(self.directory / FOREIGN)
            return
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        failpoint("adopt.discard")

    def _sync(self) -> None:
        if not self._is_synced:
            self.spool.sync_all()
            self._is_synced = True

    def _rest(self, counters: Counters) -> list[wire.Frame]:
        """The frames that are missing: the epochs', the last of them marked closed."""
        if not self.trusted:
            return []
        now = counters.now()
        frames = self.frames(counters.rest(now), closed=True)
        if not frames and not self.spool.last_closed:
            seq = max(counters.next_seq, self.spool.last_seq + 1)
            minute = wire.minute_of(now / 1e9)
            frames = [wire.Frame(self.id, seq, minute, now, counters.total, True, b"", b"")]
        return frames

    def remove(self) -> None:
        """Delete the directory, since nothing in it is needed; what was damaged is set aside."""
        failpoint("adopt.remove")
        self.spool.close()
        if self.spool.damages or (self.directory / FOREIGN).exists():
            kept = self.directory.parent / SET_ASIDE
            kept.mkdir(mode=0o700, exist_ok=True)
            self.directory.rename(kept / f"{self.directory.name}.{time.time_ns()}")
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the lock, so that another process may adopt what is left."""
        self.spool.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def adopt(root: Path, max_bytes: int) -> Iterator[Source]:
    """Every source under `root` whose process is gone, locked by us, its epochs not yet sealed.

    Directories of another name, and counters that can't be read, are reported and left alone.
    """
    for directory in sorted(p for p in root.iterdir() if p.is_dir()):
        if directory.name.startswith("."):
            _sweep(directory)
        elif _is_source(directory) and (source := _adopt_one(directory, max_bytes)) is not None:
            yield source


def directories(root: Path) -> list[Path]:
    """The directory of each source under `root`."""
    return sorted(path for path in root.iterdir() if path.is_dir() and _is_source(path))


def _is_source(directory: Path) -> bool:
    try:
        UUID(directory.name)
    except ValueError:
        return False
    return True


def _adopt_one(directory: Path, max_bytes: int) -> Source | None:
    lock = lock_of(directory)
    if lock is None:
        return None
    failpoint("adopt.lock")
    try:
        source = Source(directory, lock, max_bytes)
        source.counters, source.trusted = open_counters(directory)
    except wire.NewerFrameError as error:
        log.error(
            "%s: %s: start a worker of that release here, which sends what this spool holds; it "
            "is left untouched", directory, error,
        )  # fmt: skip
        os.close(lock)
        return None
    except (OSError, CountersError) as error:
        log.error("%s can't be adopted and is left as it is: %s", directory, error)
        os.close(lock)
        return None
    return source


def _sweep(directory: Path) -> None:
    """Remove what a process left that died while it made its source: no click was in it."""
    with contextlib.suppress(OSError):
        if time.time() - directory.stat().st_mtime < SWEEP_AFTER_S:
            return
    lock = lock_of(directory)
    if lock is not None:
        _discard(directory)
        os.close(lock)


def _discard(directory: Path) -> None:
    """Remove a source in which no click was counted, and its counters wherever they lie."""
    for counters in directory.glob("counters"):
        with contextlib.suppress(OSError):
            counters.resolve().unlink()
    shutil.rmtree(directory, ignore_errors=True)
