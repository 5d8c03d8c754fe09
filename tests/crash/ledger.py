"""The crash suite's ledger: the common one, with the moment of each answer and its latency."""

from __future__ import annotations

import time

from bench.load.ledger import Counts, Ledger, Request


class TimedLedger(Ledger):
    """Filled by one loader; read when it has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        """Requests of which it is not known whether they were counted."""
        self.unreachable = 0
        """Connections that could not be made."""
        self.times: list[tuple[float, int]] = []
        """When each answer came (monotonic seconds), and for how many clicks."""
        self.latencies: list[float] = []

    def answer(self, request: Request) -> None:
        super().answer(request)
        self.times.append((time.monotonic(), sum(request.clicks.values())))
        self.latencies.append(time.time() - request.sent_at)

    def answer_at(self, counts: Counts) -> None:
        """Clicks that were answered, with minutes of their own."""
        for (banner, _), clicks in counts.items():
            self.answered[banner] += clicks
        self._sure.update(counts)

    def lose(self, request: Request) -> None:
        super().lose(request)
        self.failures += 1

    def answered_before(self, moment: float) -> int:
        """Clicks whose answer had come by then (monotonic seconds)."""
        return sum(n for at, n in self.times if at <= moment)
