"""How long to wait before a dead child is started again. Pure: the child's age comes in."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.1
MAX_SECONDS: Final = 2.0
LONG_LIFE_SECONDS: Final = 5.0

assert FIRST_SECONDS < MAX_SECONDS


class Backoff:
    """The first restart is at once; then 0.1 s, doubled to 2 s; a long life forgets it all.

    Whatever a child's history, it is always started again: two quick deaths of one worker
    must not end the service. Two seconds at most, so that the only worker of a machine serves
    again within five even where it keeps dying; what a crash loop costs then is a start each time.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait, now that a child has died after so long a life."""
        if lived_seconds >= LONG_LIFE_SECONDS:
            self._next = 0.0
        wait = self._next
        self._next = min(max(FIRST_SECONDS, wait * 2), MAX_SECONDS)
        return wait
