"""The commit interval: how long frames are gathered before they are committed.

Why it stretches: a commit writes one row for each banner and minute in its frames. A banner that
is clicked again before the commit costs nothing more. So where rows are many, frames are gathered
for longer, and a row is written a few times a minute instead of once for each frame. Where rows are
few, a click is committed at once.

Pure: the clock is handed in.
"""

from __future__ import annotations

from typing import Final

LINGER_S: Final = 0.03
"""Workers flush once a second: a few hundredths are not noticed, and save a commit for each."""
FEW_ROWS: Final = 2_000
"""Up to here a commit costs about as much as an empty one, so waiting would save nothing."""
SHARE: Final = 0.08
"""The part of the time that commits may take before the interval stretches."""
MOST_SHARE: Final = 0.7
"""The same where interval and commit are comfortable: others need Postgres and the disk, too."""
COMFORTABLE: Final = 0.4
"""The part of the maximum that interval and commit take together, while MOST_SHARE allows it."""


def interval(rows: int, seconds: float, longest_s: float) -> float:
    """Seconds from the beginning of a commit, which wrote these rows, to that of the next.

    A click waits for an interval and a commit.
    """
    if rows <= FEW_ROWS:
        return min(LINGER_S, longest_s)
    comfortable = max(longest_s * COMFORTABLE - seconds, seconds / MOST_SHARE)
    return min(longest_s, max(LINGER_S, min(seconds / SHARE, comfortable)))


class Pace:
    """When the next commit is due. Times are monotonic seconds."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self.interval = LINGER_S
        self._due = 0.0

    def committed(self, began: float, now: float, rows: int) -> None:
        """A commit of so many rows that began and ended at these times."""
        self.interval = interval(rows, now - began, self._longest_s)
        self._due = began + self.interval

    def wait(self, now: float) -> float:
        """Seconds until the next commit is due; 0 or less where it is."""
        return self._due - now
