"""What retention has left: which ranges can be answered, in which steps.

Pure. Minutes go first, and the rollups that they were summed up in stay. A range that begins where
minutes are gone is answered from those, as long as it needs no part of a quarter-hour; if it does,
the refusal says what to ask instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from aggregator.reading.buckets import (
    HOUR_S,
    MAX_POINTS,
    QUARTER_S,
    STEPS,
    UTC_ZONE,
    check_points,
    count,
    starts_of,
)
from aggregator.reading.cover import Cover, Piece, cover_of, total_start
from aggregator.reading.timerange import Range, iso
from clickmill.contract.problem import Problem, bad

# The last day's minutes are there whatever the settings; half of it only, for clocks that differ.
ALWAYS_S: Final = 12 * HOUR_S
NOTHING: Final[Piece] = (0, 0)


class Kept(NamedTuple):
    """Minutes are there but those in `gone`, rollups from `rollups` on; in Unix seconds.

    Quarter-hours begin at `quarters`: those of releases before 0.3 may be missing.
    """

    gone: Piece = NOTHING
    rollups: int = 0
    quarters: int = 0

    def has(self, minutes: Piece) -> bool:
        """Whether none of these minutes is gone."""
        return max(minutes[0], self.gone[0]) >= min(minutes[1], self.gone[1])

    def pieces(self, whole: Cover) -> Cover:
        """The pieces without what lies before the time of the rollups, whose rows go bit by bit."""
        since = self.rollups
        return Cover(
            *(
                [(max(left, since), right) for left, right in part if right > since]
                for part in whole
            )
        )


class Question(NamedTuple):
    """A range, and how it is to be cut. `step` None: into nothing, for its total."""

    span: Range
    step: str | None
    zone: ZoneInfo = UTC_ZONE

    def check(self, kept: Kept, banners: int = 1) -> None:
        """Problem (too_fine, too_many_points) where it can't be answered as it is."""
        self.check_kept(kept, banners)
        if self.step is not None:
            check_points(self.span, self.step, banners)

    def check_kept(self, kept: Kept, banners: int = 1) -> None:
        """Problem (too_fine) where minutes are gone that it needs."""
        if self.needs_gone(kept):
            raise _too_fine(self, kept, banners)

    def fits(self, banners: int) -> bool:
        """Whether the points go into one answer."""
        return self.step is None or count(self.span, self.step) * banners <= MAX_POINTS

    def needs_gone(self, kept: Kept) -> bool:
        """Whether minutes would be read that are gone. False where there are too many points."""
        if kept.has((self.span.first, self.span.end)):
            return False
        if self.step is not None and STEPS[self.step] < QUARTER_S:
            return True
        if not self.fits(1):
            return False
        whole = self._cover()
        early = [(left, min(right, kept.quarters)) for left, right in whole.quarters]
        return not all(map(kept.has, [*whole.minutes, *(p for p in early if p[0] < p[1])]))

    def _cover(self) -> Cover:
        if self.step is None:
            return cover_of(self.span, total_start(self.span))
        return cover_of(self.span, starts_of(self.span, self.step, self.zone))


def _too_fine(asked: Question, kept: Kept, banners: int) -> Problem:
    first, since = map(iso, kept.gone)
    works = (
        other
        for other in _others(asked, kept)
        if other.fits(banners) and not other.needs_gone(kept)
    )
    advice = [_difference(other, asked) for other in works][:1]
    return bad(
        "too_fine",
        f"minutes from {first} to {since} are not kept any more, and this needs some of them: use "
        + ", or ".join([*advice, f"a tsFrom from {since} on"]),
    )


def _others(asked: Question, kept: Kept) -> Iterator[Question]:
    """What could be asked instead, by step: the same range, by quarters or hours, these in UTC."""
    steps = [None] if asked.step is None else list(STEPS)[list(STEPS).index(asked.step) :]
    quarters, hours = (_rounded(asked.span, kept, size) for size in (QUARTER_S, HOUR_S))
    for step in steps:
        for span in (asked.span, quarters, hours):
            yield Question(span, step, asked.zone)
        yield Question(hours, step, UTC_ZONE)


def _rounded(span: Range, kept: Kept, size: int) -> Range:
    """The range with whole pieces of `size` where it begins or ends among minutes that are gone."""
    since = datetime.fromtimestamp(span.first // size * size, UTC)
    if span.end >= kept.gone[1] or span.end % size == 0:
        return Range(since, span.until)
    return Range(since, datetime.fromtimestamp(-(-span.end // size) * size, UTC))


def _difference(other: Question, asked: Question) -> str:
    """What is other, as parameters."""
    parts = [f"step={other.step}"] if other.step != asked.step else []
    if other.zone.key != asked.zone.key:
        parts.append(f"tz={other.zone.key}")
    if other.span.first != asked.span.first:
        parts.append(f"tsFrom={iso(other.span.first)}")
    if other.span.end != asked.span.end:
        parts.append(f"tsTo={iso(other.span.end)}")
    return " with ".join([parts[0], " and ".join(parts[1:])]) if parts[1:] else parts[0]
