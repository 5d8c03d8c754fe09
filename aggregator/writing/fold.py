"""The rules of counting once: frames + marks → sums, new marks, and what to do with each frame.

Pure: no clock, no database, no network. `store` hands in the marks it has locked in Postgres and
writes the result in the same transaction; the model in the tests drives the very same function.
"Fold", because any number of frames is folded into one set of rows and marks.

For each source only the contiguous run after its mark counts: mark+1, mark+2, … Whatever order
or number of copies the frames come in, the outcome is the same.

In two steps. `Walk` decides by the marks which frames are next. Of those that are batches with a
key it collects the keys; `store` inserts them in Postgres, and so learns which are new. Then
`Walk.sum` adds up what counts: frames of counters, and batches whose key is new (see `keys`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple
from uuid import UUID

from aggregator.writing import sums
from aggregator.writing.keys import Keys
from aggregator.writing.plausible import (
    MAX_FRAME_CLICKS,
    MAX_SEQ,
    MAX_TOTAL,
    all_plausible,
    fault_of,
)
from clickmill.wire import Frame

MAX_BATCH_FRAMES: Final = 16_384
# So no sum of one batch can leave the range of a bigint, nor of the arithmetic here.
assert MAX_BATCH_FRAMES * MAX_FRAME_CLICKS < 2**63


class Mark(NamedTuple):
    """The high-water mark of a source: the last seq applied, and the running total there.

    `sealed_at` is Unix time in nanoseconds; everything answered before it is in frames up to
    `last_seq`. `closed`: the source said that no frame will follow. `uncounted`: clicks of `total`
    that are in no table: of batches that were counted before, as frames of another source or seq.
    """

    last_seq: int = 0
    total: int = 0
    sealed_at: int = 0
    closed: bool = False
    uncounted: int = 0

    @property
    def counted(self) -> int:
        """The clicks of this source in the tables."""
        return self.total - self.uncounted


class Arrival(NamedTuple):
    """One message off the bus. `frame` is None where its bytes could not be read.

    `source` and `seq` of an unreadable one come from subject and message ID, None where even
    those say nothing. `floor`: the sender has no frame below this seq any more.
    """

    source: UUID | None
    seq: int | None
    frame: Frame | None
    floor: int = 1
    raw: bytes = b""
    fault: str = ""


def source_of(arrival: Arrival) -> UUID | None:
    """The source whose mark this arrival is held against; None where it has no place in any.

    It must not create a source either, because nothing would ever close that.
    """
    placed = arrival.seq is not None and 0 < arrival.seq <= MAX_SEQ
    return arrival.source if placed else None


class Verdict(Enum):
    """What became of an arrival. All but GAP may be acknowledged once the commit stands.

    REPEATED: its source's mark advanced over it, but its batch is counted already.
    """

    APPLIED = "applied"
    REPEATED = "repeated"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    GAP = "gap"


class Quarantined(NamedTuple):
    """A row of the quarantine table; see there for the reasons."""

    source: UUID | None
    seq: int | None
    reason: str
    clicks: int | None
    raw: bytes


class Window(NamedTuple):
    """The minutes (Unix time // 60, both included) into which every frame's minute is clamped.

    `first_own`: the first minute for clicks with a time of their own.
    """

    first: int
    last: int
    first_own: int = 0


@dataclass(slots=True)
class Folded:
    """The outcome for one batch; `verdicts[i]` belongs to `arrivals[i]`."""

    verdicts: list[Verdict]
    rows: sums.Rows
    marks: dict[UUID, Mark] = field(default_factory=dict)
    """The marks that changed."""
    quarantine: list[Quarantined] = field(default_factory=list)
    clicks: int = 0
    pairs: int = 0
    clamped: int = 0
    """Frames whose minute lay outside the window."""


def fold(
    marks: Mapping[UUID, Mark], arrivals: Sequence[Arrival], window: Window,
    counted: Mapping[UUID, UUID] | None = None, late_before: int = 0,
) -> Folded:  # fmt: skip
    """Decide every arrival against the marks and the keys counted so far, and sum what counts.

    A source without a mark starts at 0. At most MAX_BATCH_FRAMES arrivals.
    """
    return Walk(marks, arrivals, late_before).sum(counted or {}, window)


def frame_of(arrival: Arrival) -> Frame:
    """The frame of an arrival that has one."""
    assert arrival.frame is not None
    return arrival.frame


def _vet(arrivals: Sequence[Arrival]) -> tuple[list[Arrival], list[int], sums.Pairs]:
    """Add up each frame, and turn frames that no table can hold into unreadable ones."""
    vetted = list(arrivals)
    readable = [i for i, arrival in enumerate(vetted) if arrival.frame is not None]
    frames = [frame_of(vetted[i]) for i in readable]
    pairs = sums.gather(frames)
    clicks = [0] * len(vetted)
    if all_plausible(pairs) and all(frame.total <= MAX_TOTAL for frame in frames):
        for i, n in zip(readable, sums.clicks_of_each(pairs), strict=True):
            clicks[i] = n
        return vetted, clicks, pairs
    kept = []
    for i in readable:
        fault = fault_of(frame_of(vetted[i]))
        if fault:
            vetted[i] = vetted[i]._replace(frame=None, fault=fault)
        else:
            clicks[i] = frame_of(vetted[i]).clicks
            kept.append(frame_of(vetted[i]))
    return vetted, clicks, sums.gather(kept)


class Walk:
    """One pass over the batch, source by source, in the order of seq.

    Batches sealed before `late_before` (Unix nanoseconds) claim no key: see `keys`.
    """

    def __init__(
        self, marks: Mapping[UUID, Mark], arrivals: Sequence[Arrival], late_before: int = 0
    ) -> None:
        if len(arrivals) > MAX_BATCH_FRAMES:
            raise ValueError(f"at most {MAX_BATCH_FRAMES} arrivals in a batch, not {len(arrivals)}")
        self._marks = marks
        self._arrivals, self._clicks, self._pairs = _vet(arrivals)
        self.keys = Keys(late_before)
        self.verdicts = [Verdict.GAP] * len(arrivals)
        self.changed: dict[UUID, Mark] = {}
        self.quarantine: list[Quarantined] = []
        self.applied: list[int] = []
        self._run()

    def _run(self) -> None:
        for source, indexes in self._by_source().items():
            if len(indexes) > 1:
                indexes.sort(key=self._order)
            self._run_of(source, indexes)
        # In the order of arrival, so that the sums of a batch that is applied whole can be
        # taken from the arrays as they were gathered.
        self.applied.sort()

    def sum(self, counted: Mapping[UUID, UUID], window: Window) -> Folded:
        """`counted`: the digests of those of `keys` that Postgres had before."""
        self._leave_out(self.keys.left_out(counted))
        applied, pairs = self.applied, self._pairs
        frames = [frame_of(self._arrivals[i]) for i in applied]
        if len(applied) != len(pairs.lengths):
            pairs = sums.gather(frames)
        rows, clamped = sums.sum_within(frames, pairs, *window)
        return Folded(
            verdicts=self.verdicts,
            rows=rows,
            marks=self.changed,
            quarantine=self.quarantine,
            clicks=sum(self._clicks[i] for i in applied),
            pairs=len(pairs.ids),
            clamped=clamped,
        )

    def _leave_out(self, reasons: Mapping[int, str]) -> None:
        """These arrivals move their marks and count nothing; a reason of "" needs no report."""
        for i, reason in reasons.items():
            frame, clicks = frame_of(self._arrivals[i]), self._clicks[i]
            mark = self.changed[frame.source]
            self.changed[frame.source] = mark._replace(uncounted=mark.uncounted + clicks)
            self.verdicts[i] = Verdict.QUARANTINED if reason else Verdict.REPEATED
            if reason:
                self._note(i, reason, clicks)
        if reasons:
            self.applied = [i for i in self.applied if i not in reasons]

    def _by_source(self) -> dict[UUID, list[int]]:
        by_source: dict[UUID, list[int]] = {}
        for i, arrival in enumerate(self._arrivals):
            source = source_of(arrival)
            if source is None:
                self._set_aside(i, None)
            else:
                by_source.setdefault(source, []).append(i)
        return by_source

    def _order(self, i: int) -> tuple[int, bool]:
        """By seq; a readable copy of a frame before a damaged one."""
        arrival = self._arrivals[i]
        assert arrival.seq is not None
        return arrival.seq, arrival.frame is None

    def _run_of(self, source: UUID, indexes: list[int]) -> None:
        before = mark = self._marks.get(source, _UNKNOWN)
        floor = max(self._arrivals[i].floor for i in indexes)
        for i in indexes:
            arrival = self._arrivals[i]
            seq = arrival.seq
            assert seq is not None
            if seq <= mark.last_seq:
                self.verdicts[i] = Verdict.DUPLICATE
            elif seq == mark.last_seq + 1 or seq <= floor:
                mark = self._advance(i, seq, mark)
            # Otherwise a gap: frames between are still to come, from NATS or from the spool.
        if mark is not before:
            self.changed[source] = mark

    def _advance(self, i: int, seq: int, mark: Mark) -> Mark:
        """Take this frame as the next of its source, after a lost range if there is one."""
        frame, clicks = self._arrivals[i].frame, self._clicks[i]
        lost = seq != mark.last_seq + 1
        if frame is None:
            if lost:
                self._note(i, f"lost_range: frames {mark.last_seq + 1} to {seq - 1} are lost", None)
            self._set_aside(i, seq)
            return mark._replace(last_seq=seq)
        self.applied.append(i)
        self.verdicts[i] = Verdict.APPLIED
        if frame.batch is not None:
            self.keys.saw(i, frame.batch, frame.sealed_at)
        missing = frame.total - clicks - mark.total
        if lost:
            self._note(i, f"lost_range: frames {mark.last_seq + 1} to {seq - 1} are lost", missing)
        elif missing:
            self._note(i, f"total: {frame.total}, not {mark.total + clicks}", missing)
        sealed_at = max(mark.sealed_at, frame.sealed_at)
        closed = mark.closed or frame.closed
        return Mark(seq, frame.total, sealed_at, closed, mark.uncounted)

    def _set_aside(self, i: int, seq: int | None) -> None:
        arrival = self._arrivals[i]
        self.verdicts[i] = Verdict.QUARANTINED
        reason = f"unreadable: {arrival.fault or 'its source or seq is not known'}"
        self.quarantine.append(Quarantined(arrival.source, seq, reason, None, arrival.raw))

    def _note(self, i: int, reason: str, clicks: int | None) -> None:
        arrival = self._arrivals[i]
        self.quarantine.append(
            Quarantined(arrival.source, arrival.seq, reason, clicks, arrival.raw)
        )


_UNKNOWN: Final = Mark()
