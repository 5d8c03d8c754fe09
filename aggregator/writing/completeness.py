"""How far statistics are complete, and which sources are silent: from marks and heartbeats.

Facts come in from three sides: the batches this process commits, the `source` table (what other
aggregators commit), and the workers' `clickmill.committed` requests, which carry an idle source
forward: "everything I answered before `as_of` is in frames up to `seq`".

All times are Unix nanoseconds. No I/O; the clock is handed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from aggregator.writing.fold import Mark
from aggregator.writing.rates import Rates
from clickmill.messages import Committed, SourceStatus

SECOND: Final = 1_000_000_000
SILENT_AFTER: Final = 10 * SECOND
CACHE_FOR: Final = SECOND // 20
MAX_SOURCES: Final = 200_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 253_402_300_799 * SECOND  # the end of the year 9999, where datetime ends


class CompleteBut(NamedTuple):
    """Complete through this moment (None: not known), but for these nodes, which are silent."""

    through: datetime | None
    nodes: list[str]


class OpenSource(NamedTuple):
    """What is known of an open source; times are Unix nanoseconds.

    `silent`: no heartbeat came for SILENT_AFTER; it holds completeThrough back.
    """

    source: UUID
    node: str
    heard: int
    mark: Mark
    through: int
    silent: bool


class _Source:
    """What is known of one open source. `through` is 0 while nothing of it is known."""

    __slots__ = ("as_of", "created", "heard", "mark", "said_seq", "through")

    def __init__(self, mark: Mark, heard: int, created: int = 0) -> None:
        self.heard = heard
        self.said_seq = self.as_of = 0
        self.created = created
        self.begin(mark)

    def begin(self, mark: Mark) -> None:
        """Complete through the mark, and through its own making: nothing was answered before."""
        self.mark = mark
        self.through = max(mark.sealed_at, self.created) if self.created else mark.sealed_at

    def made(self, created: int) -> None:
        if created:
            self.created = created
            self.through = max(self.through, created)

    def advance(self, mark: Mark) -> None:
        self.mark = mark
        self.through = max(self.through, mark.sealed_at)
        self.settle()

    def settle(self) -> None:
        """The worker's statement counts as soon as the mark has reached the seq it named."""
        if self.as_of and self.mark.last_seq >= self.said_seq:
            self.through = max(self.through, self.as_of)


class _Unseen(NamedTuple):
    """A source that was heard of, and whose row was not seen."""

    heard: int
    created: int


class Progress:
    """The state of the pipeline as one aggregator sees it."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self.rates = Rates(lambda: clock() / SECOND)
        self._open: dict[UUID, _Source] = {}
        self._unseen: dict[UUID, _Unseen] = {}
        self._nodes: dict[UUID, str] = {}
        self._loaded = False
        self._cached: tuple[int, int | None] = (0, None)

    # --- facts ----------------------------------------------------------------------------------

    def reload(self, marks: Mapping[UUID, tuple[Mark, int]], new_session: bool) -> None:
        """Take over the open sources of the table, as (mark, time of the last update).

        `new_session`: even marks that went back are believed (Postgres may have lost
        commits); otherwise a commit of our own may have overtaken the reading.
        """
        before, self._open = self._open, {}
        for source, (mark, at) in marks.items():
            known = before.pop(source, None)
            if not new_session:
                self._came(known, mark)
            known = self._open[source] = known or _Source(mark, at)
            known.heard = max(known.heard, at)
            self._unseen.pop(source, None)
            if new_session and mark.last_seq < known.mark.last_seq:
                known.begin(mark)  # what was committed is gone, and comes again
            if new_session or mark.last_seq >= known.mark.last_seq:
                known.advance(mark)
        # Workers that have sealed nothing yet have no row; the others are closed.
        self._open.update((u, s) for u, s in before.items() if s.mark.last_seq == 0)
        self._loaded = True
        self.rates.known(True)
        self._cached = (0, None)

    def names_are(self, nodes: Mapping[UUID, str]) -> None:
        """The nodes of open sources, as the table has them; heartbeats name them too."""
        known = {u: name for u, name in self._nodes.items() if u in self._open or u in self._unseen}
        self._nodes = known | {source: name for source, name in nodes.items() if name}

    def forget(self) -> None:
        """The table can't be read: what is known of it may be out of date."""
        self._loaded = False
        self.rates.known(False)

    def _came(self, known: _Source | None, mark: Mark) -> None:
        """Clicks that a mark adds to what was known of its source."""
        self.rates.add(max(0, mark.counted - (known.mark.counted if known is not None else 0)))

    def committed(self, marks: Mapping[UUID, Mark], heard: int | None = None) -> None:
        """Marks as they stand in Postgres now; `heard` defaults to this moment."""
        at = self._clock() if heard is None else heard
        for source, mark in marks.items():
            self._unseen.pop(source, None)
            known = self._open.get(source)
            if known is not None or (self._loaded and not mark.closed):
                self._came(known, mark)
            if mark.closed:
                self._open.pop(source, None)
            elif known is not None:
                known.advance(mark)
                known.heard = max(known.heard, at)
            elif len(self._open) < MAX_SOURCES:
                self._open[source] = _Source(mark, at)

    def looked_up(self, asked: Iterable[UUID], rows: Mapping[UUID, tuple[Mark, int]]) -> None:
        """The rows that there are of these, as (mark, time of the last update); ours may be newer.

        One without a row has nothing committed: it is complete through its own making.
        """
        for source in asked:
            known, unseen = self._open.get(source), self._unseen.get(source)
            if source in rows:
                mark, at = rows[source]
                if known is None or mark.last_seq >= known.mark.last_seq:
                    self.committed({source: mark}, at)
            elif unseen is not None and unseen.created:
                del self._unseen[source]
                self._open[source] = _Source(Mark(), *unseen)

    def heard(self, status: SourceStatus) -> None:
        """A worker's heartbeat."""
        known = self._open.get(status.source)
        created = min(status.created_at, self._clock())
        if status.node and len(self._nodes) < MAX_SOURCES and not status.closed:
            self._nodes[status.source] = status.node
        if known is None:
            if status.closed or len(self._open) + len(self._unseen) >= MAX_SOURCES:
                self._unseen.pop(status.source, None)
                return
            if status.seq:
                self._unseen[status.source] = _Unseen(self._clock(), created)
                return
            known = self._open[status.source] = _Source(Mark(), self._clock())
        if status.closed and known.mark.last_seq == status.seq == 0:
            del self._open[status.source]  # it never sealed a click and has no row
            return
        known.heard = self._clock()
        known.said_seq, known.as_of = status.seq, min(status.as_of, known.heard)
        known.made(created)
        known.settle()

    # --- answers --------------------------------------------------------------------------------

    def to_look_up(self) -> list[UUID]:
        """Sources whose row was not seen: it may be closed, or not there before a first commit.

        Until it is seen, what one of them has answered and not committed is not known, and
        neither is completeThrough.
        """
        return [*self._unseen, *(u for u, s in self._open.items() if s.mark.last_seq == 0)]

    def mark_of(self, source: UUID) -> Committed | None:
        """The mark of an open source; None where this process does not know it."""
        known = self._open.get(source) if self._loaded else None
        return Committed(known.mark.last_seq, known.mark.total) if known is not None else None

    def complete_through(self) -> datetime | None:
        """Every click answered before this moment is in Postgres; None while that is not known."""
        nanoseconds = self._complete_through()
        return None if nanoseconds is None else _datetime(nanoseconds)

    def complete_but(self) -> CompleteBut | None:
        """What holds for all but the silent sources; None while none is silent."""
        silent = [s for s in self.open_sources() if s.silent] if self._loaded else []
        if not silent:
            return None
        alive = [s.through for s in self.open_sources() if not s.silent]
        through = None if 0 in alive else _datetime(min([self._clock(), *alive]))
        return CompleteBut(through, sorted({s.node or str(s.source) for s in silent}))

    def open_sources(self) -> list[OpenSource]:
        """All that are open, by node."""
        before = self._clock() - SILENT_AFTER
        found = [(u, s.heard, s.mark, s.through) for u, s in self._open.items()]
        found += [(u, s.heard, Mark(), 0) for u, s in self._unseen.items()]
        rows = [
            OpenSource(u, self._nodes.get(u, ""), heard, mark, through, heard < before)
            for u, heard, mark, through in found
        ]
        return sorted(rows, key=lambda row: (row.node, row.source))

    def freshness_seconds(self) -> float | None:
        """How far completeThrough is behind the clock; None while it is not known."""
        nanoseconds = self._complete_through()
        return None if nanoseconds is None else max(0, self._clock() - nanoseconds) / SECOND

    @property
    def sources_live(self) -> int:
        """Open sources that were heard of lately."""
        before = self._clock() - SILENT_AFTER
        heard = [known.heard for known in self._open.values()]
        heard += [unseen.heard for unseen in self._unseen.values()]
        return sum(at >= before for at in heard)

    @property
    def sources_silent(self) -> int:
        """Open sources that were not."""
        return len(self._open) + len(self._unseen) - self.sources_live

    def _complete_through(self) -> int | None:
        now = self._clock()
        if not self._loaded or self._unseen:
            return None
        if not 0 <= now - self._cached[0] < CACHE_FOR:
            throughs = {known.through for known in self._open.values()}
            self._cached = (now, None if 0 in throughs else min({now, *throughs}))
        return self._cached[1]


def _datetime(nanoseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(max(nanoseconds, 0), _LATEST) // 1000)
