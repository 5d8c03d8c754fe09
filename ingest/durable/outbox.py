"""Which frame of a source goes out next, again, or may be forgotten: pure rules over numbers.

Why apart: these few lines decide whether a click is lost. They know no socket, no file and no
clock; time comes in as an argument (monotonic seconds), so that a model can drive them through
every order of events. An "outbox", because a frame stays in it until its receipt is certain.

Words: *acknowledged* is what NATS has taken, which promises nothing; the *mark* is the last seq
that Postgres has committed, which promises everything, once it has been so for the keep time.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Final

MARK_LOST_AFTER_S: Final = 5.0
"""How long a lower mark must be reported until it is believed: late messages pass sooner."""


@dataclass
class Outbox:
    """The frames of one source that are held, and how far they have got.

    `keep_s` and `resend_after_s` are seconds. `mark` is None until Postgres' mark is known; a new
    source starts with 0, since nothing of it can have been committed.
    """

    keep_s: float
    resend_after_s: float
    mark: int | None = None
    held: list[int] = field(default_factory=list)
    acknowledged: int = 0
    resends: int = 0
    _progress_at: float = 0.0
    _confirmed_at: float = 0.0
    _low: tuple[int, float] | None = None
    _released_at: float = -inf
    _committed: deque[tuple[int, float]] = field(default_factory=deque)

    @property
    def last(self) -> int:
        """The highest seq held; the mark where none is."""
        return self.held[-1] if self.held else (self.mark or 0)

    @property
    def outstanding(self) -> int:
        """How many frames are held that Postgres is not known to have."""
        return len(self.held) - bisect_right(self.held, self.mark or 0)

    def sealed(self, seq: int, now: float) -> None:
        """A frame is durable in the spool: from here on it is held."""
        if not self.outstanding:
            self._progress_at = now
        insort(self.held, seq)

    def next_to_publish(self) -> tuple[int, int] | None:
        """(seq, first available seq) of the frame to send now, or None.

        The first available seq is 0 but after a lost range: seqs that no longer exist, by damage
        or because Postgres lost more than the keep time. The frame after it goes out only when
        everything before it is committed, and says that the missing ones will never come.
        """
        if self.mark is None:
            return None
        i = bisect_right(self.held, max(self.acknowledged, self.mark))
        if i == len(self.held):
            return None
        seq = self.held[i]
        before = self.held[i - 1] if i else 0
        if seq == before + 1 or seq == self.mark + 1:
            return seq, 0
        if before > self.mark:
            return None
        return seq, seq

    def next_to_commit(self, most: int) -> list[int]:
        """At most so many seqs that follow the mark without a gap; none while it is unknown."""
        if self.mark is None:
            return []
        i, follows = bisect_right(self.held, self.mark), self.mark + 1
        return [seq for n, seq in enumerate(self.held[i : i + most]) if seq == follows + n]

    def acknowledge(self, seq: int) -> None:
        """NATS has taken this frame."""
        self.acknowledged = max(self.acknowledged, seq)

    def lost(self, seq: int) -> None:
        """A frame can't be read any more: what is behind it waits, and then says so."""
        self.held.remove(seq)

    def committed(self, mark: int, now: float) -> None:
        """A mark was reported. Higher: progress. Lower for long: Postgres has lost commits."""
        if self.mark is None or mark > self.mark:
            self._advance(mark, now)
        elif mark == self.mark:
            self._low, self._confirmed_at = None, now
        elif self._low is None:
            self._low = (mark, now)
        elif now - self._low[1] >= MARK_LOST_AFTER_S:
            self._fall_back(mark, now)

    def _advance(self, mark: int, now: float) -> None:
        if self.mark is None:
            self.acknowledged = mark
        self.mark, self._low = mark, None
        self._progress_at = self._confirmed_at = now
        self._committed.append((mark, now))

    def _fall_back(self, mark: int, now: float) -> None:
        self.mark, self._low, self._confirmed_at = mark, None, now
        while self._committed and self._committed[-1][0] > mark:
            self._committed.pop()
        self._committed.append((mark, now))
        self._send_again(now)

    def _send_again(self, now: float) -> None:
        self.acknowledged = self.mark or 0
        self.resends += 1
        self._progress_at = now

    def check_progress(self, now: float) -> bool:
        """Start again from the mark, if NATS took frames and the mark has not moved for long."""
        if self.mark is None or self.acknowledged <= self.mark:
            return False
        if not self.outstanding or now - self._progress_at < self.resend_after_s:
            return False
        self._send_again(now)
        return True

    def trim(self, now: float) -> int:
        """Forget what has been committed for the keep time; the highest such seq, or 0.

        The time counts up to the mark's last confirmation: while Postgres is away nothing is
        forgotten, since it may come back as an older copy.
        """
        through = 0
        while self._committed and self._committed[0][1] <= self._known(now) - self.keep_s:
            through = self._committed.popleft()[0]
        self._forget(through)
        return through

    def _known(self, now: float) -> float:
        return min(now, self._confirmed_at)

    def _forget(self, through: int) -> None:
        del self.held[: bisect_right(self.held, through)]

    # --- where there is no room for the keep time ---------------------------------------------

    @property
    def spare(self) -> int:
        """The highest seq that may go before its keep time is over; 0 where none may.

        It is committed, and above no lower mark that was told last: Postgres may have lost that.
        """
        mark = self.mark or 0
        return min(mark, self._low[0]) if self._low else mark

    def release(self, through: int) -> None:
        """Forget frames up to `through`, at most `spare`, before their keep time is over."""
        committed = (at for mark, at in self._committed if mark >= through)
        self._released_at = max(self._released_at, next(committed, -inf))
        self._forget(through)

    def keep_short(self, now: float) -> float:
        """By how many seconds less than the keep time committed frames go back; 0 if all is well.

        All that was committed after the last frame that was released early is still held: so it
        mends by itself, as time passes.
        """
        return max(0.0, self.keep_s - (self._known(now) - self._released_at))
