"""How long to wait before a dead child is restarted. Pure: the child's age is an argument."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.1
MAX_SECONDS: Final = 2.0
LONG_LIFE_SECONDS: Final = 5.0

assert FIRST_SECONDS < MAX_SECONDS


class Backoff:
    """The first restart is immediate; then 0.1 s, doubled up to 2 s. A long life resets it.

    A child is always restarted: two quick deaths of one worker must not end the service. The
    maximum is 2 s, so that the only worker of a machine serves again within 5 s even if it keeps
    dying. A crash loop then costs one start every 2 s.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lived_seconds: float) -> float:
        """Seconds to wait after a child has died that lived for `lived_seconds`."""
        if lived_seconds >= LONG_LIFE_SECONDS:
            self._next = 0.0
        wait = self._next
        self._next = min(max(FIRST_SECONDS, wait * 2), MAX_SECONDS)
        return wait
