"""Covers: which table gives each piece of a range.

Pure. Rollups are used wherever a whole quarter-hour, hour or UTC day lies within one bucket; the
rest, and what is not rolled up yet (`within`), is read from finer tables. Every minute of the range
is in exactly one piece, so any answer equals the sum of the minutes by construction.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from aggregator.reading.buckets import DAY_S, HOUR_S, LONG_S, QUARTER_S
from aggregator.reading.timerange import MINUTE_S, Range

Piece = tuple[int, int]
Units = list[tuple[int, list[Piece]]]
"""Sizes in seconds, the largest first, each with the pieces that are cut in it."""


class Cover(NamedTuple):
    """A range as pieces [start, end) of Unix seconds, by the table that each is read from."""

    days: list[Piece]
    hours: list[Piece]
    quarters: list[Piece]
    minutes: list[Piece]

    @property
    def rollups(self) -> list[Piece]:
        """What is read from rollups."""
        return _joined([*self.days, *self.hours, *self.quarters])

    @property
    def everything(self) -> list[Piece]:
        """All of it."""
        return _joined([*self.rollups, *self.minutes])


class Marks(NamedTuple):
    """How far the rollups reach, in Unix seconds; see rollup_mark in schema.sql."""

    quarter_from: int
    quarter: int
    hour: int
    day: int


def cover_of(span: Range, starts: list[int]) -> Cover:
    """The pieces that the range is read in, given the buckets' starts (one: a plain total).

    As if all of it were rolled up: see `within`.
    """
    pieces = Cover([], [], [], [])
    if not starts:
        return pieces
    edges = [span.first, *starts[1:], span.end]
    days = list(zip((DAY_S, HOUR_S, QUARTER_S, MINUTE_S), pieces, strict=True))
    hours = days[1:]
    if len(starts) > 1 and starts[1] - starts[0] > LONG_S:
        for left, right in pairwise(edges):
            _by(days, left, right)
    elif len(starts) > 1 and any(start % HOUR_S for start in starts):
        if starts[1] - starts[0] < QUARTER_S:
            pieces.minutes.append((span.first, span.end))
            return pieces
        for left, right in pairwise(edges):
            _by(hours, left, right)
    elif any(start % DAY_S for start in starts[1:]):
        _by(hours, span.first, span.end)
    else:
        _by(days, span.first, span.end)
    return pieces


def within(whole: Cover, marks: Marks) -> Cover:
    """The same pieces, with what is not rolled up moved to finer tables."""
    days, rest = _cut(whole.days, marks.day)
    hours, rest = _cut(_joined(whole.hours + rest), marks.hour)
    early, quarters = _cut(_joined(whole.quarters + rest), marks.quarter_from)
    quarters, rest = _cut(quarters, marks.quarter)
    return Cover(days, hours, quarters, _joined(whole.minutes + early + rest))


def _cut(pieces: list[Piece], at: int) -> tuple[list[Piece], list[Piece]]:
    """What lies before a moment, and from it on."""
    before = [(left, min(right, at)) for left, right in pieces if left < at]
    return before, [(max(left, at), right) for left, right in pieces if right > at]


def without(pieces: list[Piece], taken: list[Piece]) -> list[Piece]:
    """What is left of the pieces; `taken` lies within them."""
    rest: list[Piece] = []
    joined = _joined(taken)
    for start, right in pieces:
        left = start
        for first, end in joined:
            if left <= first < right:
                _add(rest, left, first)
                left = end
        _add(rest, left, right)
    return rest


def _joined(pieces: list[Piece]) -> list[Piece]:
    """In the order of time, joined where they touch."""
    joined: list[Piece] = []
    for left, right in sorted(pieces):
        _add(joined, left, right)
    return joined


def _by(units: Units, left: int, right: int) -> None:
    """Adds [left, right) in whole units of the first size, and its ends in the sizes after it."""
    (size, pieces), *finer = units
    first, last = -(-left // size) * size, right // size * size
    if not finer:
        _add(pieces, left, right)
    elif first < last:
        _by(finer, left, first)
        _add(pieces, first, last)
        _by(finer, last, right)
    else:
        _by(finer, left, right)


def _add(pieces: list[Piece], left: int, right: int) -> None:
    """Appends [left, right) unless empty, joined to the piece before where they touch."""
    if left >= right:
        return
    if pieces and pieces[-1][1] == left:
        pieces[-1] = (pieces[-1][0], right)
    else:
        pieces.append((left, right))


def total_start(span: Range) -> list[int]:
    """The one bucket of a plain total; none for an empty range."""
    return [span.first] if span.first < span.end else []
