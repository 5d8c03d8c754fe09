"""What becomes of a batch that Postgres refuses, or that takes too long: halves, quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from aggregator.writing.fold import Arrival, Folded, Quarantined, Verdict
from aggregator.writing.sums import NO_ROWS


def with_floors(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Each with the highest floor of its source: the one that brought it may be in another half,
    behind frames that only the floor lets through."""
    floors: dict[UUID | None, int] = {}
    for arrival in arrivals:
        floors[arrival.source] = max(arrival.floor, floors.get(arrival.source, 1))
    return [arrival._replace(floor=floors[arrival.source]) for arrival in arrivals]


def halves(arrivals: Sequence[Arrival], at: list[int]) -> Iterable[list[int]]:
    """Two parts of a refused batch; of a source in both, the first has the earlier."""
    order = sorted(at, key=lambda place: _sort_key(arrivals[place]))
    middle = len(order) // 2
    return order[:middle], order[middle:]


def _sort_key(arrival: Arrival) -> tuple[bytes, int, bool]:
    """By source and seq; a readable copy of a frame before a damaged one, as in the fold."""
    source = arrival.source.bytes if arrival.source else b""
    return source, arrival.seq or 0, arrival.frame is None


def without_rows(folded: Folded, arrivals: Sequence[Arrival], reason: str) -> Folded:
    """The same step of the marks, with the counts in the quarantine instead of the tables."""
    for place, arrival in enumerate(arrivals):
        if folded.verdicts[place] is Verdict.APPLIED:
            folded.verdicts[place] = Verdict.QUARANTINED
            folded.quarantine.append(
                Quarantined(arrival.source, arrival.seq, reason, folded.clicks, arrival.raw)
            )
    folded.rows, folded.clicks, folded.pairs = NO_ROWS, 0, 0
    return folded
