"""Sums over many frames at once, in NumPy: pairs of (banner, count) → one row for each key.

Why apart from `fold`: that one decides which frames count, this one only adds. Exactness is the
point: sums go through float64 (`bincount`, the fastest way) only while the grand total is under
2**53, where float64 still holds every integer; above that they go through sorted u64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clickmill.wire import Frame

Ints = NDArray[np.int64]
Counts = NDArray[np.uint64]

EXACT_IN_FLOAT: Final = 2**53
# A dense table of sums pays while it is not much larger than what goes into it.
DENSE_SLACK: Final = 65_536
DENSE_FACTOR: Final = 4
PART_PAIRS: Final = 262_144
"""A batch has some millions of pairs; its sums are made in parts, so that memory stays small."""


class Rows(NamedTuple):
    """Sums by (when, banner), ascending, each key once; three columns of the same length."""

    when: Ints
    banner: Ints
    clicks: Ints

    def before(self, when: int) -> Rows:
        """The rows of earlier times."""
        end = int(np.searchsorted(self.when, when))
        return Rows(self.when[:end], self.banner[:end], self.clicks[:end])

    def split(self, length: int) -> Iterator[tuple[int, Rows]]:
        """(number, rows) of each period of that length, such as a day, with rows in it."""
        periods = self.when // length
        starts = np.flatnonzero(np.diff(periods, prepend=periods[:1] - 1)).tolist()
        for start, end in itertools.pairwise([*starts, len(periods)]):
            rows = Rows(self.when[start:end], self.banner[start:end], self.clicks[start:end])
            yield int(periods[start]), rows


NO_ROWS: Final = Rows(*[np.zeros(0, dtype=np.int64)] * 3)


class Pairs(NamedTuple):
    """The pairs of several frames end to end; `lengths[i]` of them belong to frame i.

    `after`: minutes of each pair after its frame's; None where no frame is a batch.
    """

    lengths: Ints
    ids: NDArray[np.uint32]
    counts: Counts
    after: Ints | None


def gather(frames: Sequence[Frame]) -> Pairs:
    """The frames' arrays, end to end (one copy)."""
    return Pairs(
        np.array([len(frame.counts) >> 3 for frame in frames], dtype=np.int64),
        np.frombuffer(b"".join([frame.ids for frame in frames]), dtype="<u4"),
        np.frombuffer(b"".join([frame.counts for frame in frames]), dtype="<u8"),
        _after(frames),
    )


def _after(frames: Sequence[Frame]) -> Ints | None:
    if not any(frame.batch for frame in frames):
        return None
    parts = [frame.batch.minutes if frame.batch else bytes(len(frame.ids)) for frame in frames]
    return np.frombuffer(b"".join(parts), dtype="<u4").astype(np.int64)


def clicks_of_each(pairs: Pairs) -> list[int]:
    """The clicks of each frame; exact while no frame exceeds 2**63."""
    ends = np.cumsum(pairs.lengths)
    running = np.zeros(len(pairs.counts) + 1, dtype=np.uint64)
    np.cumsum(pairs.counts, out=running[1:])
    # u64 differences are right even where the running sum has wrapped around.
    each: list[int] = (running[ends] - running[ends - pairs.lengths]).tolist()
    return each


def sum_by_minute(pairs: Pairs, minutes: Ints) -> Rows:
    """Clicks by (minute, banner), where `minutes[i]` is the minute of frame i."""
    if not len(pairs.ids):
        return NO_ROWS
    first, span = int(minutes.min()), int(pairs.ids.max()) + 1
    cells = (int(minutes.max()) - first + 1) * span
    small = cells <= DENSE_FACTOR * len(pairs.ids) + DENSE_SLACK
    if small and float(pairs.counts.sum(dtype=np.float64)) < EXACT_IN_FLOAT:
        table = np.zeros(cells)
        for ids, counts, when in _in_parts(pairs, minutes - first):
            table += np.bincount(when * span + ids, weights=counts, minlength=cells)
        return _rows_of(np.flatnonzero(table), table[table != 0].astype(np.int64), first, span)
    return _grouped(
        np.repeat(minutes, pairs.lengths), pairs.ids.astype(np.int64), pairs.counts.astype(np.int64)
    )


def sum_within(
    frames: Sequence[Frame], pairs: Pairs, first: int, last: int, first_own: int
) -> tuple[Rows, int]:
    """Clicks by (minute, banner), and how many frames had minutes that were clamped.

    Minutes are clamped to `first` … `last`; those of a batch to `first_own` … `last`.
    """
    if not frames:
        return NO_ROWS, 0
    minutes = np.array([frame.minute for frame in frames], dtype=np.int64)
    if pairs.after is None:
        inside = np.clip(minutes, first, last)
        return sum_by_minute(pairs, inside), int((inside != minutes).sum())
    firsts = [first_own if frame.batch else first for frame in frames]
    when = np.repeat(minutes, pairs.lengths) + pairs.after
    inside = np.clip(when, np.repeat(firsts, pairs.lengths), last)
    of_frame = np.repeat(np.arange(len(frames)), pairs.lengths)
    rows = _grouped(inside, pairs.ids.astype(np.int64), pairs.counts.astype(np.int64))
    return rows, len(np.unique(of_frame[inside != when]))


def _in_parts(pairs: Pairs, minutes: Ints) -> Iterator[tuple[NDArray[np.uint32], Counts, Ints]]:
    """IDs, counts and minutes of some frames after the other: a few MB at a time."""
    ends = np.cumsum(pairs.lengths)
    frame = 0
    while frame < len(ends):
        start = int(ends[frame] - pairs.lengths[frame])
        after = max(frame + 1, int(np.searchsorted(ends, start + PART_PAIRS, "right")))
        end = int(ends[after - 1])
        when = np.repeat(minutes[frame:after], pairs.lengths[frame:after])
        yield pairs.ids[start:end], pairs.counts[start:end], when
        frame = after


def _grouped(when: Ints, banner: Ints, clicks: Ints) -> Rows:
    if not len(when):
        return Rows(when, banner, clicks)
    first, span = int(when.min()), int(banner.max()) + 1
    cells = (int(when.max()) - first + 1) * span
    if cells > 2**62:
        return _by_sorting(when, banner, clicks)
    key = (when - first) * span + banner
    small = cells <= DENSE_FACTOR * len(key) + DENSE_SLACK
    if small and float(clicks.sum(dtype=np.float64)) < EXACT_IN_FLOAT:
        sums = np.bincount(key, weights=clicks, minlength=1)
        keys = np.flatnonzero(sums)
        totals = sums[keys].astype(np.int64)
    else:
        keys, totals = _sorted_sums(key, clicks)
    return _rows_of(keys, totals, first, span)


def _rows_of(keys: Ints, totals: Ints, first: int, span: int) -> Rows:
    return Rows(keys // span + first, keys % span, totals)


def _sorted_sums(key: Ints, clicks: Ints) -> tuple[Ints, Ints]:
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    totals = np.add.reduceat(clicks[order], starts)
    kept = totals != 0
    return key[starts][kept], totals[kept]


def _by_sorting(when: Ints, banner: Ints, clicks: Ints) -> Rows:
    """For minutes so far apart that no single key can hold both columns."""
    order = np.lexsort((banner, when))
    when, banner = when[order], banner[order]
    changes = (when[1:] != when[:-1]) | (banner[1:] != banner[:-1])
    starts = np.flatnonzero(np.concatenate(([True], changes)))
    totals = np.add.reduceat(clicks[order], starts)
    kept = totals != 0
    return Rows(when[starts][kept], banner[starts][kept], totals[kept])
