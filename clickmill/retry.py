"""Trying again: how long to pause, how often to log it, and how an error reads in one line.

Why one place: whatever is out of reach (NATS, Postgres, a disk), the rule is the same. It is
tried forever, soon at first, with jitter so that many processes do not come back in step, and it
is said once every few seconds rather than once for each attempt.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 0.05
MAX_S: Final = 2.0
JITTER: Final = 0.5
LOG_EVERY_S: Final = 10.0


@dataclass
class Backoff:
    """The pauses between attempts: `first_s`, doubled up to `max_s`, each jittered by half."""

    first_s: float = FIRST_S
    max_s: float = MAX_S
    failures: int = 0

    def pause(self) -> float:
        """Seconds to wait after one more failure."""
        steps = min(self.failures, 32)  # 2**32 is past every bound, and no overflow
        self.failures += 1
        base = min(self.first_s * 2.0**steps, self.max_s)
        return base * random.uniform(1 - JITTER, 1 + JITTER)

    def succeeded(self) -> None:
        """It worked: the next failure begins with the first pause again."""
        self.failures = 0


@dataclass
class Throttle:
    """Lets one line through each `every_s` seconds. Time comes in as monotonic seconds."""

    every_s: float = LOG_EVERY_S
    _quiet_until: float = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether a line may be written now; if so, the next ones wait."""
        if now < self._quiet_until:
            return False
        self._quiet_until = now + self.every_s
        return True


def first_line(error: BaseException) -> str:
    """An error in one line: the first of its text, or its type's name where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
